//! Which origin is asked first.
//!
//! Origins stand in the order in which they were named. One that failed goes behind those that did not, for a while that
//! grows with every failure; one that gave wrong bytes at once for the longest. Nobody is ever left out: when all have
//! failed, the one whose time is over first is asked first, because a device that asks nobody is never updated.

use std::time::Duration;

use crate::backoff::Backoff;

/// What an origin did wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It could not be reached, broke off, was too slow or did not have the file.
    Failed,
    /// What it gave is not what it should be.
    Lied,
}

/// What is known of all origins.
#[derive(Debug)]
pub struct Ranking {
    origins: Vec<Standing>,
    cap: Duration,
}

#[derive(Debug)]
struct Standing {
    backoff: Backoff,
    failures: u32,
    rests_until: Option<Duration>,
}

impl Ranking {
    /// So many origins; one that fails rests for `base` first and never longer than `cap`.
    pub fn new(origins: usize, base: Duration, cap: Duration, seed: u64) -> Self {
        let standing = |number| Standing {
            backoff: Backoff::new(base, cap, seed.wrapping_add(number as u64)),
            failures: 0,
            rests_until: None,
        };
        Self { origins: (0..origins).map(standing).collect(), cap: cap.max(base) }
    }

    /// In which order to ask, everybody once.
    pub fn order(&self, now: Duration) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.origins.len()).collect();
        // A stable sort: those that do not rest keep their order.
        order.sort_by_key(|origin| self.rests(*origin, now).unwrap_or(Duration::ZERO));
        order
    }

    /// For how much longer an origin goes behind the others, if it does.
    pub fn rests(&self, origin: usize, now: Duration) -> Option<Duration> {
        let until = self.origins[origin].rests_until?;
        until.checked_sub(now).filter(|left| !left.is_zero())
    }

    /// Failures of an origin since it last worked.
    pub fn failures(&self, origin: usize) -> u32 {
        self.origins[origin].failures
    }

    /// An origin did something wrong.
    pub fn failed(&mut self, origin: usize, now: Duration, fault: Fault) {
        let standing = &mut self.origins[origin];
        standing.failures = standing.failures.saturating_add(1);
        let wait = match fault {
            Fault::Failed => standing.backoff.next_wait(),
            Fault::Lied => self.cap,
        };
        // One that lied is not forgiven because it fails to answer afterwards.
        standing.rests_until = standing.rests_until.max(Some(now + wait));
    }

    /// An origin gave a whole file that is what it should be.
    pub fn worked(&mut self, origin: usize) {
        let standing = &mut self.origins[origin];
        (standing.failures, standing.rests_until) = (0, None);
        standing.backoff.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: Duration = Duration::from_secs(10);
    const CAP: Duration = Duration::from_secs(3600);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn one_that_fails_goes_behind_the_others_and_comes_back() {
        let mut ranking = Ranking::new(3, BASE, CAP, 1);
        assert_eq!(ranking.order(at(0)), [0, 1, 2]);
        ranking.failed(0, at(0), Fault::Failed);
        assert_eq!(ranking.order(at(1)), [1, 2, 0]);
        assert_eq!(ranking.order(CAP), [0, 1, 2], "its time is over");
        ranking.worked(0);
        assert_eq!((ranking.order(at(1)), ranking.failures(0)), (vec![0, 1, 2], 0));
    }

    #[test]
    fn one_that_lied_comes_last_and_stays_there_longest() {
        let mut ranking = Ranking::new(3, BASE, CAP, 1);
        ranking.failed(0, at(0), Fault::Lied);
        ranking.failed(1, at(0), Fault::Failed);
        ranking.failed(2, at(0), Fault::Failed);
        assert_eq!(ranking.order(at(1))[2], 0, "all have failed, and all are asked");
        ranking.failed(0, at(2), Fault::Failed);
        assert!(ranking.rests(0, at(3)).unwrap() > CAP - at(4));
        assert_eq!(ranking.rests(0, CAP), None);
    }

    #[test]
    fn rests_grow_with_failures_and_never_beyond_the_cap() {
        let mut ranking = Ranking::new(1, BASE, CAP, 7);
        let mut longest = Duration::ZERO;
        for attempt in 0..100 {
            let now = CAP * attempt;
            ranking.failed(0, now, Fault::Failed);
            let rests = ranking.rests(0, now).unwrap();
            assert!((BASE..=CAP).contains(&rests));
            longest = longest.max(rests);
        }
        assert!(longest > CAP / 2);
    }
}
