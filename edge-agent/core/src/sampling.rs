//! Which raw observations are sent to the hub, and with which probability.
//!
//! Every observation is given its probability first, from the policy and from what was sent before it; then a coin is
//! thrown that depends on nothing but the device and the event. So the inverse of the recorded probability is a sound
//! weight (Horvitz and Thompson 1952): the sum of `x / probability` over what was sent estimates the sum of `x` over
//! everything without bias, also though the probability moves with the day's bytes. A retry, a replay after a crash
//! and a second machine decide alike.
//!
//! * Every observation has the *random* share.
//! * A *close* one, whose output lies within the band around the threshold, has at least the *uncertain* share
//!   (uncertainty sampling, Lewis and Gale 1994).
//! * One of a [rare kind](kinds) has at least the *rare* share.
//! * The [day's bytes](day) lower all of them alike, as far as needed.

mod day;
mod kinds;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};
use tributary_wire::{DeviceId, Micros, SamplingPolicy, SamplingReport, WHOLE_PPM};

use self::day::Day;
use self::kinds::Kinds;
use crate::chance;

/// What was decided for one event and its observations.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Sampled {
    /// The probability with which they are sent: known before the coin was thrown.
    pub probability: f64,
    /// Whether they are sent.
    pub kept: bool,
    /// Whether they are close or rare: of what has to be given up for want of room these go last.
    pub remarkable: bool,
    /// Whether the event shares their fate; otherwise it is sent in any case.
    pub with_event: bool,
}

impl Default for Sampled {
    fn default() -> Self {
        Self { probability: 1.0, kept: true, remarkable: false, with_event: false }
    }
}

impl Sampled {
    /// Whether the event is sent.
    pub fn event_kept(&self) -> bool {
        self.kept || !self.with_event
    }

    /// The probability with which the event is sent.
    pub fn event_probability(&self) -> f64 {
        if self.with_event { self.probability } else { 1.0 }
    }
}

/// What is known of an event once it is scored. Of several observations of an event the one that was answered counts.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// The caller's id of the event.
    pub id: &'a str,
    /// What the package said; `None` where the declared fallback answered.
    pub scored: Option<Scored>,
    /// How many observations there are.
    pub observations: u64,
    /// Their size before compression, with the event where it goes with them.
    pub bytes: u64,
    /// Whether the event is left out with its observations.
    pub with_event: bool,
}

/// The output of a package and what it was held against.
#[derive(Debug, Clone, Copy)]
pub struct Scored {
    /// Version of the package.
    pub version: u32,
    /// The output.
    pub output: f32,
    /// The smallest and the largest that it may be.
    pub bounds: (f32, f32),
    /// Where the decision turns.
    pub threshold: f32,
    /// The decision.
    pub decision: bool,
}

/// What the sampler remembers; stored with the events that made it so.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Memory {
    day: Day,
    kinds: Kinds,
    kept: u64,
    left_out: u64,
    uncovered: u64,
    events_left_out: u64,
}

/// Decides about one observation after the other.
#[derive(Debug, Clone)]
pub struct Sampler {
    seed: u64,
    memory: Memory,
}

impl Sampler {
    /// The sampler of a device, with what an earlier one remembered.
    pub fn new(device: &DeviceId, memory: Memory) -> Self {
        Self { seed: seed_of(device), memory }
    }

    /// What is to be stored.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Decides about an event; `now` is wall time.
    pub fn decide(&mut self, policy: &SamplingPolicy, now: Micros, candidate: &Candidate<'_>) -> Sampled {
        let memory = &mut self.memory;
        let close = candidate.scored.is_some_and(|scored| is_close(policy, &scored));
        let rare = candidate.scored.is_some_and(|scored| {
            let at_most = policy.rare.map_or(0, |rare| rare.at_most);
            memory.kinds.meet(&scored, at_most)
        });
        let wanted = share(policy, close, rare);
        let probability = wanted * memory.day.share(now, candidate.bytes, wanted, policy.day_bytes);
        let kept = coin(self.seed, candidate.id) < probability;
        let count = match (kept, probability > 0.0) {
            (true, _) => &mut memory.kept,
            (false, true) => &mut memory.left_out,
            (false, false) => &mut memory.uncovered,
        };
        *count = count.saturating_add(candidate.observations);
        if kept {
            memory.day.spend(candidate.bytes);
        } else {
            memory.events_left_out += u64::from(candidate.with_event);
        }
        Sampled { probability, kept, remarkable: close || rare, with_event: candidate.with_event }
    }

