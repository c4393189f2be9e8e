//! Reading: ONNX file to graph.

use std::collections::BTreeSet;

use prost::Message;
use tract_onnx::pb::{
    GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, attribute_proto::AttributeType,
    tensor_proto::DataType, tensor_shape_proto::dimension, type_proto,
};

use super::write::OPSET;
use super::{Data, Graph, GraphError, Initializer, Node, Op, Tensor};

/// Later operator sets that define the operators of [`Op`] in the same way.
const HIGHEST_OPSET: i64 = 17;

/// Why a file is not a graph that this module knows.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ReadError {
    /// Not an ONNX file.
    #[error("not an ONNX file: {reason}")]
    NotOnnx {
        /// What is wrong.
        reason: String,
    },
    /// Another operator set.
    #[error("operator set {found}, expected {OPSET} to {HIGHEST_OPSET}")]
    Opset {
        /// As found.
        found: i64,
    },
    /// An operator outside of [`Op`].
    #[error("operator {name:?} (node {node:?}) is not known")]
    Operator {
        /// Its name, with its domain.
        name: String,
        /// Where it stands.
        node: String,
    },
    /// An attribute that changes what an operator does in a way [`Op`] cannot say.
    #[error("attribute {attribute:?} of node {node:?} is not known, or has a value that is not")]
    Attribute {
        /// Its name.
        attribute: String,
        /// Where it stands.
        node: String,
    },
    /// A constant of another type, or with a wrong number of values.
    #[error("constant {name:?}: {problem}")]
    Constant {
        /// Which constant.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Not one input and one output of rows.
    #[error("{what} is not one value of shape [N, width]")]
    Rows {
        /// The input or the output.
        what: &'static str,
    },
    /// Names, order or sizes are wrong.
    #[error("inconsistent graph")]
    Graph(#[from] GraphError),
}

impl Graph {
    /// Reads an ONNX file made of the operators of [`Op`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ReadError> {
        let not_onnx = |reason: String| ReadError::NotOnnx { reason };
        let model = ModelProto::decode(bytes).map_err(|error| not_onnx(error.to_string()))?;
        let opset = model.opset_import.iter().find(|set| set.domain.is_empty() || set.domain == "ai.onnx");
        let found = opset.map_or(0, |set| set.version);
        let proto = model.graph.ok_or_else(|| not_onnx("it holds no graph".to_owned()))?;
        if !(OPSET..=HIGHEST_OPSET).contains(&found) {
            return Err(ReadError::Opset { found });
        }
        graph(proto)
    }
}

/// The names of all operators that an ONNX file uses, each once, sorted: also of files with operators outside of [`Op`].
pub fn operators_in(bytes: &[u8]) -> Result<Vec<String>, ReadError> {
    let not_onnx = |reason: String| ReadError::NotOnnx { reason };
    let model = ModelProto::decode(bytes).map_err(|error| not_onnx(error.to_string()))?;
    let graph = model.graph.ok_or_else(|| not_onnx("it holds no graph".to_owned()))?;
    let mut names = BTreeSet::new();
    // What is run under a condition, or again and again, is a graph within.
    let mut graphs = vec![&graph];
    while let Some(graph) = graphs.pop() {
        for node in &graph.node {
            names.insert(node.op_type.clone());
            graphs.extend(node.attribute.iter().flat_map(|attribute| attribute.g.iter().chain(&attribute.graphs)));
        }
    }
    Ok(names.into_iter().collect())
}

fn graph(proto: GraphProto) -> Result<Graph, ReadError> {
    let initializers = proto.initializer.iter().map(initializer).collect::<Result<Vec<_>, _>>()?;
    // Old writers list constants among the inputs.
    let inputs = proto.input.iter().filter(|input| !initializers.iter().any(|it| it.name == input.name));
    let inputs: Vec<_> = inputs.collect();
    let [input] = inputs[..] else { return Err(ReadError::Rows { what: "the input" }) };
    let [output] = &proto.output[..] else { return Err(ReadError::Rows { what: "the output" }) };
    let graph = Graph {
        name: proto.name.clone(),
        input: input.name.clone(),
        width: width(input).ok_or(ReadError::Rows { what: "the input" })?,
        output: output.name.clone(),
        outputs: width(output).ok_or(ReadError::Rows { what: "the output" })?,
        initializers,
        nodes: proto.node.iter().map(node).collect::<Result<_, _>>()?,
    };
    graph.check()?;
    Ok(graph)
}

fn width(info: &ValueInfoProto) -> Option<usize> {
    let type_proto::Value::TensorType(tensor) = info.r#type.as_ref()?.value.as_ref()?;
    let shape = tensor.shape.as_ref().filter(|_| tensor.elem_type == DataType::Float as i32)?;
    let [_, columns] = &shape.dim[..] else { return None };
    match columns.value.as_ref()? {
        dimension::Value::DimValue(width) => usize::try_from(*width).ok().filter(|width| *width > 0),
        dimension::Value::DimParam(_) => None,
    }
}

