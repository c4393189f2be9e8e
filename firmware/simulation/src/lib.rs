//! Simulated hardware: emulated machines have no accelerometer. [`Parts`] answers over I²C as an ADXL345 and an LM75
//! do, register by register, so a node's real drivers run; behind them stands a [`Machine`] whose bearing may wear. [`RamFlash`] is flash to write
//! models and firmware to.
//!
//! Integers only: the same seed gives the same samples on every processor.
#![no_std]

mod flash;
mod machine;
mod parts;

pub use flash::{EMULATOR_KEY, EMULATOR_SEED, Misuse, RamFlash};
pub use machine::Machine;
pub use parts::{Fault, Parts};
