//! Rollouts after a restore: see [`crate::backup::standing`].

use cloud_hub_core::rollout::Member;
use serde_json::json;
use sqlx::SqliteConnection;
use tributary_wire::Micros;

use super::{RolloutError, engine};
use crate::audit::{self, Change};

/// Pauses every rollout that is under way; how many there were.
pub async fn pause_all(catalog: &mut SqliteConnection, reason: &str, now: Micros) -> Result<u64, sqlx::Error> {
    let running: Vec<i64> =
        sqlx::query_scalar("select id from rollouts where state = 'running'").fetch_all(&mut *catalog).await?;
    let mut paused = 0;
    for id in running {
        match engine::carry_out(catalog, id, engine::Command::Pause, reason, now).await {
            Ok(_) => paused += 1,
            Err(RolloutError::Catalog(error)) => return Err(error),
            Err(error) => tracing::warn!(rollout = id, error = crate::api::chain(&error), "could not be paused"),
        }
    }
    Ok(paused)
}

/// What a device was told after the backup is what it shall run: its wishes follow the releases that it has committed.
/// The devices' own word is all that is left of those decisions.
pub async fn follow(catalog: &mut SqliteConnection, member: &Member, now: Micros) -> Result<(), RolloutError> {
    let Some(report) = &member.report else { return Ok(()) };
    for line in &report.lines {
        let Some(package) = line.committed else { continue };
        let query = "select version, sha256 from wishes where device = $1 and line = $2 and role = $3";
        let wish: Option<(i64, String)> = sqlx::query_as(query)
            .bind(member.device.as_str())
            .bind(line.line.as_str())
            .bind(line.role.as_str())
            .fetch_optional(&mut *catalog)
            .await?;
        let Some((version, sha256)) = wish else { continue };
        if sha256 == package.sha256.to_string() {
            continue;
        }
        let query = "select length from releases where line = $1 and version = $2 and sha256 = $3";
        let length: Option<i64> = sqlx::query_scalar(query)
            .bind(line.line.as_str())
            .bind(i64::from(package.version.0))
            .bind(package.sha256.to_string())
            .fetch_optional(&mut *catalog)
            .await?;
        let Some(length) = length else { continue };
        let query = "update wishes set version = $4, length = $5, sha256 = $6, allow_lower = 0
                     where device = $1 and line = $2 and role = $3";
        sqlx::query(query)
            .bind(member.device.as_str())
            .bind(line.line.as_str())
            .bind(line.role.as_str())
            .bind(i64::from(package.version.0))
            .bind(length)
            .bind(package.sha256.to_string())
            .execute(&mut *catalog)
            .await?;
        let (from, to) = (json!({"version": version}), json!({"version": package.version, "line": line.line}));
        let change = Change { action: "restore.follow", subject: member.device.as_str(), from, to };
        audit::record_own(catalog, change, now).await?;
    }
    Ok(())
}
