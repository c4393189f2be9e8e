//! Latencies in logarithmic buckets: quantiles within five percent, and sketches of many devices add up exactly.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Ratio of neighbouring bucket bounds. A quantile read from the middle of a bucket is off by at most half of it.
const GROWTH: f64 = 1.1;
/// ln(2^64) / ln(1.1) rounded up: no latency in microseconds needs a higher bucket.
const MAX_BUCKET: u16 = 466;

/// Counts of positive whole numbers in buckets that grow by a tenth.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LatencySketch {
    buckets: BTreeMap<u16, u64>,
    /// Largest value, exactly.
    pub max: u64,
}

impl LatencySketch {
    /// Adds one value; 0 counts as 1.
    pub fn record(&mut self, value: u64) {
        *self.buckets.entry(bucket(value)).or_default() += 1;
        self.max = self.max.max(value);
    }

    /// Adds all of `other`; exact, in any order.
    pub fn merge(&mut self, other: &Self) {
        for (bucket, count) in &other.buckets {
            *self.buckets.entry(*bucket).or_default() += count;
        }
        self.max = self.max.max(other.max);
    }

    /// How many values.
    pub fn count(&self) -> u64 {
        self.buckets.values().sum()
    }

    /// The value below which a share `q` (0 to 1) of all lie; `None` when there are none.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let total = self.count();
        let rank = ((q.clamp(0.0, 1.0) * total as f64).ceil() as u64).max(1);
        let mut seen = 0;
        self.buckets.iter().find_map(|(bucket, count)| {
            seen += count;
            (seen >= rank).then(|| (GROWTH.powi(i32::from(*bucket)) * GROWTH.sqrt()).min(self.max as f64))
        })
    }

    /// Values above `limit`, to the accuracy of a bucket.
    pub fn above(&self, limit: u64) -> u64 {
        self.buckets.range(bucket(limit) + 1..).map(|(_, count)| count).sum()
    }

    /// [`LatencySketch::count`]; `None` when the numbers contradict each other.
    pub(crate) fn checked_count(&self) -> Option<u64> {
        self.buckets.keys().all(|bucket| *bucket <= MAX_BUCKET).then_some(())?;
        self.buckets.values().try_fold(0u64, |sum, count| sum.checked_add(*count))
    }
}

fn bucket(value: u64) -> u16 {
    ((value.max(1) as f64).ln() / GROWTH.ln()) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_five_percent_and_merging_adds_up() {
        let (mut low, mut high) = (LatencySketch::default(), LatencySketch::default());
        (1..=5_000).for_each(|value| low.record(value));
        (5_001..=10_000).for_each(|value| high.record(value));
        low.merge(&high);
        for (q, exact) in [(0.5, 5_000.0), (0.9, 9_000.0), (0.99, 9_900.0)] {
            let found = low.quantile(q).unwrap();
            assert!((found / exact - 1.0).abs() < 0.051, "{q}: {found} for {exact}");
        }
        assert_eq!((low.count(), low.max), (10_000, 10_000));
        assert!((low.above(9_000) as f64 - 1_000.0).abs() < 1_000.0);
    }

    #[test]
    fn extremes_have_a_bucket_and_nothing_has_no_quantile() {
        let mut sketch = LatencySketch::default();
        assert_eq!(sketch.quantile(0.5), None);
        sketch.record(0);
        sketch.record(u64::MAX);
        assert_eq!(sketch.checked_count(), Some(2));
        assert_eq!(sketch.quantile(0.0), Some(GROWTH.sqrt()));
    }
}
