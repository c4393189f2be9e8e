//! Rollouts in the catalog.

use std::collections::BTreeMap;

use cloud_hub_core::rollout::{Counters, Rollout, RolloutState, Taken};
use serde::{Deserialize, Serialize};
use sqlx::SqliteConnection;
use tributary_wire::{DeviceId, LineName, Micros, ReleaseRef, Role, VersionNumber};

use super::RolloutError;

/// A rollout with what belongs to its row.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    /// What the planner sees.
    pub rollout: Rollout,
    /// Counters of every device when the present wave began.
    pub baseline: BTreeMap<DeviceId, Counters>,
    /// Changes with every write.
    pub epoch: i64,
    /// Why it was begun.
    pub reason: String,
    /// Last write.
    pub changed: Micros,
}

/// One thing a rollout did.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Step {
    /// Counts up within the rollout.
    pub number: i64,
    /// When, UTC microseconds.
    pub time: i64,
    /// State after it.
    pub state: String,
    /// In words.
    pub message: String,
}

#[derive(sqlx::FromRow)]
struct Row {
    id: i64,
    line: String,
    role: String,
    version: i64,
    length: i64,
    sha256: String,
    share: i64,
    selector_json: String,
    policy_json: String,
    state_json: String,
    baseline_json: String,
    epoch: i64,
    reason: String,
    created: i64,
    changed: i64,
}

#[derive(sqlx::FromRow)]
struct DeviceRow {
    device: String,
    wave: i64,
    assigned: i64,
    before_json: Option<String>,
    rolled_back: Option<i64>,
}

fn unreadable(what: &'static str) -> impl Fn(String) -> RolloutError {
    move |problem| RolloutError::Unreadable { what, problem }
}

/// Reads a value that the catalog holds as JSON.
pub(super) fn from_json<'a, T: Deserialize<'a>>(what: &'static str, text: &'a str) -> Result<T, RolloutError> {
    serde_json::from_str(text).map_err(|error| unreadable(what)(error.to_string()))
}

fn to_json<T: Serialize>(what: &'static str, value: &T) -> Result<String, RolloutError> {
    serde_json::to_string(value).map_err(|error| unreadable(what)(error.to_string()))
}

/// Release as the catalog keeps it in columns.
pub(super) fn release(version: i64, length: i64, sha256: &str) -> Result<ReleaseRef, RolloutError> {
    let sha256 = sha256.parse().map_err(|error: tributary_wire::IdError| unreadable("a hash")(error.to_string()))?;
    Ok(ReleaseRef { version: VersionNumber(version as u32), length: length as u64, sha256 })
}

async fn assemble(catalog: &mut SqliteConnection, row: Row) -> Result<Stored, RolloutError> {
    let query = "select device, wave, assigned, before_json, rolled_back from rollout_devices where rollout = $1";
    let devices: Vec<DeviceRow> = sqlx::query_as(query).bind(row.id).fetch_all(catalog).await?;
    let mut taken = BTreeMap::new();
    for DeviceRow { device, wave, assigned, before_json, rolled_back } in devices {
        let before = before_json.map(|text| from_json("a release", &text)).transpose()?;
        let rolled_back = rolled_back.map(Micros);
        taken.insert(DeviceId::new(&device)?, Taken { wave: wave as usize, at: Micros(assigned), before, rolled_back });
    }
    let rollout = Rollout {
        id: row.id,
        line: LineName::new(&row.line)?,
        role: Role::new(&row.role)?,
        target: release(row.version, row.length, &row.sha256)?,
        share: row.share as u16,
        selector: from_json("a selector", &row.selector_json)?,
        policy: from_json("a rollout policy", &row.policy_json)?,
        created: Micros(row.created),
        state: from_json("a rollout state", &row.state_json)?,
        taken,
    };
    let baseline = from_json("a rollout baseline", &row.baseline_json)?;
    Ok(Stored { rollout, baseline, epoch: row.epoch, reason: row.reason, changed: Micros(row.changed) })
}

/// The number of the next rollout.
pub async fn next_id(catalog: &mut SqliteConnection) -> Result<i64, RolloutError> {
    Ok(sqlx::query_scalar("select coalesce(max(id), 0) + 1 from rollouts").fetch_one(catalog).await?)
}

/// Writes a new rollout.
pub async fn insert(catalog: &mut SqliteConnection, stored: &Stored) -> Result<(), RolloutError> {
    let rollout = &stored.rollout;
    sqlx::query(
        "insert into rollouts (id, line, role, version, length, sha256, policy_json, state, state_json,
         baseline_json, epoch, reason, created, changed, share, selector_json)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)",
    )
    .bind(rollout.id)
    .bind(rollout.line.as_str())
    .bind(rollout.role.as_str())
    .bind(i64::from(rollout.target.version.0))
    .bind(rollout.target.length as i64)
    .bind(rollout.target.sha256.to_string())
    .bind(to_json("a rollout policy", &rollout.policy)?)
    .bind(rollout.state.name())
    .bind(to_json("a rollout state", &rollout.state)?)
    .bind(to_json("a rollout baseline", &stored.baseline)?)
    .bind(stored.epoch)
    .bind(&stored.reason)
    .bind(rollout.created.0)
    .bind(stored.changed.0)
    .bind(i64::from(rollout.share))
    .bind(to_json("a selector", &rollout.selector)?)
    .execute(catalog)
    .await?;
    Ok(())
}

