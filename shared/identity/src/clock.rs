//! The time that certificates are judged by.

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
#[derive(Debug)]
pub struct DeviceClock {
    floor: AtomicI64,
}

impl DeviceClock {
    /// A clock with a floor, such as one kept from the last run; never below [`BUILT`].
    pub fn new(floor: Micros) -> Self {
        Self { floor: AtomicI64::new(floor.0.max(BUILT.0)) }
    }

    /// The floor.
    pub fn floor(&self) -> Micros {
        Micros(self.floor.load(Ordering::Relaxed))
    }

    /// Raises the floor to a time that somebody trusted has signed.
    pub fn raise(&self, signed: Micros) {
        self.floor.fetch_max(signed.0, Ordering::Relaxed);
    }

    /// The system's time, or the floor if that is later.
    pub fn now(&self) -> Micros {
        let system = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Micros(i64::try_from(system.as_micros()).unwrap_or(i64::MAX).max(self.floor().0))
    }
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
        let clock = DeviceClock::new(Micros(0));
        assert!(clock.now() >= BUILT);
        let later = Micros(i64::MAX / 2);
        clock.raise(later);
        clock.raise(BUILT);
        assert_eq!((clock.floor(), clock.now()), (later, later));
    }
}
