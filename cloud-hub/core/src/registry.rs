//! Which version an alias names, and whether a new one deserves it.

use serde::{Deserialize, Serialize};
use tributary_stats::ranking::Difference;
use tributary_wire::VersionNumber;

use crate::drift::{SettingsError, require};

/// The alias of the version that serves unless a rollout says otherwise.
pub const CHAMPION: &str = "champion";

/// Why an alias cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AliasError {
    /// Not a usable name.
    #[error("alias {found:?} does not match [a-z0-9-]{{1,63}}")]
    Name {
        /// What was given.
        found: String,
    },
}

/// Refuses a name that no alias may have.
pub fn check_alias(alias: &str) -> Result<(), AliasError> {
    let wrong = |_| AliasError::Name { found: alias.chars().take(80).collect() };
    tributary_wire::GroupName::new(alias).map(|_| ()).map_err(wrong)
}

/// By which metric a challenger must be better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Metric {
    /// Area under the receiver operating characteristic.
    #[default]
    Auc,
    /// Average precision.
    AveragePrecision,
}

/// When a challenger takes the champion's place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PromotionPolicy {
    /// The metric that decides.
    pub metric: Metric,
    /// A challenger below this by that metric is never taken, however bad the champion has become: soon after a change
    /// there are too few labels of the new kind, and training again on more beats shipping a guess. 0 turns it off.
    pub min_score: f64,
    /// Gain that the lower confidence limit of the difference must exceed.
    pub min_gain: f64,
    /// Loss by the other metric that is still accepted.
    pub max_loss: f64,
    /// Held-out positives below which nothing is decided.
    pub min_positives: u64,
}

impl Default for PromotionPolicy {
    fn default() -> Self {
        Self { metric: Metric::Auc, min_score: 0.0, min_gain: 0.0, max_loss: 0.02, min_positives: 20 }
    }
}

impl PromotionPolicy {
    /// Refuses a policy that would promote anything or nothing.
    pub fn check(&self) -> Result<(), SettingsError> {
        require((0.0..1.0).contains(&self.min_score), "promotion.min_score", "0 or more, below 1", self.min_score)?;
        require((0.0..1.0).contains(&self.min_gain), "promotion.min_gain", "0 or more, below 1", self.min_gain)?;
        require((0.0..=1.0).contains(&self.max_loss), "promotion.max_loss", "0 to 1", self.max_loss)?;
        require(self.min_positives > 0, "promotion.min_positives", "1 or more", self.min_positives)
    }
}

/// Champion and challenger on the same held-out rows, which neither was trained on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Held-out rows.
    pub rows: u64,
    /// Positives among them.
    pub positives: u64,
    /// By area under the curve.
    pub auc: Difference,
    /// By average precision.
    pub average_precision: Difference,
}

/// What to do with a challenger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "decision", content = "reason")]
pub enum Promotion {
    /// It takes the champion's place.
    Promote(String),
    /// The champion stays.
    Keep(String),
}

/// Decides on a challenger. Without a champion the first version is taken; otherwise it must be better beyond noise.
pub fn promote(policy: &PromotionPolicy, champion: Option<VersionNumber>, found: Option<&Comparison>) -> Promotion {
    let Some(champion) = champion else { return Promotion::Promote("the line has no champion yet".to_owned()) };
    let Some(found) = found else {
        return Promotion::Keep(format!("there is no comparison with the champion, version {champion}"));
    };
    if found.positives < policy.min_positives {
        let (positives, needed) = (found.positives, policy.min_positives);
        return Promotion::Keep(format!("{positives} held-out positives, {needed} are needed to tell versions apart"));
    }
    let (auc, precision) = (("AUC", found.auc), ("average precision", found.average_precision));
    let ((name, main), (other_name, other)) = match policy.metric {
        Metric::Auc => (auc, precision),
        Metric::AveragePrecision => (precision, auc),
    };
    let figures = format!(
        "{name} {:.4} against {:.4} of version {champion} on the same {} rows (difference {:+.4}, 95 % limits {:+.4} to {:+.4})",
        main.challenger, main.champion, found.rows, main.difference, main.lower, main.upper
    );
    if main.challenger < policy.min_score {
        return Promotion::Keep(format!("below the floor of {}: {figures}", policy.min_score));
    }
    // A number that is not a number keeps the champion.
    if main.lower.is_nan() || main.lower <= policy.min_gain {
        return Promotion::Keep(format!("not better beyond noise: {figures}"));
    }
    if other.upper.is_nan() || other.upper < -policy.max_loss {
        let loss = -other.difference;
        return Promotion::Keep(format!("better by one metric, but {other_name} loses {loss:.4}: {figures}"));
    }
    Promotion::Promote(format!("better beyond noise: {figures}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn difference(champion: f64, challenger: f64, radius: f64) -> Difference {
        let difference = challenger - champion;
        Difference { champion, challenger, difference, lower: difference - radius, upper: difference + radius }
    }

    fn comparison(auc: Difference, average_precision: Difference) -> Comparison {
        Comparison { rows: 10_000, positives: 90, auc, average_precision }
    }

    fn decide(found: &Comparison) -> Promotion {
        promote(&PromotionPolicy::default(), Some(VersionNumber(1)), Some(found))
    }

    #[test]
    fn a_challenger_must_be_better_beyond_noise_on_the_same_rows() {
        let better = comparison(difference(0.80, 0.88, 0.03), difference(0.5, 0.6, 0.05));
        assert!(matches!(decide(&better), Promotion::Promote(reason) if reason.contains("0.8800 against 0.8000")));
        let noisy = comparison(difference(0.80, 0.82, 0.03), difference(0.5, 0.6, 0.05));
        assert!(matches!(decide(&noisy), Promotion::Keep(reason) if reason.contains("not better beyond noise")));
        let broken = comparison(difference(f64::NAN, 0.9, 0.0), difference(0.5, 0.6, 0.05));
        assert!(matches!(decide(&broken), Promotion::Keep(_)));
    }

    #[test]
    fn a_challenger_below_the_floor_is_not_taken_even_from_a_worse_champion() {
        let found = comparison(difference(0.30, 0.45, 0.03), difference(0.02, 0.05, 0.05));
        let policy = PromotionPolicy { min_score: 0.8, ..PromotionPolicy::default() };
        let decision = promote(&policy, Some(VersionNumber(1)), Some(&found));
        assert!(matches!(decision, Promotion::Keep(reason) if reason.contains("below the floor of 0.8")));
    }

    #[test]
    fn a_gain_that_costs_the_other_metric_is_not_taken() {
        let lopsided = comparison(difference(0.80, 0.88, 0.03), difference(0.6, 0.4, 0.05));
        assert!(matches!(decide(&lopsided), Promotion::Keep(reason) if reason.contains("average precision loses")));
    }

    #[test]
    fn the_first_version_is_taken_and_too_few_positives_decide_nothing() {
        assert!(matches!(promote(&PromotionPolicy::default(), None, None), Promotion::Promote(_)));
        assert!(matches!(promote(&PromotionPolicy::default(), Some(VersionNumber(1)), None), Promotion::Keep(_)));
        let mut few = comparison(difference(0.80, 0.99, 0.01), difference(0.5, 0.9, 0.01));
        few.positives = 19;
        assert!(matches!(decide(&few), Promotion::Keep(reason) if reason.contains("19 held-out positives")));
    }

    #[test]
    fn an_alias_cannot_be_called_anything() {
        assert_eq!(check_alias(CHAMPION), Ok(()));
        let error = check_alias("No Name").unwrap_err().to_string();
        assert!(error.contains("\"No Name\" does not match"), "{error}");
    }
}
