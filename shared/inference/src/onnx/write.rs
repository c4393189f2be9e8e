//! Writing: graph to ONNX file.

use prost::Message;
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto, TypeProto,
    ValueInfoProto, attribute_proto::AttributeType, tensor_proto::DataType, tensor_shape_proto::Dimension,
    tensor_shape_proto::dimension, type_proto,
};

use super::{Data, Graph, GraphError, Initializer, Node, Op, Tensor};

pub(super) const IR_VERSION: i64 = 8;
pub(super) const OPSET: i64 = 13;
const BATCH: &str = "N";

impl Graph {
    /// The ONNX file: the same graph always gives the same bytes.
    pub fn to_bytes(&self) -> Result<Vec<u8>, GraphError> {
        self.check()?;
        let graph = GraphProto {
            name: self.name.clone(),
            node: self.nodes.iter().map(node).collect(),
            initializer: self.initializers.iter().map(initializer).collect(),
            input: vec![rows(&self.input, self.width)],
            output: vec![rows(&self.output, self.outputs)],
            ..GraphProto::default()
        };
        let model = ModelProto {
            ir_version: IR_VERSION,
            opset_import: vec![OperatorSetIdProto { domain: String::new(), version: OPSET }],
            producer_name: "tributary".to_owned(),
            graph: Some(graph),
            ..ModelProto::default()
        };
        Ok(model.encode_to_vec())
    }
}

fn rows(name: &str, width: usize) -> ValueInfoProto {
    let dimension = |value| Dimension { denotation: String::new(), value: Some(value) };
    let dim = vec![
        dimension(dimension::Value::DimParam(BATCH.to_owned())),
        dimension(dimension::Value::DimValue(width as i64)),
    ];
    let tensor = type_proto::Tensor { elem_type: DataType::Float as i32, shape: Some(TensorShapeProto { dim }) };
    let kind = TypeProto { denotation: String::new(), value: Some(type_proto::Value::TensorType(tensor)) };
    ValueInfoProto { name: name.to_owned(), r#type: Some(kind), doc_string: String::new() }
}

fn node(node: &Node) -> NodeProto {
    NodeProto {
        input: node.inputs.clone(),
        output: vec![node.output.clone()],
        name: node.output.clone(),
        op_type: node.op.name().to_owned(),
        attribute: attributes(&node.op),
        ..NodeProto::default()
    }
}

fn attributes(op: &Op) -> Vec<AttributeProto> {
    match op {
        Op::Gemm { alpha, beta, trans_b } => {
            vec![float("alpha", *alpha), float("beta", *beta), int("transB", i64::from(*trans_b))]
        }
        Op::LeakyRelu { alpha } => vec![float("alpha", *alpha)],
        Op::Concat { axis }
        | Op::Gather { axis }
        | Op::Softmax { axis }
        | Op::QuantizeLinear { axis }
        | Op::DequantizeLinear { axis } => vec![int("axis", *axis)],
        _ => Vec::new(),
    }
}

fn float(name: &str, f: f32) -> AttributeProto {
    AttributeProto { name: name.to_owned(), r#type: AttributeType::Float as i32, f, ..AttributeProto::default() }
}

fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto { name: name.to_owned(), r#type: AttributeType::Int as i32, i, ..AttributeProto::default() }
}

fn initializer(Initializer { name, tensor }: &Initializer) -> TensorProto {
    let Tensor { shape, data } = tensor;
    let (kind, raw_data) = match data {
        Data::F32(values) => (DataType::Float, values.iter().flat_map(|value| value.to_le_bytes()).collect()),
        Data::I8(values) => (DataType::Int8, values.iter().map(|value| *value as u8).collect()),
        Data::U8(values) => (DataType::Uint8, values.clone()),
        Data::I64(values) => (DataType::Int64, values.iter().flat_map(|value| value.to_le_bytes()).collect()),
    };
    TensorProto {
        dims: shape.iter().map(|axis| *axis as i64).collect(),
        data_type: kind as i32,
        name: name.clone(),
        raw_data,
        ..TensorProto::default()
    }
}
