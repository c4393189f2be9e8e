//! The machine's devices: ARM CMSDK timers and UART at the addresses of application note AN386.

use core::ptr;

use crate::device::{CLOCK_HZ, write};

/// Interrupt of the UART's receiver.
pub const UART_RECEIVED: i16 = 0;
/// Interrupt of the sampling timer.
pub const TIMER_TICKED: i16 = 8;

fn read(address: usize) -> u32 {
    // SAFETY: as for `write`.
    unsafe { ptr::read_volatile(address as *const u32) }
}

/// The timer that says when a sample is taken.
pub struct SampleTimer;

impl SampleTimer {
    const BASE: usize = 0x4000_0000;

    /// Interrupts so many times a second from now on.
    pub fn start(rate: u32) {
        write(Self::BASE, 0);
        write(Self::BASE + 8, CLOCK_HZ / rate - 1);
        write(Self::BASE + 4, CLOCK_HZ / rate - 1);
        // Interrupt and counter on.
        write(Self::BASE, 0b1001);
    }

    /// The interrupt was seen.
    pub fn clear() {
        write(Self::BASE + 0xc, 1);
    }
}

/// A timer that only counts, down from 2³² and over again.
pub struct Counter;

impl Counter {
    const BASE: usize = 0x4000_1000;

    /// Begins to count.
    pub fn start() {
        write(Self::BASE + 8, u32::MAX);
        write(Self::BASE + 4, u32::MAX);
        write(Self::BASE, 1);
    }

    /// Ticks since then; wraps after 171 s.
    pub fn ticks() -> u32 {
        !read(Self::BASE + 4)
    }
}

/// UART 0.
pub struct UartRegisters;

impl UartRegisters {
    const BASE: usize = 0x4000_4000;

    /// 115 200 baud, both directions, an interrupt for every byte that comes.
    pub fn start() {
        write(Self::BASE + 0x10, CLOCK_HZ / 115_200);
        write(Self::BASE + 8, 0b1011);
    }

    /// Whether a byte would have to wait.
    pub fn is_full() -> bool {
        read(Self::BASE + 4) & 1 != 0
    }

    /// Sends a byte.
    pub fn put(byte: u8) {
        write(Self::BASE, u32::from(byte));
    }

    /// The byte that came, if one did; its interrupt is over.
    pub fn take() -> Option<u8> {
        write(Self::BASE + 0xc, 0b10);
        (read(Self::BASE + 4) & 0b10 != 0).then(|| read(Self::BASE) as u8)
    }
}
