//! Random rows, a small network, and a package around it.

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tributary_inference::load_cpu;
use tributary_inference::onnx::{Graph, Op, Tensor};
use tributary_release::{
    DecisionRule, GoldenCase, GraphEntry, Lineage, MANIFEST_FORMAT, Manifest, OUTPUT_REFERENCE, OutputBounds, Package,
    Precision, Probation, Requirements, ViewRef,
};
use tributary_stats::Reference;
use tributary_wire::{LineName, Micros, VersionNumber};

pub const WIDTH: usize = 4;

pub fn random(seed: u64) -> SmallRng {
    SmallRng::seed_from_u64(seed)
}

pub fn values(random: &mut SmallRng, count: usize, reach: f32) -> Vec<f32> {
    (0..count).map(|_| random.random_range(-reach..reach)).collect()
}

/// What tract gives, batch sizes included.
pub fn by_engine(graph: &Graph, rows: &[f32], n: usize) -> Vec<f32> {
    let engine = load_cpu(&graph.to_bytes().unwrap(), graph.width).unwrap();
    let mut out = Vec::new();
    engine.predict(rows, n, &mut out).unwrap();
    out
}

pub fn assert_close(found: &[f32], expected: &[f32], tolerance: f32, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (place, (found, expected)) in found.iter().zip(expected).enumerate() {
        let near = (found - expected).abs() <= tolerance * expected.abs().max(1.0);
        assert!(near || found == expected, "{what}: value {place} is {found}, expected {expected}");
    }
}

/// Standardisation, two hidden layers, one output between 0 and 1.
pub fn network(seed: u64, width: usize, hidden: usize) -> Graph {
    let mut random = random(seed);
    let mut graph = Graph::new("network", width);
    let mean = graph.constant("mean", Tensor::f32(&[width], values(&mut random, width, 1.0)));
    let deviation: Vec<f32> = (0..width).map(|_| random.random_range(0.5..2.0)).collect();
    let deviation = graph.constant("deviation", Tensor::f32(&[width], deviation));
    let input = graph.input.clone();
    let centred = graph.node(Op::Sub, &[&input, &mean]);
    let mut value = graph.node(Op::Div, &[&centred, &deviation]);
    for (layer, (from, to)) in [(width, hidden), (hidden, hidden), (hidden, 1)].into_iter().enumerate() {
        let reach = (3.0 / from as f32).sqrt();
        let weights = Tensor::f32(&[to, from], values(&mut random, from * to, reach));
        let weights = graph.constant(&format!("w{layer}"), weights);
        let bias = graph.constant(&format!("b{layer}"), Tensor::f32(&[to], values(&mut random, to, 0.2)));
        value = graph.node(Op::Gemm { alpha: 1.0, beta: 1.0, trans_b: true }, &[&value, &weights, &bias]);
        value = graph.node(if to == 1 { Op::Sigmoid } else { Op::Relu }, &[&value]);
    }
    graph.set_output(&value, 1);
    graph
}

/// A package that serves `graph` as it is; golden cases come from `rows`.
pub fn package(graph: &Graph, rows: &[f32]) -> Package {
    let onnx = graph.to_bytes().unwrap();
    let decision = DecisionRule { threshold: 0.5, margin: 0.01 };
    let outputs = graph.evaluate(rows, rows.len() / graph.width).unwrap();
    let golden = rows.chunks(graph.width).zip(&outputs).map(|(features, &output)| GoldenCase {
        features: features.to_vec(),
        output,
        decision: decision.decide(output),
    });
    let features: Vec<String> = (0..graph.width).map(|i| format!("f{i}")).collect();
    let fields: String = features
        .iter()
        .map(|name| {
            format!(
                "[[value]]\nname = \"{name}\"\nkind = \"double\"\n[[feature]]\nname = \"{name}\"\nkind = \"value\"\nvalue = \"{name}\"\n"
            )
        })
        .collect();
    let names = features.iter().map(String::as_str).chain([OUTPUT_REFERENCE]);
    Package {
        reference: names.map(|name| Reference::build(name, rows, &[], 4)).collect(),
        graphs: vec![tributary_release::Graph { name: "f32".to_owned(), onnx }],
        view_toml: format!("name = \"view\"\nversion = 1\n{fields}"),
        golden: golden.collect(),
        manifest: Manifest {
            format: MANIFEST_FORMAT,
            line: LineName::new("line").unwrap(),
            version: VersionNumber(1),
            created: Micros(0),
            serve: "f32".to_owned(),
            graphs: vec![GraphEntry { name: "f32".to_owned(), precision: Precision::F32, metrics: BTreeMap::new() }],
            features,
            view: ViewRef { name: "view".to_owned(), version: 1 },
            decision,
            tolerance: 1e-4,
            output: OutputBounds { low: 0.0, high: 1.0 },
            probation: Probation {
                min_predictions: 1,
                max_error_share: 0.0,
                max_latency_p99_us: 1000,
                output_mean_low: 0.0,
                output_mean_high: 1.0,
                timeout_s: 1,
            },
            requires: Requirements { operators: graph.operators(), ..Requirements::default() },
            lineage: Lineage { dataset: String::new(), run: String::new(), seed: 0 },
            quantization: None,
            members: BTreeMap::new(),
        },
    }
}

/// Which operators a graph uses.
pub fn operators(graph: &Graph) -> BTreeSet<String> {
    graph.operators().into_iter().collect()
}
