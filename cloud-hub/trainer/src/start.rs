//! Where a warm start begins: the preparation and the weights of a package that was exported from a net of the same shape.

use std::path::Path;

use tributary_inference::onnx::{Data, Graph, Op, Tensor};
use tributary_release::{Package, Precision};

use crate::error::TrainError;
use crate::graphs::chain;
use crate::mlp::Layer;
use crate::prepare::Preparation;
use crate::spec::{ModelSpec, Trained};

/// What a net continues from. Features must reach it as they did before, else its weights mean nothing.
#[derive(Debug)]
pub struct Start {
    /// How features reach the net.
    pub preparation: Preparation,
    /// Weights: layer by layer, in each one entry per member.
    pub layers: Vec<Vec<Layer>>,
    /// What is trained on.
    pub trained: Trained,
}

impl Start {
    /// Reads the package's f32 graph. The outputs of the members were calibrated and averaged into one when it was
    /// exported, so every member begins with the calibrated output.
    pub fn read(path: &Path, features: &[String], model: &ModelSpec, trained: Trained) -> Result<Self, TrainError> {
        let wrong = |reason: String| TrainError::Start { path: path.to_owned(), reason };
        let file = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
        let package = Package::read(&file).map_err(|error| wrong(chain(&error)))?;
        let found = &package.manifest.features;
        if found != features {
            return Err(wrong(format!("it takes {}; the view gives {}", found.join(", "), features.join(", "))));
        }
        let entry = package.manifest.graphs.iter().position(|graph| graph.precision == Precision::F32);
        let onnx =
            entry.and_then(|at| package.graphs.get(at)).ok_or_else(|| wrong("it has no f32 graph".to_owned()))?;
        let graph = Graph::from_bytes(&onnx.onnx).map_err(|error| wrong(chain(&error)))?;
        let preparation = preparation(&graph).map_err(wrong)?;
        let layers = layers(&graph, preparation.columns(), model).map_err(wrong)?;
        Ok(Self { preparation, layers, trained })
    }
}

/// The graph's first nodes, as [`export`](crate::export) writes them.
fn preparation(graph: &Graph) -> Result<Preparation, String> {
    let (mut log, mut root, mut taken) = (Vec::new(), Vec::new(), Vec::new());
    let (mut mean, mut scale, mut clip) = (None, None, None);
    for node in &graph.nodes {
        let constant = |at: usize| node.inputs.get(at).and_then(|name| graph.initializer(name));
        let values = |at: usize| constant(at).and_then(Tensor::as_f32).map(<[f32]>::to_vec);
        match &node.op {
            Op::Gather { .. } => {
                taken = match constant(1).map(|tensor| &tensor.data) {
                    Some(Data::I64(places)) => places.iter().filter_map(|at| usize::try_from(*at).ok()).collect(),
                    _ => Vec::new(),
                }
            }
            Op::Log => log = std::mem::take(&mut taken),
            Op::Sqrt => root = std::mem::take(&mut taken),
            Op::Sub => mean = values(1),
            Op::Mul => scale = values(1),
            Op::Clip => clip = values(2).and_then(|values| values.first().copied()),
            Op::Gemm { .. } => break,
            _ => {}
        }
    }
    let width = graph.width;
    match (mean, scale, clip) {
        (Some(mean), Some(scale), Some(clip))
            if mean.len() == width + log.len() + root.len()
                && scale.len() == mean.len()
                && log.iter().chain(&root).all(|at| *at < width) =>
        {
            Ok(Preparation { width, log, root, mean, scale, clip })
        }
        _ => Err("its graph does not begin with a preparation as this trainer writes it".to_owned()),
    }
}

/// Takes the members apart that the export put side by side.
fn layers(graph: &Graph, columns: usize, model: &ModelSpec) -> Result<Vec<Vec<Layer>>, String> {
    let gemms = graph.nodes.iter().filter(|node| matches!(node.op, Op::Gemm { .. }));
    let constant = |name: Option<&String>| name.and_then(|name| graph.initializer(name));
    let found: Option<Vec<_>> =
        gemms.map(|node| constant(node.inputs.get(1)).zip(constant(node.inputs.get(2)))).collect();
    let found = found.ok_or("its graph has a layer without constant weights")?;
    let (members, hidden) = (model.members, model.hidden.len());
    let (mut sizes, mut expected) = (vec![columns], Vec::new());
    sizes.extend(&model.hidden);
    sizes.push(1);
    for (at, pair) in sizes.windows(2).enumerate() {
        let inputs = if at == 0 { pair[0] } else { pair[0] * members };
        expected.push(vec![inputs, if at == hidden { 1 } else { pair[1] * members }]);
    }
    let shapes: Vec<_> = found.iter().map(|(weight, _)| weight.shape.clone()).collect();
    if shapes != expected {
        return Err(format!("its layers have the shapes {shapes:?}; the settings ask for {expected:?}"));
    }
    let member = |at: usize, member: usize| {
        let (weight, bias) = (found[at].0.as_f32()?, found[at].1.as_f32()?);
        let (inputs, outputs, stride) = (sizes[at], sizes[at + 1], expected[at][1]);
        let (first_row, first_column) = match at {
            0 => (0, member * outputs),
            _ if at == hidden => (member * inputs, 0),
            _ => (member * inputs, member * outputs),
        };
        let row = |row: usize| weight.get((first_row + row) * stride + first_column..)?.get(..outputs);
        let weight: Option<Vec<&[f32]>> = (0..inputs).map(row).collect();
        // The mean over the members was folded into the last weights.
        let factor = if at == hidden { members as f32 } else { 1.0 };
        Some(Layer {
            inputs,
            outputs,
            weight: weight?.concat().into_iter().map(|value| value * factor).collect(),
            bias: bias.get(first_column..)?.get(..outputs)?.to_vec(),
        })
    };
    let all: Option<Vec<Vec<Layer>>> = (0..=hidden).map(|at| (0..members).map(|of| member(at, of)).collect()).collect();
    all.ok_or_else(|| "its graph has weights that are not f32".to_owned())
}
