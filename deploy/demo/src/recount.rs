//! Counts the lake again from its Parquet files alone, without asking the hub.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result};
use arrow::array::{Array, StringArray};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

/// How often each event id stands in the files of a stream.
pub fn event_ids(lake: &Path, stream: &str) -> Result<HashMap<String, u32>> {
    let mut counts = HashMap::new();
    let folder = lake.join(stream);
    if !folder.exists() {
        return Ok(counts);
    }
    for path in files(&folder)? {
        count(&path, &mut counts).with_context(|| format!("reading {}", path.display()))?;
    }
    Ok(counts)
}

/// All Parquet files below a folder.
pub fn files(folder: &Path) -> Result<Vec<std::path::PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "parquet") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn count(path: &Path, counts: &mut HashMap<String, u32>) -> Result<()> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(path)?)?;
    let mask = ProjectionMask::columns(builder.parquet_schema(), ["event_id"]);
    for batch in builder.with_projection(mask).build()? {
        let batch = batch?;
        let ids = batch.column(0).as_any().downcast_ref::<StringArray>().context("event_id is not text")?;
        for id in ids.iter().flatten() {
            *counts.entry(id.to_owned()).or_default() += 1;
        }
    }
    Ok(())
}
