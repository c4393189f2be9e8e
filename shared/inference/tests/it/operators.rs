//! Every operator: the plain evaluator against tract, over random shapes and batch sizes.

use rand::Rng;
use rand::rngs::SmallRng;
use tributary_inference::onnx::{Graph, Op, Tensor};

use crate::fixture::{assert_close, by_engine, random, values};

/// Rows that reach into every batch size and leave a rest.
const ROWS: [usize; 4] = [1, 3, 9, 73];

/// Builds a graph around one operator with `build`, for several widths, and compares.
fn compare(name: &str, reach: f32, tolerance: f32, build: impl Fn(&mut Graph, &mut SmallRng) -> (String, usize)) {
    for seed in 0..3 {
        let mut random = random(seed);
        let width = random.random_range(2..20);
        let mut graph = Graph::new(name, width);
        let (output, outputs) = build(&mut graph, &mut random);
        graph.set_output(&output, outputs);
        let read = Graph::from_bytes(&graph.to_bytes().unwrap()).unwrap();
        assert_eq!(read, graph, "{name} comes back as it was written");
        for n in ROWS {
            let rows = values(&mut random, n * width, reach);
            let expected = graph.evaluate(&rows, n).unwrap();
            assert_eq!(expected.len(), n * outputs);
            let found = by_engine(&graph, &rows, n);
            assert_close(&found, &expected, tolerance, &format!("{name}, {n} rows of {width}"));
        }
    }
}

fn input(graph: &Graph) -> String {
    graph.input.clone()
}

/// An operator on one value.
fn unary(op: Op, reach: f32) {
    compare(op.name(), reach, 2e-6, |graph, _| {
        let (input, width) = (input(graph), graph.width);
        (graph.node(op.clone(), &[&input]), width)
    });
}

/// An operator on two values: with a row of constants, a single constant on either side, a column, and itself.
fn binary(op: Op) {
    let tolerance = 2e-6;
    compare(op.name(), 3.0, tolerance, |graph, random| {
        let (input, width) = (input(graph), graph.width);
        let row = graph.constant("row", Tensor::f32(&[width], away_from_zero(random, width)));
        (graph.node(op.clone(), &[&input, &row]), width)
    });
    compare(op.name(), 3.0, tolerance, |graph, random| {
        let (input, width) = (input(graph), graph.width);
        let one = graph.constant("one", Tensor::scalar(away_from_zero(random, 1)[0]));
        let value = graph.node(op.clone(), &[&input, &one]);
        let row = graph.constant("row", Tensor::f32(&[1, width], away_from_zero(random, width)));
        (graph.node(op.clone(), &[&row, &value]), width)
    });
    compare(op.name(), 3.0, tolerance, |graph, _| {
        let (input, width) = (input(graph), graph.width);
        let column = graph.constant("column", Tensor::indices(vec![0]));
        let column = graph.node(Op::Gather { axis: 1 }, &[&input, &column]);
        (graph.node(op.clone(), &[&column, &input]), width)
    });
}

fn away_from_zero(random: &mut SmallRng, count: usize) -> Vec<f32> {
    (0..count).map(|_| random.random_range(0.5..3.0) * if random.random() { 1.0 } else { -1.0 }).collect()
}

/// Keeps the operand of Log and Sqrt where they are defined.
fn of_magnitude(op: Op) {
    compare(op.name(), 50.0, 2e-6, |graph, _| {
        let (input, width) = (input(graph), graph.width);
        let magnitude = graph.node(Op::Abs, &[&input]);
        (graph.node(op.clone(), &[&magnitude]), width)
    });
}

