//! What a restored hub may sign, and for whom.
//!
//! Devices know more than the backup does. So after a restore no assignment is signed for a device before it has said
//! which generation it follows (else the hub might use a number that the device has seen with other content); rollouts
//! as a whole wait until most of the fleet has reported, or for a time; and a device that runs a package which this hub
//! does not know is left alone until the package is there again or an operator has decided.

use cloud_hub_core::rollout::Restored;
use cloud_hub_core::rollout::restored::{GoesOn, enough, goes_on};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::SqliteConnection;
use tributary_wire::{DeviceId, LineName, Micros};

use super::config::Config;
use crate::audit::{self, Change};
use crate::catalog::alerts;
use crate::ingest::TakenIn;

/// Where a restored hub stands, as the planner is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Which restore this is.
    pub epoch: i64,
    /// What has to be heeded.
    pub restored: Restored,
}

impl Standing {
    /// Reads it; `None`: this catalog was never restored.
    pub async fn read(catalog: &mut SqliteConnection) -> Result<Option<Self>, sqlx::Error> {
        let Some(restore) = Restore::newest(catalog).await? else { return Ok(None) };
        let query = "select device from restore_reports where epoch = $1";
        let reported: Vec<String> = sqlx::query_scalar(query).bind(restore.epoch).fetch_all(&mut *catalog).await?;
        let query = "select line, sha256 from restore_packages where state = $1";
        let mut packages = Vec::new();
        for state in ["unknown", "overruled"] {
            let rows: Vec<(String, String)> = sqlx::query_as(query).bind(state).fetch_all(&mut *catalog).await?;
            let read = |(line, hash): &(String, String)| Some((LineName::new(line).ok()?, hash.parse().ok()?));
            packages.push(rows.iter().filter_map(read).collect());
        }
        let (overruled, unknown) = (packages.pop().unwrap_or_default(), packages.pop().unwrap_or_default());
        let restored = Restored {
            waits: restore.waits(),
            last_rollout: restore.last_rollout,
            reported: reported.iter().filter_map(|id| DeviceId::new(id).ok()).collect(),
            unknown,
            overruled,
            since: Micros(restore.restored),
        };
        Ok(Some(Self { epoch: restore.epoch, restored }))
    }
}

/// The newest restore of this catalog.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, sqlx::FromRow)]
pub struct Restore {
    /// Counts up from 1.
    pub epoch: i64,
    /// When it was restored.
    pub restored: i64,
    /// When the backup was taken.
    pub backup_time: i64,
    /// Where the audit log ended then.
    pub audit_number: i64,
    /// The last rollout that was known then.
    pub last_rollout: i64,
    /// `reading`, `waiting` or `done`.
    pub state: String,
    /// What was taken in from files, as JSON.
    pub found_json: String,
    /// Devices whose reports are waited for.
    pub waits_for: i64,
    /// Since when.
    pub waiting_since: Option<i64>,
    /// When the wait ended.
    pub ended: Option<i64>,
    /// Why it ended.
    pub reason: String,
}

impl Restore {
    /// The newest one, if this catalog was ever restored.
    pub async fn newest(catalog: &mut SqliteConnection) -> Result<Option<Self>, sqlx::Error> {
        let query = "select epoch, restored, backup_time, audit_number, last_rollout, state, found_json, waits_for,
                     waiting_since, ended, reason from restores order by epoch desc limit 1";
        sqlx::query_as(query).fetch_optional(catalog).await
    }

    /// Whether rollouts wait.
    pub fn waits(&self) -> bool {
        self.state != "done"
    }

    /// How many devices have to report before rollouts go on by themselves.
    pub fn enough(&self, config: &Config) -> i64 {
        enough(self.waits_for as u64, config.restored_share) as i64
    }

    /// Until when at most.
    pub fn until(&self, config: &Config) -> Option<Micros> {
        self.waiting_since.map(|since| Micros(since) + config.restored_wait.0)
    }
}

