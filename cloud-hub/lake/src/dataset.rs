//! Training sets: every event of a range with the features it was or would have been served, and its label.
//!
//! * Device-scope features are replayed per device and life of its state, in accept order, by the device's own code.
//! * Fleet-scope features come from the snapshot that the observation names; where none is named they are computed
//!   in event-time order from the labels known by then, never from later ones.
//! * Where the view says `served_only`, features are those that were served: devices may send a sample of their events.
//! * What was served is compared with what was replayed, bit for bit; differences are counted, never repaired.
//!
//! The same lake, view and range give the same rows in the same order, and so the same content hash.

mod records;
mod read;
mod replay;
mod write;
#[cfg(test)]
mod tests;

pub use records::{EventRow, LabelRow, read_events, read_labels};

use std::path::PathBuf;

use serde::Serialize;
use tributary_features::{SnapshotError, View};
use tributary_wire::{FeatureSnapshotV1, LineName, Micros, Sha256, SnapshotNumber};

use crate::{Lake, LakeError};

/// What a dataset is made from. Its rows are the events with `from <= event time < to`.
#[derive(Debug, Clone)]
pub struct DatasetSpec {
    /// The feature view.
    pub view: View,
    /// Event time of the first rows.
    pub from: Micros,
    /// Event time before which the rows lie.
    pub to: Micros,
    /// How long after its event a label is taken to be known at the earliest, in microseconds.
    pub label_delay: i64,
    /// Labels that became known later than this are left out; `None` takes all.
    pub labels_until: Option<Micros>,
    /// Compare with what this line served; `None` takes the observations of any line.
    pub line: Option<LineName>,
}

impl DatasetSpec {
    /// Everything that there is of a view, whoever served it.
    pub fn whole(view: View) -> Self {
        let label_delay = view.label_delay();
        Self { view, from: Micros(0), to: Micros(i64::MAX), label_delay, labels_until: None, line: None }
    }
}

/// Gives the parts of a snapshot of fleet-scope features, `None` when its history is gone.
pub type SnapshotLookup<'a> =
    dyn Fn(SnapshotNumber) -> Result<Option<Vec<FeatureSnapshotV1>>, Box<dyn std::error::Error + Send + Sync>> + 'a;

/// What was counted while a dataset was made.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Summary {
    /// Rows.
    pub rows: u64,
    /// Rows with a true label.
    pub positives: u64,
    /// Rows with a label.
    pub labelled: u64,
    /// Rows whose features as served were compared with the replay.
    pub compared: u64,
    /// Of those, how many differ in any bit.
    pub mismatches: u64,
    /// The first differences.
    pub examples: Vec<Mismatch>,
    /// Rows without an observation (the device could not store one, or has not sent it yet).
    pub unobserved: u64,
    /// Rows served from windows that had lost events: the device said so, and no replay can agree.
    pub cold: u64,
    /// Rows with fleet-scope features from the snapshot that was served.
    pub from_snapshots: u64,
    /// Rows with fleet-scope features computed in event time.
    pub computed: u64,
    /// Snapshots that observations name but whose history is gone.
    pub lost_snapshots: Vec<SnapshotNumber>,
    /// Events of the range that do not fit the view and are no rows.
    pub unfit: u64,
    /// Rows that stand for others too, because devices sent a sample of their events.
    pub sampled: u64,
    /// How many events the rows stand for: the sum of the inverse of their probabilities.
    pub estimated: f64,
    /// Events that devices accepted between the first and the last that was read here, and that are not among them: given
    /// up, sampled out, not here yet, or of another day.
    pub missing: u64,
    /// Rows whose windows are replayed from a sample of the device's events: they do not hold what was served.
    pub thinned: u64,
    /// Rows with features as they were served, because the view says `served_only`.
    pub as_served: u64,
    /// Events of the range that are no rows, because the view says `served_only` and what was served is not here.
    pub unserved: u64,
}

/// A served feature that the replay does not give.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Mismatch {
    /// Where.
    pub device: String,
    /// Of which event.
    pub event_id: String,
    /// Which feature.
    pub feature: String,
    /// As served.
    pub served: f32,
    /// As replayed.
    pub replayed: f32,
}

/// At most so many differences are shown.
pub const MAX_EXAMPLES: usize = 20;

/// One row.
#[derive(Debug, Clone, PartialEq)]
pub struct DatasetRow {
    /// The caller's id of the event.
    pub event_id: String,
    /// When it happened.
    pub event_time: Micros,
    /// Where.
    pub device: String,
    /// The truth, if it is known.
    pub label: Option<bool>,
    /// The probability with which the device sent the event; its inverse is the weight of the row where totals or rates
    /// are estimated.
    pub inclusion: f64,
}

/// A training set, in event-time order.
#[derive(Debug, Clone)]
pub struct Dataset {
    spec: DatasetSpec,
    rows: Vec<DatasetRow>,
    /// Row by row, in the view's order.
    features: Vec<f32>,
    summary: Summary,
}

/// A dataset on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredDataset {
    /// The file; its name is the hash of its bytes.
    pub path: PathBuf,
    /// Hash of the file's bytes.
    pub sha256: Sha256,
    /// Size of the file.
    pub bytes: u64,
}

/// Why a dataset cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// The lake cannot be read or written.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// A column of the lake that replays need is not there or holds something else.
    #[error("stream {stream} has column {column:?} of type {found}; the replay needs {expected}")]
    Column {
        /// Which stream.
        stream: &'static str,
        /// Which column.
        column: String,
        /// What the replay needs.
        expected: &'static str,
        /// What is there.
        found: String,
    },
    /// The history of snapshots cannot be read.
    #[error("snapshot {number} cannot be looked up")]
    Lookup {
        /// Which.
        number: SnapshotNumber,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A kept snapshot does not fit the view.
    #[error("snapshot {number} does not fit the view")]
    Snapshot {
        /// Which.
        number: SnapshotNumber,
        /// Why.
        source: SnapshotError,
    },
    /// The range is empty.
    #[error("the range from {from} to {to} is empty")]
    Range {
        /// Its beginning.
        from: Micros,
        /// Its end.
        to: Micros,
    },
}

impl Dataset {
    /// Makes a dataset from the lake. Takes memory for every event of the range and of the windows before it.
    pub fn build(lake: &Lake, spec: DatasetSpec, snapshots: &SnapshotLookup<'_>) -> Result<Self, DatasetError> {
        if spec.from >= spec.to {
            return Err(DatasetError::Range { from: spec.from, to: spec.to });
        }
        let source = read::Source::read(lake, &spec)?;
        replay::replay(spec, source, snapshots)
    }

    /// What it was made from.
    pub fn spec(&self) -> &DatasetSpec {
        &self.spec
    }

    /// What was counted.
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// Its rows, in event-time order.
    pub fn rows(&self) -> &[DatasetRow] {
        &self.rows
    }

    /// Features of a row, in the view's order.
    pub fn features(&self, row: usize) -> &[f32] {
        let width = self.spec.view.features().len();
        &self.features[row * width..(row + 1) * width]
    }
}