    /// What became of the observations so far; `now` is wall time.
    pub fn report(&self, in_force: &InForce, now: Micros) -> SamplingReport {
        SamplingReport {
            number: in_force.policy.number,
            limited: in_force.limited,
            kept: self.memory.kept,
            left_out: self.memory.left_out,
            uncovered: self.memory.uncovered,
            events_left_out: self.memory.events_left_out,
            day_bytes: self.memory.day.spent(now),
        }
    }
}

/// The share that a policy wants of an observation, before the day's bytes.
fn share(policy: &SamplingPolicy, close: bool, rare: bool) -> f64 {
    let uncertain = policy.uncertain.filter(|_| close).map_or(0, |it| it.share);
    let rare = policy.rare.filter(|_| rare).map_or(0, |it| it.share);
    let share = policy.random.max(uncertain).max(rare).min(WHOLE_PPM);
    f64::from(share) / f64::from(WHOLE_PPM)
}

fn is_close(policy: &SamplingPolicy, scored: &Scored) -> bool {
    let Some(uncertain) = policy.uncertain else { return false };
    let distance = (f64::from(scored.output) - f64::from(scored.threshold)).abs();
    // Millionths of the output's unit; an output that is no number is close to nothing.
    distance * 1e6 <= f64::from(uncertain.band)
}

/// The number that a device's coins follow from. It follows from the name, so that it survives the loss of the state,
/// and anybody can throw the coin again.
pub fn seed_of(device: &DeviceId) -> u64 {
    chance::spread(b"tributary sampling".iter().chain(device.as_str().as_bytes()).copied())
}

/// The coin of an event: evenly from `[0, 1)`, a pure function of seed and id.
pub fn coin(seed: u64, id: &str) -> f64 {
    let word = chance::spread(seed.to_le_bytes().into_iter().chain(id.bytes()));
    // The 53 bits that such a number holds.
    (word >> 11) as f64 / (1u64 << 53) as f64
}

/// The policy that a device keeps to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InForce {
    /// What is kept to.
    pub policy: SamplingPolicy,
    /// Whether the device's own limits narrow what the hub wants.
    pub limited: bool,
    /// Why the hub's policy does not count, in words.
    pub problem: Option<String>,
}

/// The hub's policy within the device's own limits: of bytes, room and time the smaller counts, of shares the hub's.
/// `room` is the disk that the device gives to its outbox.
pub fn in_force(own: &SamplingPolicy, room: u64, hub: Option<&SamplingPolicy>) -> InForce {
    let own =
        SamplingPolicy { number: 0, outbox_bytes: Some(own.outbox_bytes.unwrap_or(room).min(room)), ..own.clone() };
    let (hub, problem) = match hub.map(|hub| (hub, hub.check())) {
        None => return InForce { policy: own, limited: false, problem: None },
        Some((hub, Ok(()))) => (hub, None),
        Some((_, Err(error))) => (&own, Some(error.to_string())),
    };
    let policy = SamplingPolicy {
        day_bytes: smaller(own.day_bytes, hub.day_bytes),
        keep_seconds: smaller(own.keep_seconds, hub.keep_seconds),
        outbox_bytes: smaller(own.outbox_bytes, hub.outbox_bytes),
        ..hub.clone()
    };
    // What the hub leaves open is not narrowed by a limit that it did not speak of.
    let narrower = |wanted: Option<u64>, found: Option<u64>| wanted.is_some() && wanted != found;
    let limited = narrower(hub.day_bytes, policy.day_bytes)
        || narrower(hub.keep_seconds, policy.keep_seconds)
        || narrower(hub.outbox_bytes, policy.outbox_bytes);
    InForce { policy, limited: limited && problem.is_none(), problem }
}

fn smaller(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    a.into_iter().chain(b).min()
}
