//! Counts over fixed bins. The edges are fixed by a reference, so that counts from many devices add up exactly.

use serde::{Deserialize, Serialize};

use crate::Moments;

/// Most bins of one histogram. More would cost every device bytes and buy the tests nothing.
pub const MAX_BINS: usize = 256;

/// Why edges do not make bins.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum BinError {
    /// Edges must rise.
    #[error("edge {index} ({found}) is not a finite number above the one before it")]
    Order {
        /// Which edge.
        index: usize,
        /// Its value.
        found: f32,
    },
    /// Too many edges.
    #[error("{found} edges make more than {MAX_BINS} bins")]
    TooMany {
        /// How many edges.
        found: usize,
    },
    /// As many counts as bins are needed.
    #[error("{bins} bins but {counts} counts")]
    Counts {
        /// Bins that the edges make.
        bins: usize,
        /// Counts that were given.
        counts: usize,
    },
}

/// Rising edges `e0 < e1 < …`; the bins are `(-∞, e0)`, `[e0, e1)`, …, `[e_last, ∞)`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Vec<f32>", into = "Vec<f32>")]
pub struct Bins {
    edges: Vec<f32>,
}

impl TryFrom<Vec<f32>> for Bins {
    type Error = BinError;
    fn try_from(edges: Vec<f32>) -> Result<Self, BinError> {
        if edges.len() >= MAX_BINS {
            return Err(BinError::TooMany { found: edges.len() });
        }
        for (index, edge) in edges.iter().enumerate() {
            if !edge.is_finite() || (index > 0 && *edge <= edges[index - 1]) {
                return Err(BinError::Order { index, found: *edge });
            }
        }
        Ok(Self { edges })
    }
}

impl From<Bins> for Vec<f32> {
    fn from(bins: Bins) -> Self {
        bins.edges
    }
}

impl Bins {
    /// At most `most` bins of roughly equal mass over the finite ones of `values`. Ties share a bin, so a feature
    /// with few distinct values gets one bin per value.
    pub fn from_quantiles(values: &[f32], most: usize) -> Self {
        let most = most.clamp(1, MAX_BINS);
        let mut sorted: Vec<f32> = values.iter().copied().filter(|value| value.is_finite()).collect();
        sorted.sort_unstable_by(f32::total_cmp);
        let Some(&smallest) = sorted.first() else { return Self { edges: Vec::new() } };
        let mut distinct = sorted.clone();
        distinct.dedup();
        let mut edges: Vec<f32> = if distinct.len() <= most {
            distinct
        } else {
            (1..most).map(|quantile| sorted[quantile * sorted.len() / most]).collect()
        };
        // Nothing lies below the smallest value; an edge there would only make an empty bin. -0.0 and 0.0 are one edge.
        edges.dedup_by(|next, before| *next <= *before);
        edges.retain(|edge| *edge > smallest);
        Self { edges }
    }

    /// The edges.
    pub fn edges(&self) -> &[f32] {
        &self.edges
    }

    /// How many bins there are: one more than edges.
    pub fn count(&self) -> usize {
        self.edges.len() + 1
    }

    /// The bin of a finite value.
    pub fn index(&self, value: f32) -> usize {
        self.edges.partition_point(|edge| *edge <= value)
    }

    /// A number that differs when the edges differ (FNV-1a over their bits).
    pub fn fingerprint(&self) -> u64 {
        self.edges
            .iter()
            .flat_map(|edge| edge.to_bits().to_le_bytes())
            .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
    }
}

/// Two histograms over different bins were to be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("histograms over different bins do not add up: fingerprint {expected:016x} expected, {found:016x} found")]
pub struct MergeError {
    /// Bins of the one that takes.
    pub expected: u64,
    /// Bins of the one that gives.
    pub found: u64,
}

/// Counts over [`Bins`]. It names its bins by fingerprint only: the edges travel once, in the package.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// [`Bins::fingerprint`] of the bins.
    pub fingerprint: u64,
    /// One count per bin.
    pub counts: Vec<u64>,
    /// Values that were missing.
    pub nulls: u64,
    /// Values that were not finite numbers.
    pub nan: u64,
    /// Of the finite values.
    pub moments: Moments,
}

impl Histogram {
    /// No values yet.
    pub fn new(bins: &Bins) -> Self {
        Self {
            fingerprint: bins.fingerprint(),
            counts: vec![0; bins.count()],
            nulls: 0,
            nan: 0,
            moments: Moments::default(),
        }
    }

    /// Everything in `values`.
    pub fn of(bins: &Bins, values: &[f32]) -> Self {
        let mut histogram = Self::new(bins);
        values.iter().for_each(|value| histogram.record(bins, Some(*value)));
        histogram
    }

