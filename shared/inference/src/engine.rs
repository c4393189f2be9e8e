//! What an engine does, whatever it runs on.

/// Why an engine cannot be loaded or cannot predict.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InferenceError {
    /// The graph cannot be loaded.
    #[error("engine {engine} cannot load the graph: {reason}")]
    Load {
        /// Which engine.
        engine: &'static str,
        /// What it said.
        reason: String,
    },
    /// The rows have another width than the graph.
    #[error("{found} values are no {rows} rows of {features} features ({expected} values)")]
    Shape {
        /// How many rows were announced.
        rows: usize,
        /// How many features a row has.
        features: usize,
        /// How many values that makes.
        expected: usize,
        /// How many there were.
        found: usize,
    },
    /// The graph failed while it ran.
    #[error("engine {engine} failed: {reason}")]
    Run {
        /// Which engine.
        engine: &'static str,
        /// What it said.
        reason: String,
    },
}

/// A loaded graph. Any thread may call it, several at once.
pub trait Engine: Send + Sync {
    /// Name of the engine, such as `tract`; reports and metrics carry it.
    fn name(&self) -> &'static str;

    /// How many values a row has.
    fn features(&self) -> usize;

    /// How many values the output of one row has.
    fn outputs(&self) -> usize;

    /// Predicts `n` rows, one behind the other in `rows`. `out` is cleared, then filled with [`Engine::outputs`] values
    /// per row. An output that is not a number is passed on as it is: judging it is the caller's task.
    fn predict(&self, rows: &[f32], n: usize, out: &mut Vec<f32>) -> Result<(), InferenceError>;

    /// Predicts one row of a graph with one output.
    fn predict_one(&self, row: &[f32]) -> Result<f32, InferenceError> {
        let mut out = Vec::with_capacity(self.outputs());
        self.predict(row, 1, &mut out)?;
        Ok(out[0])
    }
}

/// Whether `rows` holds `n` rows.
pub(crate) fn check_shape(rows: &[f32], n: usize, features: usize) -> Result<(), InferenceError> {
    match n.checked_mul(features) {
        Some(expected) if expected == rows.len() => Ok(()),
        expected => {
            let expected = expected.unwrap_or(usize::MAX);
            Err(InferenceError::Shape { rows: n, features, expected, found: rows.len() })
        }
    }
}
