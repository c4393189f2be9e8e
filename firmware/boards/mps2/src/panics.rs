//! A program that panics soon after its start, with few variables and none where the node has its own: what tests bring to
//! a node as a trial, to see that the program before it comes back and tells of the panic.
#![no_std]
#![no_main]

#[allow(dead_code, reason = "shared with the node, which writes to more devices")]
mod clock;
mod device;
#[allow(dead_code, reason = "shared with the node, which uses all of them")]
mod registers;
#[allow(dead_code, reason = "shared with the node, which has records and looks at its stack")]
mod remains;

use cortex_m_rt::entry;

use registers::Counter;

/// Long enough that it was not its start that failed.
const RUNS: u64 = 100_000;

#[entry]
fn main() -> ! {
    let start = remains::start();
    Counter::start();
    while clock::now() < RUNS {}
    panic!("on trial, start {}", start.starts)
}
