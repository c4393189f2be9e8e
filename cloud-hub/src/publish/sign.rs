//! Signs what the hub has to sign, inside the transaction that made it necessary: roles of unattended lines, snapshot,
//! timestamp. What to sign is decided by [`plan`]; this gathers what it looks at and carries it out.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sqlx::SqliteConnection;
use tributary_release::{SigningKey, line_role};
use tributary_wire::{LineName, MetadataVersions, Micros, Report};

use super::plan::{Config, Held, Plan, Situation, plan};
use super::roles::{self, FileMeta, Files, RoleName, Signers, Target, TargetsContent};
use super::store::Stored;
use super::{Keys, PublishError, releases, store};
use crate::audit::{self, Change};

/// How far above its own versions the hub follows a device's report. A backup is never millions of signatures old; who
/// reports more would only use up the numbers.
const MAX_BEHIND: u64 = 1_000_000;

/// Root and top-level targets: what says which keys count.
#[derive(Debug, Clone)]
pub struct Offline {
    /// The newest root.
    pub root: Stored,
    /// The newest top-level targets.
    pub targets: Stored,
}

impl Offline {
    /// Reads them; without them there is no repository.
    pub async fn read(catalog: &mut SqliteConnection) -> Result<Self, PublishError> {
        let root = store::newest(&mut *catalog, "root").await?.ok_or(PublishError::NoRepository)?;
        let targets = store::newest(&mut *catalog, "targets").await?.ok_or(PublishError::NoRepository)?;
        Ok(Self { root, targets })
    }

    /// Who may sign a line; `None`: the targets do not speak of it.
    pub fn signers(&self, line: &LineName) -> Result<Option<Signers>, PublishError> {
        let role = line_role(line);
        let found = roles::read_targets(&self.targets.bytes)?.delegations.into_iter().find(|found| found.role == role);
        Ok(found.map(|found| found.signers))
    }
}

/// Those of the hub's keys that count for a role, if they are enough; else how many they are.
pub fn own_keys(keys: &Keys, signers: &Signers) -> Result<Vec<SigningKey>, usize> {
    let mut found = keys.all();
    found.retain(|key| signers.has(&key.verifying_key()));
    if found.len() as u64 >= signers.threshold { Ok(found) } else { Err(found.len()) }
}

