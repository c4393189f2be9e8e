//! One prediction at batch 1 on one thread: the device's engine beside onnxruntime on the same files and inputs.
//!
//! The peer is asked for through `python3`; where it is not installed the line says so instead of a figure.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context;
use tributary_inference::load_cpu;
use tributary_inference::onnx::{Graph, Op, Tensor};
use tributary_inference::quantize::{Options, to_qdq};

const CALLS: usize = 5_000;
const ROWS: usize = 256;
/// The engines take turns, so that a busy moment of the machine does not fall on one of them alone.
const ROUNDS: usize = 3;

/// Medians of one graph.
#[derive(Debug, serde::Serialize)]
pub struct Figure {
    /// Which graph, such as `15-64-32-1 int8`.
    pub graph: String,
    /// Bytes of its file.
    pub bytes: usize,
    /// The engine's median, microseconds.
    pub ours_us: f64,
    /// onnxruntime's median, microseconds, called from Python.
    pub peer_us: Option<f64>,
    /// Largest difference between both outputs over the same rows.
    pub difference: Option<f32>,
}

const PEER: &str = r#"
import sys, time, numpy as np, onnxruntime as ort
graph, rows, out, width, calls = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
options = ort.SessionOptions()
options.intra_op_num_threads = 1
options.inter_op_num_threads = 1
session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
x = np.fromfile(rows, np.float32).reshape(-1, width)
session.run(None, {"features": x})[0].astype(np.float32).tofile(out)
times = []
for i in range(calls):
    row = x[i % len(x):i % len(x) + 1]
    start = time.perf_counter_ns()
    session.run(None, {"features": row})
    times.append(time.perf_counter_ns() - start)
print(sorted(times)[calls // 2] / 1000)
"#;

/// Times a small and a larger network, f32 and int8.
pub fn measure() -> anyhow::Result<Vec<Figure>> {
    let folder = std::env::temp_dir().join(format!("tributary-bench-{}", std::process::id()));
    fs::create_dir_all(&folder).context("make a folder for the graphs")?;
    let mut figures = Vec::new();
    for hidden in [[64, 32], [256, 128]] {
        let (name, graph, rows) = network(15, hidden);
        let int8 = to_qdq(&graph, &rows, ROWS, &Options::default())?;
        for (precision, graph) in [("f32", graph), ("int8", int8)] {
            figures.push(figure(&format!("{name} {precision}"), &graph, &rows, &folder)?);
        }
    }
    fs::remove_dir_all(&folder).context("remove the graphs")?;
    Ok(figures)
}

/// As a table.
pub fn table(figures: &[Figure]) -> String {
    let mut table =
        format!("{:<18} {:>9} {:>10} {:>16} {:>12}\n", "graph", "bytes", "ours us", "onnxruntime us", "difference");
    for figure in figures {
        let peer = figure.peer_us.map_or("not installed".to_owned(), |us| format!("{us:.1}"));
        let difference = figure.difference.map_or(String::new(), |difference| format!("{difference:.1e}"));
        let Figure { graph, bytes, ours_us, .. } = figure;
        table += &format!("{graph:<18} {bytes:>9} {ours_us:>10.1} {peer:>16} {difference:>12}\n");
    }
    table
}

fn figure(name: &str, graph: &Graph, rows: &[f32], folder: &Path) -> anyhow::Result<Figure> {
    let onnx = graph.to_bytes()?;
    let engine = load_cpu(&onnx, graph.width)?;
    let mut all = Vec::new();
    engine.predict(rows, ROWS, &mut all)?;
    fs::write(folder.join("graph.onnx"), &onnx)?;
    fs::write(folder.join("rows"), rows.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>())?;
    let (mut ours, mut peer, mut difference) = (Duration::MAX, None::<f64>, None);
    for _ in 0..ROUNDS {
        let mut out = Vec::new();
        let mut times = Vec::with_capacity(CALLS);
        for call in 0..CALLS {
            let row = &rows[call % ROWS * graph.width..][..graph.width];
            let start = Instant::now();
            engine.predict(row, 1, &mut out)?;
            times.push(start.elapsed());
        }
        times.sort_unstable();
        ours = ours.min(times[CALLS / 2]);
        if let Some((us, outputs)) = ask_peer(folder, graph.width) {
            peer = Some(peer.map_or(us, |best| best.min(us)));
            let largest = all.iter().zip(&outputs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            difference = Some(largest);
        }
    }
    let ours_us = ours.as_secs_f64() * 1e6;
    Ok(Figure { graph: name.to_owned(), bytes: onnx.len(), ours_us, peer_us: peer, difference })
}

/// The peer's median and its outputs; nothing when it is not installed.
fn ask_peer(folder: &Path, width: usize) -> Option<(f64, Vec<f32>)> {
    let [graph, rows, out] = ["graph.onnx", "rows", "out"].map(|name| folder.join(name));
    let mut command = Command::new("python3");
    command.arg("-c").arg(PEER).args([&graph, &rows, &out]).args([width.to_string(), CALLS.to_string()]);
    let done = command.output().ok().filter(|done| done.status.success())?;
    let median = String::from_utf8(done.stdout).ok()?.trim().parse().ok()?;
    let outputs = fs::read(out).ok()?;
    Some((median, outputs.as_chunks().0.iter().map(|chunk| f32::from_le_bytes(*chunk)).collect()))
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
