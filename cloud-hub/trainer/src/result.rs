//! What a run found: the content of `result.json`.

use crate::spec::Metric;
use serde::{Deserialize, Serialize};
use tributary_wire::{LineName, Micros, Sha256, VersionNumber};

/// Scores of one graph on some rows.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// Rows scored.
    pub rows: usize,
    /// Of these positive.
    pub positives: usize,
    /// Area under the ROC curve.
    pub auc_roc: f64,
    /// Average precision.
    pub average_precision: f64,
    /// Mean log loss.
    pub log_loss: f64,
    /// Mean output.
    pub mean_output: f64,
}

/// Rows and days of one part of the split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Labelled rows.
    pub rows: usize,
    /// Of these positive.
    pub positives: usize,
    /// Event time of the first.
    pub from: Micros,
    /// Event time of the last.
    pub to: Micros,
}

/// int8 against f32 on the validation rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QuantizationResult {
    /// What was compared.
    pub metric: Metric,
    /// f32 score by the chosen metric.
    pub f32: f64,
    /// int8 score by the chosen metric.
    pub int8: f64,
    /// The most it was allowed to lose.
    pub accuracy_limit: f64,
    /// Whether int8 ships.
    pub passed: bool,
    /// In words: which graph ships, and why.
    pub reason: String,
}

/// The champion on the same test rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Version of the champion.
    pub champion: VersionNumber,
    /// Champion's scores on the test rows.
    pub champion_scores: Scores,
    /// Challenger minus champion.
    pub auc_roc_gain: f64,
    /// Challenger minus champion.
    pub average_precision_gain: f64,
    /// 95 % interval of the AUC difference.
    pub auc_roc_gain_interval: (f64, f64),
    /// 95 % interval of the difference of average precision.
    pub average_precision_gain_interval: (f64, f64),
    /// Whether the challenger ranks the same rows better.
    pub better: bool,
}

/// The outcome of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunResult {
    /// The run.
    pub run: String,
    /// Its line.
    pub line: LineName,
    /// Version of the package.
    pub version: VersionNumber,
    /// The dataset's file.
    pub dataset: Sha256,
    /// Digest of the package file.
    pub package: Sha256,
    /// Its length.
    pub package_bytes: u64,
    /// "int8" or "f32".
    pub serve: String,
    /// Rows without a label, left out.
    pub unlabelled: usize,
    /// Whether some rows are of a sample: all scores then count each row by the inverse of the probability with which it
    /// was taken, so that they speak of everything that was served.
    #[serde(default)]
    pub weighted: bool,
    /// For how many rows the labelled ones stand.
    #[serde(default)]
    pub estimated: f64,
    /// Rows trained on.
    pub training: Part,
    /// Rows validated on.
    pub validation: Part,
    /// Rows tested on.
    pub test: Part,
    /// Epoch whose weights were kept.
    pub best_epoch: usize,
    /// Threshold of the decision.
    pub threshold: f64,
    /// f32 on the test rows.
    pub f32: Scores,
    /// int8 on the test rows.
    pub int8: Scores,
    /// The limit and its outcome.
    pub quantization: QuantizationResult,
    /// Against the champion, where one was given.
    pub comparison: Option<Comparison>,
    /// Seconds the run took.
    pub seconds: f64,
}

impl RunResult {
    /// Test scores of the graph that ships.
    pub fn served(&self) -> &Scores {
        if self.serve == "int8" { &self.int8 } else { &self.f32 }
    }
}
