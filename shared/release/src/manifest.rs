//! What a package says about itself, as JSON that a person can read.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use tributary_wire::{LineName, Micros, Sha256, VersionNumber};

use crate::agent_version::required_version;

/// The format this build writes and the highest it reads.
pub const MANIFEST_FORMAT: u32 = 1;

/// `manifest.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Always [`MANIFEST_FORMAT`].
    pub format: u32,
    /// The model line.
    pub line: LineName,
    /// The version within its line.
    pub version: VersionNumber,
    /// When it was made, UTC microseconds.
    pub created: Micros,
    /// Name of the graph that devices run; the others are for comparison.
    pub serve: String,
    /// The graphs in the package.
    pub graphs: Vec<GraphEntry>,
    /// Names of the inputs, in the order of the graph's columns.
    pub features: Vec<String>,
    /// The feature view that makes them.
    pub view: ViewRef,
    /// How an output becomes a decision.
    pub decision: DecisionRule,
    /// How far an engine's output may lie from a golden case.
    pub tolerance: f32,
    /// Outputs outside are errors, whatever the decision.
    pub output: OutputBounds,
    /// What a trial has to show before the package is committed.
    pub probation: Probation,
    /// What the package needs from a device.
    pub requires: Requirements,
    /// Where it came from.
    pub lineage: Lineage,
    /// What quantisation cost, and whether that was within the limit.
    pub quantization: Option<Quantization>,
    /// Hash of every other member of the file. Filled in when the package is written.
    #[serde(default)]
    pub members: BTreeMap<String, Sha256>,
}

/// One graph of a package; its bytes are the member `graphs/<name>.onnx`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GraphEntry {
    /// Unique within the package, such as `int8`.
    pub name: String,
    /// How its weights are stored.
    pub precision: Precision,
    /// What it scored in evaluation, by name of the metric.
    pub metrics: BTreeMap<String, f64>,
}

/// How a graph's weights are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit floating point.
    F32,
    /// 8-bit integers with scales (QDQ).
    Int8,
}

/// The feature view embedded in the package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ViewRef {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: u32,
}

/// How an output becomes a decision.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecisionRule {
    /// The decision is yes at or above this output.
    pub threshold: f32,
    /// Two engines may decide differently when the output lies this close to the threshold.
    pub margin: f32,
}

impl DecisionRule {
    /// The decision for an output; not a number is a no.
    pub fn decide(&self, output: f32) -> bool {
        output >= self.threshold
    }

    /// Whether two engines must agree on the decision for this output.
    pub fn is_clear(&self, output: f32) -> bool {
        (output - self.threshold).abs() > self.margin
    }
}

/// The range of outputs that are possible at all.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputBounds {
    /// Lowest output.
    pub low: f32,
    /// Highest output.
    pub high: f32,
}

impl OutputBounds {
    /// Whether an output is possible; not a number never is.
    pub fn contain(&self, output: f32) -> bool {
        output >= self.low && output <= self.high
    }
}

/// What a trial has to show before a package is committed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probation {
    /// As many predictions have to be made.
    pub min_predictions: u64,
    /// At most this share of them may fail or lie outside the output bounds.
    pub max_error_share: f64,
    /// 99th percentile of the latency, microseconds.
    pub max_latency_p99_us: u64,
    /// The mean output must not be lower.
    pub output_mean_low: f64,
    /// The mean output must not be higher.
    pub output_mean_high: f64,
    /// A trial that has not passed so many seconds after its first prediction is undone.
    pub timeout_s: u64,
}

/// What a package needs from a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Requirements {
    /// Lowest agent version, written as `0.1.0`.
    pub agent: String,
    /// ONNX operators in the served graph.
    pub operators: Vec<String>,
    /// Memory that serving takes at most.
    pub memory_bytes: u64,
    /// Names of the engines that run the served graph, any one of which will do; empty: every engine that has the
    /// operators.
    #[serde(default)]
    pub engines: Vec<String>,
    /// Version of the language in which the feature view is written.
    #[serde(default = "first")]
    pub view_language: u32,
}

impl Default for Requirements {
    /// What every device offers.
    fn default() -> Self {
        Self {
            agent: "0.0.0".into(),
            operators: Vec::new(),
            memory_bytes: 0,
            engines: Vec::new(),
            view_language: first(),
        }
    }
}

/// Packages from before the language had a version.
fn first() -> u32 {
    1
}

/// Where a version came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lineage {
    /// Content hash of the dataset.
    pub dataset: String,
    /// Id of the training run.
    pub run: String,
    /// Seed of the run.
    pub seed: u64,
}