#[test]
fn gemm_agrees() {
    for trans_b in [false, true] {
        for bias in [0, 1, 2] {
            compare("gemm", 2.0, 1e-5, |graph, random| {
                let (input, width, outputs) = (input(graph), graph.width, random.random_range(1..40));
                let shape = if trans_b { [outputs, width] } else { [width, outputs] };
                let weights = graph.constant("weights", Tensor::f32(&shape, values(random, width * outputs, 1.0)));
                let row = Tensor::f32(&[outputs], values(random, outputs, 1.0));
                let one = Tensor::f32(&[1], vec![0.5]);
                let mut inputs = vec![input, weights];
                inputs.extend((bias > 0).then(|| graph.constant("bias", if bias == 1 { row } else { one })));
                let inputs: Vec<_> = inputs.iter().map(String::as_str).collect();
                (graph.node(Op::Gemm { alpha: 1.5, beta: 0.5, trans_b }, &inputs), outputs)
            });
        }
    }
}

#[test]
fn matmul_agrees() {
    compare("matmul", 2.0, 1e-5, |graph, random| {
        let (input, width, outputs) = (input(graph), graph.width, random.random_range(1..40));
        let weights = Tensor::f32(&[width, outputs], values(random, width * outputs, 1.0));
        let weights = graph.constant("weights", weights);
        (graph.node(Op::MatMul, &[&input, &weights]), outputs)
    });
}

#[test]
fn add_sub_mul_div_agree() {
    [Op::Add, Op::Sub, Op::Mul].into_iter().for_each(binary);
    // Division by a column near zero magnifies rounding: only constants divide.
    compare("Div", 3.0, 2e-6, |graph, random| {
        let (input, width) = (input(graph), graph.width);
        let row = graph.constant("row", Tensor::f32(&[width], away_from_zero(random, width)));
        (graph.node(Op::Div, &[&input, &row]), width)
    });
    compare("Div", 3.0, 2e-6, |graph, random| {
        let (input, width) = (input(graph), graph.width);
        let magnitude = graph.node(Op::Abs, &[&input]);
        let one = graph.constant("one", Tensor::scalar(1.0));
        let below = graph.node(Op::Add, &[&magnitude, &one]);
        let row = graph.constant("row", Tensor::f32(&[width], away_from_zero(random, width)));
        (graph.node(Op::Div, &[&row, &below]), width)
    });
}

#[test]
fn min_and_max_agree() {
    [Op::Min, Op::Max].into_iter().for_each(binary);
}

#[test]
fn relu_and_leaky_relu_agree() {
    unary(Op::Relu, 2.0);
    unary(Op::LeakyRelu { alpha: 0.1 }, 2.0);
}

#[test]
fn sigmoid_agrees() {
    unary(Op::Sigmoid, 8.0);
}

#[test]
fn tanh_agrees() {
    unary(Op::Tanh, 5.0);
}

#[test]
fn exp_agrees() {
    unary(Op::Exp, 4.0);
}

#[test]
fn log_agrees() {
    of_magnitude(Op::Log);
}

#[test]
fn sqrt_agrees() {
    of_magnitude(Op::Sqrt);
}

#[test]
fn abs_neg_sign_and_identity_agree() {
    [Op::Abs, Op::Neg, Op::Sign, Op::Identity].into_iter().for_each(|op| unary(op, 2.0));
}

#[test]
fn clip_agrees() {
    compare("clip", 3.0, 0.0, |graph, _| {
        let (input, width) = (input(graph), graph.width);
        let low = graph.constant("low", Tensor::scalar(-1.5));
        let high = graph.constant("high", Tensor::scalar(0.75));
        (graph.node(Op::Clip, &[&input, &low, &high]), width)
    });
}

#[test]
fn concat_agrees() {
    compare("concat", 2.0, 2e-6, |graph, _| {
        let (input, width) = (input(graph), graph.width);
        let negative = graph.node(Op::Neg, &[&input]);
        (graph.node(Op::Concat { axis: 1 }, &[&input, &negative, &input]), 3 * width)
    });
}

