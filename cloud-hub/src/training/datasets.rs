//! Datasets: immutable training sets made from the lake, named by the hash of their content.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use cloud_hub_lake::dataset::{Dataset, DatasetSpec, StoredDataset, Summary};
use serde_json::{Value, json};
use sqlx::SqliteConnection;
use tributary_features::View;
use tributary_wire::{LineName, Micros};

use super::runs::Run;
use crate::audit::{self, Change};
use crate::catalog::gaps;
use crate::hub::Hub;
use crate::lines::Line;
use crate::materialize;
use crate::registry::{RegistryError, views};

/// A dataset as the catalog keeps it.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct DatasetRecord {
    /// Its number.
    pub id: i64,
    /// Hash of its file.
    pub sha256: String,
    /// The line it was made for.
    pub line: Option<String>,
    /// Name of its feature view.
    pub view_name: String,
    /// Version of its feature view.
    pub view_version: i64,
    /// Event time of its first rows.
    pub from_time: i64,
    /// Event time before which its rows lie.
    pub to_time: i64,
    /// How long after an event its label was taken to be known, microseconds.
    pub label_delay: i64,
    /// Rows.
    pub rows: i64,
    /// Rows with a true label.
    pub positives: i64,
    /// Rows whose replayed features differ from those served.
    pub mismatches: i64,
    /// Everything that was counted while it was made.
    pub summary_json: String,
    /// When it was made, UTC microseconds.
    pub created: i64,
}

/// A dataset that is asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Wish {
    /// For which line.
    pub line: Option<LineName>,
    /// By which feature view.
    pub view: View,
    /// Event time of its first rows.
    pub from: Micros,
    /// Event time before which its rows lie.
    pub to: Micros,
    /// How long after an event its label is taken to be known, microseconds.
    pub label_delay: i64,
}

/// Why a dataset cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum WishError {
    /// Nothing to make it from.
    #[error("the lake has no events yet")]
    NoEvents,
    /// The range is empty.
    #[error("the range is empty: it begins at {from} and ends before {to}")]
    Empty {
        /// Its beginning.
        from: Micros,
        /// Its end.
        to: Micros,
    },
    /// View or line.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

impl Wish {
    /// Of a line, over a range; what is left out follows from the line's settings and the newest event time.
    pub async fn of_line(
        hub: &Arc<Hub>,
        line: Line,
        from: Option<Micros>,
        to: Option<Micros>,
        label_delay: Option<i64>,
    ) -> Result<Self, WishError> {
        let mut catalog = hub.catalog.reader().acquire().await.map_err(RegistryError::from)?;
        let view = views::get(&mut catalog, &line.view_name, Some(line.view_version)).await?.view()?;
        let training = &line.settings.training;
        let label_delay = label_delay.unwrap_or_else(|| declared_delay(&line, &view));
        let to = match to {
            Some(to) => to,
            None => Micros(newest_event(&mut catalog).await?.ok_or(WishError::NoEvents)?.0 - label_delay),
        };
        let from = from.unwrap_or(to - training.range.0);
        if from >= to {
            return Err(WishError::Empty { from, to });
        }
        Ok(Self { line: Some(line.name), view, from, to, label_delay })
    }

    /// Of a run.
    pub async fn of_run(hub: &Arc<Hub>, line: Line, run: &Run) -> Result<Self, WishError> {
        Self::of_line(hub, line, run.from_time.map(Micros), run.to_time.map(Micros), None).await
    }
}

/// The label delay of the line's settings, else of its view.
fn declared_delay(line: &Line, view: &View) -> i64 {
    line.settings.training.label_delay.map_or(view.label_delay(), |delay| delay.0.as_micros() as i64)
}

/// Event time up to which the labels of a line should be known by now; `None` before the first event.
pub async fn labelled_until(catalog: &mut SqliteConnection, line: &Line) -> Result<Option<Micros>, RegistryError> {
    let view = views::get(catalog, &line.view_name, Some(line.view_version)).await?.view()?;
    let newest = newest_event(catalog).await?;
    Ok(newest.map(|newest| Micros(newest.0 - declared_delay(line, &view))))
}

/// The newest event time in the lake: the watermark of everything that has arrived.
pub async fn newest_event(catalog: &mut SqliteConnection) -> Result<Option<Micros>, RegistryError> {
    let query = "select max(max_time) from lake_files where stream = 'events' and rows > 0";
    let newest: Option<i64> = sqlx::query_scalar(query).fetch_one(catalog).await?;
    Ok(newest.map(Micros))
}

