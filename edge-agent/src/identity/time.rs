//! The time that certificates and assignments are judged by, with a floor that outlives the process.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tributary_identity::DeviceClock;
use tributary_process::checkup::span;
use tributary_process::clock::Clock;
use tributary_wire::Micros;

use super::files::Folder;
use crate::words::in_words;

/// Makes a floor durable.
pub type KeepFloor = Arc<dyn Fn(Micros) -> io::Result<()> + Send + Sync>;

/// Clocks that are no further apart agree: the hub says whole seconds, and its answer takes time.
pub const AGREES: i64 = 5 * Micros::SECOND;
/// A clock that is further from the hub's is wrong: live events that are so far ahead are refused.
pub const WRONG: i64 = 300 * Micros::SECOND;

/// The floor is written again when it has risen by this: losing an hour of it costs nothing.
const STEP: i64 = 3_600_000_000;

/// The device's clock, and where its floor is kept.
#[derive(Clone)]
pub struct Time {
    clock: Arc<DeviceClock>,
    keep: Option<KeepFloor>,
    stored: Arc<AtomicI64>,
    vouched: Arc<AtomicI64>,
    hub: Arc<Mutex<Option<HubTime>>>,
}

/// The hub's time, and the monotonic time at which it was that.
#[derive(Debug, Clone, Copy)]
struct HubTime {
    theirs: Micros,
    at: Micros,
}

/// The clock, for status and metrics.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClockView {
    /// What it says, or what has certainly passed if that is later.
    pub now: Micros,
    /// The latest time that was signed.
    pub floor: Micros,
    /// The system's clock is certainly wrong.
    pub unset: bool,
    /// How far it is ahead of the hub's, below zero if behind; none before they were compared.
    pub ahead: Option<i64>,
    /// It agreed with the hub's.
    pub synchronised: bool,
    /// What a person must know.
    pub problem: Option<String>,
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
        Self { clock: Arc::new(clock), keep: Some(keep), stored, vouched: unvouched(), hub: Arc::default() }
    }

    /// With a clock of one's own, and nothing kept: for tests.
    pub fn of(clock: DeviceClock) -> Self {
        Self { clock: Arc::new(clock), keep: None, stored: Arc::default(), vouched: unvouched(), hub: Arc::default() }
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
        if self.clock.is_lost() && signed.0 > self.vouched.load(Ordering::Relaxed) {
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

    /// The hub has just said that it is this time, which took so long to arrive. It is compared, and never believed.
    pub fn hub_says(&self, theirs: Micros, took: Duration) {
        let half = i64::try_from(took.as_micros() / 2).unwrap_or(i64::MAX);
        let at = Micros(self.clock.monotonic().0.saturating_sub(half));
        *self.hub.lock().unwrap_or_else(PoisonError::into_inner) = Some(HubTime { theirs, at });
    }

    /// How far this device's clock is ahead of the hub's, as it runs on since it was heard.
    pub fn ahead(&self) -> Option<i64> {
        let HubTime { theirs, at } = (*self.hub.lock().unwrap_or_else(PoisonError::into_inner))?;
        let theirs = theirs.0.saturating_add(self.clock.monotonic().since(at));
        Some(self.now().since(Micros(theirs)))
    }

    /// Whether this device has reason to believe its clock.
    pub fn is_synchronised(&self) -> bool {
        !self.is_unset() && self.ahead().is_some_and(|ahead| ahead.abs() <= AGREES)
    }

    /// For status and metrics. That a device has no clock at all is no problem; that its clock is wrong is.
    pub fn view(&self) -> ClockView {
        let (ahead, unset) = (self.ahead(), self.is_unset());
        let wrong = ahead.filter(|ahead| *ahead > WRONG || (*ahead < -WRONG && !unset));
        let problem = wrong.map(|ahead| {
            let side = if ahead > 0 { "ahead of" } else { "behind" };
            let words =
                format!("the clock of this device is {} {side} the hub's: set it, and have it kept by a", span(ahead));
            format!("{words} time service; certificates and signed metadata are judged by it")
        });
        let (now, floor, synchronised) = (self.now(), self.floor(), self.is_synchronised());
        ClockView { now, floor, unset, ahead, synchronised, problem }
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

    fn is_synchronised(&self) -> bool {
        self.time.is_synchronised()
    }
}
