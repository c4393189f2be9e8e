//! What a run says while it works.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::TrainError;

/// One line of `progress.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum Step {
    /// The dataset is read and divided.
    Data {
        /// Labelled rows to train on.
        training: usize,
        /// Of these positive.
        training_positives: usize,
        /// Rows to validate on.
        validation: usize,
        /// Rows to test on.
        test: usize,
    },
    /// The package to start from cannot be continued; training begins with drawn weights.
    FromScratch {
        /// Why.
        reason: String,
    },
    /// An epoch ended.
    Epoch {
        /// Counted from 1.
        epoch: usize,
        /// At most.
        of: usize,
        /// Mean weighted loss on the training rows.
        loss: f64,
        /// On the validation rows.
        validation_auc: f64,
        /// On the validation rows.
        validation_average_precision: f64,
        /// Estimate until the last epoch ends.
        seconds_left: f64,
    },
    /// int8 was compared with f32.
    Quantized {
        /// f32 on the validation rows.
        f32: f64,
        /// int8 on the validation rows.
        int8: f64,
        /// Whether int8 ships.
        passed: bool,
    },
    /// The held-out rows were scored.
    Tested {
        /// This package.
        auc: f64,
        /// This package.
        average_precision: f64,
    },
    /// The package is written.
    Done {
        /// Bytes of the package.
        bytes: u64,
    },
}

/// Receives a run's steps; returning false asks the run to stop.
pub trait Progress {
    /// Called after each step.
    fn step(&mut self, step: &Step) -> bool;
}

impl<F: FnMut(&Step) -> bool> Progress for F {
    fn step(&mut self, step: &Step) -> bool {
        self(step)
    }
}

/// Writes each step as a line of JSON and passes it on.
pub(crate) struct Log<'a> {
    file: File,
    next: &'a mut dyn Progress,
}

impl<'a> Log<'a> {
    pub(crate) fn create(path: &Path, next: &'a mut dyn Progress) -> Result<Self, TrainError> {
        let file = File::create(path)
            .map_err(|error| TrainError::File { path: path.to_owned(), reason: error.to_string() })?;
        Ok(Self { file, next })
    }

    pub(crate) fn step(&mut self, step: &Step) -> Result<(), TrainError> {
        // The file is for people and pages; a full disk will be named when the package is written.
        if let Ok(line) = serde_json::to_string(step) {
            let _ = writeln!(self.file, "{line}");
        }
        if self.next.step(step) { Ok(()) } else { Err(TrainError::Cancelled) }
    }
}
