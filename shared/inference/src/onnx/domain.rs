//! Limiting where a graph is defined.

use super::{Graph, GraphError, Op, Tensor};

impl Graph {
    /// Makes the output undefined (not a number) for every row whose `feature` is above `most`; other rows keep their
    /// output exactly. A model that must not extrapolate says so by this instead of guessing.
    pub fn limit_domain(&mut self, feature: usize, most: f32) -> Result<(), GraphError> {
        if feature >= self.width {
            return Err(GraphError::Feature { feature, width: self.width });
        }
        let (input, output, outputs) = (self.input.clone(), self.output.clone(), self.outputs);
        let column = self.constant("limited_feature", Tensor::indices(vec![feature as i64]));
        let value = self.node(Op::Gather { axis: 1 }, &[&input, &column]);
        let most = self.constant("limit", Tensor::f32(&[1], vec![most]));
        let room = self.node(Op::Sub, &[&most, &value]);
        // The root of a negative number is not a number; subtracted from itself it is zero wherever it is defined.
        let root = self.node(Op::Sqrt, &[&room]);
        let zero = self.node(Op::Sub, &[&root, &root]);
        let limited = self.node(Op::Add, &[&output, &zero]);
        self.set_output(&limited, outputs);
        Ok(())
    }
}
