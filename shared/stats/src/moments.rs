//! Count, mean, variance and range that merge without the values.

use serde::{Deserialize, Serialize};

/// Count, mean, sum of squared deviations, minimum and maximum. Merging follows Chan, Golub and LeVeque.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Moments {
    /// How many values.
    pub count: u64,
    /// Their mean; 0 when there are none.
    pub mean: f64,
    /// Sum of squared deviations from the mean.
    pub squares: f64,
    /// Smallest value; infinity when there are none.
    pub min: f64,
    /// Largest value; minus infinity when there are none.
    pub max: f64,
}

impl Default for Moments {
    fn default() -> Self {
        Self { count: 0, mean: 0.0, squares: 0.0, min: f64::INFINITY, max: f64::NEG_INFINITY }
    }
}

impl Moments {
    /// Adds a finite value.
    pub fn record(&mut self, value: f64) {
        debug_assert!(value.is_finite());
        self.count += 1;
        let deviation = value - self.mean;
        self.mean += deviation / self.count as f64;
        self.squares += deviation * (value - self.mean);
        self.min = self.min.min(value);
        self.max = self.max.max(value);
    }

    /// Takes over everything `other` has seen.
    pub fn merge(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        let (ours, theirs) = (self.count as f64, other.count as f64);
        let both = ours + theirs;
        let deviation = other.mean - self.mean;
        self.count += other.count;
        self.mean += deviation * theirs / both;
        self.squares += other.squares + deviation * deviation * ours * theirs / both;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }

    /// Unbiased variance; `None` below two values.
    pub fn variance(&self) -> Option<f64> {
        (self.count > 1).then(|| self.squares / (self.count - 1) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn merged_parts_agree_with_the_whole(values in prop::collection::vec(-1e3f64..1e3, 2..200), cut in 0usize..200) {
            let cut = cut.min(values.len());
            let of = |part: &[f64]| {
                let mut moments = Moments::default();
                part.iter().for_each(|value| moments.record(*value));
                moments
            };
            let whole = of(&values);
            let mut merged = of(&values[..cut]);
            merged.merge(&of(&values[cut..]));
            prop_assert_eq!(merged.count, whole.count);
            prop_assert!((merged.mean - whole.mean).abs() < 1e-9);
            prop_assert!((merged.squares - whole.squares).abs() < 1e-6 * (1.0 + whole.squares));
            prop_assert_eq!((merged.min, merged.max), (whole.min, whole.max));
        }
    }
}
