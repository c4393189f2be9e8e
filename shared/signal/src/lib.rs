//! Windows and features of sampled signals, for vibration monitoring, in integers only.
//!
//! A [`Window`] gathers samples with overlap; an [`Analysis`] turns a full one into [`Features`]; a [`Model`] scores
//! how unlike the healthy machine they are. Every result is made of integer operations whose rounding is written
//! down here, so a Cortex-M4 without a floating-point unit, an agent on ARM64 and the hub on x86 get the same bits.
//!
//! Samples are counts of the converter, at most 24 bits with sign ([`MAX_SAMPLE`]). Results that are amplitudes are in
//! units of 2⁻⁸ counts; ratios are in units of 2⁻¹⁶. What a count means in m/s² is the sensor's business, not ours.
//!
//! This crate has no heap, no I/O, no clock and no floating point (the tables are made by the compiler).
#![no_std]

mod analysis;
mod fourier;
mod log2;
mod model;
mod moments;
mod payload;
mod sine;
mod window;

pub use analysis::{Analysis, Features, WrongAnalysis};
pub use log2::log2;
pub use model::{MAX_WIDTH, Model, WrongModel};
pub use moments::{Moments, moments};
pub use payload::{ModelPayload, WrongPayload};
pub use window::{Window, WrongHop};

/// The shortest window that can be analysed.
pub const MIN_WINDOW: usize = 64;
/// The longest window that can be analysed: beyond it the sums of [`Moments`] would need wider integers.
pub const MAX_WINDOW: usize = 2048;
/// The largest size of a sample; larger ones are taken as this. Deviations in units of 2⁻⁸ then fit 32 bits.
pub const MAX_SAMPLE: i32 = (1 << 23) - 1;
/// Fraction bits of amplitudes: mean, RMS, peak, bands.
pub const AMPLITUDE_BITS: u32 = 8;
/// Fraction bits of ratios: crest factor, kurtosis.
pub const RATIO_BITS: u32 = 16;
