//! Puts a package together: manifest, both graphs, view, reference bins, golden cases.

use std::collections::BTreeMap;

use tributary_features::View;
use tributary_inference::{CPU_ENGINE, check_golden};
use tributary_release::{
    DecisionRule, GoldenCase, Graph, GraphEntry, LOWEST_AGENT, Lineage, MANIFEST_FORMAT, Manifest, OUTPUT_REFERENCE,
    OutputBounds, Package, Precision, Probation, Quantization, Requirements, ViewRef,
};
use tributary_stats::Reference;
use tributary_wire::Sha256;

use crate::dataset::{Dataset, Parts};
use crate::error::TrainError;
use crate::graphs::{Runnable, chain};
use crate::result::{QuantizationResult, Scores};
use crate::spec::RunSpec;

/// All that goes into a package.
pub struct Ingredients<'a> {
    /// What was asked.
    pub spec: &'a RunSpec,
    /// Its view, read.
    pub view: &'a View,
    /// The dataset's digest.
    pub dataset_hash: Sha256,
    /// The dataset.
    pub dataset: &'a Dataset,
    /// Its parts.
    pub parts: &'a Parts,
    /// The graph "f32" and its test scores.
    pub f32: (&'a Runnable, Scores),
    /// The graph "int8" and its test scores.
    pub int8: (&'a Runnable, Scores),
    /// Outcome of the limit.
    pub quantization: &'a QuantizationResult,
    /// Outputs of the served graph on the validation rows, then the test rows.
    pub held_out: &'a [f32],
    /// Decision threshold.
    pub threshold: f32,
}

/// Bins per feature: fine enough for drift, small enough to be sent by every device in every window.
const REFERENCE_BINS: usize = 32;
const GOLDEN_CASES: usize = 32;
/// Engines may round differently; where int8 rounds to the next step, an output moves by more than f32 ever would.
const INT8_TOLERANCE: f32 = 0.02;
const F32_TOLERANCE: f32 = 1e-3;
/// What serving takes beside the weights: the engine, feature windows, queues. Like the copies of the weights an estimate,
/// on the safe side: devices add up what packages declare, and do not measure it.
const SERVING_BASE_BYTES: u64 = 16 << 20;
/// How often the weights stand in memory as f32: as read, and packed in each plan that the engine prepares.
const WEIGHT_COPIES: u64 = 4;

/// Assembles the package and proves its golden cases on the device's engine.
pub fn assemble(from: &Ingredients<'_>) -> Result<Package, TrainError> {
    let (spec, quantization) = (from.spec, from.quantization);
    let served = if quantization.passed { &from.int8 } else { &from.f32 };
    let tolerance = if quantization.passed { INT8_TOLERANCE } else { F32_TOLERANCE };
    let decision = DecisionRule { threshold: from.threshold, margin: tolerance };
    let mean = from.held_out.iter().map(|x| f64::from(*x)).sum::<f64>() / from.held_out.len() as f64;
    let entry = |precision, (runnable, scores): &(&Runnable, Scores)| GraphEntry {
        name: runnable.graph.name.clone(),
        precision,
        metrics: BTreeMap::from([
            ("auc_roc".to_owned(), scores.auc_roc),
            ("average_precision".to_owned(), scores.average_precision),
            ("log_loss".to_owned(), scores.log_loss),
        ]),
    };
    let manifest = Manifest {
        format: MANIFEST_FORMAT,
        line: spec.line.clone(),
        version: spec.version,
        created: spec.created,
        serve: served.0.graph.name.clone(),
        graphs: vec![entry(Precision::F32, &from.f32), entry(Precision::Int8, &from.int8)],
        features: from.view.feature_names(),
        view: ViewRef { name: from.view.name().to_owned(), version: from.view.version() },
        decision,
        tolerance,
        output: OutputBounds { low: 0.0, high: 1.0 },
        probation: Probation {
            min_predictions: spec.trial.min_predictions,
            max_error_share: spec.trial.max_error_share,
            max_latency_p99_us: spec.trial.max_latency_p99_us,
            output_mean_low: mean / spec.trial.output_mean_factor,
            output_mean_high: mean * spec.trial.output_mean_factor,
            timeout_s: spec.trial.timeout_s,
        },
        requires: Requirements {
            agent: LOWEST_AGENT.to_owned(),
            operators: served.0.graph.operators(),
            memory_bytes: SERVING_BASE_BYTES + WEIGHT_COPIES * from.f32.0.onnx.len() as u64,
            // On which the golden cases were proven, below.
            engines: vec![CPU_ENGINE.to_owned()],
            view_language: tributary_features::VIEW_LANGUAGE,
        },
        lineage: Lineage { dataset: from.dataset_hash.to_string(), run: spec.run.clone(), seed: spec.seed },
        quantization: Some(Quantization {
            metric: quantization.metric.name().to_owned(),
            accuracy_limit: quantization.accuracy_limit,
            f32_metric: quantization.f32,
            int8_metric: quantization.int8,
            passed: quantization.passed,
            reason: quantization.reason.clone(),
        }),
        members: BTreeMap::new(),
    };
    let graph = |runnable: &Runnable| Graph { name: runnable.graph.name.clone(), onnx: runnable.onnx.clone() };
    let package = Package {
        manifest,
        graphs: vec![graph(from.f32.0), graph(from.int8.0)],
        view_toml: spec.view.clone(),
        reference: references(from),
        golden: golden(from, served.0, decision)?,
    };
    let engine = tributary_inference::load_served(&package).map_err(|error| TrainError::Package(chain(&error)))?;
    check_golden(engine.as_ref(), &package).map_err(|error| TrainError::Package(chain(&error)))?;
    Ok(package)
}

/// Features over all labelled rows: the more days, the better their natural spread is known. Outputs over the held-out
/// rows only: on rows it was trained on, a net is surer than it will ever be again.
fn references(from: &Ingredients<'_>) -> Vec<Reference> {
    let data = from.dataset;
    let days: Vec<i64> = data.times.iter().map(|time| time.day()).collect();
    let column = |at: usize| data.features.iter().skip(at).step_by(data.width).copied().collect::<Vec<_>>();
    let names = from.view.feature_names();
    let features =
        names.iter().enumerate().map(|(at, name)| Reference::build(name, &column(at), &days, REFERENCE_BINS));
    let output =
        Reference::build(OUTPUT_REFERENCE, from.held_out, &days[from.parts.validation.start..], REFERENCE_BINS);
    features.chain([output]).collect()
}

/// Validation rows from the lowest to the highest output, in equal steps of rank, so that both decisions occur.
fn golden(from: &Ingredients<'_>, served: &Runnable, decision: DecisionRule) -> Result<Vec<GoldenCase>, TrainError> {
    let data = from.dataset;
    let first = from.parts.validation.start;
    let mut order: Vec<usize> = (0..from.parts.validation.len()).collect();
    order.sort_by(|a, b| from.held_out[*a].total_cmp(&from.held_out[*b]));
    // Half over all ranks; half over those above the threshold, which are rare.
    let alarms = order.partition_point(|row| !decision.decide(from.held_out[*row]));
    let mut chosen: Vec<usize> = Vec::new();
    for ranks in [&order[..], &order[alarms..]] {
        let last = ranks.len().saturating_sub(1);
        let steps = (GOLDEN_CASES / 2 - 1).min(last);
        let rank = |step: usize| (step * last).checked_div(steps).unwrap_or(0);
        chosen.extend((0..=steps).filter_map(|step| ranks.get(rank(step))));
    }
    chosen.sort_unstable();
    chosen.dedup();
    let case = |row: usize| {
        let features = data.rows(first + row..first + row + 1).to_vec();
        let output = served.predict(&features)?[0];
        Ok(GoldenCase { features, output, decision: decision.decide(output) })
    };
    chosen.into_iter().map(case).collect()
}
