//! Which kinds of observations come rarely.
//!
//! The kind of an observation is its decision and the part of the output's declared range, of sixteen equal parts, that
//! its output lies in. It says what the model made of the event, in one number instead of many features, and costs an
//! addition. How often a kind comes is counted over the last 32 768 to 65 536 observations of the same version.

use serde::{Deserialize, Serialize};

use super::Scored;

/// Parts of the output's range.
const PARTS: usize = 16;
/// When so many are counted, all counts are halved: older ones matter less and less.
const MANY: u32 = 1 << 16;
/// Below so many nothing is rare: a kind that was not met yet need not be one that hardly comes.
const FEW: u32 = 1000;

/// How often each kind came.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Kinds {
    /// The version that they are counted of: another one has other outputs.
    version: u32,
    /// By decision, then by part; empty before the first.
    counts: Vec<u32>,
    total: u32,
}

impl Kinds {
    /// Counts an observation; whether its kind was at most `at_most` of a million of those before it.
    pub(super) fn meet(&mut self, scored: &Scored, at_most: u32) -> bool {
        if self.version != scored.version || self.counts.len() != 2 * PARTS {
            *self = Self { version: scored.version, counts: vec![0; 2 * PARTS], total: 0 };
        }
        let (low, high) = (f64::from(scored.bounds.0), f64::from(scored.bounds.1));
        let place = (f64::from(scored.output) - low) / (high - low) * PARTS as f64;
        // The cast takes what lies outside, or is no number, to the nearest end.
        let part = (place as usize).min(PARTS - 1);
        let count = &mut self.counts[part + if scored.decision { PARTS } else { 0 }];
        let is_rare = self.total >= FEW && u64::from(*count) * 1_000_000 <= u64::from(at_most) * u64::from(self.total);
        *count += 1;
        self.total += 1;
        if self.total >= MANY {
            self.counts.iter_mut().for_each(|count| *count /= 2);
            self.total = self.counts.iter().sum();
        }
        // Without a share for them nothing counts as rare, also what never came.
        is_rare && at_most > 0
    }
}
