//! Simulated hardware: emulated machines have no accelerometer. [`Parts`] answers over I²C as an ADXL345 and an LM75
//! do, register by register, so a node's real drivers run; behind them stands a [`Machine`] whose bearing may wear.
//!
//! Integers only: the same seed gives the same samples on every processor.
#![no_std]

mod machine;
mod parts;

pub use machine::Machine;
pub use parts::{Fault, Parts};
