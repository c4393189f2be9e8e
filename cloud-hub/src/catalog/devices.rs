//! Devices as the hub knows them: when seen, their labels, their last report.

use std::collections::BTreeMap;

use cloud_hub_core::lives::{self, Verdict};
use serde_json::{Value, json};
use sqlx::{Row, SqliteConnection, SqlitePool};
use tributary_wire::{DeviceId, GroupName, Incarnation, Micros, Report, ReportV1};

use super::alerts;
use crate::audit::{self, Change};

/// One device.
#[derive(Debug, Clone, PartialEq)]
pub struct Device {
    /// Its name.
    pub id: DeviceId,
    /// When it first connected or was added.
    pub first_seen: Micros,
    /// When it last connected or reported.
    pub last_seen: Micros,
    /// Labels given to it at the hub; selectors match these and the reported ones.
    pub labels: BTreeMap<String, String>,
    /// The group it was put into.
    pub group: Option<GroupName>,
    /// What it last said it runs.
    pub report: Option<ReportV1>,
    /// When that report came.
    pub report_at: Option<Micros>,
}

const COLUMNS: &str = "select id, first_seen, last_seen, labels, group_name, report, report_at from devices";

fn read(row: &sqlx::sqlite::SqliteRow) -> Result<Device, sqlx::Error> {
    let wrong = |column: &str, source: Box<dyn std::error::Error + Send + Sync>| sqlx::Error::ColumnDecode {
        index: column.into(),
        source,
    };
    let labels: String = row.try_get("labels")?;
    let report: Option<Vec<u8>> = row.try_get("report")?;
    let group: Option<String> = row.try_get("group_name")?;
    Ok(Device {
        id: row.try_get::<String, _>("id")?.parse().map_err(|e| wrong("id", Box::new(e)))?,
        first_seen: Micros(row.try_get("first_seen")?),
        last_seen: Micros(row.try_get("last_seen")?),
        labels: serde_json::from_str(&labels).map_err(|e| wrong("labels", e.into()))?,
        group: group.map(|name| name.parse()).transpose().map_err(|e| wrong("group_name", Box::new(e)))?,
        // A report of a version that a newer hub wrote is not an error of the device: it will report again.
        report: report.and_then(|bytes| Report::decode(&bytes).ok()).map(|report| report.base().clone()),
        report_at: row.try_get::<Option<i64>, _>("report_at")?.map(Micros),
    })
}

/// All devices, by name.
pub async fn all(pool: &SqlitePool) -> Result<Vec<Device>, sqlx::Error> {
    let rows = sqlx::query(sqlx::AssertSqlSafe(format!("{COLUMNS} order by id"))).fetch_all(pool).await?;
    rows.iter().map(read).collect()
}

/// One device.
pub async fn get(pool: &SqlitePool, id: &DeviceId) -> Result<Option<Device>, sqlx::Error> {
    let query = sqlx::query(sqlx::AssertSqlSafe(format!("{COLUMNS} where id = $1")));
    query.bind(id.as_str()).fetch_optional(pool).await?.as_ref().map(read).transpose()
}

/// Whether a device was ever admitted or added.
pub async fn is_known(pool: &SqlitePool, id: &DeviceId) -> Result<bool, sqlx::Error> {
    let found = sqlx::query("select 1 from devices where id = $1").bind(id.as_str()).fetch_optional(pool).await?;
    Ok(found.is_some())
}

/// Writes down that a device was here, adding it when it is new.
pub async fn seen(connection: &mut SqliteConnection, id: &DeviceId, now: Micros) -> Result<(), sqlx::Error> {
    let query = "update devices set last_seen = $2 where id = $1";
    let known = sqlx::query(query).bind(id.as_str()).bind(now.0).execute(&mut *connection).await?;
    if known.rows_affected() == 0 {
        let query = "insert into devices (id, first_seen, last_seen) values ($1, $2, $2)";
        sqlx::query(query).bind(id.as_str()).bind(now.0).execute(&mut *connection).await?;
        let to = json!({"labels": {}, "group": null});
        let change = Change { action: "device.appear", subject: id.as_str(), from: Value::Null, to };
        audit::record(connection, change, now).await?;
    }
    Ok(())
}

