//! Every operator that the exporter writes gives in the device's engine what it gives in burn, and so does a whole net.

use burn::tensor::activation::{relu, sigmoid};
use burn::tensor::{Device, Int, Tensor, TensorData};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tributary_inference::load_cpu;
use tributary_inference::onnx::{self, Data, Graph, Op};

use crate::calibrate::Calibration;
use crate::export;
use crate::mlp::Mlp;
use crate::prepare::Preparation;
use crate::spec::Bend;

const WIDTH: usize = 5;
const ROWS: usize = 75;

/// Runs a graph in burn, node by node.
fn in_burn(graph: &Graph, rows: &[f32]) -> Vec<f32> {
    let device = Device::flex();
    let tensor =
        |values: &[f32], shape: [usize; 2]| Tensor::<2>::from_data(TensorData::new(values.to_vec(), shape), &device);
    let mut made = vec![(graph.input.clone(), tensor(rows, [rows.len() / graph.width, graph.width]))];
    for node in &graph.nodes {
        let constant = |name: &str| {
            graph.initializer(name).map(|constant| {
                let shape = match constant.shape[..] {
                    [] => [1, 1],
                    [columns] => [1, columns],
                    [rows, columns] => [rows, columns],
                    _ => panic!("{constant:?}"),
                };
                tensor(constant.as_f32().unwrap(), shape)
            })
        };
        let at = |place: usize| {
            let name = &node.inputs[place];
            let value = || made.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
            value().or_else(|| constant(name)).unwrap()
        };
        let scalar = |place: usize| at(place).into_scalar::<f32>();
        let value = match &node.op {
            Op::Gemm { alpha: 1.0, beta: 1.0, trans_b: false } => at(0).matmul(at(1)) + at(2),
            Op::Add => at(0) + at(1),
            Op::Sub => at(0) - at(1),
            Op::Mul => at(0) * at(1),
            Op::Relu => relu(at(0)),
            Op::Sigmoid => sigmoid(at(0)),
            Op::Log => at(0).log(),
            Op::Sqrt => at(0).sqrt(),
            Op::Clip => at(0).clamp(scalar(1), scalar(2)),
            Op::Concat { axis: 1 } => Tensor::cat((0..node.inputs.len()).map(at).collect(), 1),
            Op::Gather { axis: 1 } => {
                let Some(Data::I64(places)) = graph.initializer(&node.inputs[1]).map(|it| &it.data) else { panic!() };
                let places = TensorData::new(places.clone(), [places.len()]);
                at(0).select(1, Tensor::<1, Int>::from_data(places, &device))
            }
            other => panic!("the exporter writes {}, which has no counterpart here", other.name()),
        };
        made.push((node.output.clone(), value));
    }
    let (_, output) = made.into_iter().find(|(name, _)| *name == graph.output).unwrap();
    output.into_data().try_to_vec().unwrap()
}

fn numbers(count: usize, low: f32, high: f32, seed: u64) -> Vec<f32> {
    let mut rng = StdRng::seed_from_u64(seed);
    (0..count).map(|_| rng.random_range(low..high)).collect()
}

fn assert_equal(graph: &Graph, rows: &[f32], tolerance: f32) {
    let engine = load_cpu(&graph.to_bytes().unwrap(), graph.width).unwrap();
    let mut served = Vec::new();
    engine.predict(rows, rows.len() / graph.width, &mut served).unwrap();
    let trained = in_burn(graph, rows);
    assert_eq!(trained.len(), served.len());
    for (place, (trained, served)) in trained.iter().zip(&served).enumerate() {
        let close = (trained - served).abs() <= tolerance * trained.abs().max(1.0);
        assert!(close, "{}: value {place} is {trained} in burn, {served} in the engine", graph.name);
    }
}

/// A graph of one node over the input and constants.
fn single(op: Op, constants: Vec<onnx::Tensor>, outputs: usize) -> Graph {
    let mut graph = Graph::new(op.name(), WIDTH);
    let mut inputs = vec![graph.input.clone()];
    for constant in constants {
        inputs.push(graph.constant("constant", constant));
    }
    let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
    let output = graph.node(op, &inputs);
    graph.set_output(&output, outputs);
    graph
}

