//! The one place that reads a clock. Decisions take `now` as an argument instead.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Where the time comes from; tests pass their own.
pub trait Clock: Send + Sync + 'static {
    /// Wall time as UTC microseconds since 1970.
    fn wall(&self) -> i64;
    /// Microseconds since some fixed moment; never goes back.
    fn monotonic(&self) -> u64;
    /// The latest instant that has certainly passed: a wall clock may be wrong for a while. What must not happen too
    /// early goes by this.
    fn certain(&self) -> i64 {
        self.wall()
    }
    /// Whether there is reason to believe the wall time: it agreed with another clock when they were compared.
    fn is_synchronised(&self) -> bool {
        false
    }
}

/// The machine's own clocks.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// Monotonic time counts from here.
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn wall(&self) -> i64 {
        // Before 1970 is a clock that was never set; the floor of the time provider lifts it later.
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64)
    }

    fn monotonic(&self) -> u64 {
        self.start.elapsed().as_micros() as u64
    }
}

/// Wall time as UTC microseconds, for shells that have no clock at hand.
pub fn wall_now() -> i64 {
    SystemClock::start().wall()
}
