//! What a person decides about a line: how it is trained, watched, promoted and rolled out.

use cloud_hub_core::drift::SettingsError;
use cloud_hub_core::registry::PromotionPolicy;
use cloud_hub_core::{drift, rollout};
use cloud_hub_trainer::{DecisionRule, ModelSpec, QuantizationSpec, Split, TrialLimits};
use serde::{Deserialize, Serialize};
use tributary_process::config::HumanDuration;
use utoipa::ToSchema;

/// Settings of a model line. What is left out keeps its default; `GET lines/{line}` shows all of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LineSettings {
    /// How versions are trained.
    pub training: TrainingSettings,
    /// When int8 may ship.
    #[schema(value_type = Object)]
    pub quantization: QuantizationSpec,
    /// When a new version takes the champion's place.
    #[schema(value_type = Object)]
    pub promotion: PromotionPolicy,
    /// When inputs, outputs and quality count as drifted.
    #[schema(value_type = Object)]
    pub drift: drift::Settings,
    /// How a release reaches the fleet.
    #[schema(value_type = Object)]
    pub rollout: rollout::Policy,
    /// Whether a drift alert starts a training run.
    pub retrain: Retrain,
    /// How long after a run that drift asked for the next may begin.
    #[schema(value_type = String)]
    pub cool_down: HumanDuration,
    /// Whether a version that wins is made champion, published and rolled out without a person.
    pub auto_rollout: bool,
}

impl Default for LineSettings {
    fn default() -> Self {
        Self {
            training: TrainingSettings::default(),
            quantization: QuantizationSpec::default(),
            promotion: PromotionPolicy::default(),
            drift: drift::Settings::default(),
            rollout: rollout::Policy::default(),
            retrain: Retrain::default(),
            cool_down: HumanDuration(std::time::Duration::from_secs(600)),
            auto_rollout: true,
        }
    }
}

impl LineSettings {
    /// Refuses settings that make no sense, each with its name, value and what is allowed.
    pub fn check(&self) -> Result<(), SettingsError> {
        self.drift.check()?;
        self.rollout.check()?;
        self.promotion.check()?;
        self.training.check()
    }
}

/// Whether a drift alert starts a training run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Retrain {
    /// It does.
    #[default]
    OnDrift,
    /// A person does.
    Manual,
}

/// With which weights a run begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StartFrom {
    /// Drawn ones.
    #[default]
    Scratch,
    /// The champion's, which are trained further. While there is no champion, or its features or shape are others, from
    /// scratch; the run's steps say so.
    Champion,
    /// The same, but only the last layer changes.
    ChampionLastLayer,
}

/// How versions of a line are trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TrainingSettings {
    /// How far back rows are taken when a run does not say: from the newest event time minus the label delay.
    #[schema(value_type = String)]
    pub range: HumanDuration,
    /// How long after an event its label is taken to be known; the feature view's own when left out.
    #[schema(value_type = Option<String>)]
    pub label_delay: Option<HumanDuration>,
    /// Seed of runs that drift starts.
    pub seed: u64,
    /// How the days are divided.
    #[schema(value_type = Object)]
    pub split: Split,
    /// Architecture and training.
    #[schema(value_type = Object)]
    pub model: ModelSpec,
    /// Where a run begins. After a warm start devices get by with much smaller patches.
    pub start: StartFrom,
    /// How a probability becomes a decision.
    #[schema(value_type = Object)]
    pub decision: DecisionRule,
    /// What devices hold a version to while it is on trial.
    #[schema(value_type = Object)]
    pub trial: TrialLimits,
}

impl Default for TrainingSettings {
    fn default() -> Self {
        Self {
            range: HumanDuration(std::time::Duration::from_secs(60 * 86_400)),
            label_delay: None,
            seed: 1,
            split: Split::default(),
            model: ModelSpec::default(),
            start: StartFrom::Scratch,
            decision: DecisionRule::default(),
            trial: TrialLimits::default(),
        }
    }
}

impl TrainingSettings {
    /// The range must hold at least one day to train on beside those to validate and test on.
    fn check(&self) -> Result<(), SettingsError> {
        let days = self.range.0.as_secs() / 86_400;
        let needed = u64::from(self.split.validation_days) + u64::from(self.split.test_days) + 1;
        if days < needed {
            return Err(SettingsError {
                setting: "training.range",
                expected: "longer than the validation and test days of training.split together",
                found: self.range.to_string(),
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_object_is_the_default_and_an_unknown_key_is_refused() {
        assert_eq!(serde_json::from_str::<LineSettings>("{}").unwrap(), LineSettings::default());
        LineSettings::default().check().unwrap();
        for wrong in [r#"{"trainig": {}}"#, r#"{"training": {"epochs": 3}}"#, r#"{"rollout": {"wave": 1}}"#] {
            assert!(serde_json::from_str::<LineSettings>(wrong).unwrap_err().to_string().contains("unknown field"));
        }
    }

    #[test]
    fn a_range_too_short_for_its_split_is_refused() {
        let settings: LineSettings = serde_json::from_str(r#"{"training": {"range": "10d"}}"#).unwrap();
        assert!(settings.check().unwrap_err().to_string().contains("training.range"));
    }
}
