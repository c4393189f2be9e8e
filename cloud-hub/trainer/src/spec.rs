//! What one training run is asked to do: the content of `run.json`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tributary_wire::{LineName, Micros, Sha256, VersionNumber};

use crate::error::SpecError;

/// One training run, complete: with the dataset's bytes it determines the package's bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunSpec {
    /// Name of the run, for lineage.
    pub run: String,
    /// Model line the package belongs to.
    pub line: LineName,
    /// Version the package gets.
    pub version: VersionNumber,
    /// When the run was asked for; written into the manifest. Not read from a clock, so that a run can be repeated.
    pub created: Micros,
    /// Decides initial weights, order of rows and dropout.
    pub seed: u64,
    /// The dataset, a Parquet file; a relative path is taken from the run's folder.
    pub dataset: PathBuf,
    /// SHA-256 of the dataset file; when given, another file is refused.
    #[serde(default)]
    pub dataset_hash: Option<Sha256>,
    /// The feature view, as TOML; embedded in the package.
    pub view: String,
    /// The view's features as whoever made the dataset saw them; when given, others than the view's are refused.
    #[serde(default)]
    pub features: Vec<String>,
    /// Column with the truth.
    #[serde(default = "label_column")]
    pub label_column: String,
    /// Column with the event time.
    #[serde(default = "time_column")]
    pub time_column: String,
    /// How the days are divided.
    #[serde(default)]
    pub split: Split,
    /// Architecture and training.
    #[serde(default)]
    pub model: ModelSpec,
    /// When int8 may ship.
    #[serde(default)]
    pub quantization: QuantizationSpec,
    /// How a probability becomes a decision.
    #[serde(default)]
    pub decision: DecisionRule,
    /// What the device holds the package to while it is on trial.
    #[serde(default)]
    pub trial: TrialLimits,
    /// Package to compare with on the same held-out rows; a relative path is taken from the run's folder.
    #[serde(default)]
    pub champion: Option<PathBuf>,
    /// Where training begins; from drawn weights when left out.
    #[serde(default)]
    pub start: Option<WarmStart>,
}

/// A package whose net is trained further, with features prepared as it has them. It must have the same shape.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WarmStart {
    /// The package; a relative path is taken from the run's folder.
    pub package: PathBuf,
    /// What of it changes.
    #[serde(default)]
    pub trained: Trained,
    /// Whether a package that cannot be continued, because features or shape are others now, is left for drawn weights
    /// instead of ending the run.
    #[serde(default)]
    pub optional: bool,
}

/// Which weights a warm start changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trained {
    /// All of them.
    #[default]
    All,
    /// Those of the last layer; the others stay as they are, bit for bit.
    LastLayer,
}

fn label_column() -> String {
    "label".to_owned()
}

fn time_column() -> String {
    "event_time".to_owned()
}

/// Days are divided in time order: training, then validation, then test. Nothing is shuffled across.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Split {
    /// Days before the test days: early stopping, calibration, threshold and the int8 limit.
    pub validation_days: u32,
    /// Latest days: only scored, once.
    pub test_days: u32,
}

impl Default for Split {
    fn default() -> Self {
        Self { validation_days: 7, test_days: 7 }
    }
}

/// A multilayer perceptron over prepared features; several members with different seeds are averaged inside one graph.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelSpec {
    /// Width of each hidden layer.
    pub hidden: Vec<usize>,
    /// Independently initialised nets whose logits are averaged.
    pub members: usize,
    /// Passes over the training rows, at most.
    pub epochs: usize,
    /// Stop after so many epochs without a better validation score; 0 = never, and keep the last epoch.
    pub patience: usize,
    /// Rows a step.
    pub batch: usize,
    /// Highest learning rate; it falls to zero along a cosine.
    pub learning_rate: f64,
    /// Decoupled weight decay (AdamW).
    pub weight_decay: f32,
    /// Share of hidden units left out in training.
    pub dropout: f64,
    /// Weight of a positive row.
    pub positive_weight: PositiveWeight,
    /// Prepared features are clipped to so many standard deviations.
    pub clip: f32,
    /// Which features are bent.
    pub bend: Bend,
}

impl Default for ModelSpec {
    fn default() -> Self {
        Self {
            hidden: vec![64, 32],
            members: 2,
            epochs: 10,
            patience: 4,
            batch: 1024,
            learning_rate: 1e-2,
            weight_decay: 0.3,
            dropout: 0.1,
            positive_weight: PositiveWeight::Fixed(2.0),
            clip: 12.0,
            bend: Bend::Skewed,
        }
    }
}

/// How much more a positive row counts than a negative one.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PositiveWeight {
    /// A number.
    Fixed(f64),
    /// The square root of negatives per positive: between counting rows equally and counting classes equally.
    Root,
    /// Negatives per positive: both classes count the same in total.
    Balanced,
}

