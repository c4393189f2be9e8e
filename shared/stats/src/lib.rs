//! Numbers about many numbers: mergeable sketches, drift tests with a stated error rate, sequential tests, and
//! ranking metrics.
//!
//! A device fills a [`Sketcher`] and ships a [`Sketch`] per window; the hub merges sketches and compares them with
//! the [`Reference`] bins of the package through [`drift`]. Training and promotion use [`ranking`], rollout gates
//! use [`sequential`]. Pure arithmetic: no I/O, no clock; chance is a seed.

mod special;
mod moments;
mod histogram;
mod reference;
mod latency;
mod sketch;
pub mod drift;
pub mod discovery;
pub mod ranking;
pub mod weighted;
pub mod sequential;

pub use drift::DriftTest;
pub use histogram::{BinError, Bins, Histogram, MergeError};
pub use latency::LatencySketch;
pub use moments::Moments;
pub use reference::{Reference, Spread};
pub use sketch::{MAX_SKETCH_BYTES, Prediction, Sketch, SketchError, Sketcher, WindowKey};
pub use special::{chi_square_survival, normal_quantile, normal_survival};
