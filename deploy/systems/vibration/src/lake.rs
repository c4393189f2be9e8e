//! Windows from the hub's lake, and images for nodes.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::Context;
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimeUnit, TimestampMicrosecondType};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tributary_release::{SigningKey, sign_node_image};
use tributary_wire::link::{BlobKind, NodeName};

use crate::inputs::{BANDS, WindowOf};
use crate::learn::Learnt;

/// One count of an ADXL345 in full resolution, in nm/s².
pub const ADXL345_COUNT: u32 = 38_245_935;

/// A window that was recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    /// When its last sample was taken, UTC microseconds.
    pub time: i64,
    /// Which node.
    pub node: String,
    /// What it said.
    pub window: WindowOf,
}

/// The windows in a lake's folder, in order of time, each event once: a file that was compacted away may still be there.
pub fn windows(lake: &Path) -> anyhow::Result<Vec<Recorded>> {
    let mut found = BTreeMap::new();
    for path in files(&lake.join("events")).with_context(|| format!("list {}", lake.display()))? {
        let mut read = || -> anyhow::Result<()> {
            let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(&path)?)?.build()?;
            for rows in reader {
                read_rows(&rows?, &mut found)?;
            }
            Ok(())
        };
        read().with_context(|| format!("read {}", path.display()))?;
    }
    let mut windows: Vec<Recorded> = found.into_values().collect();
    windows.sort_by_key(|recorded| recorded.time);
    Ok(windows)
}

fn files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "parquet") {
            found.push(path);
        }
    }
    Ok(found)
}

fn read_rows(rows: &RecordBatch, found: &mut BTreeMap<String, Recorded>) -> anyhow::Result<()> {
    let column = |name: &str, kind: DataType| {
        let column = rows.column_by_name(name).with_context(|| format!("there is no column {name:?}"))?;
        cast(column, &kind).with_context(|| format!("column {name:?} is no {kind}"))
    };
    let double =
        |name: &str| Ok::<_, anyhow::Error>(column(name, DataType::Float64)?.as_primitive::<Float64Type>().clone());
    let (ids, nodes) = (column("event_id", DataType::Utf8)?, column("node", DataType::Utf8)?);
    let (ids, nodes) = (ids.as_string::<i32>(), nodes.as_string::<i32>());
    let times = column("event_time", DataType::Timestamp(TimeUnit::Microsecond, None))?;
    let times = times.as_primitive::<TimestampMicrosecondType>();
    let (rms, crest, kurtosis) = (double("rms")?, double("crest")?, double("kurtosis")?);
    let crossings = column("crossings", DataType::Int64)?.as_primitive::<Int64Type>().clone();
    let bands = (1..=BANDS).map(|band| double(&format!("band_{band}"))).collect::<anyhow::Result<Vec<_>>>()?;
    for row in 0..rows.num_rows() {
        // A node whose firmware computes no bands has no such model.
        let here = bands.iter().chain([&rms, &crest, &kurtosis]).all(|column| column.is_valid(row));
        if !here || !crossings.is_valid(row) || !nodes.is_valid(row) {
            continue;
        }
        let window = WindowOf {
            rms: rms.value(row),
            crest: crest.value(row),
            kurtosis: kurtosis.value(row),
            crossings: crossings.value(row),
            bands: std::array::from_fn(|band| bands[band].value(row)),
        };
        let recorded = Recorded { time: times.value(row), node: nodes.value(row).to_owned(), window };
        found.insert(ids.value(row).to_owned(), recorded);
    }
    Ok(())
}

/// The signed image of a model for nodes of a type.
pub fn image(learnt: &Learnt, node: &str, version: u32, rollback: u32, key: &SigningKey) -> anyhow::Result<Vec<u8>> {
    let node = NodeName::new(node)?;
    Ok(sign_node_image(BlobKind::Model, node, version, rollback, &learnt.payload()?, key))
}