fn row(seed: u64) -> onnx::Tensor {
    onnx::Tensor::f32(&[WIDTH], numbers(WIDTH, -2.0, 2.0, seed))
}

/// Every operator the exporter uses, alone.
fn singles() -> Vec<(Graph, [f32; 2])> {
    let weight = onnx::Tensor::f32(&[WIDTH, 7], numbers(WIDTH * 7, -1.0, 1.0, 1));
    let bias = onnx::Tensor::f32(&[7], numbers(7, -1.0, 1.0, 2));
    let bounds = vec![onnx::Tensor::scalar(-1.5), onnx::Tensor::scalar(2.0)];
    let wide = [-6.0, 6.0];
    let mut concat = Graph::new("Concat", WIDTH);
    let input = concat.input.clone();
    let output = concat.node(Op::Concat { axis: 1 }, &[&input, &input]);
    concat.set_output(&output, 2 * WIDTH);
    vec![
        (single(Op::Gemm { alpha: 1.0, beta: 1.0, trans_b: false }, vec![weight, bias], 7), wide),
        (single(Op::Add, vec![row(3)], WIDTH), wide),
        (single(Op::Sub, vec![row(4)], WIDTH), wide),
        (single(Op::Mul, vec![row(5)], WIDTH), wide),
        (single(Op::Relu, vec![], WIDTH), wide),
        (single(Op::Sigmoid, vec![], WIDTH), [-30.0, 30.0]),
        (single(Op::Log, vec![], WIDTH), [1.0, 1e4]),
        (single(Op::Sqrt, vec![], WIDTH), [0.0, 1.0]),
        (single(Op::Clip, bounds, WIDTH), wide),
        (single(Op::Gather { axis: 1 }, vec![onnx::Tensor::indices(vec![3, 0, 4])], 3), wide),
        (concat, wide),
    ]
}

#[test]
fn each_exported_operator_is_equal_in_burn_and_in_the_engine() {
    for (seed, (graph, [low, high])) in (10..).zip(singles()) {
        assert_equal(&graph, &numbers(ROWS * WIDTH, low, high, seed), 2e-6);
    }
}

fn whole() -> (Graph, Preparation, Mlp, Calibration, Vec<f32>) {
    let rows: Vec<f32> = numbers(ROWS * WIDTH, 0.0, 1.0, 30)
        .chunks_exact(WIDTH)
        .flat_map(|x| [x[0] * 9.0 - 4.0, x[1].powi(9) * 500.0, x[2].powi(7), x[3].round(), 3.0])
        .collect();
    let names: Vec<String> = (0..WIDTH).map(|at| format!("feature_{at}")).collect();
    let preparation = Preparation::fit(&rows, &names, &Bend::Skewed, 4.0).unwrap();
    assert_eq!((&preparation.log[..], &preparation.root[..]), (&[1][..], &[2][..]));
    let net = Mlp::new(preparation.columns(), &[11, 6], 3, 0.3, -2.0, 5, &Device::flex());
    let calibration = Calibration { slope: 0.7, offset: -0.4 };
    let graph = export::graph("whole", &preparation, &net.layers(), calibration);
    (graph, preparation, net, calibration, rows)
}

#[test]
fn a_whole_exported_net_is_equal_in_burn_and_in_the_engine() {
    let (graph, .., rows) = whole();
    assert_equal(&graph, &rows, 1e-5);
    let tested: Vec<_> = singles().iter().flat_map(|(graph, _)| graph.operators()).collect();
    for operator in graph.operators() {
        assert!(tested.contains(&operator), "{operator} is exported, yet not tested alone");
    }
}

#[test]
fn folding_members_and_calibration_into_the_graph_changes_nothing() {
    let (graph, preparation, net, calibration, rows) = whole();
    let device = Device::flex();
    let input = Tensor::<2>::from_data(TensorData::new(rows.clone(), [ROWS, WIDTH]), &device);
    let logits = net.mean_logits(preparation.apply(input, &device));
    for (logit, output) in logits.iter().zip(in_burn(&graph, &rows)) {
        assert!((calibration.probability(*logit) - f64::from(output)).abs() < 1e-5);
    }
}
