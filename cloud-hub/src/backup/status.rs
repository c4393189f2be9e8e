//! Where a restored hub stands, for people.

use serde::{Deserialize, Serialize};
use sqlx::SqliteConnection;
use utoipa::ToSchema;

use super::config::Config;
use super::standing::{self, Restore};
use crate::ingest::TakenIn;

/// Where a restored hub stands.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RestoreStatus {
    /// How often this catalog was restored.
    pub epoch: i64,
    /// When it was restored, UTC microseconds.
    pub restored: i64,
    /// When the backup was taken, UTC microseconds; 0: there was none, the catalog was made again from the lake's files.
    pub backup_time: i64,
    /// `reading`: files are being taken in; `waiting`: rollouts wait for devices' reports; `done`: they go on.
    pub state: String,
    /// What was found in files and taken in.
    #[schema(value_type = Object)]
    pub taken_in: TakenIn,
    /// Devices that the backup knows and that had been there in the week before it.
    pub waits_for: i64,
    /// How many have to report before rollouts go on.
    pub enough: i64,
    /// How many have reported.
    pub reported: i64,
    /// When rollouts go on at the latest, UTC microseconds.
    pub until: Option<i64>,
    /// When they went on, UTC microseconds.
    pub ended: Option<i64>,
    /// Why they went on.
    pub reason: String,
    /// Entries of the audit log that devices know of and this hub has lost, at least.
    pub audit_entries_lost: i64,
    /// Packages that devices run and that were published after the backup.
    pub packages: Vec<Unknown>,
    /// Batches that devices had receipts for and of which nothing is left, by device and stream.
    pub lost: Vec<Lost>,
    /// Certificates that were issued after the backup.
    pub certificates: Vec<Certificate>,
    /// Rollouts from before that wait for an operator.
    pub rollouts_paused: Vec<i64>,
}

/// A package that was published after the backup.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema, sqlx::FromRow)]
pub struct Unknown {
    /// Its line.
    pub line: String,
    /// Its number.
    pub version: i64,
    /// Its hash.
    pub sha256: String,
    /// `unknown`, `known` (it is a release again) or `overruled`.
    pub state: String,
}

/// Batches of which nothing is left; some may have been empty, or the device's own gaps.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema, sqlx::FromRow)]
pub struct Lost {
    /// Whose.
    pub device: String,
    /// Of which stream.
    pub stream: String,
    /// How many.
    pub batches: i64,
}

/// A certificate that was issued after the backup.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema, sqlx::FromRow)]
pub struct Certificate {
    /// Its number.
    pub serial: String,
    /// Whose.
    pub device: String,
    /// When it was taken in again, UTC microseconds; none: its device waits for an operator.
    pub accepted: Option<i64>,
}

/// Reads it; `None`: this catalog was never restored.
pub async fn status(catalog: &mut SqliteConnection, config: &Config) -> Result<Option<RestoreStatus>, sqlx::Error> {
    let Some(restore) = Restore::newest(catalog).await? else { return Ok(None) };
    let query = "select max(audit_number) from restore_reports where epoch = $1";
    let seen: Option<i64> = sqlx::query_scalar(query).bind(restore.epoch).fetch_one(&mut *catalog).await?;
    let query = "select line, version, sha256, state from restore_packages order by line, version";
    let packages = sqlx::query_as(query).fetch_all(&mut *catalog).await?;
    let query = "select device, stream, sum(last_sequence - first_sequence + 1) as batches from restore_losses
                 group by device, stream order by device, stream";
    let lost = sqlx::query_as(query).fetch_all(&mut *catalog).await?;
    let query = "select serial, device, accepted from restore_certificates order by device, serial";
    let certificates = sqlx::query_as(query).fetch_all(&mut *catalog).await?;
    let query = "select id from rollouts where id <= $1 and state = 'paused' order by id";
    let rollouts_paused = sqlx::query_scalar(query).bind(restore.last_rollout).fetch_all(&mut *catalog).await?;
    let reported = standing::reported(catalog, restore.epoch).await?;
    let until = if restore.waits() { restore.until(config) } else { None };
    Ok(Some(RestoreStatus {
        epoch: restore.epoch,
        restored: restore.restored,
        backup_time: restore.backup_time,
        taken_in: serde_json::from_str(&restore.found_json).unwrap_or_default(),
        waits_for: restore.waits_for,
        enough: restore.enough(config),
        reported,
        until: until.map(|until| until.0),
        ended: restore.ended,
        audit_entries_lost: (seen.unwrap_or(0) - restore.audit_number).max(0),
        packages,
        lost,
        certificates,
        rollouts_paused,
        state: restore.state,
        reason: restore.reason,
    }))
}
