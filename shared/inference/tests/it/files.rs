//! ONNX files: written, read back, and refused when they are something else.

use prost::Message;
use tract_onnx::pb::{AttributeProto, GraphProto, ModelProto, NodeProto};
use tributary_inference::onnx::{Data, Graph, GraphError, Node, Op, ReadError, Tensor, operators_in};

use crate::fixture::network;

/// The file of a small network with its message changed.
fn changed(change: impl Fn(&mut ModelProto)) -> Result<Graph, ReadError> {
    let bytes = network(1, 3, 4).to_bytes().unwrap();
    let mut model = ModelProto::decode(&bytes[..]).unwrap();
    change(&mut model);
    Graph::from_bytes(&model.encode_to_vec())
}

#[test]
fn a_graph_comes_back_as_it_was_written_and_gives_the_same_bytes_every_time() {
    let graph = network(1, 5, 8);
    let bytes = graph.to_bytes().unwrap();
    assert_eq!(Graph::from_bytes(&bytes).unwrap(), graph);
    assert_eq!(graph.to_bytes().unwrap(), bytes);
    assert_eq!(graph.operators(), ["Div", "Gemm", "Relu", "Sigmoid", "Sub"]);
}

#[test]
fn the_operators_of_any_file_are_told_also_of_graphs_within_and_unknown_ones() {
    let bytes = network(1, 5, 8).to_bytes().unwrap();
    assert_eq!(operators_in(&bytes).unwrap(), Graph::from_bytes(&bytes).unwrap().operators());
    let mut model = ModelProto::decode(&bytes[..]).unwrap();
    let graph = model.graph.as_mut().unwrap();
    let within = NodeProto { op_type: "Bernoulli".to_owned(), ..NodeProto::default() };
    let within = GraphProto { node: vec![within], ..GraphProto::default() };
    let then = AttributeProto { name: "then_branch".to_owned(), g: Some(within), ..AttributeProto::default() };
    graph.node.push(NodeProto { op_type: "If".to_owned(), attribute: vec![then], ..NodeProto::default() });
    let found = operators_in(&model.encode_to_vec()).unwrap();
    assert_eq!(found, ["Bernoulli", "Div", "Gemm", "If", "Relu", "Sigmoid", "Sub"]);
    for bytes in [&b"no protobuf at all"[..], b""] {
        assert!(matches!(operators_in(bytes), Err(ReadError::NotOnnx { .. })));
    }
}

#[test]
fn a_file_says_opset_13_ir_8_and_a_free_batch() {
    let model = ModelProto::decode(&network(1, 5, 8).to_bytes().unwrap()[..]).unwrap();
    assert_eq!((model.ir_version, model.opset_import[0].version), (8, 13));
    let input = format!("{:?}", model.graph.unwrap().input[0]);
    assert!(input.contains("DimParam(\"N\")") && input.contains("DimValue(5)"), "{input}");
}

#[test]
fn constants_of_every_type_come_back_raw_or_as_lists() {
    let mut graph = Graph::new("constants", 2);
    graph.constant("bytes", Tensor::i8(&[3], vec![-128, 0, 127]));
    graph.constant("unsigned", Tensor { shape: vec![2], data: Data::U8(vec![0, 255]) });
    graph.constant("indices", Tensor::indices(vec![-1, 1 << 40]));
    graph.constant("floats", Tensor::f32(&[1, 2], vec![f32::MIN, 0.1]));
    let bytes = graph.to_bytes().unwrap();
    assert_eq!(Graph::from_bytes(&bytes).unwrap(), graph);

    // Other writers use the typed lists of the format.
    let mut model = ModelProto::decode(&bytes[..]).unwrap();
    for tensor in &mut model.graph.as_mut().unwrap().initializer {
        tensor.raw_data.clear();
        match &tensor.name[..] {
            "bytes" => tensor.int32_data = vec![-128, 0, 127],
            "unsigned" => tensor.int32_data = vec![0, 255],
            "indices" => tensor.int64_data = vec![-1, 1 << 40],
            _ => tensor.float_data = vec![f32::MIN, 0.1],
        }
    }
    assert_eq!(Graph::from_bytes(&model.encode_to_vec()).unwrap(), graph);
}

