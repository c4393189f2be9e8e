//! The int8 form of a graph.

use std::collections::BTreeSet;

use tributary_inference::onnx::{Data, Graph, Op, Tensor};
use tributary_inference::quantize::{Options, QuantizeError, Range, to_qdq};

use crate::fixture::{assert_close, by_engine, network, operators, random, values};

const WIDTH: usize = 12;
const ROWS: usize = 400;

fn rows(seed: u64) -> Vec<f32> {
    values(&mut random(seed), ROWS * WIDTH, 3.0)
}

fn mean_difference(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).sum::<f32>() / a.len() as f32
}

/// Mean difference between the f32 graph and its int8 form on rows that calibration has not seen.
fn loss(graph: &Graph, calibration: &[f32], rows: &[f32], options: &Options) -> f32 {
    let int8 = to_qdq(graph, calibration, calibration.len() / graph.width, options).unwrap();
    let n = rows.len() / graph.width;
    mean_difference(&by_engine(&int8, rows, n), &by_engine(graph, rows, n))
}

fn int8_weights(graph: &Graph) -> usize {
    let matrices = graph.initializers.iter().filter(|it| it.tensor.shape.len() == 2);
    matrices.map(|it| if let Data::I8(values) = &it.tensor.data { values.len() } else { 0 }).sum()
}

#[test]
fn the_int8_form_stays_close_and_the_engine_agrees_with_the_plain_evaluator() {
    let graph = network(7, WIDTH, 32);
    let int8 = to_qdq(&graph, &rows(1), ROWS, &Options::default()).unwrap();
    let fresh = rows(2);
    let (plain, engine) = (int8.evaluate(&fresh, ROWS).unwrap(), by_engine(&int8, &fresh, ROWS));
    // A value on the edge between two steps may fall on either side, so that few rows differ by a step.
    assert!(mean_difference(&plain, &engine) < 1e-3, "{}", mean_difference(&plain, &engine));
    let lost = mean_difference(&engine, &by_engine(&graph, &fresh, ROWS));
    assert!(lost > 0.0 && lost < 0.01, "{lost}");
}

#[test]
fn weights_are_int8_and_the_file_is_smaller() {
    let graph = network(7, WIDTH, 64);
    let int8 = to_qdq(&graph, &rows(1), ROWS, &Options::default()).unwrap();
    assert_eq!(int8_weights(&int8), WIDTH * 64 + 64 * 64 + 64);
    let (before, after) = (graph.to_bytes().unwrap().len(), int8.to_bytes().unwrap().len());
    assert!(after * 2 < before, "{after} of {before} bytes");
    assert_eq!(Graph::from_bytes(&int8.to_bytes().unwrap()).unwrap(), int8);
    assert!(operators(&int8).is_superset(&["QuantizeLinear", "DequantizeLinear"].map(str::to_owned).into()));
}

#[test]
fn standardisation_in_front_stays_f32() {
    let graph = network(7, WIDTH, 32);
    let int8 = to_qdq(&graph, &rows(1), ROWS, &Options::default()).unwrap();
    assert_eq!(int8.nodes[..2], graph.nodes[..2]);
    assert_eq!(int8.initializer("mean"), graph.initializer("mean"));
    assert_eq!(int8.initializer("w0"), None);
}

#[test]
fn one_scale_per_channel_loses_less_than_one_per_matrix() {
    // One output channel far stronger than the others takes all the resolution of a shared scale.
    let mut graph = network(7, WIDTH, 32);
    for it in &mut graph.initializers {
        if let ("w0", Data::F32(values)) = (&it.name[..], &mut it.tensor.data) {
            values[..WIDTH].iter_mut().for_each(|weight| *weight *= 40.0);
        }
        if let ("w1", Data::F32(values)) = (&it.name[..], &mut it.tensor.data) {
            values.iter_mut().step_by(32).for_each(|weight| *weight = 0.0);
        }
    }
    let per_matrix = Options { per_channel: false, equalize: false, ..Options::default() };
    let per_channel = Options { equalize: false, ..Options::default() };
    let (matrix, channel) =
        (loss(&graph, &rows(1), &rows(2), &per_matrix), loss(&graph, &rows(1), &rows(2), &per_channel));
    assert!(channel < matrix, "{channel} against {matrix}");
}

