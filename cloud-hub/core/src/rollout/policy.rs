//! How a rollout goes about it.

use serde::{Deserialize, Serialize};

use crate::drift::{SettingsError, require};

/// In which steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// Every device at once.
    All,
    /// A growing share of the fleet, see [`Policy::percent`].
    #[default]
    Waves,
}

/// The rules of a rollout. Times are in seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// In which steps.
    pub strategy: Strategy,
    /// Share of the fleet that has the release after each wave; rising, the last is 100. A wave has at least one device.
    pub percent: Vec<u8>,
    /// How many devices may undo the release before the rollout stops; 0: the first one stops it.
    pub undone_max: u32,
    /// Predictions that the devices of the release must make in a wave before the next begins.
    pub min_predictions: u64,
    /// Share of failed predictions above the control's that is still accepted, and must be excluded as larger.
    pub max_harm: f64,
    /// Probability with which a harmless release is stopped, or a harmful one let through, by chance.
    pub alpha: f64,
    /// A device that was silent for longer is not waited for.
    pub reachable_within_s: u64,
    /// A wave that has not passed by then pauses the rollout.
    pub wave_timeout_s: u64,
    /// A wave begins when the patches to the release are made, and at the latest after this; 0: at once, and devices
    /// that ask before there is a patch fetch the whole package.
    pub patch_wait_s: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            strategy: Strategy::Waves,
            percent: vec![10, 50, 100],
            undone_max: 0,
            min_predictions: 500,
            max_harm: 0.02,
            alpha: 0.05,
            reachable_within_s: 300,
            wave_timeout_s: 24 * 3_600,
            patch_wait_s: 300,
        }
    }
}

impl Policy {
    /// Refuses rules that could never end or say nothing.
    pub fn check(&self) -> Result<(), SettingsError> {
        if self.strategy == Strategy::Waves {
            let rising = self.percent.windows(2).all(|pair| pair[0] < pair[1]);
            let sound =
                rising && self.percent.first().is_some_and(|first| *first > 0) && self.percent.last() == Some(&100);
            let found = format!("{:?}", self.percent);
            require(sound, "rollout.percent", "rising numbers from 1 to 100 of which the last is 100", found)?;
        }
        let share = |value: f64| value > 0.0 && value < 1.0;
        require(self.max_harm > 0.0 && self.max_harm <= 1.0, "rollout.max_harm", "above 0, at most 1", self.max_harm)?;
        require(share(self.alpha), "rollout.alpha", "between 0 and 1", self.alpha)?;
        let reachable = self.reachable_within_s;
        require((1..=31_536_000).contains(&reachable), "rollout.reachable_within_s", "1 s to a year", reachable)?;
        let timeout = self.wave_timeout_s;
        require((1..=31_536_000).contains(&timeout), "rollout.wave_timeout_s", "1 s to a year", timeout)?;
        let wait = self.patch_wait_s;
        require(wait <= 86_400, "rollout.patch_wait_s", "at most a day", wait)
    }

    /// Share of the fleet after each wave.
    pub fn waves(&self) -> &[u8] {
        match self.strategy {
            Strategy::All => &[100],
            Strategy::Waves => &self.percent,
        }
    }
}
