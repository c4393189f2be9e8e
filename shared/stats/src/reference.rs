//! What a feature or output looked like when the model was made.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Bins, Histogram, drift};

/// Bins and counts of one feature (or the output) over the training data, and how far single days lay from them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reference {
    /// Name of the feature; `output` for the model's output.
    pub name: String,
    /// The bins that every later histogram of this feature uses.
    pub bins: Bins,
    /// The training data over those bins.
    pub histogram: Histogram,
    /// How much single days of the training data differed from the whole.
    pub spread: Spread,
}

/// Natural variation between windows (days) of the reference: weekday, clustering by customer or device, chance.
/// Without it, correlated rows would make every small wobble significant.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// How many windows were compared.
    pub windows: u32,
    /// Variance between windows as a multiple of what independent rows would show, at least 1.
    pub design_effect: f64,
    /// Largest population stability index of a single window against the whole.
    pub psi_max: f64,
}

impl Default for Spread {
    fn default() -> Self {
        Self { windows: 0, design_effect: 1.0, psi_max: 0.0 }
    }
}

/// A window with fewer values says more about chance than about spread.
const MIN_WINDOW_VALUES: u64 = 50;

impl Reference {
    /// From the values of one feature over the training rows and the UTC day of each, with at most `most_bins` bins.
    /// `days` may be empty when no spread is known.
    pub fn build(name: &str, values: &[f32], days: &[i64], most_bins: usize) -> Self {
        let bins = Bins::from_quantiles(values, most_bins);
        let histogram = Histogram::of(&bins, values);
        let mut by_day: BTreeMap<i64, Histogram> = BTreeMap::new();
        for (value, day) in values.iter().zip(days) {
            by_day.entry(*day).or_insert_with(|| Histogram::new(&bins)).record(&bins, Some(*value));
        }
        let spread = Spread::between(&histogram, by_day.values());
        Self { name: name.to_owned(), bins, histogram, spread }
    }

    /// An empty histogram over these bins.
    pub fn empty(&self) -> Histogram {
        Histogram::new(&self.bins)
    }
}

impl Spread {
    /// Compares each window with the others taken together.
    pub fn between<'a>(whole: &Histogram, windows: impl Iterator<Item = &'a Histogram>) -> Self {
        let (mut count, mut inflation, mut psi_max) = (0u32, 0.0, 0.0f64);
        for window in windows.filter(|window| window.total() >= MIN_WINDOW_VALUES) {
            let rest: Vec<u64> = whole.counts.iter().zip(&window.counts).map(|(all, ours)| all - ours).collect();
            let Some(test) = drift::psi(&rest, &window.counts, 1.0) else { continue };
            count += 1;
            inflation += test.statistic / test.degrees.max(1.0);
            psi_max = psi_max.max(test.effect);
        }
        let design_effect = if count == 0 { 1.0 } else { (inflation / f64::from(count)).max(1.0) };
        Self { windows: count, design_effect, psi_max }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};

    fn days(of: impl Fn(i64, &mut SmallRng) -> f32) -> Reference {
        let mut rng = SmallRng::seed_from_u64(1);
        let rows = (0..28i64).flat_map(|day| (0..400).map(move |_| day));
        let (values, days): (Vec<f32>, Vec<i64>) = rows.map(|day| (of(day, &mut rng), day)).unzip();
        Reference::build("x", &values, &days, 16)
    }

    #[test]
    fn independent_rows_have_a_design_effect_near_one() {
        let spread = days(|_, rng| rng.random()).spread;
        assert_eq!(spread.windows, 28);
        assert!(spread.design_effect < 1.3, "{spread:?}");
        assert!(spread.psi_max < 0.12, "{spread:?}");
    }

    #[test]
    fn a_feature_that_follows_the_weekday_has_a_large_spread() {
        let spread = days(|day, _| if day % 7 < 2 { 1.0 } else { 0.0 }).spread;
        assert!(spread.design_effect > 50.0 && spread.psi_max > 1.0, "{spread:?}");
    }

    #[test]
    fn without_days_there_is_no_spread() {
        assert_eq!(Reference::build("x", &[1.0, 2.0], &[], 8).spread, Spread::default());
    }
}
