//! How long to wait before trying again: exponential with decorrelated jitter.
//!
//! A fleet that lost its hub at one instant must not come back at one instant. Each wait is drawn evenly from
//! `[base, 3 × the wait before)`, cut at a cap, so that devices spread out from the first attempt on.

use std::time::Duration;

use crate::chance::Chance;

/// Waiting times of one series of attempts.
#[derive(Debug, Clone)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
    last: Duration,
    chance: Chance,
}

impl Backoff {
    /// A series that never waits less than `base` nor longer than `cap`.
    pub fn new(base: Duration, cap: Duration, seed: u64) -> Self {
        Self { base, cap: cap.max(base), last: base, chance: Chance::new(seed) }
    }

    /// The wait before the next attempt.
    pub fn next_wait(&mut self) -> Duration {
        self.last = self.chance.between(self.base, self.last.saturating_mul(3)).min(self.cap);
        self.last
    }

    /// An attempt succeeded: the next series begins small.
    pub fn reset(&mut self) {
        self.last = self.base;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: Duration = Duration::from_millis(100);
    const CAP: Duration = Duration::from_secs(30);

    #[test]
    fn waits_stay_within_base_and_cap_and_grow_towards_the_cap() {
        let mut backoff = Backoff::new(BASE, CAP, 7);
        let waits: Vec<_> = (0..200).map(|_| backoff.next_wait()).collect();
        assert!(waits.iter().all(|wait| (BASE..=CAP).contains(wait)));
        assert!(waits.iter().any(|wait| *wait > CAP / 2), "a long outage leads to long waits");
        backoff.reset();
        assert!(backoff.next_wait() < BASE * 3);
    }

    #[test]
    fn the_same_seed_gives_the_same_waits_and_another_seed_others() {
        let series = |seed| {
            let mut backoff = Backoff::new(BASE, CAP, seed);
            (0..20).map(|_| backoff.next_wait()).collect::<Vec<_>>()
        };
        assert_eq!(series(1), series(1));
        assert_ne!(series(1), series(2));
    }
}