/// What quantisation cost, measured on held-out rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quantization {
    /// Which metric was compared.
    pub metric: String,
    /// How much of it int8 may lose.
    pub accuracy_limit: f64,
    /// The metric of the f32 graph.
    pub f32_metric: f64,
    /// The metric of the int8 graph.
    pub int8_metric: f64,
    /// Whether the loss was within the limit.
    pub passed: bool,
    /// In words: why this precision is served.
    pub reason: String,
}

/// Why a manifest contradicts itself.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ManifestError {
    /// Written by a build that knows more.
    #[error("manifest format {found} is not the expected {expected}")]
    Format {
        /// What this build reads.
        expected: u32,
        /// What was found.
        found: u32,
    },
    /// `serve` names no graph.
    #[error("graph {serve:?} is to be served, the graphs are {graphs:?}")]
    Serve {
        /// What should be served.
        serve: String,
        /// What there is.
        graphs: Vec<String>,
    },
    /// A name that cannot be a file name, is empty or stands there twice.
    #[error("{what} name {name:?} is empty, repeated or contains other characters than a-z 0-9 _ -")]
    Name {
        /// A graph or a feature.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// No device could tell whether its agent is new enough.
    #[error("requires.agent is {found:?}, expected a version such as 0.1.0")]
    Agent {
        /// What it is.
        found: String,
    },
    /// There is nothing to feed into the graph.
    #[error("the package has no features")]
    NoFeatures,
    /// A number that is not finite or a range upside down.
    #[error("{field} is {found}, expected {expected}")]
    Number {
        /// Which field.
        field: &'static str,
        /// What it should be.
        expected: &'static str,
        /// What it is.
        found: String,
    },
}

impl Manifest {
    /// The entry of the graph to serve.
    pub fn served(&self) -> Option<&GraphEntry> {
        self.graphs.iter().find(|graph| graph.name == self.serve)
    }

    /// Whether the manifest is consistent in itself.
    pub fn check(&self) -> Result<(), ManifestError> {
        if self.format != MANIFEST_FORMAT {
            return Err(ManifestError::Format { expected: MANIFEST_FORMAT, found: self.format });
        }
        check_names("graph", self.graphs.iter().map(|graph| graph.name.as_str()))?;
        check_names("feature", self.features.iter().map(String::as_str))?;
        if self.served().is_none() {
            let graphs = self.graphs.iter().map(|graph| graph.name.clone()).collect();
            return Err(ManifestError::Serve { serve: self.serve.clone(), graphs });
        }
        if self.features.is_empty() {
            return Err(ManifestError::NoFeatures);
        }
        if required_version(&self.requires.agent).is_none() {
            return Err(ManifestError::Agent { found: self.requires.agent.chars().take(80).collect() });
        }
        check_numbers(self)
    }
}

/// Graph names become file names; feature names become columns and metric labels.
fn check_names<'a>(what: &'static str, names: impl Iterator<Item = &'a str>) -> Result<(), ManifestError> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
    let mut seen = BTreeSet::new();
    for name in names {
        if !(1..=63).contains(&name.len()) || !name.chars().all(allowed) || !seen.insert(name) {
            return Err(ManifestError::Name { what, name: name.chars().take(80).collect() });
        }
    }
    Ok(())
}

/// JSON has no form for what is not finite: such a manifest could be written, but not read.
fn check_numbers(manifest: &Manifest) -> Result<(), ManifestError> {
    let Manifest { decision, tolerance, output, probation, quantization, .. } = manifest;
    let number = |field, ok: bool, expected, found: f64| match ok && found.is_finite() {
        true => Ok(()),
        false => Err(ManifestError::Number { field, expected, found: found.to_string() }),
    };
    let finite = |field, found: f64| number(field, true, "a finite number", found);
    let at_least_0 = |field, found: f32| number(field, found >= 0.0, "0 or more", found.into());
    finite("decision.threshold", decision.threshold.into())?;
    at_least_0("decision.margin", decision.margin)?;
    at_least_0("tolerance", *tolerance)?;
    number("output.low", output.low < output.high, "below output.high", output.low.into())?;
    finite("output.high", output.high.into())?;
    let share = probation.max_error_share;
    number("probation.max_error_share", (0.0..=1.0).contains(&share), "0 to 1", share)?;
    let (low, high) = (probation.output_mean_low, probation.output_mean_high);
    number("probation.output_mean_low", low <= high, "at most probation.output_mean_high", low)?;
    finite("probation.output_mean_high", high)?;
    for metric in manifest.graphs.iter().flat_map(|graph| graph.metrics.values()) {
        finite("graphs.metrics", *metric)?;
    }
    if let Some(quantization) = quantization {
        finite("quantization.accuracy_limit", quantization.accuracy_limit)?;
        finite("quantization.f32_metric", quantization.f32_metric)?;
        finite("quantization.int8_metric", quantization.int8_metric)?;
    }
    Ok(())
}
