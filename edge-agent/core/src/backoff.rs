//! How long to wait before trying again: exponential with full jitter.
//!
//! A fleet that lost its hub at one instant must not come back at one instant. Each wait is drawn evenly from
//! `[base, ceiling)`; the ceiling begins at eight times the base and doubles up to a cap. It is the ceiling that is cut
//! and not the wait, so that devices which have waited for long do not all wait for exactly the cap.

use std::time::Duration;

use crate::chance::Chance;

/// The first ceiling, in bases: what spreads a fleet whose hub was gone for a moment only.
const FIRST: u32 = 8;

/// Waiting times of one series of attempts.
#[derive(Debug, Clone)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
    ceiling: Duration,
    chance: Chance,
}

impl Backoff {
    /// A series that never waits less than `base` nor longer than `cap`.
    pub fn new(base: Duration, cap: Duration, seed: u64) -> Self {
        let cap = cap.max(base);
        Self { base, cap, ceiling: base.saturating_mul(FIRST).min(cap), chance: Chance::new(seed) }
    }

    /// The wait before the next attempt.
    pub fn next_wait(&mut self) -> Duration {
        let wait = self.chance.between(self.base, self.ceiling);
        self.ceiling = self.ceiling.saturating_mul(2).min(self.cap);
        wait
    }

    /// A connection, or the attempt to make one, ended after this time. One that held for longer than the longest wait
    /// was a good one, and the next series begins small; one that breaks sooner must not be hammered.
    pub fn ended(&mut self, lasted: Duration) {
        if lasted > self.cap {
            self.reset();
        }
    }

    /// An attempt succeeded: the next series begins small.
    pub fn reset(&mut self) {
        self.ceiling = self.base.saturating_mul(FIRST).min(self.cap);
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
        assert!(backoff.next_wait() < BASE * FIRST);
    }

    #[test]
    fn only_a_connection_that_held_begins_a_new_series() {
        let mut backoff = Backoff::new(BASE, CAP, 7);
        let longest = |backoff: &mut Backoff, lasted| {
            let waits = (0..200).map(|_| {
                backoff.ended(lasted);
                backoff.next_wait()
            });
            waits.max().unwrap_or_default()
        };
        assert!(longest(&mut backoff, CAP) > CAP / 2, "a hub that takes connections and breaks them is left alone");
        assert!(longest(&mut backoff, CAP + BASE) < BASE * FIRST);
    }

    /// Devices that come back in the fullest second after an outage of this length, when all lost their hub at once.
    fn fullest_second(outage: u64, devices: u64) -> usize {
        let (base, cap) = (Duration::from_millis(500), Duration::from_secs(60));
        let mut seconds = std::collections::BTreeMap::<u64, usize>::new();
        for seed in 0..devices {
            let mut backoff = Backoff::new(base, cap, seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
            let mut now = Duration::ZERO;
            while now <= Duration::from_secs(outage) {
                now += backoff.next_wait();
            }
            *seconds.entry(now.as_secs()).or_default() += 1;
        }
        seconds.into_values().max().unwrap_or(0)
    }

    #[test]
    fn a_fleet_that_lost_its_hub_at_one_instant_comes_back_spread_out() {
        let fullest = [0, 1, 5, 30, 120, 600, 86_400].map(|outage| fullest_second(outage, 1000));
        // A short outage: over the first seconds. A long one: over a minute.
        assert!(fullest[..3].iter().all(|devices| *devices < 400), "{fullest:?}");
        assert!(fullest[3..].iter().all(|devices| *devices < 80), "{fullest:?}");
    }

    #[test]
    fn no_wait_is_more_likely_than_another_however_long_it_lasted() {
        let mut backoff = Backoff::new(BASE, CAP, 3);
        let waits: Vec<_> = (0..2000).map(|_| backoff.next_wait()).skip(20).collect();
        assert!(waits.iter().filter(|wait| **wait >= CAP - CAP / 100).count() < 60, "waits do not pile up at the cap");
        assert!(waits.iter().filter(|wait| **wait < CAP / 2).count() > 800);
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
