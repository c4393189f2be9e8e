//! Time that passes when the world says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use tributary_process::clock::Clock;

/// When every world begins: 2026-01-05, 00:00 UTC, in microseconds.
pub const BEGINNING: i64 = 1_767_571_200_000_000;

/// The clock of one machine. Clones of it, and clocks made by [`WorldClock::of_another_machine`], share true time;
/// each machine has its own error of wall time.
#[derive(Debug, Clone, Default)]
pub struct WorldClock {
    now: Arc<AtomicU64>,
    error: Arc<AtomicI64>,
}

impl WorldClock {
    /// The same time, with an error of its own.
    pub fn of_another_machine(&self) -> Self {
        Self { now: self.now.clone(), error: Arc::default() }
    }

    /// Since the beginning.
    pub fn now(&self) -> Duration {
        Duration::from_micros(self.monotonic())
    }

    /// True time goes on to this moment; never back.
    pub fn set(&self, now: Duration) {
        self.now.fetch_max(now.as_micros() as u64, Ordering::Relaxed);
    }

    /// Wall time on this machine is wrong by so many microseconds from now on.
    pub fn set_error(&self, microseconds: i64) {
        self.error.store(microseconds, Ordering::Relaxed);
    }
}

impl Clock for WorldClock {
    fn wall(&self) -> i64 {
        BEGINNING + self.monotonic() as i64 + self.error.load(Ordering::Relaxed)
    }

    fn monotonic(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }
}
