//! The lake: Parquet files by stream and UTC day of event time, readable by any engine.
//!
//! In the order in which data flows: [`schema`] (which columns a stream has, and whether a batch fits), [`columns`]
//! (columns as they travelled → Arrow), [`file`] (one Parquet file and its footer, which lists the batches inside),
//! [`days`], [`Lake`] (which files count, writing, reading), [`dataset`] (training sets made from it).
//!
//! This crate knows no database: whoever commits files tells it with [`Lake::register`].

pub mod schema;
pub mod columns;
mod sums;
pub mod file;
pub mod days;
mod reader;
mod names;
mod lake;
mod discard;
pub mod dataset;

pub use file::{BatchKey, Footer, FooterBatch, Rowless};
pub use lake::{Differences, FileEntry, Lake, Portion, Written};
pub use reader::Scan;
pub use schema::{SchemaConflict, StreamColumn, StreamSchema};

use std::path::PathBuf;

/// Why the lake could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum LakeError {
    /// The disk refused.
    #[error("could not {verb} {}", path.display())]
    Storage {
        /// What was tried.
        verb: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is cut short, damaged, or not Parquet at all.
    #[error("{} is not a whole Parquet file: {problem}", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What the reader said.
        problem: String,
    },
    /// A file is Parquet but not one that the lake wrote.
    #[error("{} has no list of batches in its footer", path.display())]
    Foreign {
        /// Which file.
        path: PathBuf,
    },
    /// A file holds another number of rows than was written.
    #[error("{} holds {found} rows, expected {expected}", path.display())]
    Rows {
        /// Which file.
        path: PathBuf,
        /// As written.
        expected: u64,
        /// As read.
        found: u64,
    },
    /// A column was asked for that no file of the stream has.
    #[error("stream {stream} has no column {column:?}; it has {known}")]
    NoColumn {
        /// Which stream.
        stream: String,
        /// What was asked for.
        column: String,
        /// What there is.
        known: String,
    },
    /// Arrow refused an operation on our own columns; a programming error that is not worth a panic.
    #[error("columns do not fit together: {0}")]
    Arrow(#[from] arrow::error::ArrowError),
}