#[test]
fn what_is_not_known_is_refused_by_name() {
    assert!(matches!(Graph::from_bytes(b"no protobuf at all"), Err(ReadError::NotOnnx { .. })));
    assert!(matches!(Graph::from_bytes(b""), Err(ReadError::NotOnnx { .. })));
    let error = changed(|model| model.opset_import[0].version = 9).unwrap_err();
    assert_eq!(error, ReadError::Opset { found: 9 });

    let error = changed(|model| model.graph.as_mut().unwrap().node[0].op_type = "Conv".to_owned()).unwrap_err();
    assert!(matches!(&error, ReadError::Operator { name, .. } if name == "Conv"), "{error}");
    let error = changed(|model| model.graph.as_mut().unwrap().node[0].domain = "com.microsoft".to_owned()).unwrap_err();
    assert!(matches!(&error, ReadError::Operator { name, .. } if name == "com.microsoft.Sub"), "{error}");
    let error = changed(|model| model.graph.as_mut().unwrap().node[2].attribute[0].name = "gamma".to_owned());
    assert!(matches!(error, Err(ReadError::Attribute { attribute, .. }) if attribute == "gamma"));
    let error = changed(|model| model.graph.as_mut().unwrap().node[2].attribute[0].r#type = 2);
    assert!(matches!(error, Err(ReadError::Attribute { attribute, .. }) if attribute == "alpha"));

    let error = changed(|model| model.graph.as_mut().unwrap().initializer[0].data_type = 11).unwrap_err();
    assert!(matches!(&error, ReadError::Constant { name, .. } if name == "mean"), "{error}");
    let error = changed(|model| model.graph.as_mut().unwrap().initializer[0].raw_data.truncate(5)).unwrap_err();
    assert!(matches!(&error, ReadError::Constant { name, .. } if name == "mean"), "{error}");
    let error = changed(|model| model.graph.as_mut().unwrap().initializer[0].dims[0] = -3).unwrap_err();
    assert!(matches!(&error, ReadError::Constant { name, .. } if name == "mean"), "{error}");
    let error = changed(|model| model.graph.as_mut().unwrap().initializer[0].dims[0] = 1 << 60).unwrap_err();
    assert!(matches!(&error, ReadError::Graph(GraphError::Shape { name, .. }) if name == "mean"), "{error}");
    let error = changed(|model| model.graph.as_mut().unwrap().input.clear()).unwrap_err();
    assert_eq!(error, ReadError::Rows { what: "the input" });
    let error = changed(|model| model.graph.as_mut().unwrap().node.swap(0, 1)).unwrap_err();
    assert!(matches!(error, ReadError::Graph(GraphError::Unknown { .. })), "{error}");
}

#[test]
fn any_flipped_bit_of_a_file_is_an_error_or_another_graph_but_never_a_panic() {
    let bytes = network(1, 3, 4).to_bytes().unwrap();
    for place in 0..bytes.len() {
        let mut bad = bytes.clone();
        bad[place] ^= 1 << (place % 8);
        if let Ok(graph) = Graph::from_bytes(&bad) {
            let _ = graph.evaluate(&vec![0.5; graph.width.min(1000)], 1);
        }
    }
}

#[test]
fn a_graph_with_a_wrong_name_or_size_is_not_written() {
    let mut graph = network(1, 3, 4);
    graph.nodes.push(Node { op: Op::Relu, inputs: vec!["nowhere".to_owned()], output: "x".to_owned() });
    assert!(matches!(graph.to_bytes(), Err(GraphError::Unknown { name, .. }) if name == "nowhere"));
    let mut graph = network(1, 3, 4);
    graph.nodes.push(graph.nodes[0].clone());
    assert!(matches!(graph.to_bytes(), Err(GraphError::Twice { .. })));
    let mut graph = network(1, 3, 4);
    graph.constant("short", Tensor::f32(&[3], vec![1.0]));
    assert!(matches!(graph.to_bytes(), Err(GraphError::Shape { found: 1, .. })));
    let mut graph = network(1, 3, 4);
    graph.node(Op::Clip, &["features"]);
    assert!(matches!(graph.to_bytes(), Err(GraphError::Inputs { op: "Clip", found: 1, .. })));
    let mut graph = network(1, 3, 4);
    graph.set_output("nowhere", 1);
    assert!(matches!(graph.to_bytes(), Err(GraphError::Unknown { .. })));
}
