//! Where the signed repository stands: who may sign what, until when it is good, and what a person should do next.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sqlx::SqliteConnection;
use tributary_release::chain::ChainLimits;
use tributary_wire::Micros;
use utoipa::ToSchema;

use super::lifetimes::{Standing, standing};
use super::open::{ending, open_assignments};
use super::roles::{self, PublicKey, RoleName, Signers};
use super::sign::reported;
use super::store::{self, Stored};
use super::{Keys, PublishError, sizes};
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
    /// Its size in bytes.
    pub bytes: Option<u64>,
    /// How many bytes devices take of it.
    pub most: u64,
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
            bytes: stored.map(|stored| stored.bytes.len() as u64),
            most: ChainLimits::DEVICES.of_role(&role),
            waiting: waiting.get(&role).copied().unwrap_or_default(),
            next: String::new(),
            role,
        };
        advise(&mut row);
        large(&mut row);
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

impl RoleStatus {
    /// The severity that its size deserves.
    pub fn large(&self) -> Option<&'static str> {
        sizes::severity(self.bytes?, self.most)
    }
}

/// What leaves little room is said before devices refuse it.
fn large(row: &mut RoleStatus) {
    if let (Some(_), Some(bytes), true) = (row.large(), row.bytes, row.next.is_empty()) {
        row.next = sizes::advice(&row.role, row.by_hub, bytes, row.most);
    }
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
pub(super) mod tests {
    use super::*;

    /// A role as the listing of all begins with it.
    pub fn row(role: &str, by_hub: bool, standing: Standing, waiting: u64) -> RoleStatus {
        let (version, expires) = (Some(1), Some(9));
        let keys = Vec::new();
        let role = role.to_owned();
        let mut row = RoleStatus {
            role,
            version,
            expires,
            standing,
            threshold: 1,
            keys,
            by_hub,
            bytes: Some(900),
            most: 1000,
            waiting,
            next: String::new(),
        };
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
    fn what_grows_towards_the_limit_of_devices_says_so_unless_something_else_comes_first() {
        let mut line = row("models/card-fraud", true, Standing::Fine, 0);
        assert_eq!(line.large(), Some("warning"));
        large(&mut line);
        assert!(line.next.contains("900 of the 1000 bytes") && line.next.contains("model withdraw"), "{}", line.next);
        let mut waits = row("models/card-fraud", false, Standing::Fine, 2);
        large(&mut waits);
        assert!(waits.next.starts_with("2 releases wait"));
        let mut small = RoleStatus { bytes: Some(700), ..row("snapshot", true, Standing::Fine, 0) };
        large(&mut small);
        assert_eq!((small.large(), small.next.as_str()), (None, ""));
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
