//! Where the signed repository stands: who may sign what, until when it is good, and what a person should do next.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sqlx::SqliteConnection;
use tributary_wire::{Micros, Report};
use utoipa::ToSchema;

use super::lifetimes::{Standing, standing};
use super::roles::{self, PublicKey, RoleName, Signers};
use super::sign::reported;
use super::store::{self, Stored};
use super::{Keys, PublishError};
use crate::publish::ceremony::ASSIGNMENTS;

/// A key that may sign a role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeyStatus {
    /// Its name in the metadata.
    pub id: String,
    /// Who holds its secret half, as the metadata says.
    pub holder: String,
    /// The public key, 64 hexadecimal digits.
    pub public: String,
    /// Whether this hub has its secret half.
    pub here: bool,
}

/// A role of the repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RoleStatus {
    /// Its name; `assignments` for the keys of assignments, which stand in the targets.
    pub role: String,
    /// Its newest version; nothing while nobody has signed one.
    pub version: Option<u64>,
    /// Until when that is good, UTC microseconds; of `assignments` the first end of one that a device which is there has
    /// not taken.
    pub expires: Option<i64>,
    /// How near that is.
    pub standing: Standing,
    /// Signatures that it needs.
    pub threshold: u64,
    /// Who may sign it.
    pub keys: Vec<KeyStatus>,
    /// The hub signs it by itself, whenever it is due.
    pub by_hub: bool,
    /// Releases that wait for a person's signature.
    pub waiting: u64,
    /// What a person should do; empty: nothing.
    pub next: String,
}

/// Every role of the repository; nothing when the hub has none yet.
pub async fn status(catalog: &mut SqliteConnection, keys: &Keys, now: Micros) -> Result<Vec<RoleStatus>, PublishError> {
    let mut newest: BTreeMap<String, Stored> = BTreeMap::new();
    for stored in store::all(&mut *catalog).await? {
        newest.insert(stored.role.clone(), stored);
    }
    let (Some(root), Some(targets)) = (newest.get("root"), newest.get("targets")) else { return Ok(Vec::new()) };
    let content = roles::read_targets(&targets.bytes)?;
    let mut listed = Vec::new();
    for role in [RoleName::Root, RoleName::Targets, RoleName::Snapshot, RoleName::Timestamp] {
        listed.push((role.to_string(), roles::listed(&root.bytes, &role)?));
    }
    let announced = content.targets.iter().filter_map(|target| target.listed_keys().ok()).flatten();
    listed.push((ASSIGNMENTS.to_owned(), Signers::any_of(announced)));
    listed.extend(content.delegations.into_iter().map(|found| (found.role, found.signers)));
    let waiting: Vec<(String, i64)> =
        sqlx::query_as("select line, count(*) from releases where state = 'waiting' group by line")
            .fetch_all(&mut *catalog)
            .await?;
    let waiting: BTreeMap<String, u64> =
        waiting.into_iter().map(|(line, count)| (format!("models/{line}"), count as u64)).collect();
    let held = keys.all();
    let trusted = reported(&mut *catalog).await?;
    let open = open_assignments(&mut *catalog, now).await?;
    let row = |(role, signers): (String, Signers)| {
        let here = |key: &PublicKey| held.iter().any(|own| own.verifying_key() == key.key);
        let key = |key: &PublicKey| KeyStatus {
            id: key.id(),
            holder: key.holder.clone(),
            public: key.key.to_hex(),
            here: here(key),
        };
        let stored = newest.get(&role);
        let keys: Vec<KeyStatus> = signers.keys.iter().map(key).collect();
        let by_hub = keys.iter().filter(|key| key.here).count() as u64 >= signers.threshold;
        let mut row = RoleStatus {
            version: stored.map(|stored| stored.version as u64),
            expires: stored.map(|stored| stored.expires),
            standing: stored.map_or(Standing::Fine, |found| standing(Micros(found.stored), Micros(found.expires), now)),
            threshold: signers.threshold,
            keys,
            by_hub,
            waiting: waiting.get(&role).copied().unwrap_or_default(),
            next: String::new(),
            role,
        };
        advise(&mut row);
        if row.role == ASSIGNMENTS {
            ending(&mut row, &open, now);
        }
        let trusted = match row.role.as_str() {
            "root" => trusted.root,
            "targets" => trusted.targets,
            // The hub goes above what devices trust by itself.
            _ => 0,
        };
        behind(&mut row, trusted);
        row
    };
    Ok(listed.into_iter().map(row).collect())
}

