//! The engine on the CPU.

use tributary_inference::onnx::{Graph, Op, Tensor};
use tributary_inference::{InferenceError, load_cpu};

use crate::fixture::{WIDTH, assert_close, network, random, values};

#[test]
fn every_batch_size_gives_what_single_rows_give() {
    let graph = network(2, WIDTH, 16);
    let engine = load_cpu(&graph.to_bytes().unwrap(), WIDTH).unwrap();
    let rows = values(&mut random(3), 200 * WIDTH, 3.0);
    let single: Vec<f32> = rows.chunks(WIDTH).map(|row| engine.predict_one(row).unwrap()).collect();
    assert_close(&single, &graph.evaluate(&rows, 200).unwrap(), 1e-5, "single rows");
    let mut out = vec![f32::NAN; 5];
    for n in [0, 1, 2, 7, 8, 9, 63, 64, 65, 72, 137, 200] {
        engine.predict(&rows[..n * WIDTH], n, &mut out).unwrap();
        assert_close(&out, &single[..n], 1e-5, &format!("{n} rows"));
    }
}

#[test]
fn several_threads_predict_at_the_same_time() {
    let graph = network(2, WIDTH, 16);
    let engine = load_cpu(&graph.to_bytes().unwrap(), WIDTH).unwrap();
    let rows = values(&mut random(3), 50 * WIDTH, 3.0);
    let mut expected = Vec::new();
    engine.predict(&rows, 50, &mut expected).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut out = Vec::new();
                for _ in 0..20 {
                    engine.predict(&rows, 50, &mut out).unwrap();
                    assert_eq!(out, expected);
                }
            });
        }
    });
}

#[test]
fn rows_of_another_width_are_refused_and_the_engine_goes_on() {
    let graph = network(2, WIDTH, 16);
    let engine = load_cpu(&graph.to_bytes().unwrap(), WIDTH).unwrap();
    let mut out = Vec::new();
    let error = engine.predict(&[0.0; 7], 2, &mut out).unwrap_err();
    assert_eq!(error, InferenceError::Shape { rows: 2, features: WIDTH, expected: 8, found: 7 });
    assert!(engine.predict(&[], usize::MAX, &mut out).is_err());
    assert!(engine.predict(&[0.0; WIDTH], 1, &mut out).is_ok());
}

#[test]
fn a_feature_that_is_not_a_number_gives_an_output_without_harm_to_others() {
    let mut graph = Graph::new("sum", 2);
    let ones = graph.constant("ones", Tensor::f32(&[2, 1], vec![1.0, 1.0]));
    let output = graph.node(Op::MatMul, &["features", &ones]);
    graph.set_output(&output, 1);
    let engine = load_cpu(&graph.to_bytes().unwrap(), 2).unwrap();
    let mut out = Vec::new();
    engine.predict(&[1.0, 2.0, f32::NAN, 1.0, 3.0, 4.0], 3, &mut out).unwrap();
    assert!(out[0] == 3.0 && out[1].is_nan() && out[2] == 7.0, "{out:?}");
}

#[test]
fn several_outputs_per_row_stand_one_behind_the_other() {
    let mut graph = Graph::new("pair", 1);
    let negative = graph.node(Op::Neg, &["features"]);
    let output = graph.node(Op::Concat { axis: 1 }, &["features", &negative]);
    graph.set_output(&output, 2);
    let engine = load_cpu(&graph.to_bytes().unwrap(), 1).unwrap();
    let mut out = Vec::new();
    engine.predict(&[1.0, 2.0], 2, &mut out).unwrap();
    assert_eq!((engine.outputs(), &out[..]), (2, &[1.0, -1.0, 2.0, -2.0][..]));
}

#[test]
fn what_is_no_graph_for_these_features_is_not_loaded() {
    let bytes = network(2, WIDTH, 16).to_bytes().unwrap();
    let refused = |onnx: &[u8], features| matches!(load_cpu(onnx, features), Err(InferenceError::Load { .. }));
    assert!(refused(b"", WIDTH));
    assert!(refused(b"not a graph", WIDTH));
    assert!(refused(&bytes, WIDTH + 1));
    assert!(refused(&bytes[..bytes.len() / 2], WIDTH));
}
