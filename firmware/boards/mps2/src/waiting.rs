//! Memory for records that wait while no agent is there: the machine's PSRAM.

use core::mem::MaybeUninit;
use core::ptr::addr_of_mut;

/// Seven hours of windows. Who prints the node's figures takes it from its RAM (`host/src/figures.rs`).
const MEMORY: usize = 15 << 20;

/// What the loader of `cortex-m-rt` neither copies nor clears.
#[unsafe(link_section = ".records")]
static mut RECORDS: MaybeUninit<[u8; MEMORY]> = MaybeUninit::uninit();

/// The memory, cleared.
///
/// # Safety
/// Call once in a program: nothing else may hold it.
pub unsafe fn memory() -> &'static mut [u8] {
    let first = addr_of_mut!(RECORDS).cast::<u8>();
    // SAFETY: so many bytes belong to the static; the only reference to them, as the caller promises, and every byte is
    // written before it can be read.
    unsafe {
        first.write_bytes(0, MEMORY);
        core::slice::from_raw_parts_mut(first, MEMORY)
    }
}
