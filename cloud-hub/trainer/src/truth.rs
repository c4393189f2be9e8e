//! What is true of rows, and for how many each of them stands.
//!
//! Devices may send a sample of their records, each with the probability p with which it was taken. A row then counts 1/p
//! (Horvitz and Thompson 1952) in the loss, the calibration, the threshold and every score, so that all of them speak of
//! what was served, not of what was sent. Where a row cannot have been taken at all, no weight brings it back.

use tributary_stats::ranking::{self, Difference};
use tributary_stats::weighted;

/// Labels, and weights where rows do not all count the same.
#[derive(Debug, Clone, Copy)]
pub struct Truth<'a> {
    /// One per row.
    pub labels: &'a [bool],
    /// One per row, or none at all: then each counts once.
    pub weights: &'a [f64],
}

impl<'a> Truth<'a> {
    /// Rows that count once each.
    pub fn of(labels: &'a [bool]) -> Self {
        Self { labels, weights: &[] }
    }

    /// For how many a row stands.
    pub fn weight(&self, row: usize) -> f64 {
        self.weights.get(row).copied().unwrap_or(1.0)
    }

    /// For how many all rows stand.
    pub fn total(&self) -> f64 {
        (0..self.labels.len()).map(|row| self.weight(row)).sum()
    }

    /// For how many the positives stand.
    pub fn positives(&self) -> f64 {
        (0..self.labels.len()).filter(|row| self.labels[*row]).map(|row| self.weight(row)).sum()
    }

    /// The mean of a figure of each row.
    pub fn mean(&self, figure: impl Fn(usize) -> f64) -> f64 {
        (0..self.labels.len()).map(|row| self.weight(row) * figure(row)).sum::<f64>() / self.total().max(1e-9)
    }

    /// Area under the ROC curve.
    pub fn auc_roc(&self, scores: &[f32]) -> Option<f64> {
        match self.weights {
            [] => ranking::auc_roc(scores, self.labels),
            weights => weighted::auc_roc(scores, self.labels, weights),
        }
    }

    /// Average precision.
    pub fn average_precision(&self, scores: &[f32]) -> Option<f64> {
        match self.weights {
            [] => ranking::average_precision(scores, self.labels),
            weights => weighted::average_precision(scores, self.labels, weights),
        }
    }

    /// Mean log loss.
    pub fn log_loss(&self, probabilities: &[f32]) -> Option<f64> {
        match self.weights {
            [] => ranking::log_loss(probabilities, self.labels),
            weights => weighted::log_loss(probabilities, self.labels, weights),
        }
    }

    /// Difference of two areas, with its 95 % interval.
    pub fn auc_difference(&self, champion: &[f32], challenger: &[f32]) -> Option<Difference> {
        match self.weights {
            [] => ranking::auc_difference(champion, challenger, self.labels, 0.95),
            weights => weighted::auc_difference(champion, challenger, self.labels, weights, 0.95),
        }
    }

    /// Difference of two average precisions, with its 95 % interval from resamplings: how many, and their seed.
    pub fn average_precision_difference(
        &self,
        champion: &[f32],
        challenger: &[f32],
        (rounds, seed): (usize, u64),
    ) -> Option<Difference> {
        let (labels, both) = (self.labels, [champion, challenger]);
        match self.weights {
            [] => ranking::average_precision_difference(champion, challenger, labels, 0.95, rounds, seed),
            weights => weighted::average_precision_difference(both, labels, weights, 0.95, (rounds, seed)),
        }
    }
}
