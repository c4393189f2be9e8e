//! The time that certificates and assignments are judged by, with a floor that outlives the process.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use tributary_identity::DeviceClock;
use tributary_process::clock::Clock;
use tributary_wire::Micros;

use super::files::Folder;
use crate::words::in_words;

/// Makes a floor durable.
pub type KeepFloor = Arc<dyn Fn(Micros) -> io::Result<()> + Send + Sync>;

/// The floor is written again when it has risen by this: losing an hour of it costs nothing.
const STEP: i64 = 3_600_000_000;

/// The device's clock, and where its floor is kept.
#[derive(Clone)]
pub struct Time {
    clock: Arc<DeviceClock>,
    keep: Option<KeepFloor>,
    stored: Arc<AtomicI64>,
    vouched: Arc<AtomicI64>,
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Time").field("clock", &self.clock).finish_non_exhaustive()
    }
}

impl Time {
    /// With the floor of the last run.
    pub fn open(folder: Folder) -> Self {
        let floor = folder.floor();
        Self::keeping(
            DeviceClock::new(floor),
            Arc::new(move |floor| folder.keep_floor(floor).map_err(io::Error::other)),
        )
    }

    /// With a clock of one's own, whose floor is kept in this way.
    pub fn keeping(clock: DeviceClock, keep: KeepFloor) -> Self {
        let stored = Arc::new(AtomicI64::new(clock.floor().0));
        Self { clock: Arc::new(clock), keep: Some(keep), stored, vouched: unvouched() }
    }

    /// With a clock of one's own, and nothing kept: for tests.
    pub fn of(clock: DeviceClock) -> Self {
        Self { clock: Arc::new(clock), keep: None, stored: Arc::default(), vouched: unvouched() }
    }

    /// For the TLS library.
    pub fn clock(&self) -> Arc<DeviceClock> {
        self.clock.clone()
    }

    /// The latest time that was signed; what is kept.
    pub fn floor(&self) -> Micros {
        self.clock.floor()
    }

    /// The latest instant that has certainly passed: the floor, and the time since then.
    pub fn passed(&self) -> Micros {
        self.clock.passed()
    }

    /// Now.
    pub fn now(&self) -> Micros {
        self.clock.now()
    }

    /// A clock whose wall time is never before what has certainly passed, and to which nothing else is certain.
    pub fn over(&self, clock: Arc<dyn Clock>) -> Arc<dyn Clock> {
        Arc::new(Floored { clock, time: self.clone() })
    }

    /// The signed metadata that was verified last is good until then. A device without a clock has nothing else to hold
    /// a hub's time against: a later one is not taken, because a hub whose own clock is wrong would leave the device in a
    /// future in which everything has expired.
    pub fn vouch_until(&self, expires: Option<Micros>) {
        self.vouched.store(expires.map_or(i64::MIN, |expires| expires.0), Ordering::Relaxed);
    }

    /// Raises the floor to a time that somebody trusted has signed. Writes to disk now and then.
    pub fn raise(&self, signed: Micros) {
        if self.is_unset() && signed.0 > self.vouched.load(Ordering::Relaxed) {
            tracing::debug!(%signed, "a time that no signed metadata reaches does not set an unset clock");
        } else if self.clock.raise(signed) {
            self.keep();
        } else {
            tracing::warn!(%signed, "a signed time is far ahead of this device's clock and does not count");
        }
    }

    /// Whether the system's clock is certainly wrong.
    pub fn is_unset(&self) -> bool {
        self.clock.is_unset()
    }

    /// Writes the floor down if it has risen much. A disk that refuses costs only that the next start knows less.
    pub fn keep(&self) {
        let (floor, stored) = (self.floor(), self.stored.load(Ordering::Relaxed));
        if floor.0.saturating_sub(stored) < STEP {
            return;
        }
        let Some(keep) = &self.keep else { return };
        match keep(floor) {
            Ok(()) => self.stored.store(floor.0, Ordering::Relaxed),
            Err(error) => tracing::warn!(error = %in_words(&error), "the floor of time could not be stored"),
        }
    }
}

/// Before any metadata was verified.
fn unvouched() -> Arc<AtomicI64> {
    Arc::new(AtomicI64::new(i64::MIN))
}

struct Floored {
    clock: Arc<dyn Clock>,
    time: Time,
}

impl Clock for Floored {
    fn wall(&self) -> i64 {
        self.clock.wall().max(self.time.passed().0)
    }

    fn monotonic(&self) -> u64 {
        self.clock.monotonic()
    }

    fn certain(&self) -> i64 {
        self.time.passed().0
    }
}
