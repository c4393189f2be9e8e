//! Does a version still agree with the labels as well as it did when it was made?

use serde::{Deserialize, Serialize};
use tributary_stats::normal_survival;

use crate::drift::{Findings, SettingsError, Signal, SignalKind, require};

/// When labels count as disappointing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Drop of the area under the curve that matters.
    pub min_drop: f64,
    /// Significance that the drop must reach in each window.
    pub significance: f64,
    /// Days are joined until a window holds this many positives: below it an area says little.
    pub min_positives: u64,
    /// Share of a day's observations that must have labels before the day is judged.
    pub min_labelled: f64,
    /// Standard deviation of the area between weeks that nobody would call a change.
    pub spread: f64,
    /// In how many consecutive windows the drop must be present.
    pub consecutive: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { min_drop: 0.05, significance: 0.01, min_positives: 50, min_labelled: 0.9, spread: 0.02, consecutive: 2 }
    }
}

impl Settings {
    pub(crate) fn check(&self) -> Result<(), SettingsError> {
        let share = |value: f64| value > 0.0 && value < 1.0;
        require(share(self.min_drop), "drift.quality.min_drop", "between 0 and 1", self.min_drop)?;
        require(share(self.significance), "drift.quality.significance", "between 0 and 1", self.significance)?;
        require(self.min_positives > 1, "drift.quality.min_positives", "2 or more", self.min_positives)?;
        let labelled = self.min_labelled;
        require(labelled > 0.0 && labelled <= 1.0, "drift.quality.min_labelled", "above 0, at most 1", labelled)?;
        require((0.0..1.0).contains(&self.spread), "drift.quality.spread", "0 or more, below 1", self.spread)?;
        require((1..=52).contains(&self.consecutive), "drift.quality.consecutive", "1 to 52", self.consecutive)
    }
}

/// An area under the curve and how sure it is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Area {
    /// The area.
    pub auc: f64,
    /// Its standard error.
    pub error: f64,
}

impl Area {
    /// With the standard error that Hanley and McNeil (1982) give when only the counts are known.
    pub fn from_counts(auc: f64, positives: u64, negatives: u64) -> Self {
        let (m, n) = (positives.max(1) as f64, negatives.max(1) as f64);
        let (q1, q2) = (auc / (2.0 - auc), 2.0 * auc * auc / (1.0 + auc));
        let variance = auc * (1.0 - auc) + (m - 1.0) * (q1 - auc * auc) + (n - 1.0) * (q2 - auc * auc);
        Self { auc, error: (variance.max(0.0) / (m * n)).sqrt() }
    }
}

/// How one UTC day of event time stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Day {
    /// Days since 1970-01-01.
    pub day: i64,
    /// Observations of the version.
    pub observations: u64,
    /// Of those, how many have a label.
    pub labelled: u64,
    /// Of those, how many are positive.
    pub positives: u64,
}

/// Joins consecutive settled days until each window holds enough positives. A day whose labels are still coming ends
/// the list: later days wait for it, so that a window never changes once it was judged. `late` says that a day is so
/// old that its labels will not come any more; it then counts as it is.
pub fn windows(settings: &Settings, days: &[Day], late: impl Fn(i64) -> bool) -> Vec<(i64, i64)> {
    let mut found = Vec::new();
    let mut open: Option<(i64, u64)> = None;
    for day in days.iter().filter(|day| day.observations > 0) {
        let settled = day.labelled as f64 >= settings.min_labelled * day.observations as f64 || late(day.day);
        if !settled {
            break;
        }
        let (first, positives) = open.take().unwrap_or((day.day, 0));
        let positives = positives + day.positives;
        if positives >= settings.min_positives {
            found.push((first, day.day));
        } else {
            open = Some((first, positives));
        }
    }
    found
}

