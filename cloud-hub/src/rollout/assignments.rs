//! What every device should run: stored as wishes, signed as one assignment per device under a growing generation.
//!
//! Signing happens inside the transaction that records the decision, so that no assignment can be signed for a
//! rollout whose stop is already recorded; sending happens after the commit, and may be repeated.

use std::collections::BTreeMap;

use serde_json::json;
use sqlx::SqliteConnection;
use tributary_release::{SigningKey, sign_assignment};
use tributary_wire::{
    Assignment, AssignmentV1, AssignmentV2, DeviceId, Generation, LineAssignment, LineName, Micros, ReleaseRef, Report,
    Role, SignedAssignment,
};

use super::store::release;
use super::{RolloutError, store};
use crate::audit::{self, Change};

/// How long an assignment may begin an installation. Devices that sleep longer get a fresh one when they wake.
pub const LIFETIME: std::time::Duration = std::time::Duration::from_secs(30 * 86_400);

/// A signed assignment on its way to a device.
#[derive(Debug, Clone, PartialEq)]
pub struct Outgoing {
    /// For whom.
    pub device: DeviceId,
    /// Its generation.
    pub generation: Generation,
    /// What is sent.
    pub signed: SignedAssignment,
}

/// What the hub wants every device to run of a line and role.
pub async fn wishes(
    catalog: &mut SqliteConnection,
    line: &LineName,
    role: &Role,
) -> Result<BTreeMap<DeviceId, ReleaseRef>, RolloutError> {
    let query = "select device, version, length, sha256 from wishes where line = $1 and role = $2";
    let rows: Vec<(String, i64, i64, String)> =
        sqlx::query_as(query).bind(line.as_str()).bind(role.as_str()).fetch_all(catalog).await?;
    let read = |(device, version, length, sha256): (String, i64, i64, String)| {
        Ok((DeviceId::new(&device)?, release(version, length, &sha256)?))
    };
    rows.into_iter().map(read).collect()
}

/// The newest generation signed for every device.
pub async fn generations(catalog: &mut SqliteConnection) -> Result<BTreeMap<DeviceId, Generation>, RolloutError> {
    let query = "select device, generation from assignments";
    let rows: Vec<(String, i64)> = sqlx::query_as(query).fetch_all(catalog).await?;
    rows.into_iter().map(|(device, number)| Ok((DeviceId::new(&device)?, Generation(number as u64)))).collect()
}

/// Records what a device should run of a line and role; `None`: nothing any more.
pub async fn wish(
    catalog: &mut SqliteConnection,
    device: &DeviceId,
    rollout: &cloud_hub_core::rollout::Rollout,
    wanted: Option<&ReleaseRef>,
    allow_lower: bool,
) -> Result<(), RolloutError> {
    let (line, role) = (rollout.line.as_str(), rollout.role.as_str());
    let Some(wanted) = wanted else {
        let query = "delete from wishes where device = $1 and line = $2 and role = $3";
        sqlx::query(query).bind(device.as_str()).bind(line).bind(role).execute(catalog).await?;
        return Ok(());
    };
    sqlx::query(
        "insert into wishes (device, line, role, version, length, sha256, allow_lower, rollout)
         values ($1, $2, $3, $4, $5, $6, $7, $8)
         on conflict (device, line, role) do update set version = excluded.version, length = excluded.length,
         sha256 = excluded.sha256, allow_lower = excluded.allow_lower, rollout = excluded.rollout",
    )
    .bind(device.as_str())
    .bind(line)
    .bind(role)
    .bind(i64::from(wanted.version.0))
    .bind(wanted.length as i64)
    .bind(wanted.sha256.to_string())
    .bind(i64::from(allow_lower))
    .bind(rollout.id)
    .execute(catalog)
    .await?;
    Ok(())
}

