//! When a device asks for its next certificate.
//!
//! The hub says from when on; each device waits a part of its own of what remains, so that a fleet enrolled on one day
//! does not come back on one day, and the second half is left for attempts that fail. A certificate that has expired is
//! no reason to give up: the hub takes it for a while longer, for renewal alone.

use std::time::Duration;

use tributary_wire::Micros;

use crate::Now;
use crate::chance::Chance;

/// The wall clock may jump, so it is looked at this often.
const LOOK: Duration = Duration::from_secs(3600);
/// First wait after a failure.
const RETRY: Duration = Duration::from_secs(60);
/// Longest wait after a failure, while much time is left.
const RETRY_CAP: Duration = Duration::from_secs(6 * 3600);
/// Longest wait after a failure when the certificate has expired: nothing else works until then.
const EXPIRED_CAP: Duration = Duration::from_secs(15 * 60);
/// This part of what remains may be waited after a failure.
const PART: u32 = 16;
/// A new certificate is not renewed sooner than this, nor than a quarter of its life: a hub whose authority is near its
/// end, or that says nonsense, must not be asked again and again.
const YOUNG: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(3600));

/// From when to when to renew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Term {
    /// Not before this.
    pub renew_after: Micros,
    /// The certificate's end.
    pub not_after: Micros,
}

/// How pressing it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// All is well.
    None,
    /// Attempts fail, and less than half of the time for them is left.
    Ending,
    /// The certificate has expired.
    Expired,
}

/// Says when to try.
#[derive(Debug, Clone)]
pub struct Schedule {
    term: Term,
    chosen: Micros,
    chance: Chance,
    failures: u32,
    /// After a failure: not before this, by monotonic time.
    retry: Option<Duration>,
}

impl Schedule {
    /// For a certificate; the same seed chooses the same moment after a restart.
    pub fn new(term: Term, seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let half = span(term.renew_after, term.not_after) / 2;
        let wait = chance.between(Duration::ZERO, half);
        let chosen = Micros(term.renew_after.0.saturating_add(wait.as_micros() as i64));
        Self { term, chosen, chance, failures: 0, retry: None }
    }

    /// For a certificate that has just come.
    pub fn renewed(term: Term, seed: u64, now: Now) -> Self {
        let young = (span(now.wall, term.not_after) / 4).clamp(YOUNG.0, YOUNG.1);
        Self { retry: Some(now.monotonic + young), ..Self::new(term, seed) }
    }

    /// Whether to try now.
    pub fn due(&self, now: Now) -> bool {
        now.wall >= self.chosen && self.retry.is_none_or(|retry| now.monotonic >= retry)
    }

    /// How long to wait before asking [`Self::due`] again.
    pub fn wait(&self, now: Now) -> Duration {
        let until = span(now.wall, self.chosen);
        let retry = self.retry.map_or(Duration::ZERO, |retry| retry.saturating_sub(now.monotonic));
        until.max(retry).min(LOOK)
    }

    /// An attempt failed.
    pub fn failed(&mut self, now: Now) {
        self.failures = self.failures.saturating_add(1);
        let remaining = span(now.wall, self.term.not_after);
        let cap = match remaining.is_zero() {
            true => EXPIRED_CAP,
            false => (remaining / PART).clamp(RETRY, RETRY_CAP),
        };
        let doubled = RETRY.saturating_mul(1 << (self.failures - 1).min(16)).min(cap);
        let wait = self.chance.between(doubled / 2, doubled + doubled / 2);
        self.retry = Some(now.monotonic + wait);
    }

    /// When the next attempt is meant, by the wall clock.
    pub fn next_attempt(&self, now: Now) -> Micros {
        let retry = self.retry.map_or(Duration::ZERO, |retry| retry.saturating_sub(now.monotonic));
        Micros(now.wall.0.saturating_add(retry.as_micros() as i64)).max(self.chosen)
    }

    /// How pressing it is.
    pub fn urgency(&self, now: Now) -> Urgency {
        let Term { renew_after, not_after } = self.term;
        if now.wall >= not_after {
            Urgency::Expired
        } else if self.failures > 0 && span(now.wall, not_after) < span(renew_after, not_after) / 2 {
            Urgency::Ending
        } else {
            Urgency::None
        }
    }
}

