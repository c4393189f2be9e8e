//! What can go wrong in a run, named so that whoever reads the run's page knows what to change.

use std::path::PathBuf;

use tributary_wire::Sha256;

/// A setting of the run that cannot be trained with.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// A number outside its range.
    #[error("{name} is {found}; allowed is {low} to {high}")]
    Number {
        /// The setting.
        name: &'static str,
        /// What it says.
        found: f64,
        /// Least.
        low: f64,
        /// Most.
        high: f64,
    },
    /// A feature that is not there.
    #[error("feature {feature:?} is unknown; there are {known}")]
    UnknownFeature {
        /// The name asked for.
        feature: String,
        /// What there is.
        known: String,
    },
    /// Dataset and view were made for different features.
    #[error("the run names the features {found}; the view has {expected}")]
    Features {
        /// In the spec.
        found: String,
        /// In the view.
        expected: String,
    },
    /// The view does not parse.
    #[error("the feature view is not valid: {0}")]
    View(String),
}

/// A dataset that cannot be trained on.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// It cannot be read as Parquet.
    #[error("{path}: not a readable Parquet file: {reason}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the reader said.
        reason: String,
    },
    /// Another file than the one the run was made for.
    #[error("{path}: its SHA-256 is {found}, the run was made for {expected}")]
    OtherFile {
        /// The file.
        path: PathBuf,
        /// In the spec.
        expected: Sha256,
        /// Of the file.
        found: Sha256,
    },
    /// A column is missing.
    #[error("column {column:?} is missing; the file has {found}")]
    MissingColumn {
        /// The name.
        column: String,
        /// What there is.
        found: String,
    },
    /// A column has another type.
    #[error("column {column:?} has type {found}, expected {expected}")]
    ColumnType {
        /// The name.
        column: String,
        /// In the file.
        found: String,
        /// Needed.
        expected: &'static str,
    },
    /// A value that is missing, NaN or infinite.
    #[error("row {row}, column {column:?}: {found}, expected a finite number")]
    NotFinite {
        /// Counted from 0.
        row: usize,
        /// The name.
        column: String,
        /// What stands there.
        found: String,
    },
    /// A probability that is none.
    #[error("row {row}, column {column:?}: {found}, expected a probability above 0 and at most 1")]
    Inclusion {
        /// Counted from 0.
        row: usize,
        /// The name.
        column: &'static str,
        /// What stands there.
        found: f64,
    },
    /// Rows out of time order.
    #[error("row {row} is earlier than the row before it; a dataset is in order of event time")]
    OutOfOrder {
        /// Counted from 0.
        row: usize,
    },
    /// No row with a label.
    #[error("no row has a label ({rows} rows); labels arrive late: choose an earlier period or wait")]
    NoLabels {
        /// Rows without a label.
        rows: usize,
    },
    /// Not enough days for the split.
    #[error(
        "the labelled rows cover {found} days; {validation} validation and {test} test days leave nothing to train on"
    )]
    TooFewDays {
        /// Days with labelled rows, first to last.
        found: i64,
        /// Asked for.
        validation: u32,
        /// Asked for.
        test: u32,
    },
    /// One class is missing from a part of the split.
    #[error("the {part} rows have {positives} positives and {negatives} negatives; both are needed")]
    OneClass {
        /// Training, validation or test.
        part: &'static str,
        /// Count.
        positives: usize,
        /// Count.
        negatives: usize,
    },
}

/// Why a run ended without a package.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The spec.
    #[error("run settings: {0}")]
    Spec(#[from] SpecError),
    /// The dataset.
    #[error("dataset: {0}")]
    Dataset(#[from] DatasetError),
    /// `run.json` or an output file.
    #[error("{path}: {reason}")]
    File {
        /// Which.
        path: PathBuf,
        /// What happened.
        reason: String,
    },
    /// The loss left the finite numbers.
    #[error("training diverged in epoch {epoch}: loss {loss}; lower model.learning_rate")]
    Diverged {
        /// Counted from 1.
        epoch: usize,
        /// NaN or infinite.
        loss: f64,
    },
    /// The exported graph does not compute what was trained.
    #[error("exported graph differs from the trained net by {found:e} on row {row}; allowed is {allowed:e}")]
    Export {
        /// Of the validation rows.
        row: usize,
        /// Largest difference of a probability.
        found: f64,
        /// Limit.
        allowed: f64,
    },
    /// Building, running or quantizing a graph.
    #[error("graph: {0}")]
    Graph(String),
    /// The champion's package cannot be read or does not fit the dataset.
    #[error("champion {path}: {reason}")]
    Champion {
        /// The package.
        path: PathBuf,
        /// What was wrong.
        reason: String,
    },
    /// The package to start from cannot be read or has another shape.
    #[error("start {path}: {reason}")]
    Start {
        /// The package.
        path: PathBuf,
        /// What was wrong.
        reason: String,
    },
    /// Writing the package.
    #[error("package: {0}")]
    Package(String),
    /// Whoever watches asked to stop.
    #[error("cancelled")]
    Cancelled,
}

impl TrainError {
    /// Exit code of the training process: 2 settings, 3 data, 4 training, 5 files, 6 cancelled.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Spec(_) => 2,
            Self::Dataset(_) | Self::Champion { .. } | Self::Start { .. } => 3,
            Self::Diverged { .. } | Self::Export { .. } | Self::Graph(_) | Self::Package(_) => 4,
            Self::File { .. } => 5,
            Self::Cancelled => 6,
        }
    }
}
