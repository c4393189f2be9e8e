//! What every device should run: stored as wishes, signed as one assignment per device under a growing generation.
//!
//! Signing happens inside the transaction that records the decision, so that no assignment can be signed for a
//! rollout whose stop is already recorded; sending happens after the commit, and may be repeated.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde_json::json;
use sqlx::SqliteConnection;
use tributary_release::{MAX_GENERATION_STEP, SigningKey, sign_assignment};
use tributary_wire::{
    Assignment, AssignmentV1, AssignmentV2, AssignmentV3, ChallengerShare, DecodeError, DeviceId, Generation,
    LineAssignment, LineName, Micros, ReleaseRef, Report, Role, SignedAssignment,
};

use super::roles::WHOLE;
use super::store::release;
use super::{RolloutError, flags, store};
use crate::audit::{self, Change};
use crate::publish;

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
        "insert into wishes (device, line, role, version, length, sha256, allow_lower, rollout, share)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
         on conflict (device, line, role) do update set version = excluded.version, length = excluded.length,
         sha256 = excluded.sha256, allow_lower = excluded.allow_lower, rollout = excluded.rollout,
         share = excluded.share",
    )
    .bind(device.as_str())
    .bind(line)
    .bind(role)
    .bind(i64::from(wanted.version.0))
    .bind(wanted.length as i64)
    .bind(wanted.sha256.to_string())
    .bind(i64::from(allow_lower))
    .bind(rollout.id)
    .bind(i64::from(rollout.share))
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
    let last = last.unwrap_or(0) as u64;
    // A device that reports a number that no backup explains would only use up the numbers, and refuse the next one.
    let reported = Some(reported.0).filter(|reported| *reported <= last.saturating_add(MAX_GENERATION_STEP / 2));
    let generation = Generation(last.max(reported.unwrap_or(0)).saturating_add(1));
    let (lines, shares) = wanted(catalog, device).await?;
    let flags = flags::of(catalog, device).await?;
    let (issued, expires) = (now, now + LIFETIME);
    let desired = AssignmentV1 { device: device.clone(), generation, issued, expires, lines, flags };
    // The head of the audit log goes out to the whole fleet: who cuts the log's end cannot cut it there.
    let assignment = match form(reads(catalog, device).await?) {
        1 => Assignment::V1(desired),
        2 => Assignment::V2(AssignmentV2 { desired, audit: audit::head(&mut *catalog).await? }),
        _ => {
            let audit = audit::head(&mut *catalog).await?;
            let snapshot = publish::store::newest(&mut *catalog, "snapshot").await?;
            let snapshot = snapshot.map_or(0, |snapshot| snapshot.version as u64);
            Assignment::V3(AssignmentV3 { desired, audit, snapshot, shares, sampling: None })
        }
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

fn unreadable(error: DecodeError) -> RolloutError {
    RolloutError::Unreadable { what: "a signed assignment", problem: error.to_string() }
}

/// What is wished for a device, and what its challengers answer.
async fn wanted(
    catalog: &mut SqliteConnection,
    device: &DeviceId,
) -> Result<(Vec<LineAssignment>, Vec<ChallengerShare>), RolloutError> {
    let query = "select line, role, version, length, sha256, allow_lower, share from wishes
                 where device = $1 order by line, role";
    let rows: Vec<(String, String, i64, i64, String, i64, i64)> =
        sqlx::query_as(query).bind(device.as_str()).fetch_all(&mut *catalog).await?;
    let mut lines = Vec::with_capacity(rows.len());
    let mut shares: Vec<ChallengerShare> = Vec::new();
    for (line, role, version, length, sha256, allow_lower, share) in rows {
        let (line, role) = (LineName::new(&line)?, Role::new(&role)?);
        // Rollouts see to it that shares fit. A device whose labels changed may be meant by more of them than were
        // looked at together; it would refuse the whole, so the last ones get what is left.
        let given: u64 = shares.iter().filter(|it| it.line == line).map(|it| u64::from(it.per_10_000)).sum();
        let per_10_000 = (share as u64).min(WHOLE.saturating_sub(given)) as u16;
        if per_10_000 > 0 && role.is_challenger() {
            shares.push(ChallengerShare { line: line.clone(), role: role.clone(), per_10_000 });
        }
        let release = release(version, length, &sha256)?;
        lines.push(LineAssignment { line, role, release, allow_lower: allow_lower != 0 });
    }
    Ok((lines, shares))
}

/// The highest form of an assignment that a device reads, of those that there are.
fn form(reads: u8) -> u8 {
    reads.clamp(1, 3)
}

/// What has changed for a device since its assignment was signed, though nobody rolls anything out.
async fn stale(
    catalog: &mut SqliteConnection,
    key: &SigningKey,
    device: &DeviceId,
    signed: &SignedAssignment,
) -> Result<Option<&'static str>, RolloutError> {
    let assignment = Assignment::decode(&signed.payload).map_err(unreadable)?;
    let found = match &assignment {
        Assignment::V1(_) => 1,
        Assignment::V2(_) => 2,
        Assignment::V3(_) => 3,
    };
    match found.cmp(&form(reads(catalog, device).await?)) {
        Ordering::Greater => return Ok(Some("the device went back to an older agent")),
        Ordering::Less => return Ok(Some("the device reads a newer form")),
        Ordering::Equal => {}
    }
    if signed.key_id != key.id().0 {
        return Ok(Some("the key that signs assignments was changed"));
    }
    if assignment.desired().flags != flags::of(catalog, device).await? {
        return Ok(Some("its flags were changed"));
    }
    if found >= 3 && assignment.shares() != wanted(catalog, device).await?.1 {
        return Ok(Some("shares of challengers were changed"));
    }
    Ok(None)
}

/// What to answer to a device's report: its assignment when it has an older one or asks to go ahead, a newer one when
/// something has changed for it, nothing when it is up to date. An assignment that would begin or go on with an
/// installation is held while its rollout is paused.
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
    let signed = SignedAssignment::decode(&signed).map_err(unreadable)?;
    let lacks = reported != generation || asks;
    let reason = if reported > generation {
        Some("the device reports a higher generation")
    } else if lacks && expires <= now.0 {
        Some("it had expired")
    } else {
        stale(catalog, key, device, &signed).await?
    };
    if (reason.is_none() && !lacks) || held(catalog, device).await? {
        return Ok(None);
    }
    match reason {
        Some(reason) => renew(catalog, key, device, (generation, reported), reason, now).await,
        None => Ok(Some(Outgoing { device: device.clone(), generation, signed })),
    }
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