fn initializer(proto: &TensorProto) -> Result<Initializer, ReadError> {
    let wrong = |problem: String| ReadError::Constant { name: proto.name.clone(), problem };
    let shape = proto.dims.iter().map(|axis| usize::try_from(*axis)).collect::<Result<Vec<_>, _>>();
    let shape = shape.map_err(|_| wrong(format!("its shape is {:?}", proto.dims)))?;
    if !proto.external_data.is_empty() {
        return Err(wrong("its values lie in another file".to_owned()));
    }
    let raw = &proto.raw_data[..];
    let data = match DataType::try_from(proto.data_type) {
        Ok(DataType::Float) if raw.is_empty() => Data::F32(proto.float_data.clone()),
        Ok(DataType::Float) => Data::F32(numbers(raw, f32::from_le_bytes).map_err(wrong)?),
        Ok(DataType::Int8) if raw.is_empty() => Data::I8(proto.int32_data.iter().map(|value| *value as i8).collect()),
        Ok(DataType::Int8) => Data::I8(raw.iter().map(|value| *value as i8).collect()),
        Ok(DataType::Uint8) if raw.is_empty() => Data::U8(proto.int32_data.iter().map(|value| *value as u8).collect()),
        Ok(DataType::Uint8) => Data::U8(raw.to_vec()),
        Ok(DataType::Int64) if raw.is_empty() => Data::I64(proto.int64_data.clone()),
        Ok(DataType::Int64) => Data::I64(numbers(raw, i64::from_le_bytes).map_err(wrong)?),
        _ => return Err(wrong(format!("data type {} is not known", proto.data_type))),
    };
    Ok(Initializer { name: proto.name.clone(), tensor: Tensor { shape, data } })
}

fn numbers<const N: usize, T>(raw: &[u8], number: fn([u8; N]) -> T) -> Result<Vec<T>, String> {
    let (chunks, rest) = raw.as_chunks::<N>();
    match rest {
        [] => Ok(chunks.iter().map(|chunk| number(*chunk)).collect()),
        _ => Err(format!("{} bytes are no whole number of values", raw.len())),
    }
}

fn node(proto: &NodeProto) -> Result<Node, ReadError> {
    let [output] = &proto.output[..] else { return Err(unknown(proto)) };
    let attributes = Attributes { node: proto, left: proto.attribute.iter().map(|it| it.name.as_str()).collect() };
    let mut inputs = proto.input.clone();
    // An empty name stands for an optional input that is not given; at the end it says nothing.
    while inputs.last().is_some_and(String::is_empty) {
        inputs.pop();
    }
    Ok(Node { op: op(proto, attributes)?, inputs, output: output.clone() })
}

fn unknown(proto: &NodeProto) -> ReadError {
    let name = [&proto.domain[..], &proto.op_type].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>();
    ReadError::Operator { name: name.join("."), node: proto.name.clone() }
}

fn op(proto: &NodeProto, mut attributes: Attributes<'_>) -> Result<Op, ReadError> {
    if !matches!(&proto.domain[..], "" | "ai.onnx") {
        return Err(unknown(proto));
    }
    let op = match &proto.op_type[..] {
        "Gemm" => {
            if attributes.int("transA", 0)? != 0 {
                return Err(ReadError::Attribute { attribute: "transA".to_owned(), node: proto.name.clone() });
            }
            let (alpha, beta) = (attributes.float("alpha", 1.0)?, attributes.float("beta", 1.0)?);
            Op::Gemm { alpha, beta, trans_b: attributes.int("transB", 0)? != 0 }
        }
        "MatMul" => Op::MatMul,
        "Add" => Op::Add,
        "Sub" => Op::Sub,
        "Mul" => Op::Mul,
        "Div" => Op::Div,
        "Min" => Op::Min,
        "Max" => Op::Max,
        "Relu" => Op::Relu,
        "LeakyRelu" => Op::LeakyRelu { alpha: attributes.float("alpha", 0.01)? },
        "Sigmoid" => Op::Sigmoid,
        "Tanh" => Op::Tanh,
        "Exp" => Op::Exp,
        "Log" => Op::Log,
        "Sqrt" => Op::Sqrt,
        "Abs" => Op::Abs,
        "Neg" => Op::Neg,
        "Sign" => Op::Sign,
        "Identity" => Op::Identity,
        "Clip" => Op::Clip,
        "Concat" => Op::Concat { axis: attributes.int("axis", 1)? },
        "Gather" => Op::Gather { axis: attributes.int("axis", 0)? },
        "Softmax" => Op::Softmax { axis: attributes.int("axis", -1)? },
        "QuantizeLinear" => Op::QuantizeLinear { axis: attributes.int("axis", 1)? },
        "DequantizeLinear" => Op::DequantizeLinear { axis: attributes.int("axis", 1)? },
        _ => return Err(unknown(proto)),
    };
    match attributes.left.first() {
        None => Ok(op),
        Some(&attribute) => Err(ReadError::Attribute { attribute: attribute.to_owned(), node: proto.name.clone() }),
    }
}

/// The attributes of a node; those that nobody asked for are left.
struct Attributes<'a> {
    node: &'a NodeProto,
    left: Vec<&'a str>,
}

impl Attributes<'_> {
    fn int(&mut self, name: &str, default: i64) -> Result<i64, ReadError> {
        self.take(name, AttributeType::Int, default, |attribute| attribute.i)
    }

    fn float(&mut self, name: &str, default: f32) -> Result<f32, ReadError> {
        self.take(name, AttributeType::Float, default, |attribute| attribute.f)
    }

    fn take<T>(
        &mut self,
        name: &str,
        kind: AttributeType,
        default: T,
        value: fn(&tract_onnx::pb::AttributeProto) -> T,
    ) -> Result<T, ReadError> {
        self.left.retain(|left| *left != name);
        match self.node.attribute.iter().find(|attribute| attribute.name == name) {
            None => Ok(default),
            Some(attribute) if attribute.r#type == kind as i32 => Ok(value(attribute)),
            Some(_) => Err(ReadError::Attribute { attribute: name.to_owned(), node: self.node.name.clone() }),
        }
    }
}