    /// Adds a value; `None` is a missing one. `bins` must be those the histogram was made with.
    pub fn record(&mut self, bins: &Bins, value: Option<f32>) {
        debug_assert_eq!(self.counts.len(), bins.count(), "a histogram is filled through its own bins");
        match value {
            None => self.nulls += 1,
            Some(value) if !value.is_finite() => self.nan += 1,
            Some(value) => {
                self.counts[bins.index(value)] += 1;
                self.moments.record(f64::from(value));
            }
        }
    }

    /// Adds all of `other`; exact, in any order.
    pub fn merge(&mut self, other: &Self) -> Result<(), MergeError> {
        if self.fingerprint != other.fingerprint || self.counts.len() != other.counts.len() {
            return Err(MergeError { expected: self.fingerprint, found: other.fingerprint });
        }
        self.counts.iter_mut().zip(&other.counts).for_each(|(ours, theirs)| *ours += theirs);
        self.nulls += other.nulls;
        self.nan += other.nan;
        self.moments.merge(&other.moments);
        Ok(())
    }

    /// Finite values seen.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// How often [`Histogram::record`] was called; `None` when the numbers contradict each other.
    pub(crate) fn checked_rows(&self) -> Option<u64> {
        let finite = self.counts.iter().try_fold(0u64, |sum, count| sum.checked_add(*count))?;
        (finite == self.moments.count).then_some(())?;
        finite.checked_add(self.nulls)?.checked_add(self.nan)
    }

    /// Values seen that were missing or not finite.
    pub fn unusable(&self) -> u64 {
        self.nulls + self.nan
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_value_on_an_edge_belongs_to_the_bin_above() {
        let bins = Bins::try_from(vec![0.0, 1.0]).unwrap();
        assert_eq!([-0.5, 0.0, 0.5, 1.0, 2.0].map(|value| bins.index(value)), [0, 1, 1, 2, 2]);
    }

    #[test]
    fn few_distinct_values_get_a_bin_each_and_many_get_equal_mass() {
        let flags: Vec<f32> = (0..100).map(|i| if i % 7 < 2 { 1.0 } else { 0.0 }).collect();
        assert_eq!(Bins::from_quantiles(&flags, 16).edges(), [1.0]);
        assert_eq!(Bins::from_quantiles(&[3.0; 9], 16).count(), 1);
        assert_eq!(Bins::from_quantiles(&[], 16).count(), 1);
        let ramp: Vec<f32> = (0..1600).map(|i| i as f32).collect();
        let bins = Bins::from_quantiles(&ramp, 16);
        assert!(Histogram::of(&bins, &ramp).counts.iter().all(|count| *count == 100));
    }

    #[test]
    fn edges_that_do_not_rise_are_refused_with_their_place() {
        assert_eq!(Bins::try_from(vec![1.0, 1.0]), Err(BinError::Order { index: 1, found: 1.0 }));
        assert!(matches!(Bins::try_from(vec![f32::NAN]), Err(BinError::Order { index: 0, .. })));
        assert_eq!(Bins::try_from(vec![0.0; 300]), Err(BinError::TooMany { found: 300 }));
    }

    #[test]
    fn missing_and_not_finite_values_are_counted_apart() {
        let bins = Bins::try_from(vec![0.0]).unwrap();
        let mut histogram = Histogram::new(&bins);
        for value in [None, Some(f32::NAN), Some(f32::INFINITY), Some(2.0)] {
            histogram.record(&bins, value);
        }
        assert_eq!((histogram.nulls, histogram.nan, histogram.total(), histogram.unusable()), (1, 2, 1, 3));
    }

    #[test]
    fn histograms_over_other_bins_are_not_added() {
        let mut ours = Histogram::new(&Bins::try_from(vec![0.0]).unwrap());
        let theirs = Histogram::new(&Bins::try_from(vec![0.5]).unwrap());
        assert!(ours.merge(&theirs).is_err());
    }

    proptest! {
        #[test]
        fn merging_in_any_order_gives_the_counts_of_the_whole(
            values in prop::collection::vec(-5.0f32..5.0, 0..300), cut in 0usize..300,
        ) {
            let bins = Bins::from_quantiles(&values, 8);
            let (left, right) = values.split_at(cut.min(values.len()));
            let (left, right) = (Histogram::of(&bins, left), Histogram::of(&bins, right));
            let (mut one, mut other) = (left.clone(), right.clone());
            one.merge(&right).unwrap();
            other.merge(&left).unwrap();
            prop_assert_eq!(&one.counts, &Histogram::of(&bins, &values).counts);
            prop_assert_eq!(one.counts, other.counts);
        }
    }
}