/// Why the wait is over, if it is.
pub fn over(restore: &Restore, reported: i64, config: &Config, now: Micros) -> Option<String> {
    if restore.state != "waiting" {
        return None;
    }
    let all = restore.waits_for;
    let words = format!("{reported} of {all} devices have reported");
    match goes_on((all as u64, reported as u64), config.restored_share, restore.until(config), now)? {
        GoesOn::Heard => Some(words),
        GoesOn::Late => Some(format!("{words} in {}", config.restored_wait)),
    }
}

/// Ends the wait.
pub async fn end(catalog: &mut SqliteConnection, epoch: i64, reason: &str, now: Micros) -> Result<bool, sqlx::Error> {
    let query = "update restores set state = 'done', ended = $2, reason = $3 where epoch = $1 and state = 'waiting'";
    let ended = sqlx::query(query).bind(epoch).bind(now.0).bind(reason).execute(&mut *catalog).await?;
    if ended.rows_affected() == 0 {
        return Ok(false);
    }
    let (from, to) = (json!({"state": "waiting"}), json!({"state": "done", "reason": reason}));
    let change = Change { action: "restore.continue", subject: &epoch.to_string(), from, to };
    audit::record(catalog, change, now).await?;
    tracing::info!(reason, "rollouts go on after the restore");
    Ok(true)
}

/// A catalog that was lost was made again from the lake's files: it stands as one restored from nothing, so devices say
/// what it signed for them, which of their batches it had, and which certificates it gave them.
pub async fn begin_anew(
    catalog: &mut SqliteConnection,
    taken: &TakenIn,
    devices: i64,
    now: Micros,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into restores (epoch, restored, backup_time, audit_number, audit_hash, last_rollout, state, found_json,
         waits_for, waiting_since)
         values ((select coalesce(max(epoch), 0) + 1 from restores), $1, 0, 0, '', 0, 'waiting', $2, $3, $1)",
    )
    .bind(now.0)
    .bind(json!(taken).to_string())
    .bind(devices)
    .execute(&mut *catalog)
    .await?;
    let detail = json!({
        "problem": "the catalog was lost and was made again from the lake's files: devices' batches are known again; \
                    accounts, labels of devices, models, releases, rollouts and the audit log are not",
        "next": "if there is a backup, stop this hub and restore it (cloud-hub restore from); else publish again, accept \
                 devices (cloud-hub restore status), and see cloud-hub doctor",
        "taken_in": taken,
    });
    let alert = alerts::Raise { kind: super::RESTORED, subject: "hub", severity: "critical", detail };
    alerts::raise(catalog, alert, now).await?;
    Ok(())
}

/// How many of the devices that are waited for have reported.
pub async fn reported(catalog: &mut SqliteConnection, epoch: i64) -> Result<i64, sqlx::Error> {
    let query = "select count(*) from restore_reports where epoch = $1";
    sqlx::query_scalar(query).bind(epoch).fetch_one(catalog).await
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tributary_process::config::HumanDuration;

    use super::*;

    #[test]
    fn rollouts_wait_for_most_devices_and_never_for_ever() {
        let config =
            Config { restored_share: 0.9, restored_wait: HumanDuration(Duration::from_secs(60)), ..Config::default() };
        let restore = |state: &str, waits_for| Restore {
            epoch: 1,
            restored: 0,
            backup_time: 0,
            audit_number: 0,
            last_rollout: 0,
            state: state.to_owned(),
            found_json: String::new(),
            waits_for,
            waiting_since: Some(0),
            ended: None,
            reason: String::new(),
        };
        let at = |seconds: i64| Micros(seconds * Micros::SECOND);
        let waiting = restore("waiting", 10);
        assert_eq!(over(&waiting, 8, &config, at(59)), None);
        assert_eq!(over(&waiting, 9, &config, at(1)).unwrap(), "9 of 10 devices have reported");
        assert!(over(&waiting, 0, &config, at(60)).unwrap().contains("in 1m"));
        assert!(over(&restore("waiting", 0), 0, &config, at(0)).is_some(), "nobody to wait for");
        assert_eq!(over(&restore("reading", 0), 0, &config, at(99)), None);
    }
}
