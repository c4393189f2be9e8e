//! What every device should run: stored as wishes, signed as one assignment per device under a growing generation.
//!
//! Signing happens inside the transaction that records the decision, so that no assignment can be signed for a
//! rollout whose stop is already recorded; sending happens after the commit, and may be repeated.

use std::collections::{BTreeMap, BTreeSet};

use cloud_hub_core::rollout::Rollout;
use cloud_hub_core::rollout::assignments::{
    self, Answer, Desired, Said, Signed, Wish, answer, form, had, next_generation,
};
use serde_json::json;
use sqlx::SqliteConnection;
use tributary_release::{SigningKey, sign_assignment};
use tributary_wire::{
    Assignment, DecodeError, DeviceId, Generation, LineName, Micros, ReleaseRef, Report, Role, SamplingPolicy,
    SignedAssignment,
};

use super::fleet::{labels_of_device, releases};
use super::store::release;
use super::{RolloutError, flags, restored, store};
use crate::audit::{self, Change};
use crate::publish;
use crate::sampling::Policies;

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

/// Records what a device should run of a rollout's line and role; `None`: nothing any more.
pub async fn wish(
    catalog: &mut SqliteConnection,
    device: &DeviceId,
    rollout: &Rollout,
    wish: Option<Wish>,
) -> Result<(), RolloutError> {
    if let Some(wish) = wish {
        return put_wish(catalog, device, &wish).await;
    }
    let query = "delete from wishes where device = $1 and line = $2 and role = $3";
    let (line, role) = (rollout.line.as_str(), rollout.role.as_str());
    sqlx::query(query).bind(device.as_str()).bind(line).bind(role).execute(catalog).await?;
    Ok(())
}

/// Records one wish.
pub async fn put_wish(catalog: &mut SqliteConnection, device: &DeviceId, wish: &Wish) -> Result<(), RolloutError> {
    sqlx::query(
        "insert into wishes (device, line, role, version, length, sha256, allow_lower, rollout, share)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
         on conflict (device, line, role) do update set version = excluded.version, length = excluded.length,
         sha256 = excluded.sha256, allow_lower = excluded.allow_lower, rollout = excluded.rollout,
         share = excluded.share",
    )
    .bind(device.as_str())
    .bind(wish.line.as_str())
    .bind(wish.role.as_str())
    .bind(i64::from(wish.release.version.0))
    .bind(wish.release.length as i64)
    .bind(wish.release.sha256.to_string())
    .bind(i64::from(wish.allow_lower))
    .bind(wish.rollout)
    .bind(i64::from(wish.share))
    .execute(catalog)
    .await?;
    Ok(())
}

#[derive(sqlx::FromRow)]
struct WishRow {
    line: String,
    role: String,
    version: i64,
    length: i64,
    sha256: String,
    allow_lower: i64,
    rollout: i64,
    share: i64,
}

/// What concerns a device now, beside its reports.
pub async fn desired(catalog: &mut SqliteConnection, device: &DeviceId) -> Result<Desired, RolloutError> {
    let query = "select line, role, version, length, sha256, allow_lower, rollout, share from wishes
                 where device = $1 order by line, role";
    let rows: Vec<WishRow> = sqlx::query_as(query).bind(device.as_str()).fetch_all(&mut *catalog).await?;
    let mut wishes = Vec::with_capacity(rows.len());
    for row in rows {
        wishes.push(Wish {
            line: LineName::new(&row.line)?,
            role: Role::new(&row.role)?,
            release: release(row.version, row.length, &row.sha256)?,
            allow_lower: row.allow_lower != 0,
            rollout: row.rollout,
            share: row.share as u16,
        });
    }
    let flags = flags::of(catalog, device).await?;
    let sampling = sampling_of(catalog, device).await?;
    let reads = report(catalog, device).await?.map_or(1, |report| report.base().reads);
    let taken_back = publish::taken_back(catalog).await?;
    Ok(Desired { reads, wishes, flags, sampling, taken_back })
}

/// Signs everything that is wished for a device, under a new generation.
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
    let generation = next_generation(Generation(last.unwrap_or(0) as u64), reported);
    let audit = audit::head(&mut *catalog).await?;
    let snapshot = publish::store::newest(&mut *catalog, "snapshot").await?;
    let snapshot = snapshot.map_or(0, |snapshot| snapshot.version as u64);
    let desired = desired(catalog, device).await?;
    let rollouts = rollouts(catalog, &desired).await?;
    let sayable = sayable(catalog, device, &desired, &rollouts).await?;
    let assignment = sayable.assignment(device, generation, (audit, snapshot), now);
    let signed = sign_assignment(key, &assignment);
    sqlx::query(
        "insert into assignments (device, generation, signed, issued, expires) values ($1, $2, $3, $4, $5)
         on conflict (device) do update set generation = excluded.generation, signed = excluded.signed,
         issued = excluded.issued, expires = excluded.expires",
    )
    .bind(device.as_str())
    .bind(generation.0 as i64)
    .bind(signed.encode())
    .bind(now.0)
    .bind(assignment.desired().expires.0)
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

