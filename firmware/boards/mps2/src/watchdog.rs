//! The machine's watchdog, an ARM CMSDK one. The loader starts it, so a program that hangs at once is restarted too.

use crate::device::{CLOCK_HZ, write};

/// Interrupts (as a non-maskable one) when it is not fed, and resets when that does not help.
pub struct Watchdog;

impl Watchdog {
    const BASE: usize = 0x4000_8000;

    /// Wants to be fed at least every two seconds.
    pub fn start() {
        write(Self::BASE + 0xc00, 0x1acc_e551);
        write(Self::BASE, 2 * CLOCK_HZ);
        write(Self::BASE + 8, 0b11);
    }

    /// Feeds it.
    pub fn feed() {
        write(Self::BASE + 0xc, 1);
    }
}
