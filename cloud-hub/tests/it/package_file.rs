//! A package that passes every check of the registry.

use std::collections::BTreeMap;

use tributary_release::{
    DecisionRule, GoldenCase, Graph, GraphEntry, Lineage, MANIFEST_FORMAT, Manifest, OUTPUT_REFERENCE, OutputBounds,
    Package, Precision, Probation, Requirements, ViewRef,
};
use tributary_stats::Reference;
use tributary_wire::{LineName, Micros, VersionNumber};

/// A package file of line `card-fraud` that verifies; its graph is never run here.
pub fn package(line: &str, version: u32) -> Vec<u8> {
    let view = tributary_features::View::from_toml(tributary_fraud::VIEW_TOML).unwrap();
    let values: Vec<f32> = (0..40).map(|i| i as f32).collect();
    let features = view.feature_names();
    let names = features.iter().map(String::as_str).chain([OUTPUT_REFERENCE]);
    let reference = names.map(|name| Reference::build(name, &values, &[], 4)).collect();
    let width = features.len();
    let package = Package {
        manifest: Manifest {
            format: MANIFEST_FORMAT,
            line: LineName::new(line).unwrap(),
            version: VersionNumber(version),
            created: Micros(1_700_000_000_000_000),
            serve: "f32".to_owned(),
            graphs: vec![GraphEntry {
                name: "f32".to_owned(),
                precision: Precision::F32,
                metrics: BTreeMap::from([("auc".to_owned(), 0.875)]),
            }],
            features,
            view: ViewRef { name: "card-risk".to_owned(), version: 1 },
            decision: DecisionRule { threshold: 0.5, margin: 0.01 },
            tolerance: 0.01,
            output: OutputBounds { low: 0.0, high: 1.0 },
            probation: Probation {
                min_predictions: 100,
                max_error_share: 0.01,
                max_latency_p99_us: 50_000,
                output_mean_low: 0.0,
                output_mean_high: 0.5,
                timeout_s: 600,
            },
            requires: Requirements {
                memory_bytes: 1 << 20,
                operators: vec!["Sigmoid".to_owned()],
                ..Requirements::default()
            },
            lineage: Lineage { dataset: "d".to_owned(), run: "r".to_owned(), seed: 7 },
            quantization: None,
            members: BTreeMap::new(),
        },
        graphs: vec![Graph { name: "f32".to_owned(), onnx: graph(width) }],
        view_toml: tributary_fraud::VIEW_TOML.to_owned(),
        reference,
        golden: vec![GoldenCase { features: vec![1.0; width], output: 0.25, decision: false }],
    };
    package.write().unwrap()
}

/// A graph of some size.
fn graph(width: usize) -> Vec<u8> {
    let mut graph = tributary_inference::onnx::Graph::new("f32", width);
    let weights = (0..25_000u32).map(|i| (i * 31 % 256) as f32).collect();
    graph.constant("weights", tributary_inference::onnx::Tensor::f32(&[25_000], weights));
    let output = graph.node(tributary_inference::onnx::Op::Sigmoid, &["features"]);
    graph.set_output(&output, width);
    graph.to_bytes().unwrap()
}
