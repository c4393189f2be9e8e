//! Writing to the machine's devices.

use core::ptr;

/// What all devices are clocked with.
pub const CLOCK_HZ: u32 = 25_000_000;

/// Sets a register.
pub fn write(address: usize, value: u32) {
    // SAFETY: every address that this board gives is a word-aligned device register of this machine, which no Rust object
    // occupies; writing it has no effect on memory.
    unsafe { ptr::write_volatile(address as *mut u32, value) }
}