/// A device that is heard and has not taken its newest assignment.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Open {
    device: String,
    issued: i64,
    expires: i64,
}

/// Who was not heard for so long gets a fresh assignment when it wakes.
const HEARD: i64 = Micros::DAY;

/// The assignments that are still to be taken by devices that are there, the first to end first.
async fn open_assignments(catalog: &mut SqliteConnection, now: Micros) -> Result<Vec<Open>, sqlx::Error> {
    let query = "select a.device, a.generation, a.issued, a.expires, d.report from assignments a
                 join devices d on d.id = a.device where coalesce(d.report_at, d.last_seen) >= $1
                 order by a.expires, a.device";
    type Row = (String, i64, i64, i64, Option<Vec<u8>>);
    let rows: Vec<Row> = sqlx::query_as(query).bind(now.0.saturating_sub(HEARD)).fetch_all(catalog).await?;
    let open = rows.into_iter().filter_map(|(device, generation, issued, expires, report)| {
        let report = report.and_then(|bytes| Report::decode(&bytes).ok());
        let has = report.is_some_and(|report| report.base().generation.0 >= generation as u64);
        (!has).then_some(Open { device, issued, expires })
    });
    Ok(open.collect())
}

/// Says how long the assignments of devices that have not taken theirs are still good. The hub signs one anew when its
/// device reports; it does not where a rollout is paused.
fn ending(row: &mut RoleStatus, open: &[Open], now: Micros) {
    let Some(first) = open.first() else { return };
    row.expires = Some(first.expires);
    let of = standing(Micros(first.issued), Micros(first.expires), now);
    row.standing = row.standing.max(of);
    if of != Standing::Fine && row.next.is_empty() {
        let (device, count) = (&first.device, open.len());
        row.next = format!(
            "{count} device(s) have not taken their assignment, {device} among them: cloud-hub device show {device}, and \
             resume or abort the rollout that is paused"
        );
    }
}

/// Seconds until every role in force ends; below 0: since when it has.
pub async fn left(catalog: &mut SqliteConnection, now: Micros) -> Result<Vec<(String, i64)>, PublishError> {
    let all = store::all(&mut *catalog).await?;
    let Some(targets) = all.iter().find(|stored| stored.role == "targets") else { return Ok(Vec::new()) };
    let delegations = roles::read_targets(&targets.bytes)?.delegations;
    let in_force = |role: &str| {
        ["root", "targets", "snapshot", "timestamp"].contains(&role)
            || delegations.iter().any(|delegation| delegation.role == role)
    };
    let ends = all.iter().filter(|stored| in_force(&stored.role)).map(|stored| (stored.role.clone(), stored.expires));
    let mut ends: Vec<(String, i64)> = ends.collect();
    let open = open_assignments(catalog, now).await?;
    ends.extend(open.first().map(|first| (ASSIGNMENTS.to_owned(), first.expires)));
    Ok(ends.into_iter().map(|(role, expires)| (role, Micros(expires).since(now) / Micros::SECOND)).collect())
}

/// Roles that nobody but the hub signs.
const ONLINE: [&str; 3] = ["snapshot", "timestamp", ASSIGNMENTS];

