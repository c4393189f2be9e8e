//! From the trained net to a graph that holds everything: preparation, all members, calibration, sigmoid.

use tributary_inference::onnx::{Graph, Op, Tensor};

use crate::calibrate::Calibration;
use crate::mlp::Layer;
use crate::prepare::Preparation;

/// Builds the graph features → probability.
///
/// Members of the net stand side by side: the first layer's weights next to each other, those between hidden layers
/// along the diagonal, the last one's below each other, where calibration and mean over members are folded in.
pub fn graph(name: &str, preparation: &Preparation, layers: &[Vec<Layer>], calibration: Calibration) -> Graph {
    let mut graph = Graph::new(name, preparation.width);
    let mut x = prepare(&mut graph, preparation);
    for (at, members) in layers.iter().enumerate() {
        let last = at + 1 == layers.len();
        let mut layer = if at == 0 { beside(members) } else { diagonal(members) };
        if last {
            layer = mean(&layer, members.len(), calibration);
        }
        let weight = graph.constant("weight", Tensor::f32(&[layer.inputs, layer.outputs], layer.weight));
        let bias = graph.constant("bias", Tensor::f32(&[layer.outputs], layer.bias));
        x = graph.node(Op::Gemm { alpha: 1.0, beta: 1.0, trans_b: false }, &[&x, &weight, &bias]);
        x = graph.node(if last { Op::Sigmoid } else { Op::Relu }, &[&x]);
    }
    graph.set_output(&x, 1);
    graph
}

fn prepare(graph: &mut Graph, preparation: &Preparation) -> String {
    let input = graph.input.clone();
    let mut columns = vec![input.clone()];
    let positive = |graph: &mut Graph, places: &[usize]| {
        let places = graph.constant("columns", Tensor::indices(places.iter().map(|at| *at as i64).collect()));
        let taken = graph.node(Op::Gather { axis: 1 }, &[&input, &places]);
        graph.node(Op::Relu, &[&taken])
    };
    if !preparation.log.is_empty() {
        let taken = positive(graph, &preparation.log);
        let one = graph.constant("one", Tensor::f32(&[1], vec![1.0]));
        let above = graph.node(Op::Add, &[&taken, &one]);
        columns.push(graph.node(Op::Log, &[&above]));
    }
    if !preparation.root.is_empty() {
        let taken = positive(graph, &preparation.root);
        columns.push(graph.node(Op::Sqrt, &[&taken]));
    }
    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
    let all = if let [only] = columns[..] { only.to_owned() } else { graph.node(Op::Concat { axis: 1 }, &columns) };
    let width = preparation.columns();
    let mean = graph.constant("mean", Tensor::f32(&[width], preparation.mean.clone()));
    let scale = graph.constant("scale", Tensor::f32(&[width], preparation.scale.clone()));
    let centred = graph.node(Op::Sub, &[&all, &mean]);
    let scaled = graph.node(Op::Mul, &[&centred, &scale]);
    let low = graph.constant("low", Tensor::scalar(-preparation.clip));
    let high = graph.constant("high", Tensor::scalar(preparation.clip));
    graph.node(Op::Clip, &[&scaled, &low, &high])
}

/// All members read the same inputs.
fn beside(members: &[Layer]) -> Layer {
    let inputs = members[0].inputs;
    let row = |at: usize| members.iter().flat_map(move |m| &m.weight[at * m.outputs..][..m.outputs]);
    Layer {
        inputs,
        outputs: members.iter().map(|m| m.outputs).sum(),
        weight: (0..inputs).flat_map(row).copied().collect(),
        bias: members.iter().flat_map(|m| &m.bias).copied().collect(),
    }
}

/// Each member reads its own inputs.
fn diagonal(members: &[Layer]) -> Layer {
    let inputs: usize = members.iter().map(|m| m.inputs).sum();
    let outputs: usize = members.iter().map(|m| m.outputs).sum();
    let mut weight = vec![0.0; inputs * outputs];
    let (mut row, mut column) = (0, 0);
    for member in members {
        for own in member.weight.chunks_exact(member.outputs) {
            weight[row * outputs + column..][..member.outputs].copy_from_slice(own);
            row += 1;
        }
        column += member.outputs;
    }
    let bias = members.iter().flat_map(|m| &m.bias).copied().collect();
    Layer { inputs, outputs, weight, bias }
}

/// One output: the calibrated mean of the members' logits.
fn mean(layer: &Layer, members: usize, calibration: Calibration) -> Layer {
    let factor = calibration.slope / members as f64;
    let fold = |values: &[f32]| values.iter().map(|x| f64::from(*x)).sum::<f64>() * factor;
    Layer {
        inputs: layer.inputs,
        outputs: 1,
        weight: layer.weight.chunks_exact(layer.outputs).map(|row| fold(row) as f32).collect(),
        bias: vec![(fold(&layer.bias) + calibration.offset) as f32],
    }
}