/// Writes a rollout's state and devices, if nobody wrote it since it was read.
pub async fn update(catalog: &mut SqliteConnection, stored: &mut Stored, now: Micros) -> Result<(), RolloutError> {
    let rollout = &stored.rollout;
    let written = sqlx::query(
        "update rollouts set state = $1, state_json = $2, baseline_json = $3, epoch = epoch + 1, changed = $4,
         share = $7 where id = $5 and epoch = $6",
    )
    .bind(rollout.state.name())
    .bind(to_json("a rollout state", &rollout.state)?)
    .bind(to_json("a rollout baseline", &stored.baseline)?)
    .bind(now.0)
    .bind(rollout.id)
    .bind(stored.epoch)
    .bind(i64::from(rollout.share))
    .execute(&mut *catalog)
    .await?;
    if written.rows_affected() != 1 {
        return Err(RolloutError::Fenced { rollout: rollout.id });
    }
    for (device, taken) in &rollout.taken {
        let before = taken.before.as_ref().map(|before| to_json("a release", before)).transpose()?;
        sqlx::query(
            "insert into rollout_devices (rollout, device, wave, assigned, before_json, rolled_back)
             values ($1, $2, $3, $4, $5, $6)
             on conflict (rollout, device) do update set rolled_back = excluded.rolled_back,
             before_json = excluded.before_json",
        )
        .bind(rollout.id)
        .bind(device.as_str())
        .bind(taken.wave as i64)
        .bind(taken.at.0)
        .bind(before)
        .bind(taken.rolled_back.map(|at| at.0))
        .execute(&mut *catalog)
        .await?;
    }
    stored.epoch += 1;
    stored.changed = now;
    Ok(())
}

/// Appends to what a rollout did.
pub async fn tell(
    catalog: &mut SqliteConnection,
    rollout: &Rollout,
    message: &str,
    now: Micros,
) -> Result<(), RolloutError> {
    sqlx::query(
        "insert into rollout_steps (rollout, number, time, state, message)
         values ($1, (select coalesce(max(number), 0) + 1 from rollout_steps where rollout = $1), $2, $3, $4)",
    )
    .bind(rollout.id)
    .bind(now.0)
    .bind(rollout.state.name())
    .bind(message)
    .execute(catalog)
    .await?;
    Ok(())
}

/// What a rollout did, oldest first.
pub async fn steps(catalog: &mut SqliteConnection, rollout: i64) -> Result<Vec<Step>, RolloutError> {
    let query = "select number, time, state, message from rollout_steps where rollout = $1 order by number";
    Ok(sqlx::query_as(query).bind(rollout).fetch_all(catalog).await?)
}

/// One rollout.
pub async fn get(catalog: &mut SqliteConnection, id: i64) -> Result<Stored, RolloutError> {
    let query = "select * from rollouts where id = $1";
    let row: Option<Row> = sqlx::query_as(query).bind(id).fetch_optional(&mut *catalog).await?;
    assemble(catalog, row.ok_or(RolloutError::NotFound { rollout: id })?).await
}

/// The newest rollout of a line and role: the one that answers for its devices.
pub async fn newest(
    catalog: &mut SqliteConnection,
    line: &LineName,
    role: &Role,
) -> Result<Option<Stored>, RolloutError> {
    let query = "select * from rollouts where line = $1 and role = $2 order by id desc limit 1";
    let row: Option<Row> =
        sqlx::query_as(query).bind(line.as_str()).bind(role.as_str()).fetch_optional(&mut *catalog).await?;
    match row {
        Some(row) => assemble(catalog, row).await.map(Some),
        None => Ok(None),
    }
}

/// Rollouts below a number, newest first.
pub async fn list(catalog: &mut SqliteConnection, before: i64, limit: u32) -> Result<Vec<Stored>, RolloutError> {
    let query = "select * from rollouts where id < $1 order by id desc limit $2";
    let rows: Vec<Row> = sqlx::query_as(query).bind(before).bind(i64::from(limit)).fetch_all(&mut *catalog).await?;
    let mut list = Vec::with_capacity(rows.len());
    for row in rows {
        list.push(assemble(catalog, row).await?);
    }
    Ok(list)
}

/// The newest rollout of every line and role that may still have something to do.
pub async fn to_drive(catalog: &mut SqliteConnection) -> Result<Vec<i64>, RolloutError> {
    let query = "select max(id) from rollouts group by line, role";
    let newest: Vec<i64> = sqlx::query_scalar(query).fetch_all(&mut *catalog).await?;
    let mut open = Vec::new();
    for id in newest {
        if !matches!(get(catalog, id).await?.rollout.state, RolloutState::Stopped { .. }) {
            open.push(id);
        }
    }
    Ok(open)
}