/// Says what to do about a role.
fn advise(row: &mut RoleStatus) {
    let role = row.role.strip_prefix("models/").unwrap_or(&row.role);
    if ONLINE.contains(&role) && !row.by_hub {
        row.standing = row.standing.max(Standing::Urgent);
        let file = if role == ASSIGNMENTS { "targets" } else { "root" };
        row.next = format!(
            "this hub holds none of the keys: cloud-hub keys draft {file} --renew {role} --out DIR, then sign and apply"
        );
        return;
    }
    row.next = match (row.by_hub, row.standing) {
        (_, Standing::Fine) if row.waiting > 0 => {
            let (count, are) = if row.waiting == 1 {
                ("1 release".to_owned(), "waits")
            } else {
                (format!("{} releases", row.waiting), "wait")
            };
            format!("{count} {are} for a signature: cloud-hub keys draft {role} --out DIR")
        }
        (_, Standing::Fine) => String::new(),
        (true, _) => "the hub should have signed it again: its log says why it could not".to_owned(),
        (false, Standing::Expired) => format!("it has expired; sign the next: cloud-hub keys draft {role} --out DIR"),
        (false, _) => format!("sign the next version: cloud-hub keys draft {role} --out DIR"),
    };
}

/// Only people can bring back what they signed after the backup was made: until then devices refuse all that is new.
fn behind(row: &mut RoleStatus, trusted: u64) {
    if row.version.is_some_and(|version| version < trusted) {
        row.standing = row.standing.max(Standing::Urgent);
        row.next = format!(
            "devices trust version {trusted}: this catalog was restored from a backup; apply the missing versions again: \
             cloud-hub keys apply FILE"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(role: &str, by_hub: bool, standing: Standing, waiting: u64) -> RoleStatus {
        let (version, expires) = (Some(1), Some(9));
        let keys = Vec::new();
        let role = role.to_owned();
        let mut row =
            RoleStatus { role, version, expires, standing, threshold: 1, keys, by_hub, waiting, next: String::new() };
        advise(&mut row);
        row
    }

    #[test]
    fn who_has_to_do_something_is_told_what() {
        assert_eq!(row("root", false, Standing::Fine, 0).next, "");
        assert!(row("root", false, Standing::Soon, 0).next.contains("keys draft root"));
        assert!(row("models/card-fraud", false, Standing::Expired, 0).next.contains("keys draft card-fraud"));
        assert!(row("models/card-fraud", false, Standing::Fine, 2).next.starts_with("2 releases wait"));
        assert!(row("snapshot", true, Standing::Soon, 0).next.contains("log"));
        let lost = row("assignments", false, Standing::Fine, 0);
        assert_eq!(lost.standing, Standing::Urgent);
        assert!(lost.next.contains("keys draft targets --renew assignments"));
        assert!(row("timestamp", false, Standing::Expired, 0).next.contains("draft root --renew timestamp"));
    }

    #[test]
    fn assignments_that_nobody_takes_are_told_of_before_they_end() {
        let day = |number: i64| Micros(number * Micros::DAY);
        let open = [Open { device: "edge-7".to_owned(), issued: 0, expires: day(30).0 }];
        let looked = |open: &[Open], now| {
            let mut found = RoleStatus { expires: None, ..row("assignments", true, Standing::Fine, 0) };
            ending(&mut found, open, now);
            (found.expires, found.standing, found.next)
        };
        assert_eq!(looked(&[], day(99)), (None, Standing::Fine, String::new()));
        assert_eq!(looked(&open, day(19)), (Some(day(30).0), Standing::Fine, String::new()));
        let (_, soon, next) = looked(&open, day(20));
        assert!(soon == Standing::Soon && next.contains("device show edge-7"), "{next}");
        assert_eq!((looked(&open, day(28)).1, looked(&open, day(31)).1), (Standing::Urgent, Standing::Expired));
    }

    #[test]
    fn a_restored_backup_shows_by_what_devices_trust() {
        let mut root = row("root", false, Standing::Fine, 0);
        behind(&mut root, 1);
        assert_eq!((root.standing, root.next.as_str()), (Standing::Fine, ""));
        behind(&mut root, 3);
        assert_eq!(root.standing, Standing::Urgent);
        assert!(root.next.contains("version 3") && root.next.contains("keys apply"), "{}", root.next);
    }
}