/// The first assignment of a device: of one whose rollout had to wait, and of one that nothing was rolled out to. The latter
/// has one all the same: from it the device knows that this hub reads its newest messages, and says in them from where on
/// it holds batches, which a restored hub has to know, and what it left out and gave up. Without a signed repository the
/// device could not check it.
async fn first(
    catalog: &mut SqliteConnection,
    key: &SigningKey,
    device: &DeviceId,
    reported: Generation,
    now: Micros,
) -> Result<Option<Outgoing>, RolloutError> {
    let desired = desired(catalog, device).await?;
    let reason = match desired.sampling {
        _ if !desired.wishes.is_empty() => "what was wished for it had to wait",
        _ if form(desired.reads) < 3 => return Ok(None),
        Some(_) => "a sampling policy is for it",
        None if publish::store::newest(&mut *catalog, "root").await?.is_some() => "it is to know what this hub reads",
        None => return Ok(None),
    };
    if is_held(catalog, device).await? || restored::holds(catalog, device).await? {
        return Ok(None);
    }
    renew(catalog, key, device, (Generation(0), reported), reason, now).await
}

/// The sampling policy for a device.
async fn sampling_of(
    catalog: &mut SqliteConnection,
    device: &DeviceId,
) -> Result<Option<SamplingPolicy>, RolloutError> {
    let policies = Policies::read(catalog).await?;
    if policies.all().is_empty() {
        return Ok(None);
    }
    Ok(policies.wire_of(&labels_of_device(catalog, device).await?)?)
}

/// The last report of a device; one that cannot be read counts as none.
pub async fn report(catalog: &mut SqliteConnection, device: &DeviceId) -> Result<Option<Report>, sqlx::Error> {
    let query = "select report from devices where id = $1";
    let report: Option<Option<Vec<u8>>> =
        sqlx::query_scalar(query).bind(device.as_str()).fetch_optional(catalog).await?;
    Ok(report.flatten().and_then(|bytes| Report::decode(&bytes).ok()))
}

fn unreadable(error: DecodeError) -> RolloutError {
    RolloutError::Unreadable { what: "a signed assignment", problem: error.to_string() }
}

/// The rollouts that a device has wishes of.
async fn rollouts(catalog: &mut SqliteConnection, desired: &Desired) -> Result<BTreeMap<i64, Rollout>, RolloutError> {
    let mut rollouts = BTreeMap::new();
    for id in desired.wishes.iter().map(|wish| wish.rollout).collect::<BTreeSet<_>>() {
        rollouts.insert(id, store::get(catalog, id).await?.rollout);
    }
    Ok(rollouts)
}

fn may_install(rollouts: &BTreeMap<i64, Rollout>) -> impl Fn(i64) -> bool {
    |id| rollouts.get(&id).is_some_and(|rollout| rollout.state.allows_install())
}

/// What may be said of it now.
async fn sayable(
    catalog: &mut SqliteConnection,
    device: &DeviceId,
    desired: &Desired,
    rollouts: &BTreeMap<i64, Rollout>,
) -> Result<Desired, RolloutError> {
    let has = report(catalog, device).await?.map_or_else(Vec::new, |report| report.base().lines.clone());
    let mut known = BTreeMap::new();
    for line in desired.wishes.iter().map(|wish| &wish.line) {
        known.insert(line.clone(), releases(catalog, line).await?);
    }
    let had = |wish: &Wish, committed| {
        let taken = rollouts.get(&wish.rollout).and_then(|rollout| rollout.taken.get(device));
        had(wish, committed, taken, known.get(&wish.line).map_or(&[], Vec::as_slice))
    };
    Ok(desired.sayable(&has, may_install(rollouts), had))
}

/// Whether a rollout of another role holds what would be signed for a device: it is signed when that goes on.
pub async fn is_held(catalog: &mut SqliteConnection, device: &DeviceId) -> Result<bool, RolloutError> {
    let desired = desired(catalog, device).await?;
    let rollouts = rollouts(catalog, &desired).await?;
    Ok(assignments::is_held(&desired, may_install(&rollouts)))
}

/// What to answer to a device's report, as [`answer`] decides; signed anew where that is called for.
pub async fn respond(
    catalog: &mut SqliteConnection,
    key: &SigningKey,
    device: &DeviceId,
    (reported, asks): (Generation, bool),
    now: Micros,
) -> Result<Option<Outgoing>, RolloutError> {
    let query = "select signed from assignments where device = $1";
    let row: Option<Vec<u8>> = sqlx::query_scalar(query).bind(device.as_str()).fetch_optional(&mut *catalog).await?;
    let Some(signed) = row else { return first(catalog, key, device, reported, now).await };
    let signed = SignedAssignment::decode(&signed).map_err(unreadable)?;
    let assignment = Assignment::decode(&signed.payload).map_err(unreadable)?;
    let generation = assignment.desired().generation;
    let desired = desired(catalog, device).await?;
    let rollouts = rollouts(catalog, &desired).await?;
    let sayable = sayable(catalog, device, &desired, &rollouts).await?;
    let before = Signed { assignment: &assignment, by_present_key: signed.key_id == key.id().0 };
    let report = report(catalog, device).await?;
    let unfinished = report.is_some_and(|report| assignments::is_unfinished(&assignment, &report));
    let said = Said { generation: reported, asks, unfinished };
    match answer((&desired, &sayable), before, said, may_install(&rollouts), now) {
        Answer::Nothing => Ok(None),
        _ if restored::holds(catalog, device).await? => Ok(None),
        Answer::Again => Ok(Some(Outgoing { device: device.clone(), generation, signed })),
        Answer::Renew(reason) => renew(catalog, key, device, (generation, reported), reason, now).await,
    }
}