/// Signs everything that is wished for a device, under a generation above all that the hub signed and the device
/// reported: after a restored backup the hub must not fall behind its own devices.
pub async fn sign(
    catalog: &mut SqliteConnection,
    key: &SigningKey,
    device: &DeviceId,
    reported: Generation,
    now: Micros,
) -> Result<Outgoing, RolloutError> {
    let last: Option<i64> = sqlx::query_scalar("select generation from assignments where device = $1")
        .bind(device.as_str())
        .fetch_optional(&mut *catalog)
        .await?;
    let generation = Generation((last.unwrap_or(0) as u64).max(reported.0) + 1);
    let query =
        "select line, role, version, length, sha256, allow_lower from wishes where device = $1 order by line, role";
    let rows: Vec<(String, String, i64, i64, String, i64)> =
        sqlx::query_as(query).bind(device.as_str()).fetch_all(&mut *catalog).await?;
    let mut lines = Vec::with_capacity(rows.len());
    for (line, role, version, length, sha256, allow_lower) in rows {
        lines.push(LineAssignment {
            line: LineName::new(&line)?,
            role: Role::new(&role)?,
            release: release(version, length, &sha256)?,
            allow_lower: allow_lower != 0,
        });
    }
    let (issued, expires) = (now, now + LIFETIME);
    let desired = AssignmentV1 { device: device.clone(), generation, issued, expires, lines, flags: Vec::new() };
    let assignment = match reads(catalog, device).await? {
        0 | 1 => Assignment::V1(desired),
        // The head of the audit log goes out to the whole fleet: who cuts the log's end cannot cut it there.
        _ => Assignment::V2(AssignmentV2 { desired, audit: audit::head(&mut *catalog).await? }),
    };
    let signed = sign_assignment(key, &assignment);
    sqlx::query(
        "insert into assignments (device, generation, signed, issued, expires) values ($1, $2, $3, $4, $5)
         on conflict (device) do update set generation = excluded.generation, signed = excluded.signed,
         issued = excluded.issued, expires = excluded.expires",
    )
    .bind(device.as_str())
    .bind(generation.0 as i64)
    .bind(signed.encode())
    .bind(issued.0)
    .bind(expires.0)
    .execute(catalog)
    .await?;
    Ok(Outgoing { device: device.clone(), generation, signed })
}

/// Signs what is wished for a device once more, though nobody wishes anything else.
async fn renew(
    catalog: &mut SqliteConnection,
    key: &SigningKey,
    device: &DeviceId,
    (generation, reported): (Generation, Generation),
    reason: &str,
    now: Micros,
) -> Result<Option<Outgoing>, RolloutError> {
    let to = json!({"above_generation": generation.max(reported), "reason": reason});
    let from = json!({"generation": generation});
    audit::record_own(catalog, Change { action: "assignment.renew", subject: device.as_str(), from, to }, now).await?;
    sign(catalog, key, device, reported, now).await.map(Some)
}

/// The highest version of messages that a device reads, as it last reported; 1 before its first report.
async fn reads(catalog: &mut SqliteConnection, device: &DeviceId) -> Result<u8, sqlx::Error> {
    let query = "select report from devices where id = $1";
    let report: Option<Option<Vec<u8>>> =
        sqlx::query_scalar(query).bind(device.as_str()).fetch_optional(catalog).await?;
    let report = report.flatten().and_then(|bytes| Report::decode(&bytes).ok());
    Ok(report.map_or(1, |report| report.base().reads))
}

/// What to answer to a device's report: its assignment when it has an older one or asks to go ahead, nothing when it
/// is up to date. An assignment that would begin or go on with an installation is held while its rollout is paused.
pub async fn answer(
    catalog: &mut SqliteConnection,
    key: &SigningKey,
    device: &DeviceId,
    (reported, asks): (Generation, bool),
    now: Micros,
) -> Result<Option<Outgoing>, RolloutError> {
    let query = "select generation, signed, expires from assignments where device = $1";
    let row: Option<(i64, Vec<u8>, i64)> =
        sqlx::query_as(query).bind(device.as_str()).fetch_optional(&mut *catalog).await?;
    let Some((generation, signed, expires)) = row else { return Ok(None) };
    let generation = Generation(generation as u64);
    if reported == generation && !asks {
        return Ok(None);
    }
    if held(catalog, device).await? {
        return Ok(None);
    }
    let newest = (generation, reported);
    if reported > generation {
        return renew(catalog, key, device, newest, "the device reports a higher generation", now).await;
    }
    if expires <= now.0 {
        return renew(catalog, key, device, newest, "it had expired", now).await;
    }
    let problem = |error: tributary_wire::DecodeError| error.to_string();
    let unreadable = |error| RolloutError::Unreadable { what: "a signed assignment", problem: problem(error) };
    let signed = SignedAssignment::decode(&signed).map_err(unreadable)?;
    let newer = matches!(Assignment::decode(&signed.payload).map_err(unreadable)?, Assignment::V2(_));
    if newer && reads(catalog, device).await? < 2 {
        return renew(catalog, key, device, newest, "the device went back to an older agent", now).await;
    }
    Ok(Some(Outgoing { device: device.clone(), generation, signed }))
}

/// Whether any installation wished for a device comes from a rollout that may not install now. The way back is
/// never held.
async fn held(catalog: &mut SqliteConnection, device: &DeviceId) -> Result<bool, RolloutError> {
    let query = "select distinct rollout from wishes where device = $1 and allow_lower = 0";
    let rollouts: Vec<i64> = sqlx::query_scalar(query).bind(device.as_str()).fetch_all(&mut *catalog).await?;
    for rollout in rollouts {
        if !store::get(catalog, rollout).await?.rollout.state.allows_install() {
            return Ok(true);
        }
    }
    Ok(false)
}
