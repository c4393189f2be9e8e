//! Commands in the catalog. Every change of their state goes into the audit log.

use serde_json::{Value, json};
use sqlx::SqliteConnection;
use tributary_wire::{CommandId, DeviceId, Micros, Order, Report};

use super::decide::State;
use super::policy::Place;
use crate::access::{Caller, Who};
use crate::audit::{self, Change};

/// A command as the catalog keeps it, without the body of its result.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Command {
    /// Its id.
    pub id: String,
    /// Of which device.
    pub device: String,
    /// What, by name.
    pub name: String,
    /// What, in full: JSON.
    pub order_json: String,
    /// When it was asked, UTC microseconds.
    pub created: i64,
    /// Who asked.
    pub created_by: String,
    /// Until when it is tried.
    pub deadline: i64,
    /// Where it stands.
    pub state: State,
    /// When it was sent last.
    pub sent: Option<i64>,
    /// How often it was sent.
    pub times: i64,
    /// Why it failed or was refused.
    pub reason: String,
    /// Media type of the result's body.
    pub media: String,
    /// Length of the result's body.
    pub bytes: Option<i64>,
    /// When it was finished, by the device's clock.
    pub finished: Option<i64>,
    /// When it ended, by the hub's.
    pub ended: Option<i64>,
}

const COLUMNS: &str = "select id, device, name, order_json, created, created_by, deadline, state, sent, times, reason,
                       media, length(body) as bytes, finished, ended from commands";

impl Command {
    /// What is asked.
    pub fn order(&self) -> Result<Order, sqlx::Error> {
        serde_json::from_str(&self.order_json)
            .map_err(|error| sqlx::Error::ColumnDecode { index: "order_json".into(), source: error.into() })
    }

    /// The device, as a type.
    pub fn device(&self) -> Result<DeviceId, sqlx::Error> {
        DeviceId::new(&self.device)
            .map_err(|error| sqlx::Error::ColumnDecode { index: "device".into(), source: error.into() })
    }
}

/// What the hub knows of a device that a command is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Where it belongs.
    pub place: Place,
    /// The highest version of messages that it reads, once it has reported.
    pub reads: Option<u8>,
}

/// Looks a device up.
pub async fn device(catalog: &mut SqliteConnection, device: &DeviceId) -> Result<Option<Known>, sqlx::Error> {
    let query = "select labels, group_name, report from devices where id = $1 and id <> $2";
    let row: Option<(String, Option<String>, Option<Vec<u8>>)> =
        sqlx::query_as(query).bind(device.as_str()).bind(crate::ingest::HUB_DEVICE).fetch_optional(catalog).await?;
    Ok(row.map(|(labels, group, report)| {
        let report = report.and_then(|bytes| Report::decode(&bytes).ok());
        let labels = serde_json::from_str(&labels).unwrap_or_default();
        Known { place: Place { group, labels }, reads: report.map(|report| report.base().reads) }
    }))
}

/// A command that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct New {
    /// Its id.
    pub id: CommandId,
    /// Of which device.
    pub device: DeviceId,
    /// What.
    pub order: Order,
    /// Until when.
    pub deadline: Micros,
}

/// Queues a command.
pub async fn insert(catalog: &mut SqliteConnection, new: New, now: Micros) -> Result<Command, sqlx::Error> {
    let order = json!(new.order);
    sqlx::query(
        "insert into commands (id, device, name, order_json, created, created_by, deadline, state)
         values ($1, $2, $3, $4, $5, $6, $7, 'queued')",
    )
    .bind(new.id.as_str())
    .bind(new.device.as_str())
    .bind(new.order.name())
    .bind(order.to_string())
    .bind(now.0)
    .bind(audit::entry::name(&Caller::current().who).0)
    .bind(new.deadline.0)
    .execute(&mut *catalog)
    .await?;
    let to = json!({"state": State::Queued, "device": new.device, "order": order, "deadline": new.deadline});
    record(catalog, "command.create", new.id.as_str(), (Value::Null, to), now).await?;
    find(catalog, &new.device, new.id.as_str()).await?.ok_or(sqlx::Error::RowNotFound)
}

async fn record(
    catalog: &mut SqliteConnection,
    action: &str,
    subject: &str,
    (from, to): (Value, Value),
    now: Micros,
) -> Result<(), sqlx::Error> {
    audit::record(catalog, Change { action, subject, from, to }, now).await
}

/// One command of a device.
pub async fn find(catalog: &mut SqliteConnection, device: &DeviceId, id: &str) -> Result<Option<Command>, sqlx::Error> {
    let query = sqlx::query_as(sqlx::AssertSqlSafe(format!("{COLUMNS} where device = $1 and id = $2")));
    query.bind(device.as_str()).bind(id).fetch_optional(catalog).await
}

/// One command, whosever it is.
pub async fn by_id(catalog: &mut SqliteConnection, id: &CommandId) -> Result<Option<Command>, sqlx::Error> {
    let query = sqlx::query_as(sqlx::AssertSqlSafe(format!("{COLUMNS} where id = $1")));
    query.bind(id.as_str()).fetch_optional(catalog).await
}