/// Adds a device or changes its labels and group.
pub async fn put(
    connection: &mut SqliteConnection,
    id: &DeviceId,
    labels: &BTreeMap<String, String>,
    group: Option<&GroupName>,
    now: Micros,
) -> Result<(), sqlx::Error> {
    let query = "select labels, group_name from devices where id = $1";
    let before: Option<(String, Option<String>)> =
        sqlx::query_as(query).bind(id.as_str()).fetch_optional(&mut *connection).await?;
    sqlx::query(
        "insert into devices (id, first_seen, last_seen, labels, group_name) values ($1, $2, $2, $3, $4)
         on conflict (id) do update set labels = excluded.labels, group_name = excluded.group_name",
    )
    .bind(id.as_str())
    .bind(now.0)
    .bind(json!(labels).to_string())
    .bind(group.map(GroupName::as_str))
    .execute(&mut *connection)
    .await?;
    let from = before.map(
        |(labels, group)| json!({"labels": serde_json::from_str::<Value>(&labels).unwrap_or_default(), "group": group}),
    );
    let (from, to) = (from.unwrap_or_default(), json!({"labels": labels, "group": group}));
    audit::record(connection, Change { action: "device.set", subject: id.as_str(), from, to }, now).await
}

/// Lives that are over and remembered, per device; more only come from a device that is broken or lies.
const FORMER: i64 = 256;

/// Stores a report if it is news of the life that the device's state is in, and remembers the life that ends with it.
/// One of a life that is over is not stored; when it says something new, people are told.
pub async fn report(
    connection: &mut SqliteConnection,
    id: &DeviceId,
    report: &Report,
    now: Micros,
) -> Result<Verdict, sqlx::Error> {
    let base = report.base();
    let life = i64::from(base.incarnation.0);
    let number = i64::try_from(base.number).unwrap_or(i64::MAX);
    let query = "select report_incarnation, report_number from devices where id = $1 and report_at is not null";
    let last: Option<(i64, i64)> = sqlx::query_as(query).bind(id.as_str()).fetch_optional(&mut *connection).await?;
    let query = "select number from former_lives where device = $1 and incarnation = $2";
    let over: Option<i64> =
        sqlx::query_scalar(query).bind(id.as_str()).bind(life).fetch_optional(&mut *connection).await?;
    let heard = |(life, number): (i64, i64)| (Incarnation(life as u32), number as u64);
    let verdict = lives::judge(last.map(heard), over.map(|number| number as u64), heard((life, number)));
    if verdict == Verdict::Returns {
        let detail = json!({
            "problem": "a life of the device's state that was over reports again: its state was copied or set back",
            "incarnation": life, "last_heard": over, "number": number, "current": last.map(|(life, _)| life),
            "next": "if this is the only device of this name, wipe its state, which begins a new life; else revoke the \
                     certificate and enrol both anew",
        });
        let alert = alerts::Raise { kind: "cloned-state", subject: id.as_str(), severity: "critical", detail };
        alerts::raise(connection, alert, now).await?;
    }
    if !verdict.is_news() {
        return Ok(verdict);
    }
    let done = sqlx::query(
        "update devices set report = $2, report_incarnation = $3, report_number = $4, report_at = $5, last_seen = $5
         where id = $1",
    )
    .bind(id.as_str())
    .bind(report.encode())
    .bind(life)
    .bind(number)
    .bind(now.0)
    .execute(&mut *connection)
    .await?;
    if done.rows_affected() == 0 {
        return Ok(Verdict::Late);
    }
    if let (Verdict::Begins, Some((before, number))) = (verdict, last) {
        end_life(connection, id, (before, number), now).await?;
    }
    Ok(verdict)
}

async fn end_life(
    connection: &mut SqliteConnection,
    id: &DeviceId,
    (life, number): (i64, i64),
    now: Micros,
) -> Result<(), sqlx::Error> {
    let query = "insert into former_lives (device, incarnation, number, ended) values ($1, $2, $3, $4)";
    sqlx::query(query).bind(id.as_str()).bind(life).bind(number).bind(now.0).execute(&mut *connection).await?;
    let query = "delete from former_lives where device = $1 and incarnation not in
                 (select incarnation from former_lives where device = $1 order by ended desc, incarnation limit $2)";
    sqlx::query(query).bind(id.as_str()).bind(FORMER).execute(connection).await?;
    Ok(())
}
