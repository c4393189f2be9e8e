//! Reads a view from TOML.
use crate::View;

/// Why a text is not a feature view.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ViewError {
    /// Not TOML, an unknown key, a missing key or a value of another type; the text has line and column.
    #[error("{0}")]
    Toml(String),
    /// A key holds something that does not fit the rest of the view.
    #[error("{place}: {problem}")]
    Wrong {
        /// Where, such as `feature "night"`.
        place: String,
        /// What is wrong there, with expected and found.
        problem: String,
    },
}

impl View {
    /// Reads a view and checks every reference in it.
    pub fn from_toml(_text: &str) -> Result<Self, ViewError> {
        todo!()
    }
}
