//! Microseconds since the start.

use core::cell::Cell;

use cortex_m::interrupt::{self, Mutex};

use crate::device::CLOCK_HZ;
use crate::registers::Counter;

/// The counter's last value, and all ticks up to then.
static PASSED: Mutex<Cell<(u32, u64)>> = Mutex::new(Cell::new((0, 0)));

/// The time now. Somebody must ask within every 171 s, or a round of the counter is missed; the sampling interrupt does.
pub fn now() -> u64 {
    let ticks = interrupt::free(|section| {
        let passed = PASSED.borrow(section);
        let (last, total) = passed.get();
        let ticks = Counter::ticks();
        let total = total + u64::from(ticks.wrapping_sub(last));
        passed.set((ticks, total));
        total
    });
    ticks / u64::from(CLOCK_HZ / 1_000_000)
}
