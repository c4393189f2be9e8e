//! Small real packages for any view.

use std::collections::BTreeMap;

use tributary_features::View;
use tributary_inference::onnx::{Graph, Op, Tensor};
use tributary_release::{
    DecisionRule, GoldenCase, GraphEntry, Lineage, MANIFEST_FORMAT, Manifest, OUTPUT_REFERENCE, OutputBounds, Package,
    Precision, Probation, Requirements, ViewRef,
};
use tributary_stats::Reference;
use tributary_wire::{LineName, Micros, VersionNumber};

/// What makes one package another than the next.
pub(crate) struct Recipe<'a> {
    /// Its line.
    pub(crate) line: LineName,
    /// Its number.
    pub(crate) version: u32,
    /// When it says that it was made.
    pub(crate) created: Micros,
    /// The view whose features its graph takes.
    pub(crate) view: &'a View,
    /// What the graph multiplies each feature with.
    pub(crate) weight: f32,
    /// How far its golden cases are from what it gives.
    pub(crate) wrong: f32,
    /// What its trial is measured by.
    pub(crate) probation: Probation,
}

impl Recipe<'_> {
    /// The package file.
    pub(crate) fn make(self) -> Vec<u8> {
        let Self { line, version, created, view, weight, wrong, probation } = self;
        let features = view.feature_names();
        let width = features.len();
        let mut graph = Graph::new("graph", width);
        let weights = graph.constant("w", Tensor::f32(&[1, width], vec![weight; width]));
        let bias = graph.constant("b", Tensor::f32(&[1], vec![0.0]));
        let input = graph.input.clone();
        let sum = graph.node(Op::Gemm { alpha: 1.0, beta: 1.0, trans_b: true }, &[&input, &weights, &bias]);
        let output = graph.node(Op::Sigmoid, &[&sum]);
        graph.set_output(&output, 1);
        let values = [1.0, 40.0];
        let rows: Vec<f32> = values.iter().flat_map(|value| vec![*value; width]).collect();
        let decision = DecisionRule { threshold: 0.5, margin: 0.01 };
        let outputs = graph.evaluate(&rows, values.len()).expect("two rows");
        let golden = values.iter().zip(&outputs).map(|(value, output)| GoldenCase {
            features: vec![*value; width],
            output: output - wrong,
            decision: decision.decide(output - wrong),
        });
        let names = features.iter().map(String::as_str).chain([OUTPUT_REFERENCE]);
        let package = Package {
            reference: names.map(|name| Reference::build(name, &values, &[], 4)).collect(),
            graphs: vec![tributary_release::Graph { name: "f32".into(), onnx: graph.to_bytes().expect("a graph") }],
            view_toml: view.source().into(),
            golden: golden.collect(),
            manifest: Manifest {
                format: MANIFEST_FORMAT,
                line,
                version: VersionNumber(version),
                created,
                serve: "f32".into(),
                graphs: vec![GraphEntry { name: "f32".into(), precision: Precision::F32, metrics: BTreeMap::new() }],
                features: features.clone(),
                view: ViewRef { name: view.name().into(), version: view.version() },
                decision,
                tolerance: 1e-4,
                output: OutputBounds { low: 0.0, high: 1.0 },
                probation,
                requires: Requirements { operators: graph.operators(), ..Requirements::default() },
                lineage: Lineage { dataset: String::new(), run: String::new(), seed: 0 },
                quantization: None,
                members: BTreeMap::new(),
            },
        };
        package.write().expect("a package")
    }
}
