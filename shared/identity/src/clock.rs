//! The time that certificates are judged by.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;
use tributary_process::clock::{Clock, SystemClock};
use tributary_wire::Micros;

/// No program of this source was built before this instant (2026-11-01), so it cannot be earlier.
pub const BUILT: Micros = Micros(1_793_491_200_000_000);

/// A system's clock that is behind by no more than this may still be right: oscillators drift, time services slew.
const DRIFT: i64 = 300 * Micros::SECOND;

/// Never earlier than a floor: a device without a battery wakes up in 1970 and must still get in.
///
/// The floor is [`BUILT`], then whatever signed time was seen; a clock that runs ahead never raises it. From there on time
/// passes as the monotonic clock says, so that it does not stand still on a device that has no other.
pub struct DeviceClock {
    floor: AtomicI64,
    /// The floor, less the monotonic time at which it was raised.
    base: AtomicI64,
    system: Box<dyn Fn() -> Micros + Send + Sync>,
    monotonic: Box<dyn Fn() -> u64 + Send + Sync>,
}

impl fmt::Debug for DeviceClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceClock").field("floor", &self.floor).finish_non_exhaustive()
    }
}

impl DeviceClock {
    /// A clock with a floor, such as one kept from the last run; never below [`BUILT`].
    pub fn new(floor: Micros) -> Self {
        Self::over(floor, Arc::new(SystemClock::start()))
    }

    /// As [`Self::new`], over clocks of one's own.
    pub fn over(floor: Micros, clock: Arc<dyn Clock>) -> Self {
        let wall = clock.clone();
        Self::with(floor, move || Micros(wall.wall()), move || clock.monotonic())
    }

    /// As [`Self::new`], with another clock than the system's and no time that passes beside it: for tests.
    pub fn with_system(floor: Micros, system: impl Fn() -> Micros + Send + Sync + 'static) -> Self {
        Self::with(floor, system, || 0)
    }

    fn with(
        floor: Micros,
        system: impl Fn() -> Micros + Send + Sync + 'static,
        monotonic: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> Self {
        let floor = floor.0.max(BUILT.0);
        let base = floor.saturating_sub(signed(monotonic()));
        Self { floor: floor.into(), base: base.into(), system: Box::new(system), monotonic: Box::new(monotonic) }
    }

    /// The floor: the latest time that was signed.
    pub fn floor(&self) -> Micros {
        Micros(self.floor.load(Ordering::Relaxed))
    }

    /// The latest instant that has certainly passed: the floor, and the time since then.
    pub fn passed(&self) -> Micros {
        Micros(self.base.load(Ordering::Relaxed).saturating_add(signed((self.monotonic)())))
    }

    /// Microseconds since some fixed moment of this process; never goes back.
    pub fn monotonic(&self) -> Micros {
        Micros(signed((self.monotonic)()))
    }

    /// Whether [`Self::raise`] would take this time.
    pub fn is_credible(&self, time: Micros) -> bool {
        self.is_lost() || time.0 <= (self.system)().0.saturating_add(Micros::DAY)
    }

    /// Whether the system's clock bounds nothing. One that is behind by no more than one step of [`Self::raise`] may still
    /// be right.
    pub fn is_lost(&self) -> bool {
        (self.system)().0.saturating_add(Micros::DAY) < self.passed().0
    }

    /// Raises the floor to a time that somebody trusted has signed; whether it was taken. Where the system's clock may be
    /// right, a time more than a day ahead of it is not: nobody, not even who stole a key, may move a device into a
    /// future in which every certificate and all metadata have expired.
    pub fn raise(&self, time: Micros) -> bool {
        let credible = self.is_credible(time);
        if credible {
            self.floor.fetch_max(time.0, Ordering::Relaxed);
            self.base.fetch_max(time.0.saturating_sub(signed((self.monotonic)())), Ordering::Relaxed);
        }
        credible
    }

    /// The system's time, or what has certainly passed if that is later.
    pub fn now(&self) -> Micros {
        (self.system)().max(self.passed())
    }

    /// Whether the system's clock is certainly wrong: earlier than what has passed. Then it may be any time after that.
    pub fn is_unset(&self) -> bool {
        let system = (self.system)();
        system < self.floor() || system.0.saturating_add(DRIFT) < self.passed().0
    }
}

fn signed(micros: u64) -> i64 {
    i64::try_from(micros).unwrap_or(i64::MAX)
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
    fn time_passes_on_a_device_without_a_clock_and_drift_alone_does_not_make_a_clock_wrong() {
        let up = Arc::new(AtomicI64::new(70));
        let monotonic = up.clone();
        let clock = DeviceClock::with(Micros(0), || Micros(0), move || monotonic.load(Ordering::Relaxed) as u64);
        assert_eq!(clock.now(), BUILT);
        up.store(70 + 3600 * Micros::SECOND, Ordering::Relaxed);
        assert_eq!((clock.now(), clock.floor()), (Micros(BUILT.0 + 3600 * Micros::SECOND), BUILT));
        let later = Micros(BUILT.0 + Micros::DAY);
        assert!(clock.raise(later));
        assert!(clock.raise(Micros(BUILT.0 + 1)), "an older time is believed and changes nothing");
        up.store(70 + 3605 * Micros::SECOND, Ordering::Relaxed);
        assert_eq!((clock.now(), clock.floor()), (Micros(later.0 + 5 * Micros::SECOND), later));

        let up = Arc::new(AtomicI64::new(0));
        let (monotonic, system) = (up.clone(), up.clone());
        let system = move || Micros(BUILT.0 + system.load(Ordering::Relaxed) / 2);
        let slow = DeviceClock::with(Micros(0), system, move || monotonic.load(Ordering::Relaxed) as u64);
        up.store(DRIFT, Ordering::Relaxed);
        assert!(!slow.is_unset());
        up.store(2 * DRIFT + 2, Ordering::Relaxed);
        assert!(slow.is_unset());
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