#[test]
fn gather_agrees() {
    compare("gather", 2.0, 0.0, |graph, random| {
        let (input, width) = (input(graph), graph.width);
        let count = random.random_range(1..6);
        let wanted = (0..count).map(|_| random.random_range(0..width as i64)).collect();
        let wanted = graph.constant("wanted", Tensor::indices(wanted));
        (graph.node(Op::Gather { axis: 1 }, &[&input, &wanted]), count)
    });
}

#[test]
fn softmax_agrees() {
    for axis in [1, -1] {
        compare("softmax", 4.0, 2e-6, |graph, _| {
            let (input, width) = (input(graph), graph.width);
            (graph.node(Op::Softmax { axis }, &[&input]), width)
        });
    }
}

#[test]
fn quantize_and_dequantize_agree_exactly_and_saturate() {
    // Values reach beyond what 8 bits hold at this scale.
    for zero in
        [Tensor::i8(&[], vec![-7]), Tensor { shape: vec![], data: tributary_inference::onnx::Data::U8(vec![130]) }]
    {
        compare("quantize", 5.0, 0.0, |graph, _| {
            let (input, width) = (input(graph), graph.width);
            let scale = graph.constant("scale", Tensor::scalar(0.03125));
            let zero = graph.constant("zero", zero.clone());
            let quantized = graph.node(Op::QuantizeLinear { axis: 1 }, &[&input, &scale, &zero]);
            (graph.node(Op::DequantizeLinear { axis: 1 }, &[&quantized, &scale, &zero]), width)
        });
    }
}

#[test]
fn halves_are_rounded_to_even() {
    let mut graph = Graph::new("halves", 6);
    let input = input(&graph);
    let scale = graph.constant("scale", Tensor::scalar(2.0));
    let zero = graph.constant("zero", Tensor::i8(&[], vec![0]));
    let quantized = graph.node(Op::QuantizeLinear { axis: 1 }, &[&input, &scale, &zero]);
    let output = graph.node(Op::DequantizeLinear { axis: 1 }, &[&quantized, &scale, &zero]);
    graph.set_output(&output, 6);
    let rows = [1.0, 3.0, 5.0, -1.0, -3.0, 7.0];
    let expected = [0.0, 4.0, 4.0, 0.0, -4.0, 8.0];
    assert_eq!(graph.evaluate(&rows, 1).unwrap(), expected);
    assert_eq!(by_engine(&graph, &rows, 1), expected);
}

#[test]
fn weights_dequantized_per_channel_agree() {
    for trans_b in [false, true] {
        compare("per channel", 2.0, 1e-5, |graph, random| {
            let (input, width, outputs) = (input(graph), graph.width, random.random_range(1..40));
            let shape = if trans_b { [outputs, width] } else { [width, outputs] };
            let weights = (0..width * outputs).map(|_| random.random_range(-127..=127)).collect();
            let weights = graph.constant("weights", Tensor::i8(&shape, weights));
            let scales = (0..outputs).map(|_| random.random_range(0.001..0.02)).collect();
            let scales = graph.constant("scales", Tensor::f32(&[outputs], scales));
            let zeros = graph.constant("zeros", Tensor::i8(&[outputs], vec![0; outputs]));
            let axis = if trans_b { 0 } else { 1 };
            let weights = graph.node(Op::DequantizeLinear { axis }, &[&weights, &scales, &zeros]);
            (graph.node(Op::Gemm { alpha: 1.0, beta: 1.0, trans_b }, &[&input, &weights]), outputs)
        });
    }
}

#[test]
fn operands_that_do_not_fit_are_named() {
    let mut graph = Graph::new("wrong", 3);
    let input = input(&graph);
    let row = graph.constant("row", Tensor::f32(&[4], vec![1.0; 4]));
    let output = graph.node(Op::Add, &[&input, &row]);
    graph.set_output(&output, 3);
    let error = graph.evaluate(&[1.0; 3], 1).unwrap_err().to_string();
    assert_eq!(error, "Add (add): shapes [1, 3] and [4] do not broadcast");
    assert!(graph.evaluate(&[1.0; 4], 1).is_err());
}
