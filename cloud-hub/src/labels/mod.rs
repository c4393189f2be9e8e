//! Labels: the truth about events, known later. They go through ingest like everything else, so that an answer means
//! that they are durable. A label may come before its event.

mod read;

pub use read::{Label, Read, Unreadable, from_csv, from_json};

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use anyhow::Context;
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::TimestampMicrosecondType;
use cloud_hub_lake::{Lake, LakeError};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tributary_wire::{Column, Field, FieldType, Sensitivity, Sha256, StreamName};
use utoipa::ToSchema;

use crate::audit::Noted;
use crate::hub::Hub;
use crate::ingest::SubmitError;

/// The stream that holds labels.
pub const STREAM: &str = "labels";

/// Stores labels; when it returns they are durable and in the lake. `sent` is the hash of what they were read from.
pub async fn store(hub: &Hub, labels: Vec<Label>, sent: Sha256) -> Result<(), SubmitError> {
    let stream = StreamName::new(STREAM).expect("a constant name");
    let field = |name: &str, kind, nullable| Field {
        name: name.to_owned(),
        kind,
        unit: String::new(),
        nullable,
        sensitivity: Sensitivity::Keep,
    };
    let fields = vec![
        field("event_id", FieldType::Text, false),
        field("label", FieldType::Bool, false),
        field("event_time", FieldType::Time, true),
        field("known_at", FieldType::Time, false),
    ];
    let columns = vec![
        Column::Text(labels.iter().map(|label| Some(label.event_id.to_string())).collect()),
        Column::Bool(labels.iter().map(|label| Some(label.label)).collect()),
        Column::Time(labels.iter().map(|label| label.event_time).collect()),
        Column::Time(labels.iter().map(|label| Some(label.known_at)).collect()),
    ];
    let count = columns.first().map_or(0, Column::len);
    let noted = Noted::new("labels.add", STREAM, Value::Null, json!({"count": count, "sha256": sent}));
    hub.ingest.submit(&stream, fields, columns, Some(noted)).await
}

/// What is known about labels.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LabelStats {
    /// Labels in the lake, repeated ones included.
    pub labels: u64,
    /// Distinct events they are about.
    pub events: u64,
    /// Of these labelled true by the label that became known last.
    pub positives: u64,
    /// Of these not in the lake (yet).
    pub unknown: u64,
}

/// Counts labels, and those whose event has not come. Reads both streams; takes memory per labelled event.
pub async fn stats(hub: &Hub) -> anyhow::Result<LabelStats> {
    let lake = hub.lake.clone();
    tokio::task::spawn_blocking(move || count(&lake)).await?.context("count labels")
}

fn count(lake: &Arc<Lake>) -> Result<LabelStats, LakeError> {
    let mut stats = LabelStats::default();
    // The truth that became known last counts; of equal times the one that came last.
    let mut known: HashMap<String, (i64, bool)> = HashMap::new();
    for batch in scan(lake, STREAM, &["event_id", "label", "known_at"])? {
        let batch = batch?;
        stats.labels += batch.num_rows() as u64;
        let labels = batch.column(1).as_boolean();
        let times = batch.column(2).as_primitive::<TimestampMicrosecondType>();
        for (row, id) in ids(&batch).enumerate() {
            let news = (times.value(row), labels.value(row));
            let entry = known.entry(id.to_owned()).or_insert(news);
            if news.0 >= entry.0 {
                *entry = news;
            }
        }
    }
    stats.events = known.len() as u64;
    stats.positives = known.values().filter(|(_, label)| *label).count() as u64;
    let mut missing: HashSet<String> = known.into_keys().collect();
    for batch in scan(lake, "events", &["event_id"])? {
        for id in ids(&batch?) {
            missing.remove(id);
        }
    }
    stats.unknown = missing.len() as u64;
    Ok(stats)
}

fn ids(batch: &RecordBatch) -> impl Iterator<Item = &str> {
    let ids = batch.column(0).as_string::<i32>();
    (0..ids.len()).map(|row| ids.value(row))
}

type Batches = Box<dyn Iterator<Item = Result<RecordBatch, LakeError>>>;

/// All of a stream; nothing where the lake does not know it yet.
fn scan(lake: &Lake, stream: &str, columns: &[&str]) -> Result<Batches, LakeError> {
    let stream = StreamName::new(stream).expect("a constant name");
    if !lake.streams().contains(&stream) {
        return Ok(Box::new(std::iter::empty()));
    }
    Ok(Box::new(lake.scan(&stream, i64::MIN..=i64::MAX, Some(columns))?))
}