/// Event time before which the rows of the last run lie that drift asked for on this line.
pub async fn last_drift_rows(catalog: &mut SqliteConnection, line: &LineName) -> Result<Option<Micros>, sqlx::Error> {
    let query = "select max(datasets.to_time) from runs join datasets on datasets.id = runs.dataset
                 where runs.line = $1 and runs.origin = 'drift'";
    let to: Option<i64> = sqlx::query_scalar(query).bind(line.as_str()).fetch_one(catalog).await?;
    Ok(to.map(Micros))
}

/// Where the dataset of that hash lies.
pub fn path(data: &Path, sha256: &str) -> PathBuf {
    data.join("datasets").join(format!("{sha256}.parquet"))
}

/// Makes a dataset and keeps it. One with the same content is not kept twice on disk, but is a row of its own.
pub async fn make(hub: &Arc<Hub>, wish: Wish) -> anyhow::Result<DatasetRecord> {
    let (stored, summary, wish) = build(hub, wish, hub.data().join("datasets")).await?;
    let mut catalog = hub.catalog.write().await?;
    let mut counted = serde_json::to_value(&summary)?;
    counted["lost"] = lost(&mut catalog, (wish.from, wish.to)).await?;
    let now = hub.now();
    let record: DatasetRecord = sqlx::query_as(
        "insert into datasets (id, sha256, line, view_name, view_version, from_time, to_time, label_delay, rows,
         positives, mismatches, summary_json, created)
         values ((select coalesce(max(id), 0) + 1 from datasets), $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
         returning *",
    )
    .bind(stored.sha256.to_string())
    .bind(wish.line.as_ref().map(LineName::as_str))
    .bind(wish.view.name())
    .bind(i64::from(wish.view.version()))
    .bind(wish.from.0)
    .bind(wish.to.0)
    .bind(wish.label_delay)
    .bind(summary.rows as i64)
    .bind(summary.positives as i64)
    .bind(summary.mismatches as i64)
    .bind(counted.to_string())
    .bind(now.0)
    .fetch_one(&mut *catalog)
    .await?;
    let to = json!({
        "sha256": record.sha256, "line": record.line, "view": record.view_name, "view_version": record.view_version,
        "from": record.from_time, "to": record.to_time, "rows": record.rows,
    });
    let subject = record.id.to_string();
    let change = Change { action: "dataset.make", subject: &subject, from: Value::Null, to };
    audit::record(&mut catalog, change, now).await?;
    catalog.commit().await?;
    Ok(record)
}

/// What devices said that they gave up of the records of a range, by stream and reason.
async fn lost(catalog: &mut SqliteConnection, range: (Micros, Micros)) -> Result<Value, sqlx::Error> {
    let mut lost = serde_json::Map::new();
    for stream in ["events", "observations"] {
        let by_reason = gaps::lost_between(catalog, stream, range).await?;
        lost.insert(
            stream.to_owned(),
            by_reason.into_iter().map(|(reason, records)| (reason, Value::from(records))).collect(),
        );
    }
    Ok(lost.into())
}

/// Replays the lake into a file of `folder`, on a thread of its own: it reads for seconds to minutes.
pub async fn build(hub: &Arc<Hub>, wish: Wish, folder: PathBuf) -> anyhow::Result<(StoredDataset, Summary, Wish)> {
    let hub = hub.clone();
    let work = tokio::task::spawn_blocking(move || {
        let spec = DatasetSpec {
            view: wish.view.clone(),
            from: wish.from,
            to: wish.to,
            label_delay: wish.label_delay,
            labels_until: None,
            line: wish.line.clone(),
        };
        std::fs::create_dir_all(&folder).with_context(|| format!("make the folder {}", folder.display()))?;
        let snapshots = materialize::snapshots(&hub);
        let dataset = Dataset::build(&hub.lake, spec, &|number| Ok(snapshots.parts(&wish.view, number)?))?;
        let stored = dataset.write(&**hub.lake.disk(), &folder)?;
        anyhow::Ok((stored, dataset.summary().clone(), wish))
    });
    work.await?
}

/// One dataset.
pub async fn find(catalog: &mut SqliteConnection, id: i64) -> Result<Option<DatasetRecord>, sqlx::Error> {
    sqlx::query_as("select * from datasets where id = $1").bind(id).fetch_optional(catalog).await
}

/// Datasets below a number, newest first.
pub async fn list(catalog: &mut SqliteConnection, before: i64, limit: u32) -> Result<Vec<DatasetRecord>, sqlx::Error> {
    sqlx::query_as("select * from datasets where id < $1 order by id desc limit $2")
        .bind(before)
        .bind(i64::from(limit))
        .fetch_all(catalog)
        .await
}
