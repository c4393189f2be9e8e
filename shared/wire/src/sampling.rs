//! What a device sends of its raw observations, and keeps of them while it cannot send.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::{LossReason, StreamName};

/// The whole, in the unit of shares: parts per million.
pub const WHOLE_PPM: u32 = 1_000_000;

/// How much of its raw observations a device sends. Whole numbers only, so that what is signed has one byte form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SamplingPolicy {
    /// Number of the change at the hub that made this policy; 0: the device's own configuration.
    pub number: u64,
    /// Share of all observations that is sent, in parts per million.
    pub random: u32,
    /// Observations whose decision was a close one.
    pub uncertain: Option<Uncertain>,
    /// Observations of a kind that hardly ever comes.
    pub rare: Option<Rare>,
    /// Bytes of raw observations on a UTC day, before compression.
    pub day_bytes: Option<u64>,
    /// Seconds after which raw observations that never travelled are given up.
    pub keep_seconds: Option<u64>,
    /// Disk for batches that are not acknowledged, in bytes.
    pub outbox_bytes: Option<u64>,
}

impl SamplingPolicy {
    /// Everything is sent, and kept as long as there is room.
    pub const EVERYTHING: Self = Self {
        number: 0,
        random: WHOLE_PPM,
        uncertain: None,
        rare: None,
        day_bytes: None,
        keep_seconds: None,
        outbox_bytes: None,
    };
}

/// Why a policy is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{key}` is {found}; expected {expected}")]
pub struct SamplingError {
    /// Which part of it.
    pub key: &'static str,
    /// What it says.
    pub found: u64,
    /// What it may say.
    pub expected: &'static str,
}

impl SamplingPolicy {
    /// Checks what types cannot.
    pub fn check(&self) -> Result<(), SamplingError> {
        const SHARE: &str = "parts per million, 1 to 1000000";
        let share = |share: u32| (1..=WHOLE_PPM).contains(&share);
        let error = |key, found: u64, expected| Err(SamplingError { key, found, expected });
        if !share(self.random) {
            // Without it nothing would stand for what is neither close nor rare.
            return error("random", self.random.into(), SHARE);
        }
        if let Some(Uncertain { band, share: found }) = self.uncertain {
            if band == 0 {
                return error("uncertain.band", 0, "millionths of the output's unit, at least 1");
            }
            if !share(found) {
                return error("uncertain.share", found.into(), SHARE);
            }
        }
        if let Some(Rare { at_most, share: found }) = self.rare {
            if !(1..=WHOLE_PPM / 2).contains(&at_most) {
                return error("rare.at_most", at_most.into(), "parts per million, 1 to 500000");
            }
            if !share(found) {
                return error("rare.share", found.into(), SHARE);
            }
        }
        for (key, found) in
            [("day_bytes", self.day_bytes), ("keep_seconds", self.keep_seconds), ("outbox_bytes", self.outbox_bytes)]
        {
            // The catalog's numbers and a wall clock's microseconds are signed.
            if let Some(found) = found.filter(|found| !(1..=1 << 40).contains(found)) {
                return error(key, found, "1 to 1099511627776");
            }
        }
        Ok(())
    }
}

/// Which decisions count as close, and how many of them are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uncertain {
    /// Largest distance of the output from the threshold of the decision, in millionths of the output's unit.
    pub band: u32,
    /// Share that is sent, in parts per million.
    pub share: u32,
}

/// Which observations count as rare, and how many of them are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rare {
    /// Largest share of recent observations that their kind may have, in parts per million.
    pub at_most: u32,
    /// Share that is sent, in parts per million.
    pub share: u32,
}

/// What became of a device's raw observations, since its state began unless it says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SamplingReport {
    /// Number of the policy that is in force; 0: the device's own configuration.
    pub number: u64,
    /// Whether the device's own limits narrow that policy.
    pub limited: bool,
    /// Observations that were kept for the hub.
    pub kept: u64,
    /// Observations that a coin left out: those kept stand for them.
    pub left_out: u64,
    /// Observations left out without a chance, because the day's bytes were used up: nothing stands for them.
    pub uncovered: u64,
    /// Events that are not sent because their observations are not.
    pub events_left_out: u64,
    /// Bytes kept on the present UTC day, before compression.
    pub day_bytes: u64,
}

/// Records that a device gave up since its state began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DroppedRecords {
    /// Of which stream.
    pub stream: StreamName,
    /// Why.
    pub reason: LossReason,
    /// How many.
    pub records: u64,
}

/// What a device kept back from the hub, and what it lost.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Withheld {
    /// By its policy.
    pub sampling: SamplingReport,
    /// For want of room or time, by stream and reason.
    pub dropped: Vec<DroppedRecords>,
    /// Why the hub's policy is not in force as it stands, in words.
    pub problem: Option<String>,
}
