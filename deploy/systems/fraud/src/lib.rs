//! Card fraud: the feature view, a generator of realistic transactions, and a loader for the user's own.
//!
//! The generator follows the published description of the Fraud Detection Handbook's simulated data (customers with a
//! place and habits, terminals within reach, frauds of three kinds); its code was not read.

mod chance;
mod transaction;
mod generator;
mod parquet_file;

pub use generator::{Generator, GeneratorConfig};
pub use parquet_file::{LoadError, each_transaction, load_parquet, write_parquet};
pub use transaction::Transaction;

/// The feature view `card-risk`: 15 features, customer windows in device scope, terminal windows in fleet scope.
pub const VIEW_TOML: &str = include_str!("../view.toml");
