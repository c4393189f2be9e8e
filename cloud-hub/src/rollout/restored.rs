//! Rollouts after a restore: see [`crate::backup::standing`].

use cloud_hub_core::rollout::Member;
use cloud_hub_core::rollout::restored::followed;
use serde_json::json;
use sqlx::SqliteConnection;
use tributary_wire::{DeviceId, LineReport, Micros};

use super::fleet::releases;
use super::{RolloutError, assignments, engine, store};
use crate::audit::{self, Change};
use crate::backup::Standing;

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

/// Whether a device is told nothing now, as [`Restored::holds`] decides; never on a hub that was not restored.
///
/// [`Restored::holds`]: cloud_hub_core::rollout::Restored::holds
pub async fn holds(catalog: &mut SqliteConnection, device: &DeviceId) -> Result<bool, RolloutError> {
    let Some(Standing { restored, .. }) = Standing::read(catalog).await? else { return Ok(false) };
    let lines = assignments::report(catalog, device).await?.map_or_else(Vec::new, |report| report.base().lines.clone());
    let wishes = assignments::desired(catalog, device).await?.wishes;
    let mut decided = Vec::new();
    for of in &lines {
        let LineReport { line, role, .. } = of;
        let wish = wishes.iter().find(|wish| (&wish.line, &wish.role) == (line, role));
        let newest = store::newest(catalog, line, role).await?.map(|stored| stored.rollout);
        if restored.has_decided(device, of, wish, newest.as_ref()) {
            decided.push(of);
        }
    }
    Ok(restored.holds(device, &lines, |of| decided.contains(&of)))
}

/// Lets a device's wishes follow the releases that it has committed, as [`followed`] decides.
pub async fn follow(catalog: &mut SqliteConnection, member: &Member, now: Micros) -> Result<(), RolloutError> {
    let Some(report) = &member.report else { return Ok(()) };
    for wish in assignments::desired(catalog, &member.device).await?.wishes {
        let own = report.lines.iter().find(|line| (&line.line, &line.role) == (&wish.line, &wish.role));
        let Some(package) = own.and_then(|line| line.committed) else { continue };
        let releases = releases(catalog, &wish.line).await?;
        let Some(new) = followed(&wish, &package, &releases) else { continue };
        assignments::put_wish(catalog, &member.device, &new).await?;
        let (from, to) =
            (json!({"version": wish.release.version}), json!({"version": package.version, "line": wish.line}));
        let change = Change { action: "restore.follow", subject: member.device.as_str(), from, to };
        audit::record_own(catalog, change, now).await?;
    }
    Ok(())
}
