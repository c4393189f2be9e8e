//! Golden cases: the proof that an engine gives what the package promises.

use tributary_release::Package;

use crate::{Engine, InferenceError};

/// An engine agreed with every golden case.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GoldenReport {
    /// How many cases.
    pub cases: usize,
    /// The largest difference of an output.
    pub largest_difference: f32,
}

/// Why an engine must not run a package.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum GoldenMismatch {
    /// It could not predict at all.
    #[error("golden cases")]
    Engine(#[from] InferenceError),
    /// The graph does not have one output per row.
    #[error("the graph has {found} outputs per row, expected 1")]
    Outputs {
        /// How many it has.
        found: usize,
    },
    /// An output is further away than the tolerance.
    #[error("golden case {case} gives {found}, expected {expected} within {tolerance}")]
    Output {
        /// Which case.
        case: usize,
        /// As promised.
        expected: f32,
        /// As found.
        found: f32,
        /// What is allowed.
        tolerance: f32,
    },
    /// An output clear of the threshold leads to the other decision.
    #[error("golden case {case} gives {found} and decides {}, expected {expected} and {decision}", !decision)]
    Decision {
        /// Which case.
        case: usize,
        /// The promised output.
        expected: f32,
        /// The output found.
        found: f32,
        /// The promised decision.
        decision: bool,
    },
}

/// Runs every golden case: outputs within the manifest's tolerance, and equal decisions wherever the promised output
/// is outside the margin around the threshold.
pub fn check_golden(engine: &dyn Engine, package: &Package) -> Result<GoldenReport, GoldenMismatch> {
    let manifest = &package.manifest;
    if engine.outputs() != 1 {
        return Err(GoldenMismatch::Outputs { found: engine.outputs() });
    }
    let rows: Vec<f32> = package.golden.iter().flat_map(|case| &case.features).copied().collect();
    let mut found = Vec::new();
    engine.predict(&rows, package.golden.len(), &mut found)?;
    let mut largest_difference = 0.0f32;
    for (case, (golden, &found)) in package.golden.iter().zip(&found).enumerate() {
        let (expected, decision) = (golden.output, golden.decision);
        let difference = (found - expected).abs();
        // Written so that not a number fails.
        let close = difference <= manifest.tolerance;
        if !close {
            return Err(GoldenMismatch::Output { case, expected, found, tolerance: manifest.tolerance });
        }
        if manifest.decision.is_clear(expected) && manifest.decision.decide(found) != decision {
            return Err(GoldenMismatch::Decision { case, expected, found, decision });
        }
        largest_difference = largest_difference.max(difference);
    }
    Ok(GoldenReport { cases: package.golden.len(), largest_difference })
}
