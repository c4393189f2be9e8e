//! Turns a dataset into a package: read, divide by time, train with burn, calibrate, export to ONNX, quantize to
//! int8 under a numeric limit, compare with the champion on later rows, and write the package.
//!
//! Start at [`RunSpec`] (what is asked) and [`run`] (what happens); [`RunResult`] is what came out. The same dataset
//! and seed give the same package, byte for byte.

mod spec;
mod error;
mod progress;
mod dataset;
mod truth;
mod prepare;
mod start;
mod mlp;
mod fit;
mod calibrate;
mod export;
mod graphs;
mod champion;
mod package;
mod result;
mod run;
pub mod benchmark;
#[cfg(test)]
mod equality;

pub use dataset::Dataset;
pub use error::{DatasetError, SpecError, TrainError};
pub use progress::{Progress, Step};
pub use result::{Comparison, Part, QuantizationResult, RunResult, Scores};
pub use run::{PACKAGE_FILE, PROGRESS_FILE, RESULT_FILE, SPEC_FILE, run};
pub use spec::{
    Bend, DecisionRule, Metric, ModelSpec, PositiveWeight, QuantizationSpec, RunSpec, Split, Trained, TrialLimits,
    WarmStart,
};
pub use truth::Truth;
