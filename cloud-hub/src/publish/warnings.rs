//! Alerts before something signed runs out, and when the hub lacks a key that it needs; gone by themselves once the next
//! version is there.

use std::sync::Arc;

use serde_json::json;
use sqlx::SqliteConnection;
use tributary_process::shutdown::Shutdown;
use tributary_wire::Micros;

use super::PublishError;
use super::status::{RoleStatus, status};
use crate::catalog::alerts;
use crate::hub::Hub;

/// The kind of these alerts; the subject is the role.
pub const KIND: &str = "metadata-expires";

/// Warns until the hub stops.
pub async fn run(hub: Arc<Hub>, stop: Shutdown) -> anyhow::Result<()> {
    loop {
        if let Err(error) = look(&hub, hub.now()).await {
            tracing::error!(error = crate::api::chain(&error), "could not see which metadata runs out");
        }
        tokio::select! {
            () = stop.given() => return Ok(()),
            () = tokio::time::sleep(hub.config.publish.interval.0) => {}
        }
    }
}

/// Looks at everything once.
pub async fn look(hub: &Hub, now: Micros) -> Result<(), PublishError> {
    let mut catalog = hub.catalog.reader().acquire().await?;
    let rows = status(&mut catalog, &hub.keys, now).await?;
    let query = "select subject, severity from alerts where kind = $1 and state <> 'resolved'";
    let open: Vec<(String, String)> = sqlx::query_as(query).bind(KIND).fetch_all(&mut *catalog).await?;
    drop(catalog);
    let changes = changes(&rows, &open);
    if changes.is_empty() {
        return Ok(());
    }
    let mut catalog = hub.catalog.write().await?;
    for change in changes {
        carry_out(&mut catalog, change, now).await?;
    }
    catalog.commit().await?;
    Ok(())
}

/// What is to be told or taken back.
#[derive(Debug, PartialEq, Eq)]
enum Change<'a> {
    Raise(&'a RoleStatus, &'static str),
    Resolve(&'a str),
}

/// An alert is raised when there is none, or one of another severity; one whose role is fine again, or gone, is over.
fn changes<'a>(rows: &'a [RoleStatus], open: &'a [(String, String)]) -> Vec<Change<'a>> {
    let mut changes = Vec::new();
    for row in rows {
        let known = open.iter().find(|(subject, _)| *subject == row.role).map(|(_, severity)| severity.as_str());
        // A role that nobody ever signed cannot run out.
        let wanted = row.standing.severity();
        match wanted {
            Some(severity) if known != Some(severity) => changes.push(Change::Raise(row, severity)),
            _ => {}
        }
    }
    let over = |(subject, _): &&(String, String)| {
        rows.iter().all(|row| row.role != *subject || row.standing.severity().is_none())
    };
    changes.extend(open.iter().filter(over).map(|(subject, _)| Change::Resolve(subject)));
    changes
}

async fn carry_out(catalog: &mut SqliteConnection, change: Change<'_>, now: Micros) -> Result<(), sqlx::Error> {
    match change {
        Change::Raise(row, severity) => {
            let until = row.expires.map(|expires| Micros(expires).to_string());
            tracing::warn!(role = row.role, until, next = row.next, "signed metadata needs somebody");
            let detail = json!({
                "problem": format!("signed metadata of {} is {}", row.role, row.standing.name()),
                "version": row.version, "until": until, "next": row.next,
            });
            let raise = alerts::Raise { kind: KIND, subject: &row.role, severity, detail };
            alerts::raise(catalog, raise, now).await?;
        }
        Change::Resolve(subject) => {
            alerts::resolve(catalog, KIND, subject, now).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publish::lifetimes::Standing;

    fn row(role: &str, standing: Standing) -> RoleStatus {
        RoleStatus {
            role: role.to_owned(),
            version: Some(1),
            expires: Some(9),
            standing,
            threshold: 1,
            keys: Vec::new(),
            by_hub: false,
            waiting: 0,
            next: String::new(),
        }
    }

    #[test]
    fn an_alert_comes_grows_and_goes_with_its_cause_and_is_not_told_twice() {
        let open = |alerts: &[(&str, &str)]| -> Vec<(String, String)> {
            alerts.iter().map(|(subject, severity)| ((*subject).to_owned(), (*severity).to_owned())).collect()
        };
        let (none, warned, critical) = (open(&[]), open(&[("root", "warning")]), open(&[("root", "critical")]));
        let [fine, soon, urgent, expired] = [Standing::Fine, Standing::Soon, Standing::Urgent, Standing::Expired]
            .map(|standing| [row("root", standing)]);
        assert_eq!(changes(&fine, &none), []);
        assert_eq!(changes(&soon, &none), [Change::Raise(&soon[0], "warning")]);
        assert_eq!(changes(&soon, &warned), []);
        assert_eq!(changes(&urgent, &warned), [Change::Raise(&urgent[0], "critical")]);
        assert_eq!(changes(&expired, &critical), []);
        assert_eq!(changes(&fine, &critical), [Change::Resolve("root")]);
        assert_eq!(changes(&[], &critical), [Change::Resolve("root")], "the role is gone");
    }
}