/// Signs everything that is due. The answer names what was signed with its new version; nothing without a repository.
pub async fn bring_up_to_date(
    catalog: &mut SqliteConnection,
    keys: &Keys,
    config: &Config,
    now: Micros,
) -> Result<Vec<(String, u64)>, PublishError> {
    let offline = match Offline::read(catalog).await {
        Ok(offline) => offline,
        Err(PublishError::NoRepository) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut lines = BTreeMap::new();
    for (role, line, keys) in unattended(&offline, keys)? {
        lines.insert(role, (contents(catalog, &line).await?, keys));
    }
    let Plan { lines: due, snapshot, timestamp } = plan(&look(catalog, &offline, &lines).await?, config, now);
    let mut signed = Vec::new();
    let mut reasons = serde_json::Map::new();
    for (role, why, version) in due {
        let (targets, keys) = &lines[&role];
        let expires = end(now, config.line.0);
        let content = TargetsContent { version, expires, targets: targets.clone(), delegations: Vec::new() };
        let bytes = roles::sign_delegated(&RoleName::Delegated(role.clone()), &content, keys)?;
        store::put(catalog, &role, version, &bytes, expires, now).await?;
        reasons.insert(role.clone(), json!({"version": version, "why": why}));
        signed.push((role, version));
    }
    if let Some((why, version)) = snapshot {
        let keys = top_level_keys(keys, &offline, RoleName::Snapshot)?;
        let expires = end(now, config.snapshot.0);
        let bytes = roles::sign_snapshot(version, expires, &files(catalog).await?, &keys)?;
        store::put(catalog, "snapshot", version, &bytes, expires, now).await?;
        reasons.insert("snapshot".to_owned(), json!({"version": version, "why": why}));
        signed.push(("snapshot".to_owned(), version));
    }
    if let Some((why, version)) = timestamp {
        let keys = top_level_keys(keys, &offline, RoleName::Timestamp)?;
        let expires = end(now, config.timestamp.0);
        let snapshot = store::newest(&mut *catalog, "snapshot").await?.ok_or(PublishError::NoRepository)?;
        let snapshot = FileMeta::of(snapshot.version as u64, &snapshot.bytes);
        let bytes = roles::sign_timestamp(version, expires, snapshot, &keys)?;
        store::put(catalog, "timestamp", version, &bytes, expires, now).await?;
        reasons.insert("timestamp".to_owned(), json!({"version": version, "why": why}));
        signed.push(("timestamp".to_owned(), version));
    }
    if !signed.is_empty() {
        let change =
            Change { action: "metadata.sign", subject: "repository", from: Value::Null, to: Value::Object(reasons) };
        audit::record_own(catalog, change, now).await?;
    }
    Ok(signed)
}

/// The unattended lines: those to whose roles the hub's keys suffice.
fn unattended(offline: &Offline, keys: &Keys) -> Result<Vec<(String, LineName, Vec<SigningKey>)>, PublishError> {
    let delegations = roles::read_targets(&offline.targets.bytes)?.delegations;
    let line = |role: &str| role.strip_prefix("models/").and_then(|line| LineName::new(line).ok());
    let of_lines = delegations.into_iter().filter_map(|found| Some((line(&found.role)?, found)));
    Ok(of_lines.filter_map(|(line, found)| Some((found.role, line, own_keys(keys, &found.signers).ok()?))).collect())
}

/// What the role of an unattended line should say: all releases of the line.
async fn contents(catalog: &mut SqliteConnection, line: &LineName) -> Result<Vec<Target>, PublishError> {
    let mut targets = Vec::new();
    for release in releases::in_state(catalog, line, "published").await? {
        targets.push(releases::target(catalog, &release).await?);
    }
    targets.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(targets)
}

async fn look(
    catalog: &mut SqliteConnection,
    offline: &Offline,
    lines: &BTreeMap<String, (Vec<Target>, Vec<SigningKey>)>,
) -> Result<Situation, PublishError> {
    let mut situation = Situation::default();
    for (role, (targets, _)) in lines {
        let held = store::newest(&mut *catalog, role).await?.map(|stored| {
            let name = RoleName::Delegated(role.clone());
            let mut said = roles::read_targets(&stored.bytes).map(|found| found.targets).unwrap_or_default();
            said.sort_by(|a, b| a.path.cmp(&b.path));
            held(&stored, &offline.targets, &name, said == *targets)
        });
        situation.lines.push((role.clone(), held));
    }
    let snapshot = store::newest(&mut *catalog, "snapshot").await?;
    if let Some(snapshot) = &snapshot {
        let current = said(snapshot) == Some(files(catalog).await?);
        situation.snapshot = Some(held(snapshot, &offline.root, &RoleName::Snapshot, current));
    }
    if let Some(timestamp) = store::newest(&mut *catalog, "timestamp").await? {
        let expected = snapshot.map(|found| FileMeta::of(found.version as u64, &found.bytes));
        let expected = expected.map(|file| Files::from([("snapshot.json".to_owned(), file)]));
        let current = said(&timestamp) == expected;
        situation.timestamp = Some(held(&timestamp, &offline.root, &RoleName::Timestamp, current));
    }
    let own = |held: Option<Held>| held.map_or(0, |held| held.version);
    let reported = reported(catalog).await?;
    situation.reported_snapshot = believed("snapshot", reported.snapshot, own(situation.snapshot));
    situation.reported_timestamp = believed("timestamp", reported.timestamp, own(situation.timestamp));
    Ok(situation)
}

fn held(stored: &Stored, delegator: &Stored, role: &RoleName, current: bool) -> Held {
    Held {
        version: stored.version as u64,
        expires: Micros(stored.expires),
        accepted: roles::verify(&delegator.bytes, role, &stored.bytes).is_ok(),
        current,
    }
}

/// What a stored snapshot or timestamp lists.
fn said(stored: &Stored) -> Option<Files> {
    let metadata: Value = serde_json::from_slice(&stored.bytes).ok()?;
    let listed = metadata["signed"]["meta"].as_object()?.iter();
    let file = |meta: &Value| {
        let sha256 = meta["hashes"]["sha256"].as_str()?.parse().ok()?;
        Some(FileMeta { version: meta["version"].as_u64()?, length: meta["length"].as_u64()?, sha256 })
    };
    listed.map(|(name, meta)| Some((name.clone(), file(meta)?))).collect()
}

/// What a snapshot has to list: targets, and the role of whatever was ever delegated, for devices refuse a snapshot that
/// no longer lists what an earlier one did.
async fn files(catalog: &mut SqliteConnection) -> Result<Files, PublishError> {
    let all = store::all(&mut *catalog).await?.into_iter();
    let listed = all.filter(|stored| !["root", "snapshot", "timestamp"].contains(&stored.role.as_str()));
    Ok(listed
        .map(|stored| (format!("{}.json", stored.role), FileMeta::of(stored.version as u64, &stored.bytes)))
        .collect())
}

/// The highest versions that any device trusts, as it last reported; zeros when none says.
pub async fn reported(catalog: &mut SqliteConnection) -> Result<MetadataVersions, sqlx::Error> {
    let query = "select report from devices where report is not null";
    let reports: Vec<Vec<u8>> = sqlx::query_scalar(query).fetch_all(catalog).await?;
    let trusted = reports.iter().filter_map(|report| Report::decode(report).ok()?.metadata());
    Ok(trusted.fold(MetadataVersions::default(), |highest, one| MetadataVersions {
        root: highest.root.max(one.root),
        timestamp: highest.timestamp.max(one.timestamp),
        snapshot: highest.snapshot.max(one.snapshot),
        targets: highest.targets.max(one.targets),
    }))
}

fn believed(role: &str, reported: u64, own: u64) -> u64 {
    if reported <= own.saturating_add(MAX_BEHIND) {
        return reported;
    }
    tracing::warn!(role, reported, own, "a device reports metadata far above this hub's; its number is not followed");
    own
}

fn top_level_keys(keys: &Keys, offline: &Offline, role: RoleName) -> Result<Vec<SigningKey>, PublishError> {
    let signers = roles::listed(&offline.root.bytes, &role)?;
    let short = |found| PublishError::NoKey { role: role.to_string(), expected: signers.threshold, found };
    own_keys(keys, &signers).map_err(short)
}

/// Metadata speaks of whole seconds.
fn end(now: Micros, life: std::time::Duration) -> Micros {
    let end = now + life;
    Micros(end.0 - end.0.rem_euclid(Micros::SECOND))
}
