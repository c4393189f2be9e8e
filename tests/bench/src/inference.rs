//! One prediction at batch 1 on one thread: the device's engine beside onnxruntime on the same files and inputs.
//!
//! Where the peer is not installed the line says so instead of a figure.

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use tributary_inference::load_cpu;
use tributary_inference::onnx::{Graph, Op, Tensor};
use tributary_inference::quantize::{Options, to_qdq};

use crate::figures::{Spread, count, seconds};
use crate::peer::Python;

const CALLS: usize = 5_000;
const ROWS: usize = 256;
/// The engines take turns, so that a busy moment of the machine does not fall on one of them alone.
const ROUNDS: usize = 3;

const SCRIPT: &str = include_str!("../peers/inference.py");

/// One graph on both engines.
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    /// Which graph, such as `15-64-32-1 int8`.
    pub graph: String,
    /// Bytes of its file.
    pub bytes: usize,
    /// Ours.
    pub ours: Spread,
    /// onnxruntime's, called from Python, with its version.
    pub peer: Option<(String, Spread)>,
    /// Largest difference between both outputs over the same rows.
    pub difference: Option<f32>,
}

/// Times a small and a larger network, f32 and int8.
pub fn measure(python: &Python, folder: &Path) -> anyhow::Result<Vec<Figure>> {
    let python = python.has(&["numpy", "onnxruntime"]).then_some(python);
    let mut figures = Vec::new();
    for hidden in [[64, 32], [256, 128]] {
        let (name, graph, rows) = network(15, hidden);
        let int8 = to_qdq(&graph, &rows, ROWS, &Options::default())?;
        for (precision, graph) in [("f32", graph), ("int8", int8)] {
            figures.push(figure(&format!("{name} {precision}"), &graph, &rows, python, folder)?);
        }
    }
    Ok(figures)
}

/// As a table.
pub fn table(figures: &[Figure]) -> String {
    let mut text = format!(
        "one prediction, batch 1, one thread, {} calls\n{:<18} {:>8} {:>10} {:>10} {:>10}   {:<22} {:>10} {:>10} {:>8} {:>11}\n",
        count((CALLS * ROUNDS) as f64),
        "graph",
        "bytes",
        "min",
        "p50",
        "p99",
        "peer",
        "min",
        "p50",
        "ours by",
        "difference"
    );
    for Figure { graph, bytes, ours, peer, difference } in figures {
        let [min, p50, p99] = [ours.min, ours.p50, ours.p99].map(seconds);
        text += &format!("{graph:<18} {bytes:>8} {min:>10} {p50:>10} {p99:>10}   ");
        match peer {
            Some((name, peer)) => {
                let [min, p50] = [peer.min, peer.p50].map(seconds);
                let (ratio, difference) = (peer.p50 / ours.p50, difference.unwrap_or(f32::NAN));
                text += &format!("{name:<22} {min:>10} {p50:>10} {ratio:>7.1}x {difference:>11.1e}\n");
            }
            None => text += "onnxruntime is not installed\n",
        }
    }
    text
}

fn figure(name: &str, graph: &Graph, rows: &[f32], python: Option<&Python>, folder: &Path) -> anyhow::Result<Figure> {
    let onnx = graph.to_bytes()?;
    let engine = load_cpu(&onnx, graph.width)?;
    let mut all = Vec::new();
    engine.predict(rows, ROWS, &mut all)?;
    fs::write(folder.join("graph.onnx"), &onnx)?;
    fs::write(folder.join("rows"), rows.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>())?;
    let mut ours = Vec::with_capacity(CALLS * ROUNDS);
    let (mut version, mut theirs, mut difference) = (String::new(), Vec::new(), None);
    for _ in 0..ROUNDS {
        let mut out = Vec::new();
        for call in 0..CALLS {
            let row = &rows[call % ROWS * graph.width..][..graph.width];
            let start = Instant::now();
            engine.predict(row, 1, &mut out)?;
            ours.push(start.elapsed().as_secs_f64());
        }
        let Some(python) = python else { continue };
        let (answer, outputs) = ask(python, folder, graph.width)?;
        difference = Some(all.iter().zip(&outputs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max));
        theirs.extend(answer.nanoseconds.into_iter().map(|time| time / 1e9));
        version = answer.version;
    }
    let ours = Spread::of(ours).context("no call was made")?;
    let peer = Spread::of(theirs).map(|spread| (format!("onnxruntime {version}"), spread));
    Ok(Figure { graph: name.to_owned(), bytes: onnx.len(), ours, peer, difference })
}

#[derive(Deserialize)]
struct Answer {
    version: String,
    nanoseconds: Vec<f64>,
}

/// The peer's times and its outputs.
fn ask(python: &Python, folder: &Path, width: usize) -> anyhow::Result<(Answer, Vec<f32>)> {
    let [graph, rows, out] = ["graph.onnx", "rows", "out"].map(|name| folder.join(name).display().to_string());
    let answer = python.run(SCRIPT, &[&graph, &rows, &out, &width.to_string(), &CALLS.to_string()])?;
    let outputs = fs::read(out).context("the peer's outputs")?;
    Ok((answer, outputs.as_chunks().0.iter().map(|chunk| f32::from_le_bytes(*chunk)).collect()))
}

/// A network over standardised features with fixed pseudo-random weights, and rows for it.
fn network(width: usize, hidden: [usize; 2]) -> (String, Graph, Vec<f32>) {
    let mut state = 1u64;
    let mut next = |reach: f32| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32 / (1u64 << 24) as f32 - 0.5) * 2.0 * reach
    };
    let mut graph = Graph::new("network", width);
    let mean = graph.constant("mean", Tensor::f32(&[width], (0..width).map(|_| next(1.0)).collect()));
    let mut value = graph.node(Op::Sub, &["features", &mean]);
    let sizes = [width, hidden[0], hidden[1], 1];
    for pair in sizes.windows(2) {
        let reach = (3.0 / pair[0] as f32).sqrt();
        let weights = (0..pair[0] * pair[1]).map(|_| next(reach)).collect();
        let weights = graph.constant("weights", Tensor::f32(&[pair[0], pair[1]], weights));
        let bias = graph.constant("bias", Tensor::f32(&[pair[1]], (0..pair[1]).map(|_| next(0.1)).collect()));
        value = graph.node(Op::Gemm { alpha: 1.0, beta: 1.0, trans_b: false }, &[&value, &weights, &bias]);
        value = graph.node(if pair[1] == 1 { Op::Sigmoid } else { Op::Relu }, &[&value]);
    }
    graph.set_output(&value, 1);
    let rows = (0..ROWS * width).map(|_| next(3.0)).collect();
    (format!("{width}-{}-{}-1", hidden[0], hidden[1]), graph, rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_graphs_of_a_network_run_and_nearly_agree() {
        let (_, graph, rows) = network(15, [8, 4]);
        let int8 = to_qdq(&graph, &rows, ROWS, &Options::default()).unwrap();
        let outputs = [graph, int8].map(|graph| {
            let mut out = Vec::new();
            load_cpu(&graph.to_bytes().unwrap(), graph.width).unwrap().predict(&rows, ROWS, &mut out).unwrap();
            out
        });
        assert!(outputs[0].iter().zip(&outputs[1]).all(|(a, b)| (a - b).abs() < 0.1));
    }

    #[test]
    fn a_missing_peer_leaves_its_place_empty() {
        let ours = Spread::of([1e-5]).unwrap();
        let figure = Figure { graph: "15-8-1 f32".to_owned(), bytes: 10, ours, peer: None, difference: None };
        assert!(table(&[figure]).contains("onnxruntime is not installed"));
    }
}
