//! What a sensor node does, without a word about its board: no heap, no `std`, generic over `embedded-hal` and
//! `embedded-io`, tested on a laptop.
//!
//! ```text
//! timer interrupt: Sampler ──► queue ──► main loop: Node ──► windows, features, score ──► Store ──► frames ──► UART
//!                  (reads the sensors)              ◄── acknowledgements, time, orders ◄──────────────────────
//! ```
//!
//! A board makes a [`Sampler`] with its drivers and calls [`Sampler::tick`] from a timer interrupt, so nothing that the
//! rest does moves a sample in time. Its main loop gives readings to [`Node::take`] and calls [`serve`] with its UART.
//! Models and firmware come over the same line into [`Updates`], which is `tributary-slots`; the node tells when what is
//! on trial has passed its self-test. [`CrashStore`] and [`untouched`] are the pieces that a panic handler and a painted stack need.
#![no_std]

mod accelerometer;
mod adxl345;
mod analyzer;
mod crash;
mod measure;
mod node;
mod records;
mod sampler;
mod serve;
mod stack;
mod station;
mod store;
mod thermometer;
mod updates;

pub use accelerometer::{Accelerometer, SensorError, SensorWatch};
pub use adxl345::Adxl345;
pub use analyzer::{Analyzer, WindowFeatures};
pub use crash::{CrashStore, Start};
pub use node::{Action, Identity, Node};
pub use sampler::{Reading, Sampler};
pub use serve::serve;
pub use stack::{PAINT, untouched};
pub use store::Store;
pub use thermometer::{NoThermometer, Thermometer};
pub use updates::Updates;
