//! The loader: starts the firmware that counts, after it has checked its signature and its hash once more. A program on
//! trial that does not confirm itself is not started a second time; that is decided in `tributary-slots`.
#![no_std]
#![no_main]

mod device;
mod flash;
mod watchdog;

use core::panic::PanicInfo;

use cortex_m::peripheral::SCB;
use cortex_m_rt::entry;
use embedded_storage::nor_flash::NorFlash;
use tributary_node_simulation::RamFlash;
use tributary_wire::link::{BlobKind, IMAGE_HEAD, ImageHead};

use flash::LAYOUT;
use watchdog::Watchdog;

/// Where the program runs, and how long it can be.
const RUN: usize = 0x0001_0000;
const RUN_SIZE: usize = 512 * 1024;
/// What the factory writes.
const FACTORY: usize = 0x0038_0000;
const FACTORY_SIZE: usize = 512 * 1024;
/// The machine's data memory, in which a program's stack begins.
const DATA: core::ops::RangeInclusive<usize> = 0x2000_0000..=0x2040_0000;

#[entry]
fn main() -> ! {
    Watchdog::start();
    // SAFETY: the only call in this program.
    let mut memory = unsafe { flash::flash() };
    manufacture(&mut memory);
    let mut slots = flash::slots(memory);
    // SAFETY: code memory that is RAM, in which nothing runs yet; the only reference.
    let run = unsafe { core::slice::from_raw_parts_mut(RUN as *mut u8, RUN_SIZE) };
    if let Ok(Some(boot)) = slots.boot(BlobKind::Firmware)
        && let Some(run) = run.get_mut(..boot.length as usize)
        && slots.read(boot.at, run).is_ok()
        && let Some(start) = start_of(run)
    {
        Watchdog::feed();
        // SAFETY: a vector table of a program whose signature and hash were checked, with a stack in data memory and a
        // first instruction within it; no interrupt was ever enabled.
        unsafe { enter(start) }
    }
    // What was on trial is not tried again. When nothing else is there either, this goes on until somebody comes.
    SCB::sys_reset()
}

/// The vector table of a program that can be one.
fn start_of(program: &[u8]) -> Option<*const u32> {
    let word = |at: usize| Some(u32::from_le_bytes(*program.get(at..)?.first_chunk()?) as usize);
    let (stack, first) = (word(0)?, word(4)?);
    let within = (RUN..RUN + program.len()).contains(&(first & !1));
    (DATA.contains(&stack) && within && first & 1 == 1).then_some(RUN as *const u32)
}

/// # Safety
/// `table` is the vector table of a program, and no interrupt is enabled.
unsafe fn enter(table: *const u32) -> ! {
    // SAFETY: nothing of this program is used any more.
    let core = unsafe { cortex_m::Peripherals::steal() };
    // SAFETY: as the caller promises.
    unsafe {
        core.SCB.vtor.write(table as u32);
        cortex_m::asm::dsb();
        cortex_m::asm::isb();
        cortex_m::asm::bootload(table)
    }
}

/// When power came the emulated machine's memory is all zero, and no flash ever is: then do what the factory does.
fn manufacture(memory: &mut RamFlash<'_>) {
    let journal = LAYOUT.journal.map(|page| page as usize);
    let blank = journal.iter().all(|page| memory.0[*page..][..RamFlash::ERASE_SIZE].iter().all(|byte| *byte == 0));
    if !blank {
        return;
    }
    // SAFETY: code memory that is RAM, written only by whoever starts the emulator.
    let factory = unsafe { core::slice::from_raw_parts(FACTORY as *const u8, FACTORY_SIZE) };
    memory.0.fill(0xff);
    let Ok(head) = ImageHead::read(factory) else { return };
    let length = (IMAGE_HEAD + head.length as usize).next_multiple_of(RamFlash::WRITE_SIZE);
    if let Some(image) = factory.get(..length) {
        // A slot holds as much; if not, nothing can be started, which shows.
        let _ = memory.write(LAYOUT.firmware[0], image);
    }
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    SCB::sys_reset()
}
