//! A graph: one input of rows, constants, nodes in order, one output.

use std::collections::{BTreeSet, HashSet};

use super::{Op, Tensor};

/// A graph over rows: its input is `[N, width]` with any N, its output has N rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Graph {
    /// Name of the graph.
    pub name: String,
    /// Name of the input.
    pub input: String,
    /// Values per input row.
    pub width: usize,
    /// Name of the value that is the output.
    pub output: String,
    /// Values per output row.
    pub outputs: usize,
    /// Constants.
    pub initializers: Vec<Initializer>,
    /// Every node stands behind those it uses.
    pub nodes: Vec<Node>,
}

/// A named constant.
#[derive(Debug, Clone, PartialEq)]
pub struct Initializer {
    /// Its name.
    pub name: String,
    /// Its value.
    pub tensor: Tensor,
}

/// One step.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// What it does.
    pub op: Op,
    /// Names of the values it uses.
    pub inputs: Vec<String>,
    /// Name of the value it makes.
    pub output: String,
}

/// Why a graph is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// A name stands for two values.
    #[error("value {name:?} is made twice")]
    Twice {
        /// The name.
        name: String,
    },
    /// A node uses what nothing before it makes.
    #[error("{user} uses {name:?}, which nothing before it makes")]
    Unknown {
        /// Operator and output of the node, or the graph's output.
        user: String,
        /// The name.
        name: String,
    },
    /// A node has too few or too many inputs.
    #[error("{op} has {found} inputs, expected {least} to {most}")]
    Inputs {
        /// Which operator.
        op: &'static str,
        /// At least.
        least: usize,
        /// At most.
        most: usize,
        /// As found.
        found: usize,
    },
    /// A constant has another number of values than its shape says.
    #[error("constant {name:?} of shape {shape:?} has {found} values")]
    Shape {
        /// Which constant.
        name: String,
        /// Its shape.
        shape: Vec<usize>,
        /// How many values.
        found: usize,
    },
    /// A feature that is not there.
    #[error("feature {feature} of {width}")]
    Feature {
        /// Which was asked for.
        feature: usize,
        /// How many there are.
        width: usize,
    },
}

impl Graph {
    /// An empty graph over rows of `width` values. Its output is its input until [`Graph::set_output`].
    pub fn new(name: &str, width: usize) -> Self {
        Self {
            name: name.to_owned(),
            input: "features".to_owned(),
            width,
            output: "features".to_owned(),
            outputs: width,
            initializers: Vec::new(),
            nodes: Vec::new(),
        }
    }

    /// Adds a constant and returns its name, which is `name` or `name` with a number if that is taken.
    pub fn constant(&mut self, name: &str, tensor: Tensor) -> String {
        let name = self.free_name(name);
        self.initializers.push(Initializer { name: name.clone(), tensor });
        name
    }

    /// Adds a node and returns the name of the value it makes.
    pub fn node(&mut self, op: Op, inputs: &[&str]) -> String {
        let output = self.free_name(&op.name().to_lowercase());
        let inputs = inputs.iter().map(|&name| name.to_owned()).collect();
        self.nodes.push(Node { op, inputs, output: output.clone() });
        output
    }

    /// Says which value is the output, and how many values it has per row.
    pub fn set_output(&mut self, name: &str, outputs: usize) {
        self.output = name.to_owned();
        self.outputs = outputs;
    }

    /// The constant of that name.
    pub fn initializer(&self, name: &str) -> Option<&Tensor> {
        self.initializers.iter().find(|initializer| initializer.name == name).map(|it| &it.tensor)
    }

    /// The names of all operators used, each once, sorted: what a package says it requires.
    pub fn operators(&self) -> Vec<String> {
        let names: BTreeSet<_> = self.nodes.iter().map(|node| node.op.name()).collect();
        names.into_iter().map(str::to_owned).collect()
    }

    /// Whether names, order and sizes are right.
    pub fn check(&self) -> Result<(), GraphError> {
        let mut known = HashSet::from([self.input.as_str()]);
        let twice = |name: &str| GraphError::Twice { name: name.to_owned() };
        for Initializer { name, tensor } in &self.initializers {
            if !known.insert(name) {
                return Err(twice(name));
            }
            if tensor.shape.iter().try_fold(1, |n: usize, &axis| n.checked_mul(axis)) != Some(tensor.data.len()) {
                let (shape, found) = (tensor.shape.clone(), tensor.data.len());
                return Err(GraphError::Shape { name: name.clone(), shape, found });
            }
        }
        for Node { op, inputs, output } in &self.nodes {
            let (least, most) = op.inputs();
            if !(least..=most).contains(&inputs.len()) {
                return Err(GraphError::Inputs { op: op.name(), least, most, found: inputs.len() });
            }
            if let Some(name) = inputs.iter().find(|name| !known.contains(name.as_str())) {
                let user = format!("{} {output:?}", op.name());
                return Err(GraphError::Unknown { user, name: name.clone() });
            }
            if !known.insert(output) {
                return Err(twice(output));
            }
        }
        match known.contains(self.output.as_str()) {
            true => Ok(()),
            false => Err(GraphError::Unknown { user: "the output".to_owned(), name: self.output.clone() }),
        }
    }

    pub(crate) fn free_name(&self, wanted: &str) -> String {
        let taken = |name: &str| {
            name == self.input
                || self.initializers.iter().any(|it| it.name == name)
                || self.nodes.iter().any(|it| it.output == name)
        };
        if !taken(wanted) {
            return wanted.to_owned();
        }
        let numbered = (1..).map(|number| format!("{wanted}_{number}"));
        numbered.into_iter().find(|name| !taken(name)).expect("numbers do not run out")
    }
}
