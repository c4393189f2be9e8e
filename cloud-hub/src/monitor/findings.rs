//! What was found, in the catalog.

use cloud_hub_core::drift::Findings;
use cloud_hub_core::quality::Area;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sqlx::SqliteConnection;
use tributary_wire::{LineName, Micros, VersionNumber};

use super::MonitorError;

/// A window of labelled observations, judged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QualityFindings {
    /// The verdict's part.
    pub findings: Findings,
    /// What it was compared with.
    pub baseline: Area,
    /// What was found.
    pub area: Area,
    /// Average precision in the window.
    pub average_precision: f64,
    /// Labelled observations.
    pub rows: u64,
    /// Positives among them.
    pub positives: u64,
}

/// Keeps the findings of a window. A window is judged once.
pub async fn store<T: Serialize>(
    catalog: &mut SqliteConnection,
    (line, version): (&LineName, VersionNumber),
    kind: &str,
    (start, end): (i64, i64),
    findings: &T,
    now: Micros,
) -> Result<(), MonitorError> {
    let text = serde_json::to_string(findings).map_err(|error| MonitorError::unreadable("findings", error))?;
    sqlx::query(
        "insert into findings (line, version, kind, start_time, end_time, findings_json, judged)
         values ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(line.as_str())
    .bind(i64::from(version.0))
    .bind(kind)
    .bind(start)
    .bind(end)
    .bind(text)
    .bind(now.0)
    .execute(catalog)
    .await?;
    Ok(())
}

/// The findings of a version, oldest first, the last `limit` of them.
pub async fn load<T: DeserializeOwned>(
    catalog: &mut SqliteConnection,
    (line, version): (&LineName, VersionNumber),
    kind: &str,
    limit: u32,
) -> Result<Vec<T>, MonitorError> {
    let query = "select findings_json from findings where line = $1 and version = $2 and kind = $3
                 order by start_time desc limit $4";
    let rows: Vec<String> = sqlx::query_scalar(query)
        .bind(line.as_str())
        .bind(i64::from(version.0))
        .bind(kind)
        .bind(i64::from(limit))
        .fetch_all(catalog)
        .await?;
    let read = |text: String| serde_json::from_str(&text).map_err(|error| MonitorError::unreadable("findings", error));
    rows.into_iter().rev().map(read).collect()
}
