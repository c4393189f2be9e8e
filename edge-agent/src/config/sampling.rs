//! What is sent of raw observations while the hub says nothing else.

use serde::{Deserialize, Serialize};
use tributary_process::config::{ByteSize, HumanDuration};
use tributary_wire::{Rare, SamplingPolicy, Uncertain, WHOLE_PPM};

/// What is sent of raw observations. A policy of the hub takes the place of the shares; `day_bytes` and `keep` are limits
/// that it can lower and never raise.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sampling {
    /// Share of all observations that is sent, above 0 to 1.
    pub random: f64,
    /// Observations whose output lies so close to the threshold of the decision are uncertain; 0: none.
    pub uncertain_band: f64,
    /// Share of uncertain observations that is sent.
    pub uncertain_share: f64,
    /// Observations of a kind that had at most this share of recent ones are rare; 0: none.
    pub rare_at_most: f64,
    /// Share of rare observations that is sent.
    pub rare_share: f64,
    /// Most bytes of raw observations on a UTC day, before compression.
    pub day_bytes: Option<ByteSize>,
    /// Raw observations that could not be sent for so long are given up.
    pub keep: Option<HumanDuration>,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            random: 1.0,
            uncertain_band: 0.0,
            uncertain_share: 1.0,
            rare_at_most: 0.0,
            rare_share: 1.0,
            day_bytes: None,
            keep: None,
        }
    }
}

impl Sampling {
    /// In the form in which policies travel.
    pub fn policy(&self) -> SamplingPolicy {
        // The cast takes what is below 0, or no number, to 0, which the policy's own check refuses.
        let millionths = |value: f64| (value * f64::from(WHOLE_PPM)).round() as u32;
        let uncertain = Uncertain { band: millionths(self.uncertain_band), share: millionths(self.uncertain_share) };
        let rare = Rare { at_most: millionths(self.rare_at_most), share: millionths(self.rare_share) };
        SamplingPolicy {
            number: 0,
            random: millionths(self.random),
            uncertain: (self.uncertain_band != 0.0).then_some(uncertain),
            rare: (self.rare_at_most != 0.0).then_some(rare),
            day_bytes: self.day_bytes.map(|bytes| bytes.0),
            keep_seconds: self.keep.map(|keep| keep.0.as_secs()),
            outbox_bytes: None,
        }
    }
}