/// Commands of a device below an id, newest first.
pub async fn list(
    catalog: &mut SqliteConnection,
    device: &DeviceId,
    before: Option<&str>,
    limit: u32,
) -> Result<Vec<Command>, sqlx::Error> {
    let query = format!("{COLUMNS} where device = $1 and ($2 is null or id < $2) order by id desc limit $3");
    let query = sqlx::query_as(sqlx::AssertSqlSafe(query));
    query.bind(device.as_str()).bind(before).bind(i64::from(limit)).fetch_all(catalog).await
}

/// The body of a result, if there is one.
pub async fn body(catalog: &mut SqliteConnection, id: &str) -> Result<Option<Vec<u8>>, sqlx::Error> {
    sqlx::query_scalar("select body from commands where id = $1").bind(id).fetch_one(catalog).await
}

/// All commands without a result whose deadline was not seen to pass.
pub async fn open(catalog: &mut SqliteConnection) -> Result<Vec<Command>, sqlx::Error> {
    let query = format!("{COLUMNS} where state in ('queued', 'sent') order by id");
    sqlx::query_as(sqlx::AssertSqlSafe(query)).fetch_all(catalog).await
}

/// How many of these a device has.
pub async fn open_of(catalog: &mut SqliteConnection, device: &DeviceId) -> Result<i64, sqlx::Error> {
    let query = "select count(*) from commands where device = $1 and state in ('queued', 'sent')";
    sqlx::query_scalar(query).bind(device.as_str()).fetch_one(catalog).await
}

/// It was sent (again).
pub async fn sent(catalog: &mut SqliteConnection, id: &str, now: Micros) -> Result<(), sqlx::Error> {
    let query = "update commands set state = 'sent', sent = $2, times = times + 1
                 where id = $1 and state in ('queued', 'sent')";
    sqlx::query(query).bind(id).bind(now.0).execute(catalog).await.map(|_| ())
}

/// Its deadline passed.
pub async fn expire(catalog: &mut SqliteConnection, command: &Command, now: Micros) -> Result<(), sqlx::Error> {
    end(catalog, command, (State::Expired, ""), "command.expire", now).await
}

/// An operator took it back.
pub async fn cancel(catalog: &mut SqliteConnection, command: &Command, now: Micros) -> Result<(), sqlx::Error> {
    end(catalog, command, (State::Cancelled, ""), "command.cancel", now).await
}

/// The hub's rules do not allow it any more.
pub async fn refuse(
    catalog: &mut SqliteConnection,
    command: &Command,
    reason: &str,
    now: Micros,
) -> Result<(), sqlx::Error> {
    end(catalog, command, (State::Refused, reason), "command.refuse", now).await
}

async fn end(
    catalog: &mut SqliteConnection,
    command: &Command,
    (state, reason): (State, &str),
    action: &str,
    now: Micros,
) -> Result<(), sqlx::Error> {
    let query = "update commands set state = $2, reason = $3, ended = $4 where id = $1 and state in ('queued', 'sent')";
    let query = sqlx::query(query).bind(&command.id).bind(state).bind(reason).bind(now.0);
    let done = query.execute(&mut *catalog).await?;
    if done.rows_affected() == 0 {
        return Ok(());
    }
    let states = (json!({"state": command.state}), json!({"state": state, "device": command.device, "reason": reason}));
    record(catalog, action, &command.id, states, now).await
}

/// What came of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Where it then stands.
    pub state: State,
    /// Why it failed or was refused.
    pub reason: String,
    /// Media type of the body.
    pub media: String,
    /// The answer.
    pub body: Option<Vec<u8>>,
    /// By the device's clock.
    pub finished: Micros,
}

/// Keeps a result, in the device's name.
pub async fn result(
    catalog: &mut SqliteConnection,
    command: &Command,
    ended: Ended,
    now: Micros,
) -> Result<(), sqlx::Error> {
    let body = ended.body.as_ref().map(|body| json!({"bytes": body.len(), "sha256": tributary_release::digest(body)}));
    let to = json!({
        "state": ended.state, "device": command.device, "reason": ended.reason, "media": ended.media, "body": body,
        "late": now.0 > command.deadline,
    });
    sqlx::query(
        "update commands set state = $2, reason = $3, media = $4, body = $5, finished = $6, ended = $7 where id = $1",
    )
    .bind(&command.id)
    .bind(ended.state)
    .bind(ended.reason)
    .bind(ended.media)
    .bind(ended.body)
    .bind(ended.finished.0)
    .bind(now.0)
    .execute(&mut *catalog)
    .await?;
    let device = Caller { who: Who::Device(command.device()?), from: None, certificate: None };
    let from = json!({"state": command.state});
    let change = Change { action: "command.result", subject: &command.id, from, to };
    audit::record_for(catalog, &device, change, now).await
}

/// Removes commands that ended before an instant; how many.
pub async fn forget(catalog: &mut SqliteConnection, before: Micros, now: Micros) -> Result<u64, sqlx::Error> {
    let query = "delete from commands where ended is not null and ended < $1";
    let gone = sqlx::query(query).bind(before.0).execute(&mut *catalog).await?.rows_affected();
    if gone > 0 {
        let to = json!({"removed": gone, "ended_before": before});
        record(catalog, "command.forget", "commands", (Value::Null, to), now).await?;
    }
    Ok(gone)
}