#[test]
fn evening_out_columns_helps_when_one_reaches_further() {
    let graph = network(7, WIDTH, 32);
    let stretched = |seed| {
        let mut rows = rows(seed);
        rows.iter_mut().step_by(WIDTH).for_each(|value| *value *= 30.0);
        rows
    };
    let mut calm = graph.clone();
    for it in &mut calm.initializers {
        if let ("w0", Data::F32(values)) = (&it.name[..], &mut it.tensor.data) {
            values.iter_mut().step_by(WIDTH).for_each(|weight| *weight /= 30.0);
        }
    }
    let without = Options { equalize: false, ..Options::default() };
    let (without, with) = (
        loss(&calm, &stretched(1), &stretched(2), &without),
        loss(&calm, &stretched(1), &stretched(2), &Options::default()),
    );
    assert!(with * 2.0 < without, "{with} against {without}");
}

#[test]
fn a_central_range_keeps_resolution_when_a_few_values_lie_far_outside() {
    let graph = network(7, WIDTH, 32);
    let mut calibration = rows(1);
    calibration[5] = 4000.0;
    let central = Options { range: Range::Central(0.99), ..Options::default() };
    let (all, central) =
        (loss(&graph, &calibration, &rows(2), &Options::default()), loss(&graph, &calibration, &rows(2), &central));
    assert!(central * 2.0 < all, "{central} against {all}");
}

#[test]
fn products_can_stay_f32() {
    let graph = network(7, WIDTH, 64);
    let options = Options { keep_f32: BTreeSet::from([0, 2]), ..Options::default() };
    let int8 = to_qdq(&graph, &rows(1), ROWS, &options).unwrap();
    assert_eq!(int8_weights(&int8), 64 * 64);
    assert_eq!(int8.initializer("w0"), graph.initializer("w0"));
    let all = Options { keep_f32: BTreeSet::from([0, 1, 2]), ..Options::default() };
    assert_eq!(to_qdq(&graph, &rows(1), ROWS, &all), Err(QuantizeError::NothingToQuantize));
}

#[test]
fn weights_either_way_round_and_without_bias_are_quantised_alike() {
    let mut random = random(9);
    let weights = values(&mut random, WIDTH * 8, 1.0);
    let transposed: Vec<f32> = (0..WIDTH * 8).map(|i| weights[(i % WIDTH) * 8 + i / WIDTH]).collect();
    let build = |op: Op, shape: [usize; 2], weights: &[f32]| {
        let mut graph = Graph::new("one", WIDTH);
        let weights = graph.constant("weights", Tensor::f32(&shape, weights.to_vec()));
        let output = graph.node(op, &["features", &weights]);
        graph.set_output(&output, 8);
        to_qdq(&graph, &rows(1), ROWS, &Options::default()).unwrap().evaluate(&rows(2), ROWS).unwrap()
    };
    let matmul = build(Op::MatMul, [WIDTH, 8], &weights);
    let gemm = build(Op::Gemm { alpha: 1.0, beta: 1.0, trans_b: true }, [8, WIDTH], &transposed);
    assert_close(&gemm, &matmul, 1e-5, "transposed");
}

#[test]
fn a_constant_column_and_zero_weights_do_no_harm() {
    let mut graph = Graph::new("flat", 2);
    let weights = graph.constant("weights", Tensor::f32(&[2, 2], vec![0.0, 0.5, 0.0, 0.5]));
    let output = graph.node(Op::MatMul, &["features", &weights]);
    graph.set_output(&output, 2);
    let int8 = to_qdq(&graph, &[0.0, 1.0, 0.0, 2.0], 2, &Options::default()).unwrap();
    let found = by_engine(&int8, &[0.0, 2.0], 1);
    assert_close(&found, &[0.0, 1.0], 0.02, "flat");
}

#[test]
fn what_cannot_be_calibrated_is_refused() {
    let graph = network(7, WIDTH, 8);
    assert_eq!(to_qdq(&graph, &[], 0, &Options::default()), Err(QuantizeError::NoRows));
    assert!(matches!(to_qdq(&graph, &[1.0; 5], 1, &Options::default()), Err(QuantizeError::Evaluate(_))));
    let mut bad = rows(1);
    bad[3] = f32::NAN;
    assert!(matches!(to_qdq(&graph, &bad, ROWS, &Options::default()), Err(QuantizeError::NotFinite { .. })));
    for share in [0.0, 1.5, f64::NAN] {
        let options = Options { range: Range::Central(share), ..Options::default() };
        assert!(matches!(to_qdq(&graph, &rows(1), ROWS, &options), Err(QuantizeError::Share { .. })));
    }
}
