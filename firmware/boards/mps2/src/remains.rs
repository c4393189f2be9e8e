//! What is left of a run that ended badly, and of the stack.

use core::mem::MaybeUninit;
use core::panic::PanicInfo;
use core::ptr::addr_of_mut;

use cortex_m::peripheral::SCB;
use cortex_m_rt::{ExceptionFrame, exception};
use tributary_node::{CrashStore, Start};
use tributary_wire::link::CrashKind;

use crate::clock;

/// Not cleared at start, and in every program at the same place (`program/memory.x`): what a trial left is told by the
/// program that comes after it.
#[unsafe(link_section = ".remains")]
static mut CRASH: MaybeUninit<CrashStore> = MaybeUninit::uninit();

/// The crash record.
///
/// # Safety
/// Nobody else may use it again: the main loop holds it only within one call, and handlers that take it never return.
unsafe fn store() -> &'static mut CrashStore {
    // SAFETY: the only reference, as the caller promises; any bytes are a CrashStore, its checksums tell good from bad.
    unsafe { (*addr_of_mut!(CRASH)).assume_init_mut() }
}

/// Reads what the last run left. Call once, before interrupts are on.
pub fn start() -> Start {
    // SAFETY: before interrupts nothing else runs; the reference ends here.
    unsafe { store() }.start(false)
}

/// Keeps what [`tributary_node::Node::dropped`] said. From the main loop only.
pub fn note_dropped(records: u32) {
    // SAFETY: the main loop has no other reference, and a handler that interrupts this one and takes it never returns; the
    // copy that is not being written then still counts.
    unsafe { store() }.note_dropped(records);
}

fn end(kind: CrashKind, file: &str, place: u32) -> ! {
    cortex_m::interrupt::disable();
    // SAFETY: interrupts are off and this function never returns; a fault within it resets by the watchdog.
    unsafe { store() }.crash(kind, clock::now(), file, place);
    SCB::sys_reset()
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let place = info.location();
    end(CrashKind::Panic, place.map_or("", |place| place.file()), place.map_or(0, |place| place.line()))
}

#[exception]
unsafe fn HardFault(frame: &ExceptionFrame) -> ! {
    end(CrashKind::Fault, "", frame.pc())
}

/// The watchdog's first word; its second is a reset.
#[exception]
unsafe fn NonMaskableInt() -> ! {
    end(CrashKind::Watchdog, "", 0)
}

unsafe extern "C" {
    static mut _stack_start: u32;
    static mut _stack_end: u32;
}

/// Size of the stack, and what of it was never used, in bytes.
pub fn stack() -> (u32, u32) {
    let (start, end) = (addr_of_mut!(_stack_start) as usize, addr_of_mut!(_stack_end) as usize);
    // Up to well below this function's own frame, so that nothing changes while we look.
    let own = cortex_m::register::msp::read() as usize;
    let words = own.saturating_sub(64).saturating_sub(end) / size_of::<u32>();
    // SAFETY: from the linker script's end of the stack to below the stack pointer lies memory that was painted at start,
    // word-aligned, of which no Rust object is part; interrupts below us only make words differ from the paint.
    let words = unsafe { core::slice::from_raw_parts(end as *const u32, words) };
    ((start - end) as u32, tributary_node::untouched(words))
}
