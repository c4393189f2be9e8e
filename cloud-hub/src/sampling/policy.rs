//! A policy as people write it: shares as fractions. On the wire they are parts per million.

use serde::{Deserialize, Serialize};
use tributary_wire::{Rare, SamplingError, SamplingPolicy, Uncertain, WHOLE_PPM};
use utoipa::ToSchema;

/// What a device sends of its raw observations, and keeps of them while it cannot. Devices have limits of their own,
/// which a policy can lower and never raise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Share of all observations that is sent, above 0 to 1.
    #[serde(default = "whole")]
    pub random: f64,
    /// Observations whose decision was a close one; none are preferred when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uncertain: Option<UncertainPolicy>,
    /// Observations of a kind that hardly ever comes; none are preferred when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rare: Option<RarePolicy>,
    /// Bytes of raw observations on a UTC day, before compression; no limit when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub day_bytes: Option<u64>,
    /// Seconds after which raw observations that could not be sent are given up; never when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_seconds: Option<u64>,
    /// Disk for batches that are not acknowledged, in bytes; as the device says when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outbox_bytes: Option<u64>,
}

/// Which decisions count as close, and how many of them are sent.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UncertainPolicy {
    /// Largest distance of the output from the threshold, in the output's unit.
    pub band: f64,
    /// Share that is sent, above 0 to 1.
    #[serde(default = "whole")]
    pub share: f64,
}

/// Which observations count as rare, and how many of them are sent.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RarePolicy {
    /// Largest share of recent observations that their kind may have, above 0 to 0.5. The kind is the decision and the
    /// sixteenth of the output's range that the output lies in.
    pub at_most: f64,
    /// Share that is sent, above 0 to 1.
    #[serde(default = "whole")]
    pub share: f64,
}

fn whole() -> f64 {
    1.0
}

impl Default for Policy {
    fn default() -> Self {
        Self { random: 1.0, uncertain: None, rare: None, day_bytes: None, keep_seconds: None, outbox_bytes: None }
    }
}

/// The cast takes what is below 0, or no number, to 0, and what is above all to the highest: the check refuses both.
fn millionths(value: f64) -> u32 {
    (value * f64::from(WHOLE_PPM)).round() as u32
}

impl Policy {
    /// As it travels, under the number of the change that made it.
    pub fn wire(&self, number: u64) -> Result<SamplingPolicy, SamplingError> {
        let policy = SamplingPolicy {
            number,
            random: millionths(self.random),
            uncertain: self.uncertain.map(|it| Uncertain { band: millionths(it.band), share: millionths(it.share) }),
            rare: self.rare.map(|it| Rare { at_most: millionths(it.at_most), share: millionths(it.share) }),
            day_bytes: self.day_bytes,
            keep_seconds: self.keep_seconds,
            outbox_bytes: self.outbox_bytes,
        };
        policy.check()?;
        Ok(policy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_travel_as_parts_per_million_and_nonsense_is_named() {
        let read = |text: &str| serde_json::from_str::<Policy>(text).unwrap().wire(7);
        let policy = read(r#"{"random": 0.02, "uncertain": {"band": 0.05}, "rare": {"at_most": 0.001, "share": 0.5}}"#);
        let expected = SamplingPolicy {
            number: 7,
            random: 20_000,
            uncertain: Some(Uncertain { band: 50_000, share: 1_000_000 }),
            rare: Some(Rare { at_most: 1_000, share: 500_000 }),
            ..SamplingPolicy::EVERYTHING
        };
        assert_eq!(policy, Ok(expected));
        for (text, key) in [
            (r#"{"random": 0}"#, "random"),
            (r#"{"random": -1}"#, "random"),
            (r#"{"random": 1.5}"#, "random"),
            (r#"{"uncertain": {"band": 0}}"#, "uncertain.band"),
            (r#"{"rare": {"at_most": 0.9}}"#, "rare.at_most"),
            (r#"{"rare": {"at_most": 0.1, "share": 2}}"#, "rare.share"),
            (r#"{"day_bytes": 0}"#, "day_bytes"),
            (r#"{"keep_seconds": 9999999999999}"#, "keep_seconds"),
        ] {
            assert_eq!(read(text).unwrap_err().key, key, "{text}");
        }
        assert!(serde_json::from_str::<Policy>(r#"{"randm": 1}"#).is_err());
    }
}
