//! When the signed metadata is asked for again.

use std::time::Duration;

use crate::chance::Chance;

/// First and longest wait after a refresh that failed.
const RETRY: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(1800));

/// The waits between refreshes.
#[derive(Debug, Clone)]
pub struct Pace {
    every: Duration,
    retry: Duration,
    chance: Chance,
}

impl Pace {
    /// One that asks this often as long as all goes well. The first time is now.
    pub fn new(every: Duration, seed: u64) -> Self {
        Self { every, retry: RETRY.0, chance: Chance::new(seed) }
    }

    /// The wait after a refresh that went well, or did not.
    pub fn next_wait(&mut self, well: bool) -> Duration {
        let wait = if well { self.every } else { self.retry };
        self.retry = if well { RETRY.0 } else { (self.retry * 2).min(RETRY.1) };
        // A fleet that was started together does not ask together.
        self.chance.between(wait.mul_f64(0.75), wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_tried_again_soon_then_ever_more_rarely_and_success_begins_anew() {
        let every = Duration::from_secs(6 * 3600);
        let mut pace = Pace::new(every, 3);
        let wait = |pace: &mut Pace, well, full: Duration| {
            let found = pace.next_wait(well);
            assert!(found >= full.mul_f64(0.75) && found <= full, "{found:?} of {full:?}");
        };
        wait(&mut pace, false, RETRY.0);
        wait(&mut pace, false, RETRY.0 * 2);
        (0..10).for_each(|_| _ = pace.next_wait(false));
        wait(&mut pace, false, RETRY.1);
        wait(&mut pace, true, every);
        wait(&mut pace, false, RETRY.0);
    }
}
