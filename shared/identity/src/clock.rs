//! The time that certificates are judged by.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;
use tributary_wire::Micros;

/// No program of this source was built before this instant (2026-11-01), so it cannot be earlier.
pub const BUILT: Micros = Micros(1_793_491_200_000_000);

/// Never earlier than a floor: a device without a battery wakes up in 1970 and must still get in.
///
/// The floor is [`BUILT`], then whatever signed time was seen; a clock that runs ahead never raises it.
pub struct DeviceClock {
    floor: AtomicI64,
    system: Box<dyn Fn() -> Micros + Send + Sync>,
}

impl fmt::Debug for DeviceClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceClock").field("floor", &self.floor).finish_non_exhaustive()
    }
}

impl DeviceClock {
    /// A clock with a floor, such as one kept from the last run; never below [`BUILT`].
    pub fn new(floor: Micros) -> Self {
        Self::with_system(floor, system)
    }

    /// As [`Self::new`], with another clock than the system's: for tests.
    pub fn with_system(floor: Micros, system: impl Fn() -> Micros + Send + Sync + 'static) -> Self {
        Self { floor: AtomicI64::new(floor.0.max(BUILT.0)), system: Box::new(system) }
    }

    /// The floor.
    pub fn floor(&self) -> Micros {
        Micros(self.floor.load(Ordering::Relaxed))
    }

    /// Raises the floor to a time that somebody trusted has signed; whether it was taken. Where the system's clock may be
    /// right, a time more than a day ahead of it is not: nobody, not even who stole a key, may move a device into a
    /// future in which every certificate and all metadata have expired.
    pub fn raise(&self, signed: Micros) -> bool {
        let system = (self.system)();
        // A clock that is behind by no more than one such step may still be right.
        let unset = system.0.saturating_add(Micros::DAY) < self.floor().0;
        let credible = unset || signed.0 <= system.0.saturating_add(Micros::DAY);
        if credible {
            self.floor.fetch_max(signed.0, Ordering::Relaxed);
        }
        credible
    }

    /// The system's time, or the floor if that is later.
    pub fn now(&self) -> Micros {
        (self.system)().max(self.floor())
    }

    /// Whether the system's clock is certainly wrong: earlier than the floor. Then it may be any time after the floor.
    pub fn is_unset(&self) -> bool {
        (self.system)() < self.floor()
    }
}

fn system() -> Micros {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    Micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

impl TimeProvider for DeviceClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_micros(self.now().0.max(0) as u64)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_never_before_the_floor_and_the_floor_never_falls() {
        let clock = DeviceClock::with_system(Micros(0), || Micros(0));
        assert!(clock.is_unset() && clock.now() >= BUILT);
        let later = Micros(i64::MAX / 2);
        assert!(clock.raise(later));
        clock.raise(BUILT);
        assert_eq!((clock.floor(), clock.now()), (later, later));
    }

    #[test]
    fn a_clock_that_may_be_right_is_not_moved_into_the_far_future() {
        const NOW: Micros = Micros(BUILT.0 + 10 * Micros::DAY);
        let clock = DeviceClock::with_system(Micros(0), || NOW);
        assert!(!clock.raise(Micros(NOW.0 + Micros::DAY + 1)));
        assert_eq!((clock.floor(), clock.now()), (BUILT, NOW));
        assert!(clock.raise(Micros(NOW.0 + Micros::DAY)));
        assert_eq!(clock.now(), Micros(NOW.0 + Micros::DAY));
        assert!(!clock.raise(Micros(NOW.0 + 2 * Micros::DAY)), "nor in several steps");
    }
}
