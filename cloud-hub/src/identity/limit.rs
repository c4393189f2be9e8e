//! So much per caller and time, then no more: guessing does not pay, and one caller's noise costs little.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tributary_wire::Micros;

/// Callers that are remembered at once, a few dozen bytes each; those beyond it share one allowance.
const CALLERS: usize = 10_000;

/// How much each caller has left.
#[derive(Debug)]
pub(super) struct Limiter<K> {
    allowed: f64,
    period: Duration,
    callers: Mutex<HashMap<Option<K>, Bucket>>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: f64,
    at: Micros,
}

impl Bucket {
    fn fill(&mut self, allowed: f64, period: Duration, now: Micros) {
        let passed = now.0.saturating_sub(self.at.0).max(0) as f64 / period.as_micros() as f64;
        *self = Self { left: (self.left + passed * allowed).min(allowed), at: now };
    }
}

impl<K: Eq + Hash + Clone> Limiter<K> {
    /// Each caller is allowed so many per period, on average and at once.
    pub fn new(allowed: u32, period: Duration) -> Self {
        Self { allowed: allowed.into(), period, callers: Mutex::default() }
    }

    /// Whether a caller has anything left.
    pub fn allows(&self, caller: &K, now: Micros) -> bool {
        self.with(caller, now, |bucket| bucket.left >= 1.0)
    }

    /// Takes one from what a caller has left; whether there was one.
    pub fn take(&self, caller: &K, now: Micros) -> bool {
        self.with(caller, now, |bucket| {
            let allowed = bucket.left >= 1.0;
            if allowed {
                bucket.left -= 1.0;
            }
            allowed
        })
    }

    fn with<T>(&self, caller: &K, now: Micros, work: impl FnOnce(&mut Bucket) -> T) -> T {
        let mut callers: MutexGuard<'_, HashMap<_, Bucket>> =
            self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut key = Some(caller.clone());
        if callers.len() >= CALLERS && !callers.contains_key(&key) {
            // Whoever has filled up again is as one never seen.
            callers.retain(|_, bucket| {
                bucket.fill(self.allowed, self.period, now);
                bucket.left < self.allowed
            });
            if callers.len() >= CALLERS {
                key = None;
            }
        }
        let bucket = callers.entry(key).or_insert(Bucket { left: self.allowed, at: now });
        bucket.fill(self.allowed, self.period, now);
        work(bucket)
    }
}

/// By whom an address is counted: one household or site has a whole IPv6 network of 64 bits.
pub(super) fn caller(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(six) => match six.to_ipv4_mapped() {
            Some(four) => four.into(),
            None => Ipv6Addr::from_bits(six.to_bits() & !u128::from(u64::MAX)).into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn an_allowance_is_used_up_and_comes_back_with_time() {
        let limiter = Limiter::new(2, MINUTE);
        let at = |seconds: i64| Micros(seconds * 1_000_000);
        assert!(limiter.take(&1, at(0)) && limiter.take(&1, at(0)));
        assert!(!limiter.allows(&1, at(1)) && !limiter.take(&1, at(1)));
        assert!(limiter.allows(&2, at(1)), "another caller");
        assert!(limiter.take(&1, at(31)));
        assert!(!limiter.take(&1, at(31)));
        // A clock that is set back takes nothing away and gives nothing.
        assert!(!limiter.take(&1, at(0)));
    }

    #[test]
    fn a_flood_of_callers_takes_no_more_memory_and_shares_one_allowance() {
        let limiter = Limiter::new(1, MINUTE);
        let allowed = (0..CALLERS + 100).filter(|caller| limiter.take(caller, Micros(0))).count();
        assert_eq!(allowed, CALLERS + 1);
        assert!(limiter.callers.lock().unwrap().len() <= CALLERS + 1);
        assert!(limiter.take(&(CALLERS + 200), Micros(60_000_000)), "the others have filled up and are forgotten");
    }

    #[test]
    fn a_network_counts_as_one() {
        let (one, two) = ("2001:db8::1".parse().unwrap(), "2001:db8::ffff:1".parse().unwrap());
        assert_eq!(caller(one), caller(two));
        assert_ne!(caller(one), caller("2001:db8:0:1::1".parse().unwrap()));
        assert_eq!(caller("::ffff:10.0.0.1".parse().unwrap()), "10.0.0.1".parse::<IpAddr>().unwrap());
    }
}
