//! Runs a package's graph, and reads and writes ONNX.
//!
//! [`Engine`] is the one way to predict; [`load_cpu`] gives the engine on the CPU, [`load_served`] the one of a
//! package's served graph. [`check_golden`] proves that an engine gives what the package promises, [`pick_fastest`]
//! keeps the fastest of those that do. [`onnx::Graph`] is a graph to build, edit, write and read back;
//! [`quantize::to_qdq`] makes its int8 form. An engine on another device is one more implementation of the trait.
//!
//! This crate knows no windows, no transport and no clock: whoever wants engines timed brings the clock.

mod engine;
mod cpu;
mod golden;
mod fastest;
pub mod onnx;
pub mod quantize;

pub use cpu::{CPU_ENGINE, cpu_operators, load_cpu, load_served};
pub use engine::{Engine, InferenceError};
pub use fastest::{Candidate, Choice, NoEngine, pick_fastest};
pub use golden::{GoldenMismatch, GoldenReport, check_golden};
