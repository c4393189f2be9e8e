//! Alerts: at most one that is not resolved per kind and subject; raising it again only counts.

use serde_json::{Value, json};
use sqlx::SqliteConnection;
use tributary_wire::Micros;

use crate::audit::{self, Change};

/// What to tell a person.
#[derive(Debug, Clone)]
pub struct Raise<'a> {
    /// What happened, such as `cloned-state`.
    pub kind: &'a str,
    /// To what: a device, a line, a column.
    pub subject: &'a str,
    /// `info`, `warning` or `critical`.
    pub severity: &'a str,
    /// What a person or a program needs to know about it.
    pub detail: serde_json::Value,
}

/// Raises an alert: its id, and whether it is a new one.
pub async fn raise(
    connection: &mut SqliteConnection,
    alert: Raise<'_>,
    now: Micros,
) -> Result<(String, bool), sqlx::Error> {
    let id = ulid::Ulid::new().to_string();
    let (kept, times): (String, i64) = sqlx::query_as(
        "insert into alerts (id, kind, subject, severity, detail, opened, updated) values ($1, $2, $3, $4, $5, $6, $6)
         on conflict (kind, subject) where state <> 'resolved' do update
         set times = alerts.times + 1, updated = excluded.updated, detail = excluded.detail, severity = excluded.severity
         returning id, times",
    )
    .bind(&id)
    .bind(alert.kind)
    .bind(alert.subject)
    .bind(alert.severity)
    .bind(alert.detail.to_string())
    .bind(now.0)
    .fetch_one(&mut *connection)
    .await?;
    if times == 1 {
        let to = json!({
            "state": "open", "kind": alert.kind, "subject": alert.subject, "severity": alert.severity,
            "detail": alert.detail,
        });
        audit::record(connection, Change { action: "alert.open", subject: &kept, from: Value::Null, to }, now).await?;
    }
    Ok((kept, times == 1))
}

/// Resolves what is open of a kind for a subject; whether there was anything.
pub async fn resolve(
    connection: &mut SqliteConnection,
    kind: &str,
    subject: &str,
    now: Micros,
) -> Result<bool, sqlx::Error> {
    let query = "select id, state from alerts where kind = $1 and subject = $2 and state <> 'resolved'";
    let open: Option<(String, String)> =
        sqlx::query_as(query).bind(kind).bind(subject).fetch_optional(&mut *connection).await?;
    let Some((id, state)) = open else { return Ok(false) };
    let query = "update alerts set state = 'resolved', resolved = $2, updated = $2 where id = $1";
    sqlx::query(query).bind(&id).bind(now.0).execute(&mut *connection).await?;
    let (from, to) = (json!({"state": state}), json!({"state": "resolved", "kind": kind, "subject": subject}));
    audit::record(connection, Change { action: "alert.resolve", subject: &id, from, to }, now).await?;
    Ok(true)
}
