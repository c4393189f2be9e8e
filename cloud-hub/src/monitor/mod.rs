//! Watches versions at work: merges sketches, joins observations with labels, judges, alerts, and asks for retraining.
//!
//! Windows are of event time: a replay of last year is judged as last year was. What the monitor has read moves in
//! the same transaction as what it made of it, so that after a crash nothing counts twice and nothing is missed.

mod records;
mod windows;
mod findings;
mod quality;
mod alerts;
mod verdict;
mod watch;

pub use alerts::Alert;
pub use findings::QualityFindings;
pub use quality::DayRow;
pub use watch::{Config, run};

/// What the web API reads.
pub mod read {
    pub use super::alerts::{change, get as alert, list as alerts};
    pub use super::findings::load as findings;
    pub use super::quality::days;
    pub use super::windows::versions;
}

/// Why the monitor cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum MonitorError {
    /// An alert cannot be changed like that.
    #[error(transparent)]
    Alert(#[from] cloud_hub_core::alert::AlertError),
    /// A stored sketch cannot be read.
    #[error("the catalog holds a sketch that cannot be read")]
    Sketch(#[from] tributary_stats::SketchError),
    /// A record batch is not of its stream's type.
    #[error("the lake")]
    Records(#[from] records::RecordError),
    /// What the catalog holds cannot be read.
    #[error("the catalog holds {what} that cannot be read: {problem}")]
    Unreadable {
        /// What.
        what: &'static str,
        /// Why.
        problem: String,
    },
    /// The catalog failed.
    #[error("catalog")]
    Catalog(#[from] sqlx::Error),
}

impl MonitorError {
    fn unreadable(what: &'static str, problem: impl ToString) -> Self {
        Self::Unreadable { what, problem: problem.to_string() }
    }
}

#[cfg(test)]
mod tests;
