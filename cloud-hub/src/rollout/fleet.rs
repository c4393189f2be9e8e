//! What the catalog knows of the devices.

use std::collections::BTreeMap;

use cloud_hub_core::rollout::{Member, labels};
use sqlx::SqliteConnection;
use tributary_wire::{DeviceId, LineName, Micros, ReleaseRef, Report, ReportV1};

use super::RolloutError;
use super::store::{self, release};
use crate::ingest::HUB_DEVICE;

/// Every device of the fleet.
pub async fn members(catalog: &mut SqliteConnection) -> Result<Vec<Member>, RolloutError> {
    // The hub itself is a sender of labels, not a device that runs anything.
    let query = "select id, labels, last_seen, report_at, report from devices where id <> $1 order by id";
    let rows: Vec<Row> = sqlx::query_as(query).bind(HUB_DEVICE).fetch_all(catalog).await?;
    rows.into_iter().map(member).collect()
}

#[derive(sqlx::FromRow)]
struct Row {
    id: String,
    labels: String,
    last_seen: i64,
    report_at: Option<i64>,
    report: Option<Vec<u8>>,
}

fn member(row: Row) -> Result<Member, RolloutError> {
    let report = row.report.and_then(|bytes| Report::decode(&bytes).ok());
    let last_seen = Micros(row.last_seen.max(row.report_at.unwrap_or(i64::MIN)));
    Ok(Member::new(DeviceId::new(&row.id)?, given(&row.labels)?, last_seen, report.as_ref()))
}

fn given(labels: &str) -> Result<BTreeMap<String, String>, RolloutError> {
    store::from_json("labels of a device", labels)
}

/// What selectors match, from the labels given at the hub as the catalog holds them and those of the report.
pub fn labels_of(stored: &str, report: Option<&ReportV1>) -> Result<BTreeMap<String, String>, RolloutError> {
    Ok(labels(given(stored)?, report))
}

/// What selectors match of one device.
pub async fn labels_of_device(
    catalog: &mut SqliteConnection,
    device: &DeviceId,
) -> Result<BTreeMap<String, String>, RolloutError> {
    let query = "select labels, report from devices where id = $1";
    let row: Option<(String, Option<Vec<u8>>)> =
        sqlx::query_as(query).bind(device.as_str()).fetch_optional(catalog).await?;
    let (given, report) = row.unwrap_or_else(|| ("{}".to_owned(), None));
    let report = report.and_then(|bytes| Report::decode(&bytes).ok());
    labels_of(&given, report.as_ref().map(|report| report.base()))
}

/// The releases of a line.
pub async fn releases(catalog: &mut SqliteConnection, line: &LineName) -> Result<Vec<ReleaseRef>, RolloutError> {
    let query = "select version, length, sha256 from releases where line = $1";
    let rows: Vec<(i64, i64, String)> = sqlx::query_as(query).bind(line.as_str()).fetch_all(catalog).await?;
    rows.into_iter().map(|(version, length, sha256)| release(version, length, &sha256)).collect()
}
