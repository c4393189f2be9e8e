//! What all file forms have in common: rows with a number, each an event or a problem.

use std::path::{Path, PathBuf};

use tributary_features::{EntityKey, Event, View};

use super::{ReplayConfig, Share, parquet, text};

/// Why a file cannot be read (on).
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// It cannot be opened or read.
    #[error("{}: {source}", .file.display())]
    Io {
        /// Which file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Its ending names no form we read.
    #[error("{}: the ending is none of csv, jsonl, ndjson, json, parquet", .file.display())]
    Form {
        /// Which file.
        file: PathBuf,
    },
    /// It is damaged from some row on.
    #[error("{}: row {row}: {problem}", .file.display())]
    Broken {
        /// Which file.
        file: PathBuf,
        /// The first row that cannot be read; the first of the file is 1.
        row: u64,
        /// What is wrong.
        problem: String,
    },
    /// It is no file of its form: cut off, or something else.
    #[error("{}: {problem}", .file.display())]
    Unreadable {
        /// Which file.
        file: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A column is not there.
    #[error("{}: column {column:?} is missing; there are {found}", .file.display())]
    Column {
        /// Which file.
        file: PathBuf,
        /// The column that is needed.
        column: String,
        /// Those that are there.
        found: String,
    },
}

/// A row that is no event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: row {row}: {problem}", .file.display())]
pub struct RowProblem {
    /// Which file.
    pub file: PathBuf,
    /// Which row; the first is 1.
    pub row: u64,
    /// What is wrong with it.
    pub problem: String,
}

/// Rows that were read together.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    pub(super) begin: Option<u64>,
    /// Row number (from 0) and event.
    pub(super) rows: Vec<(u64, Event)>,
    pub(super) problems: Vec<RowProblem>,
    /// Rows behind us with this chunk.
    pub(super) next: u64,
    pub(super) total: Option<u64>,
    pub(super) finished: bool,
}

/// Rows of a file, one by one.
pub(super) trait Rows {
    /// The next row; `None` at the end.
    fn next(&mut self) -> Result<Option<Result<Event, String>>, ReplayError>;

    /// How many there are, where the file says so.
    fn total(&self) -> Option<u64> {
        None
    }
}

/// Opens a file at a row.
pub(super) fn open(config: &ReplayConfig, view: &View, begin: u64) -> Result<Box<dyn Rows>, ReplayError> {
    let file = &config.file;
    let ending = file.extension().and_then(|ending| ending.to_str()).unwrap_or_default().to_ascii_lowercase();
    match ending.as_str() {
        "csv" => Ok(Box::new(text::CsvRows::open(config, view, begin)?)),
        "jsonl" | "ndjson" | "json" => Ok(Box::new(text::JsonRows::open(config, view, begin)?)),
        "parquet" => Ok(Box::new(parquet::ParquetRows::open(config, view, begin)?)),
        _ => Err(ReplayError::Form { file: file.clone() }),
    }
}

/// Finds a column by name.
pub(super) fn column(file: &Path, names: &[String], wanted: &str) -> Result<usize, ReplayError> {
    names.iter().position(|name| name == wanted).ok_or_else(|| ReplayError::Column {
        file: file.to_owned(),
        column: wanted.to_owned(),
        found: names.join(", "),
    })
}

/// Whether this device plays an event.
pub(super) fn is_ours(share: Option<&Share>, event: &Event) -> bool {
    let Some(share) = share else { return true };
    let key = event.entities.iter().find(|(name, _)| *name == share.entity).map(|(_, key)| key);
    // A row without such a key is everybody's to refuse, so that it is not lost silently.
    !matches!(key, Some(EntityKey::Int(key)) if key.rem_euclid(share.of.max(1)) != share.index)
}
