//! The story of a line: what happened and why, one row a step, so that a person can read how a model came to serve.

use serde_json::Value;
use sqlx::SqliteConnection;
use tributary_wire::{LineName, Micros};

/// One step of the story.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct LineEvent {
    /// Counts up over all lines.
    pub number: i64,
    /// Which line.
    pub line: String,
    /// When, UTC microseconds.
    pub time: i64,
    /// What kind of step, such as `run-started`.
    pub kind: String,
    /// In words.
    pub message: String,
    /// In numbers.
    pub detail_json: String,
}

/// Appends a step; inside the transaction of what it tells, so that the story holds exactly what happened.
pub async fn tell(
    catalog: &mut SqliteConnection,
    line: &LineName,
    kind: &str,
    message: &str,
    detail: Value,
    now: Micros,
) -> Result<(), sqlx::Error> {
    tracing::info!(line = %line, kind, "{message}");
    sqlx::query(
        "insert into line_events (number, line, time, kind, message, detail_json)
         values ((select coalesce(max(number), 0) + 1 from line_events), $1, $2, $3, $4, $5)",
    )
    .bind(line.as_str())
    .bind(now.0)
    .bind(kind)
    .bind(message)
    .bind(detail.to_string())
    .execute(catalog)
    .await?;
    Ok(())
}

/// Which of these kinds of steps was told last.
pub async fn last_of(
    catalog: &mut SqliteConnection,
    line: &LineName,
    kinds: [&str; 2],
) -> Result<Option<String>, sqlx::Error> {
    let query = "select kind from line_events where line = $1 and kind in ($2, $3) order by number desc limit 1";
    sqlx::query_scalar(query).bind(line.as_str()).bind(kinds[0]).bind(kinds[1]).fetch_optional(catalog).await
}

/// The story below a number, newest first.
pub async fn read(
    catalog: &mut SqliteConnection,
    line: &LineName,
    before: i64,
    limit: u32,
) -> Result<Vec<LineEvent>, sqlx::Error> {
    sqlx::query_as("select * from line_events where line = $1 and number < $2 order by number desc limit $3")
        .bind(line.as_str())
        .bind(before)
        .bind(i64::from(limit))
        .fetch_all(catalog)
        .await
}
