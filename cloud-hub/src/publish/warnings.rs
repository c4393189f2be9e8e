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

/// The kinds of these alerts; the subject is the role. The first: it runs out, or a key is lacking.
pub const EXPIRES: &str = "metadata-expires";
/// The second: it grows towards the size that devices refuse.
pub const LARGE: &str = "metadata-large";

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
    let query = "select kind, subject, severity from alerts where kind in ($1, $2) and state <> 'resolved'";
    let open: Vec<Open> = sqlx::query_as(query).bind(EXPIRES).bind(LARGE).fetch_all(&mut *catalog).await?;
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

/// An alert that is open: its kind, its subject, its severity.
type Open = (String, String, String);

/// What is to be told or taken back.
#[derive(Debug, PartialEq, Eq)]
enum Change<'a> {
    Raise(&'static str, &'a RoleStatus, &'static str),
    Resolve(&'a str, &'a str),
}

/// The severity that a role deserves in a kind of alert. One that nobody ever signed cannot run out.
fn severity(kind: &str, row: &RoleStatus) -> Option<&'static str> {
    if kind == LARGE { row.large() } else { row.standing.severity() }
}

/// An alert is raised when there is none, or one of another severity; one whose role is fine again, or gone, is over.
fn changes<'a>(rows: &'a [RoleStatus], open: &'a [Open]) -> Vec<Change<'a>> {
    let mut changes = Vec::new();
    for (row, kind) in rows.iter().flat_map(|row| [(row, EXPIRES), (row, LARGE)]) {
        let known = open.iter().find(|(known, subject, _)| known == kind && *subject == row.role);
        match severity(kind, row) {
            Some(severity) if known.is_none_or(|(.., known)| known != severity) => {
                changes.push(Change::Raise(kind, row, severity));
            }
            _ => {}
        }
    }
    let over =
        |(kind, subject, _): &&Open| rows.iter().all(|row| row.role != *subject || severity(kind, row).is_none());
    changes.extend(open.iter().filter(over).map(|(kind, subject, _)| Change::Resolve(kind, subject)));
    changes
}

async fn carry_out(catalog: &mut SqliteConnection, change: Change<'_>, now: Micros) -> Result<(), sqlx::Error> {
    match change {
        Change::Raise(kind, row, severity) => {
            let until = row.expires.map(|expires| Micros(expires).to_string());
            tracing::warn!(kind, role = row.role, until, next = row.next, "signed metadata needs somebody");
            let (role, bytes, most) = (&row.role, row.bytes, row.most);
            let detail = match kind {
                LARGE => json!({
                    "problem": format!("signed metadata of {role} nears the size that devices refuse"),
                    "version": row.version, "bytes": bytes, "most": most, "next": row.next,
                }),
                _ => json!({
                    "problem": format!("signed metadata of {role} is {}", row.standing.name()),
                    "version": row.version, "until": until, "next": row.next,
                }),
            };
            alerts::raise(catalog, alerts::Raise { kind, subject: role, severity, detail }, now).await?;
        }
        Change::Resolve(kind, subject) => {
            alerts::resolve(catalog, kind, subject, now).await?;
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
            bytes: Some(10),
            most: 100,
            waiting: 0,
            next: String::new(),
        }
    }

    #[test]
    fn an_alert_comes_grows_and_goes_with_its_cause_and_is_not_told_twice() {
        let open = |severity: &str| vec![(EXPIRES.to_owned(), "root".to_owned(), severity.to_owned())];
        let (none, warned, critical) = (vec![], open("warning"), open("critical"));
        let [fine, soon, urgent, expired] = [Standing::Fine, Standing::Soon, Standing::Urgent, Standing::Expired]
            .map(|standing| [row("root", standing)]);
        assert_eq!(changes(&fine, &none), []);
        assert_eq!(changes(&soon, &none), [Change::Raise(EXPIRES, &soon[0], "warning")]);
        assert_eq!(changes(&soon, &warned), []);
        assert_eq!(changes(&urgent, &warned), [Change::Raise(EXPIRES, &urgent[0], "critical")]);
        assert_eq!(changes(&expired, &critical), []);
        assert_eq!(changes(&fine, &critical), [Change::Resolve(EXPIRES, "root")]);
        assert_eq!(changes(&[], &critical), [Change::Resolve(EXPIRES, "root")], "the role is gone");
    }

    #[test]
    fn a_size_has_an_alert_of_its_own() {
        let large = [RoleStatus { bytes: Some(80), ..row("targets", Standing::Soon) }];
        let [expires, size] = [EXPIRES, LARGE].map(|kind| Change::Raise(kind, &large[0], "warning"));
        assert_eq!(changes(&large, &[]), [expires, size]);
        let open = [(LARGE.to_owned(), "targets".to_owned(), "warning".to_owned())];
        assert_eq!(changes(&large, &open), [Change::Raise(EXPIRES, &large[0], "warning")]);
        assert_eq!(changes(&[row("targets", Standing::Fine)], &open), [Change::Resolve(LARGE, "targets")]);
    }
}
