//! Events of each entity with running sums.

/// Why stored window state cannot be taken back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// The bytes are not a state this build reads.
    #[error("not a window state: {0}")]
    Malformed(String),
    /// The state belongs to another entity, or one with other columns.
    #[error("window state of {found} does not fit the view: {problem}")]
    Foreign {
        /// The entity that the state names.
        found: String,
        /// What does not fit.
        problem: &'static str,
    },
}
