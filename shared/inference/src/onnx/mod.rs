//! Graphs in ONNX: the part of the standard that tabular models need (opset 13, IR version 8).
//!
//! [`Graph`] is built node by node, checked, written with [`Graph::to_bytes`] and read with [`Graph::from_bytes`].
//! [`Graph::evaluate`] runs it plainly, operator by operator: slow, and the reference that engines are tested against.

mod tensor;
mod op;
mod graph;
mod domain;
mod write;
mod read;
mod evaluate;

pub use evaluate::EvaluateError;
pub use graph::{Graph, GraphError, Initializer, Node};
pub use op::Op;
pub use read::{ReadError, operators_in};
pub use tensor::{Data, Tensor};