impl std::fmt::Display for PositiveWeight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fixed(weight) => write!(f, "{weight}"),
            Self::Root => f.write_str("root of negatives per positive"),
            Self::Balanced => f.write_str("negatives per positive"),
        }
    }
}

/// Which features the net sees a second time, bent, so that a long tail keeps its order without ruling the scale.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bend {
    /// None.
    None,
    /// Those that are never negative in the training rows and lean to the right (skewness above 1): as the square root
    /// where they stay within 0 to 1 (shares), as the logarithm of 1 + x otherwise (counts, amounts).
    Skewed,
    /// These; negative values count as 0.
    Named {
        /// Taken as log(1 + x).
        log: Vec<String>,
        /// Taken as the square root.
        root: Vec<String>,
    },
}

/// A score on ranked predictions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Area under the ROC curve.
    AucRoc,
    /// Average precision.
    AveragePrecision,
}

impl Metric {
    /// As in reports and manifests.
    pub fn name(self) -> &'static str {
        match self {
            Self::AucRoc => "auc_roc",
            Self::AveragePrecision => "average_precision",
        }
    }
}

/// The numeric limit that decides whether the int8 graph ships.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QuantizationSpec {
    /// What is compared on the validation rows.
    pub metric: Metric,
    /// The most that int8 may lose of it; beyond that the f32 graph ships.
    pub accuracy_limit: f64,
}

impl Default for QuantizationSpec {
    fn default() -> Self {
        Self { metric: Metric::AveragePrecision, accuracy_limit: 0.01 }
    }
}

/// How the threshold is chosen; always on the validation rows.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DecisionRule {
    /// The threshold with the best F1.
    #[default]
    BestF1,
    /// The lowest threshold that raises an alarm for at most this share of events.
    AlarmShare(f64),
    /// The lowest threshold whose alarms are right at least this often (the best F1 where none is).
    Precision(f64),
    /// This probability.
    Threshold(f64),
}

/// What the device holds the package to while it is on trial.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrialLimits {
    /// Predictions before it may commit.
    pub min_predictions: u64,
    /// Share of predictions that may fail.
    pub max_error_share: f64,
    /// Highest p99 latency of one prediction, microseconds.
    pub max_latency_p99_us: u64,
    /// How far the mean output on the device may lie from that on the test rows, as a factor up or down.
    pub output_mean_factor: f64,
    /// Seconds from the first prediction until a trial without enough of them is undone.
    pub timeout_s: u64,
}

impl Default for TrialLimits {
    fn default() -> Self {
        Self {
            min_predictions: 200,
            max_error_share: 0.01,
            max_latency_p99_us: 50_000,
            output_mean_factor: 8.0,
            timeout_s: 600,
        }
    }
}

impl RunSpec {
    /// Refuses settings that cannot be trained with, each with its name, value and what is allowed.
    pub fn check(&self) -> Result<(), SpecError> {
        let number = |name: &'static str, value: f64, low: f64, high: f64| {
            if value.is_finite() && (low..=high).contains(&value) {
                Ok(())
            } else {
                Err(SpecError::Number { name, found: value, low, high })
            }
        };
        let model = &self.model;
        number("split.validation_days", self.split.validation_days.into(), 1.0, 3650.0)?;
        number("split.test_days", self.split.test_days.into(), 1.0, 3650.0)?;
        number("model.hidden (layers)", model.hidden.len() as f64, 1.0, 8.0)?;
        for width in &model.hidden {
            number("model.hidden", *width as f64, 1.0, 4096.0)?;
        }
        number("model.members", model.members as f64, 1.0, 64.0)?;
        number("model.epochs", model.epochs as f64, 1.0, 10_000.0)?;
        number("model.batch", model.batch as f64, 1.0, 1e6)?;
        number("model.learning_rate", model.learning_rate, 1e-9, 1.0)?;
        number("model.weight_decay", model.weight_decay.into(), 0.0, 100.0)?;
        number("model.dropout", model.dropout, 0.0, 0.95)?;
        number("model.clip", model.clip.into(), 0.5, 1e3)?;
        if let PositiveWeight::Fixed(weight) = model.positive_weight {
            number("model.positive_weight", weight, 1e-3, 1e6)?;
        }
        number("quantization.accuracy_limit", self.quantization.accuracy_limit, -1.0, 1.0)?;
        match self.decision {
            DecisionRule::BestF1 => {}
            DecisionRule::AlarmShare(share) => number("decision.alarm_share", share, 0.0, 1.0)?,
            DecisionRule::Precision(share) => number("decision.precision", share, 0.0, 1.0)?,
            DecisionRule::Threshold(at) => number("decision.threshold", at, 0.0, 1.0)?,
        }
        number("trial.max_error_share", self.trial.max_error_share, 0.0, 1.0)?;
        number("trial.output_mean_factor", self.trial.output_mean_factor, 1.0, 1e6)
    }
}
