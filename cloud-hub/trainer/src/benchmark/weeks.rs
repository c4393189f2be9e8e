//! The published weeks and figures.

use std::collections::HashSet;

use serde::Serialize;
use tributary_features::{Replay, Row, View};
use tributary_stats::ranking::{self, CardScore};
use tributary_wire::Micros;

use crate::dataset::Dataset;

/// 2018-07-25, the first day of the published training week, as days since 1970-01-01.
pub(super) const TRAINING_DAY: i64 = 17_737;
/// The latest training week whose validation week ends before it.
pub(super) const VALIDATION_TRAINING_DAY: i64 = TRAINING_DAY - 21;
/// How many pairs of weeks the settings were chosen on, a week apart.
pub(super) const VALIDATION_PAIRS: i64 = 6;
/// A training week, a week in which labels are unknown, the week that is scored.
pub(super) const WEEK: i64 = 7;
pub(super) const CARDS: usize = 100;

/// Transactions with their features at event time.
#[derive(Debug, Clone, Default)]
pub struct Transactions {
    width: usize,
    features: Vec<f32>,
    pub(super) labels: Vec<bool>,
    times: Vec<Micros>,
    cards: Vec<i64>,
}

impl Transactions {
    /// Replays a time-ordered stream of (row, card, fraud) through the view, with the code that serves.
    pub fn replay(view: &View, stream: impl Iterator<Item = (Row, i64, bool)>) -> Self {
        let width = view.features().len();
        let mut found = Self { width, ..Self::default() };
        let (mut replay, mut out) = (Replay::new(view), vec![0.0; width]);
        for (row, card, fraud) in stream {
            replay.observe(&row, fraud, &mut out);
            // Only these weeks are ever used; the rest is history for the windows.
            let first = VALIDATION_TRAINING_DAY - (VALIDATION_PAIRS - 1) * WEEK;
            if (first..TRAINING_DAY + 3 * WEEK).contains(&row.time.day()) {
                found.features.extend_from_slice(&out);
                found.labels.push(fraud);
                found.times.push(row.time);
                found.cards.push(card);
            }
        }
        found
    }

    fn days(&self, first: i64, days: i64) -> Vec<usize> {
        let start = |day: i64| self.times.partition_point(|time| time.day() < day);
        (start(first)..start(first + days)).collect()
    }

    /// The seven days that begin at `first`.
    pub(super) fn training(&self, first: i64) -> Vec<usize> {
        self.days(first, WEEK)
    }

    /// The week two weeks after the training week. On each of its days D, customers with a fraud known by then (on any
    /// day from the first training day up to and including D − 8) are left out.
    pub(super) fn scored(&self, first: i64) -> Vec<usize> {
        let day = |day: i64| {
            let known = self.days(first, day - WEEK - first);
            let known: HashSet<i64> =
                known.into_iter().filter(|row| self.labels[*row]).map(|row| self.cards[row]).collect();
            self.days(day, 1).into_iter().filter(move |row| !known.contains(&self.cards[*row]))
        };
        (first + 2 * WEEK..first + 3 * WEEK).flat_map(day).collect()
    }

    pub(super) fn take(&self, rows: &[usize]) -> Dataset {
        Dataset {
            width: self.width,
            features: rows.iter().flat_map(|row| &self.features[row * self.width..][..self.width]).copied().collect(),
            labels: rows.iter().map(|row| self.labels[*row]).collect(),
            times: rows.iter().map(|row| self.times[*row]).collect(),
            weights: Vec::new(),
            unlabelled: 0,
        }
    }

    pub(super) fn figures(&self, rows: &[usize], outputs: &[f32]) -> Option<Figures> {
        let labels: Vec<bool> = rows.iter().map(|row| self.labels[*row]).collect();
        let card = |(row, score): (&usize, &f32)| CardScore {
            day: self.times[*row].day(),
            card: self.cards[*row],
            score: *score,
            fraud: self.labels[*row],
        };
        let cards: Vec<_> = rows.iter().zip(outputs).map(card).collect();
        Some(Figures {
            auc_roc: ranking::auc_roc(outputs, &labels)?,
            average_precision: ranking::average_precision(outputs, &labels)?,
            card_precision: ranking::card_precision_at_k(&cards, CARDS)?,
        })
    }
}

