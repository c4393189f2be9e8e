//! Who shows wrong secrets again and again has to wait. Secrets of 256 bits are not guessed; this bounds the work and
//! the log lines that somebody who tries can cause.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tributary_wire::Micros;

use crate::api::gate::origin;

const MINUTE: i64 = 60 * 1_000_000;
/// A name that was right from an address this lately is not held up by others at the same address.
const TRUSTED: i64 = 60 * MINUTE;
/// Addresses that are remembered; when there are more, those that have waited long enough are forgotten first.
const REMEMBERED: usize = 16_384;

/// Failures that an address may still make, at an instant.
#[derive(Debug, Clone, Copy)]
struct Allowance {
    left: f64,
    at: Micros,
}

#[derive(Debug, Default)]
struct Known {
    failing: HashMap<IpAddr, Allowance>,
    trusted: HashMap<(IpAddr, String), Micros>,
}

/// Failed attempts of each address.
#[derive(Debug)]
pub struct Attempts {
    per_minute: f64,
    known: Mutex<Known>,
}

impl Attempts {
    /// Lets an address fail so many times per minute.
    pub fn new(per_minute: u32) -> Self {
        Self { per_minute: f64::from(per_minute.max(1)), known: Mutex::default() }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self, allowance: Option<&Allowance>, now: Micros) -> f64 {
        allowance.map_or(self.per_minute, |allowance| {
            let passed = now.0.saturating_sub(allowance.at.0).max(0) as f64;
            (allowance.left + passed / MINUTE as f64 * self.per_minute).min(self.per_minute)
        })
    }

    /// Whether a secret under this name may be tried from there; if not, how long to wait.
    pub fn may(&self, from: IpAddr, name: &str, now: Micros) -> Result<(), Duration> {
        let (known, from) = (self.known(), origin(from));
        let left = self.now(known.failing.get(&from), now);
        let trusted = known.trusted.get(&(from, name.to_owned())).is_some_and(|at| now.0 - at.0 < TRUSTED);
        if left >= 1.0 || trusted {
            return Ok(());
        }
        let micros = (1.0 - left) * MINUTE as f64 / self.per_minute;
        Err(Duration::from_micros(micros as u64))
    }

    /// It was wrong.
    pub fn failed(&self, from: IpAddr, now: Micros) {
        let (mut known, from) = (self.known(), origin(from));
        if known.failing.len() >= REMEMBERED && !known.failing.contains_key(&from) {
            known.failing.retain(|_, allowance| now.0.saturating_sub(allowance.at.0) < MINUTE);
            if known.failing.len() >= REMEMBERED {
                // So many addresses in a minute: a limit per address does not help any more.
                known.failing.clear();
            }
        }
        let left = self.now(known.failing.get(&from), now) - 1.0;
        known.failing.insert(from, Allowance { left: left.max(0.0), at: now });
    }

    /// It was right.
    pub fn succeeded(&self, from: IpAddr, name: &str, now: Micros) {
        let mut known = self.known();
        if known.trusted.len() >= REMEMBERED {
            known.trusted.retain(|_, at| now.0 - at.0 < TRUSTED);
            if known.trusted.len() >= REMEMBERED {
                known.trusted.clear();
            }
        }
        known.trusted.insert((origin(from), name.to_owned()), now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_fails_too_often_waits_and_others_do_not() {
        let attempts = Attempts::new(3);
        let (bad, good): (IpAddr, IpAddr) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let start = Micros(1_000 * MINUTE);
        attempts.succeeded(bad, "old", start);
        for _ in 0..3 {
            assert_eq!(attempts.may(bad, "x", start), Ok(()));
            attempts.failed(bad, start);
        }
        assert_eq!(attempts.may(bad, "x", start), Err(Duration::from_secs(20)));
        assert_eq!(attempts.may(bad, "old", start), Ok(()), "who was right before is not shut out");
        assert_eq!(attempts.may(good, "x", start), Ok(()));
        let later = Micros(start.0 + 20 * 1_000_000);
        assert_eq!(attempts.may(bad, "x", later), Ok(()));
        attempts.failed(bad, later);
        assert!(attempts.may(bad, "x", later).is_err());
        assert_eq!(attempts.may(bad, "x", Micros(later.0 + MINUTE)), Ok(()));
        assert!(attempts.may(bad, "old", Micros(start.0)).is_ok(), "a clock that goes back harms nobody");
    }

    #[test]
    fn memory_is_bounded() {
        let attempts = Attempts::new(3);
        for n in 0..2 * REMEMBERED as u32 {
            let from = IpAddr::from(n.to_be_bytes());
            attempts.failed(from, Micros(i64::from(n)));
            attempts.succeeded(from, "a", Micros(i64::from(n)));
        }
        let known = attempts.known();
        assert!(known.failing.len() <= REMEMBERED && known.trusted.len() <= REMEMBERED);
    }
}
