//! A small package that devices really run: over the fraud system's view, `sigmoid` of a weight and the amount.

use std::collections::BTreeMap;

use tributary_inference::onnx::{Graph, Op, Tensor};
use tributary_release::{
    DecisionRule, GoldenCase, GraphEntry, Lineage, MANIFEST_FORMAT, Manifest, OUTPUT_REFERENCE, OutputBounds, Package,
    Precision, Probation, Requirements, ViewRef,
};
use tributary_stats::Reference;
use tributary_wire::{LineName, Micros, VersionNumber};

/// Width of its middle layer: what gives the file some length.
const HIDDEN: usize = 2048;

/// Such a package of the line `card-fraud`.
pub fn package(version: u32) -> Vec<u8> {
    with(version, HIDDEN, &|at| ((at * 31 + version as usize * 7) % 97) as f32 * 1e-6)
}

/// One with a middle layer of this width and with these weights.
pub fn with(version: u32, hidden: usize, weight: &dyn Fn(usize) -> f32) -> Vec<u8> {
    let view = tributary_features::View::from_toml(tributary_fraud::VIEW_TOML).unwrap();
    let features = view.feature_names();
    let width = features.len();
    let mut graph = Graph::new("graph", width);
    let first = Tensor::f32(&[hidden, width], (0..hidden * width).map(weight).collect());
    let second = Tensor::f32(&[1, hidden], (0..hidden).map(weight).collect());
    let mut value = graph.input.clone();
    for (name, weights, outputs) in [("first", first, hidden), ("second", second, 1)] {
        let weights = graph.constant(name, weights);
        let bias = graph.constant("bias", Tensor::f32(&[outputs], vec![0.0; outputs]));
        value = graph.node(Op::Gemm { alpha: 1.0, beta: 1.0, trans_b: true }, &[&value, &weights, &bias]);
    }
    let output = graph.node(Op::Sigmoid, &[&value]);
    graph.set_output(&output, 1);
    let rows: Vec<f32> = (0..2 * width).map(|at| at as f32).collect();
    let decision = DecisionRule { threshold: 0.9, margin: 0.01 };
    let outputs = graph.evaluate(&rows, 2).unwrap();
    let golden = rows.chunks(width).zip(&outputs).map(|(features, &output)| GoldenCase {
        features: features.to_vec(),
        output,
        decision: decision.decide(output),
    });
    let names = features.iter().map(String::as_str).chain([OUTPUT_REFERENCE]);
    let package = Package {
        reference: names.map(|name| Reference::build(name, &rows, &[], 4)).collect(),
        graphs: vec![tributary_release::Graph { name: "f32".into(), onnx: graph.to_bytes().unwrap() }],
        view_toml: view.source().into(),
        golden: golden.collect(),
        manifest: Manifest {
            format: MANIFEST_FORMAT,
            line: LineName::new("card-fraud").unwrap(),
            version: VersionNumber(version),
            created: Micros(1_700_000_000_000_000),
            serve: "f32".into(),
            graphs: vec![GraphEntry { name: "f32".into(), precision: Precision::F32, metrics: BTreeMap::new() }],
            features: features.clone(),
            view: ViewRef { name: view.name().into(), version: view.version() },
            decision,
            tolerance: 1e-3,
            output: OutputBounds { low: 0.0, high: 1.0 },
            probation: Probation {
                min_predictions: 20,
                max_error_share: 0.0,
                max_latency_p99_us: 60_000_000,
                output_mean_low: 0.0,
                output_mean_high: 1.0,
                timeout_s: 600,
            },
            requires: Requirements { operators: graph.operators(), ..Requirements::default() },
            lineage: Lineage { dataset: String::new(), run: String::new(), seed: 0 },
            quantization: None,
            members: BTreeMap::new(),
        },
    };
    package.write().unwrap()
}