fn span(from: Micros, to: Micros) -> Duration {
    Duration::from_micros(to.0.saturating_sub(from.0).max(0) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400_000_000;
    const TERM: Term = Term { renew_after: Micros(60 * DAY), not_after: Micros(90 * DAY) };

    fn at(wall: i64) -> Now {
        Now { wall: Micros(wall), monotonic: Duration::from_micros(wall as u64) }
    }

    #[test]
    fn devices_spread_over_the_first_half_of_what_remains() {
        let mut chosen: Vec<_> = (0..1000).map(|seed| Schedule::new(TERM, seed).chosen.0).collect();
        chosen.sort_unstable();
        assert!(chosen[0] >= 60 * DAY && chosen[999] < 75 * DAY);
        assert!(chosen[100] < 63 * DAY && chosen[900] > 72 * DAY, "evenly");
        assert_eq!(Schedule::new(TERM, 7).chosen, Schedule::new(TERM, 7).chosen);
    }

    #[test]
    fn it_is_due_when_its_time_has_come_however_the_clock_got_there() {
        let schedule = Schedule::new(TERM, 1);
        assert!(!schedule.due(at(59 * DAY)));
        assert_eq!(schedule.wait(at(0)), LOOK, "the clock is looked at again and again");
        // A device that was off for months, or whose clock was set.
        assert!(schedule.due(Now { wall: Micros(80 * DAY), monotonic: Duration::ZERO }));
        assert_eq!(schedule.wait(at(80 * DAY)), Duration::ZERO);
        assert_eq!(schedule.urgency(at(80 * DAY)), Urgency::None, "nothing has failed yet");
    }

    #[test]
    fn failures_are_followed_by_growing_waits_that_leave_room_for_more() {
        let (mut schedule, mut now, mut attempts) = (Schedule::new(TERM, 3), at(75 * DAY), 0);
        let first = now.wall.0;
        while now.wall < TERM.not_after {
            assert!(schedule.due(now));
            schedule.failed(now);
            attempts += 1;
            let wait = schedule.retry.unwrap() - now.monotonic;
            assert!(wait >= RETRY / 2 && wait <= RETRY_CAP * 3 / 2, "{wait:?}");
            assert_eq!(schedule.next_attempt(now).0, now.wall.0 + wait.as_micros() as i64);
            now = at(now.wall.0 + wait.as_micros() as i64 + 1);
        }
        assert!((50..2000).contains(&attempts), "{attempts} attempts in fifteen days");
        assert_eq!(schedule.urgency(at(first + DAY)), Urgency::Ending);
        assert_eq!(schedule.urgency(now), Urgency::Expired);
        for _ in 0..20 {
            schedule.failed(now);
            let wait = schedule.retry.unwrap() - now.monotonic;
            assert!(wait <= EXPIRED_CAP * 3 / 2, "an expired device tries often: {wait:?}");
            now = at(now.wall.0 + wait.as_micros() as i64 + 1);
        }
    }

    #[test]
    fn a_new_certificate_is_left_alone_for_a_while_whatever_its_term() {
        let now = at(80 * DAY);
        for not_after in [81 * DAY, 80 * DAY + 1, 0] {
            let term = Term { renew_after: Micros(0), not_after: Micros(not_after) };
            let schedule = Schedule::renewed(term, 1, now);
            assert!(!schedule.due(now) && schedule.wait(now) >= YOUNG.0, "{not_after}");
            assert!(schedule.due(at(now.wall.0 + DAY)));
        }
    }

    #[test]
    fn absurd_terms_do_no_harm() {
        for (renew_after, not_after) in [(i64::MAX, i64::MIN), (i64::MIN, i64::MAX), (0, 0)] {
            let term = Term { renew_after: Micros(renew_after), not_after: Micros(not_after) };
            let mut schedule = Schedule::new(term, 1);
            for wall in [0, i64::MAX, i64::MIN] {
                let now = Now { wall: Micros(wall), monotonic: Duration::ZERO };
                schedule.failed(now);
                let _ = (schedule.due(now), schedule.wait(now), schedule.urgency(now), schedule.next_attempt(now));
            }
        }
    }
}