/// The three published figures.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Figures {
    /// Area under the ROC curve.
    pub auc_roc: f64,
    /// Average precision.
    pub average_precision: f64,
    /// Card precision@100.
    pub card_precision: f64,
}

impl Figures {
    /// The mean of each.
    pub fn mean(figures: &[Self]) -> Self {
        Self::each(figures, mean)
    }

    pub(super) fn each(figures: &[Self], value: impl Fn(&[f64]) -> f64) -> Self {
        let of = |part: fn(&Self) -> f64| value(&figures.iter().map(part).collect::<Vec<_>>());
        Self {
            auc_roc: of(|f| f.auc_roc),
            average_precision: of(|f| f.average_precision),
            card_precision: of(|f| f.card_precision),
        }
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// Standard deviation of a sample.
pub(super) fn spread(values: &[f64]) -> f64 {
    let centre = mean(values);
    let squares: f64 = values.iter().map(|value| (value - centre).powi(2)).sum();
    (squares / (values.len().max(2) - 1) as f64).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One payment of cards 0 to 3 on every day; card 1 has a fraud on one day.
    fn transactions(fraud_day: i64) -> Transactions {
        let mut found = Transactions { width: 1, ..Transactions::default() };
        for day in TRAINING_DAY..TRAINING_DAY + 3 * WEEK {
            for card in 0..4 {
                found.features.push(day as f32);
                found.labels.push(card == 1 && day == fraud_day);
                found.times.push(Micros(day * Micros::DAY + card));
                found.cards.push(card);
            }
        }
        found
    }

    /// How many rows of each scored day are left.
    fn left(fraud_day: i64) -> Vec<usize> {
        let transactions = transactions(fraud_day);
        let rows = transactions.scored(TRAINING_DAY);
        let on = |day: i64| rows.iter().filter(|row| transactions.times[**row].day() == day).count();
        (TRAINING_DAY + 14..TRAINING_DAY + 21).map(on).collect()
    }

    #[test]
    fn a_customer_is_left_out_from_the_eighth_day_after_a_fraud_on() {
        // In the training week: known on every test day.
        assert_eq!(left(TRAINING_DAY), [3; 7]);
        assert_eq!(left(TRAINING_DAY + 6), [3; 7]);
        // On 08-04 = D − 8 for D = 08-12, the fifth test day.
        assert_eq!(left(TRAINING_DAY + 10), [4, 4, 4, 4, 3, 3, 3]);
        // Too late to be known, and in the test week itself.
        assert_eq!(left(TRAINING_DAY + 13), [4; 7]);
        assert_eq!(left(TRAINING_DAY + 15), [4; 7]);
    }

    #[test]
    fn the_weeks_are_the_published_ones() {
        let transactions = transactions(0);
        let days = |rows: Vec<usize>| {
            let (first, last) = (rows[0], rows[rows.len() - 1]);
            (transactions.times[first].day() - TRAINING_DAY, transactions.times[last].day() - TRAINING_DAY)
        };
        assert_eq!(Micros(1_532_476_800_000_000).day(), TRAINING_DAY, "2018-07-25T00:00:00Z");
        assert_eq!(days(transactions.training(TRAINING_DAY)), (0, 6));
        assert_eq!(days(transactions.scored(TRAINING_DAY)), (14, 20));
        const { assert!(VALIDATION_TRAINING_DAY + 3 * WEEK <= TRAINING_DAY) };
    }

    /// Needs the published file beside the checkout; says so where it is missing.
    #[test]
    fn the_published_file_gives_the_published_numbers_of_rows() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data/card-transactions.parquet");
        if !std::path::Path::new(path).exists() {
            eprintln!("SKIPPED: {path} is missing; see `cloud-hub benchmark card-fraud` for where it comes from");
            return;
        }
        let mut found = Transactions { width: 0, ..Transactions::default() };
        tributary_fraud::each_transaction(path.as_ref(), |payment| {
            found.labels.push(payment.fraud);
            found.times.push(payment.time);
            found.cards.push(payment.customer_id);
        })
        .unwrap();
        assert_eq!(found.training(TRAINING_DAY).len(), 67_240);
        assert_eq!(found.scored(TRAINING_DAY).len(), 58_264);
    }
}
