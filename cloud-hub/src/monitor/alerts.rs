//! The life of alerts over the catalog's table: seen again, silenced, gone.

use cloud_hub_core::alert::{AlertInput, AlertState};
use serde_json::{Value, json};
use sqlx::SqliteConnection;
use tributary_wire::Micros;

use super::MonitorError;
use crate::audit::{self, Change};
use crate::catalog::alerts::{Raise, raise as raise_alert, resolve};

/// An alert as the catalog keeps it.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct Alert {
    /// Its id.
    pub id: String,
    /// What kind of thing, such as `drift`.
    pub kind: String,
    /// What it is about, such as `card-fraud/3`.
    pub subject: String,
    /// `info`, `warning` or `critical`.
    pub severity: String,
    /// `open`, `silenced` or `resolved`.
    pub state: String,
    /// In numbers and words, JSON.
    pub detail: String,
    /// How often its cause was seen.
    pub times: i64,
    /// When it opened, UTC microseconds.
    pub opened: i64,
    /// When it last changed.
    pub updated: i64,
    /// When its cause was gone.
    pub resolved: Option<i64>,
    /// End of the silence.
    pub silenced_until: Option<i64>,
}

impl Alert {
    /// Where it stands, as the core sees it.
    pub fn stands(&self) -> AlertState {
        match (self.state.as_str(), self.silenced_until, self.resolved) {
            ("silenced", Some(until), _) => AlertState::Silenced { until: Micros(until) },
            ("resolved", _, at) => AlertState::Resolved { at: Micros(at.unwrap_or(self.updated)) },
            _ => AlertState::Open,
        }
    }
}

/// One alert.
pub async fn get(catalog: &mut SqliteConnection, id: &str) -> Result<Option<Alert>, MonitorError> {
    Ok(sqlx::query_as("select * from alerts where id = $1").bind(id).fetch_optional(catalog).await?)
}

/// The alert of a kind and subject that is not resolved.
pub async fn unresolved(
    catalog: &mut SqliteConnection,
    kind: &str,
    subject: &str,
) -> Result<Option<Alert>, MonitorError> {
    let query = "select * from alerts where kind = $1 and subject = $2 and state <> 'resolved'";
    Ok(sqlx::query_as(query).bind(kind).bind(subject).fetch_optional(catalog).await?)
}

/// Alerts below an id, newest first (ids are in the order of their opening).
pub async fn list(
    catalog: &mut SqliteConnection,
    state: Option<&str>,
    before: Option<&str>,
    limit: u32,
) -> Result<Vec<Alert>, MonitorError> {
    let query = "select * from alerts where ($1 is null or state = $1) and ($2 is null or id < $2)
                 order by id desc limit $3";
    Ok(sqlx::query_as(query).bind(state).bind(before).bind(i64::from(limit)).fetch_all(catalog).await?)
}

/// Lets something happen to an alert and keeps where it then stands.
pub async fn change(
    catalog: &mut SqliteConnection,
    alert: &Alert,
    input: AlertInput,
    now: Micros,
) -> Result<(), MonitorError> {
    let state = alert.stands().handle(now, input)?;
    let (name, until, resolved) = match state {
        AlertState::Open => ("open", None, None),
        AlertState::Silenced { until } => ("silenced", Some(until.0), None),
        AlertState::Resolved { at } => ("resolved", None, Some(at.0)),
    };
    let query = "update alerts set state = $1, silenced_until = $2, resolved = $3, updated = $4 where id = $5";
    let update = sqlx::query(query).bind(name).bind(until).bind(resolved).bind(now.0).bind(&alert.id);
    update.execute(&mut *catalog).await?;
    // Seen again where it stands is no change.
    if (name, until) != (alert.state.as_str(), alert.silenced_until) {
        let action = match state {
            AlertState::Open => "alert.reopen",
            AlertState::Silenced { .. } => "alert.silence",
            AlertState::Resolved { .. } => "alert.resolve",
        };
        let from = json!({"state": alert.state, "until": alert.silenced_until});
        let to = json!({"state": name, "until": until, "kind": alert.kind, "subject": alert.subject});
        audit::record(catalog, Change { action, subject: &alert.id, from, to }, now).await?;
    }
    Ok(())
}

/// The cause of an alert was seen. `Some`: the alert is new or has opened again, somebody should be told.
pub async fn seen(
    catalog: &mut SqliteConnection,
    (kind, subject, severity): (&str, &str, &str),
    detail: &Value,
    now: Micros,
) -> Result<Option<String>, MonitorError> {
    let known = unresolved(catalog, kind, subject).await?;
    let mut again = false;
    if let Some(known) = &known {
        // A silence that is over ends here: its cause is still there.
        again = known.stands() != AlertState::Open && known.stands().handle(now, AlertInput::Seen)? == AlertState::Open;
        change(catalog, known, AlertInput::Seen, now).await?;
    }
    let raise = Raise { kind, subject, severity, detail: detail.clone() };
    let (id, _) = raise_alert(catalog, raise, now).await?;
    Ok((known.is_none() || again).then_some(id))
}

/// The cause of an alert was looked for and is gone. Whether there was an alert.
pub async fn gone(
    catalog: &mut SqliteConnection,
    kind: &str,
    subject: &str,
    now: Micros,
) -> Result<bool, MonitorError> {
    Ok(resolve(catalog, kind, subject, now).await?)
}