/// Compares a window of labelled observations with the baseline.
pub fn judge(settings: &Settings, baseline: Area, start: i64, end: i64, rows: u64, window: Area) -> Findings {
    let effect = baseline.auc - window.auc;
    let error = (baseline.error.powi(2) + window.error.powi(2) + settings.spread.powi(2)).sqrt().max(1e-9);
    let p_value = normal_survival(effect / error);
    let signal = Signal {
        kind: SignalKind::Quality,
        name: "auc".to_owned(),
        p_value,
        effect,
        effect_lower: effect - 1.645 * error,
        threshold: settings.min_drop,
        // The estimate, not its lower limit, is held against the drop that matters: a limit would take months of
        // labels for rare positives, and chance is already kept out by the significance in consecutive windows.
        drifted: p_value < settings.significance && effect >= settings.min_drop,
    };
    Findings { start, end, predictions: rows, skipped: None, signals: vec![signal] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drift::verdict;
    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};
    use tributary_stats::ranking::auc_with_error;

    fn area(rng: &mut SmallRng, lift: f32, positives: usize, negatives: usize) -> Area {
        let labels: Vec<bool> = (0..positives + negatives).map(|i| i < positives).collect();
        let normal = |rng: &mut SmallRng| (0..12).map(|_| rng.random::<f32>()).sum::<f32>() - 6.0;
        let scores: Vec<f32> = labels.iter().map(|l| normal(rng) + if *l { lift } else { 0.0 }).collect();
        let (auc, error) = auc_with_error(&scores, &labels).unwrap();
        Area { auc, error }
    }

    #[test]
    fn unchanged_quality_alarms_almost_never_and_a_real_drop_soon() {
        let settings = Settings::default();
        let (mut single, mut alarms, mut found) = (0, 0, 0);
        let lines = 100;
        for seed in 0..lines {
            let mut rng = SmallRng::seed_from_u64(seed);
            let baseline = area(&mut rng, 1.6, 60, 2_000);
            let mut judged = |lift| judge(&settings, baseline, 0, 1, 2_000, area(&mut rng, lift, 50, 2_000));
            let quiet: Vec<Findings> = (0..10).map(|_| judged(1.6)).collect();
            single += quiet.iter().filter(|w| w.signals[0].drifted).count();
            alarms += u32::from((2..=10).any(|n| !verdict(settings.consecutive, &quiet[..n]).is_empty()));
            let drop: Vec<Findings> = (0..4).map(|_| judged(0.6)).collect();
            found += u32::from(!verdict(settings.consecutive, &drop).is_empty());
        }
        assert!(single as f64 / (10.0 * lines as f64) <= settings.significance, "{single} single windows");
        assert_eq!(alarms, 0, "in {lines} lines of ten unchanged windows each");
        assert!(found >= 95, "{found} of {lines} drops from 0.87 to 0.66 found");
    }

    #[test]
    fn days_are_joined_until_there_are_enough_positives_and_wait_for_labels() {
        let settings = Settings { min_positives: 10, ..Settings::default() };
        let day = |day, labelled, positives| Day { day, observations: 100, labelled, positives };
        let days = [day(1, 100, 4), day(2, 95, 7), day(3, 100, 12), day(4, 20, 15), day(5, 100, 30)];
        assert_eq!(windows(&settings, &days, |_| false), [(1, 2), (3, 3)]);
        assert_eq!(windows(&settings, &days, |day| day <= 4), [(1, 2), (3, 3), (4, 4), (5, 5)]);
        assert!(windows(&settings, &days[..1], |_| false).is_empty());
    }

    #[test]
    fn the_error_from_counts_is_close_to_the_one_from_scores() {
        let mut rng = SmallRng::seed_from_u64(4);
        let measured = area(&mut rng, 1.5, 80, 3_000);
        let guessed = Area::from_counts(measured.auc, 80, 3_000);
        assert!((measured.error / guessed.error - 1.0).abs() < 0.3, "{measured:?} {guessed:?}");
    }
}
