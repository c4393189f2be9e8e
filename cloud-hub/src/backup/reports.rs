//! What devices' reports tell a restored hub: where its history ends, which packages it lacks, and whether another hub
//! is still at work.

use serde_json::json;
use sqlx::SqliteConnection;
use tributary_release::Package;
use tributary_wire::{DeviceId, Generation, LineName, Micros, PackageRef, Report, SequenceNumber, VersionNumber};

use super::standing::{self, Restore, Standing};
use crate::audit::{self, Change};
use crate::catalog::alerts;
use crate::catalog::batches::Numbering;
use crate::hub::Hub;
use crate::registry::versions::{self, Origin};
use crate::{ingest, publish, rollout};

/// The alert of packages that this hub does not know; subject: line and version.
pub const UNKNOWN: &str = "unknown-package";
/// The alert of batches that are lost.
pub const LOST: &str = "batches-lost";
/// The alert of a second hub with the same keys.
pub const ANOTHER: &str = "another-hub";

/// A device has reported. Nothing to do unless this hub was restored.
pub async fn heard(hub: &Hub, device: &DeviceId, now: Micros) -> anyhow::Result<()> {
    let mut reader = hub.catalog.reader().acquire().await?;
    let Some(restore) = Restore::newest(&mut reader).await? else { return Ok(()) };
    let query = "select report from devices where id = $1";
    let report: Option<Option<Vec<u8>>> =
        sqlx::query_scalar(query).bind(device.as_str()).fetch_optional(&mut *reader).await?;
    let Some(report) = report.flatten().and_then(|bytes| Report::decode(&bytes).ok()) else { return Ok(()) };
    let mut lacking = Vec::new();
    for line in &report.base().lines {
        if let Some(package) = line.committed
            && !is_release(&mut reader, &line.line, &package).await?
        {
            lacking.push((line.line.clone(), package));
        }
    }
    let known: Vec<(String, i64, String)> =
        sqlx::query_as("select line, version, sha256 from restore_packages where state = 'unknown'")
            .fetch_all(&mut *reader)
            .await?;
    drop(reader);
    for (line, package) in &lacking {
        if let Err(error) = take_in_again(hub, line, package, now).await {
            tracing::debug!(%line, version = package.version.0, error = format!("{error:#}"), "not taken in again");
        }
    }
    let given_up = losses(hub, device, &report).await?;
    let mut write = hub.catalog.write().await?;
    for (of, first, last) in &given_up {
        lost(&mut write, of, (*first, *last), now).await?;
    }
    for (line, package) in lacking {
        lacks(&mut write, &line, &package, now).await?;
    }
    for (line, version, sha256) in known {
        settle(&mut write, &line, version, &sha256, now).await?;
    }
    first_or_later(&mut write, &restore, device, &report, now).await?;
    write.commit().await?;
    for (of, first, last) in given_up {
        hub.ingest.give_up(&of, SequenceNumber(first), SequenceNumber(last)).await;
    }
    Ok(())
}

/// Numbers that the device had receipts for and this hub does not know.
async fn losses(hub: &Hub, device: &DeviceId, report: &Report) -> sqlx::Result<Vec<(Numbering, u64, u64)>> {
    let mut reader = hub.catalog.reader().acquire().await?;
    let mut found = Vec::new();
    for held in report.held() {
        let of =
            Numbering { device: device.clone(), incarnation: report.base().incarnation, stream: held.stream.clone() };
        for (first, last) in ingest::missing(&mut reader, &of, held.first).await? {
            found.push((of.clone(), first, last));
        }
    }
    Ok(found)
}

async fn lost(
    write: &mut SqliteConnection,
    of: &Numbering,
    (first, last): (u64, u64),
    now: Micros,
) -> sqlx::Result<()> {
    let query = "insert into restore_losses (device, incarnation, stream, first_sequence, last_sequence, found)
                 values ($1, $2, $3, $4, $5, $6) on conflict do nothing";
    let query = sqlx::query(query).bind(of.device.as_str()).bind(i64::from(of.incarnation.0)).bind(of.stream.as_str());
    let done = query.bind(first as i64).bind(last as i64).bind(now.0).execute(&mut *write).await?;
    if done.rows_affected() == 0 {
        return Ok(());
    }
    let query = "select coalesce(sum(last_sequence - first_sequence + 1), 0), count(distinct device)
                 from restore_losses";
    let (batches, devices): (i64, i64) = sqlx::query_as(query).fetch_one(&mut *write).await?;
    let detail = json!({
        "problem": "batches that were acknowledged after the backup are neither in the catalog nor in the lake; some \
                    may have been gaps or empty",
        "batches": batches, "devices": devices, "next": "cloud-hub restore status",
    });
    let alert = alerts::Raise { kind: LOST, subject: "lake", severity: "critical", detail };
    alerts::raise(write, alert, now).await?;
    Ok(())
}

async fn is_release(catalog: &mut SqliteConnection, line: &LineName, package: &PackageRef) -> sqlx::Result<bool> {
    let query = "select exists (select 1 from releases where line = $1 and sha256 = $2)";
    sqlx::query_scalar(query).bind(line.as_str()).bind(package.sha256.to_string()).fetch_one(catalog).await
}

/// Registers and publishes a package whose file is still here.
async fn take_in_again(hub: &Hub, line: &LineName, package: &PackageRef, now: Micros) -> anyhow::Result<()> {
    let bytes = hub.packages.read(&package.sha256)?;
    let read = Package::read(&bytes)?;
    let mut write = hub.catalog.write().await?;
    let file = (package.sha256, bytes.len() as u64);
    versions::register(&mut write, line, &read, file, Origin::Uploaded, now).await?;
    publish::publish(hub, &mut write, line, package.version, now).await?;
    write.commit().await?;
    tracing::info!(%line, version = package.version.0, "a package that devices run was taken in again");
    Ok(())
}

async fn lacks(write: &mut SqliteConnection, line: &LineName, package: &PackageRef, now: Micros) -> sqlx::Result<()> {
    if is_release(write, line, package).await? {
        return Ok(());
    }
    let (version, sha256) = (package.version, package.sha256);
    let query = "insert into restore_packages (line, version, sha256, found) values ($1, $2, $3, $4)
                 on conflict (line, sha256) do nothing";
    let query = sqlx::query(query).bind(line.as_str()).bind(i64::from(version.0)).bind(sha256.to_string()).bind(now.0);
    if query.execute(&mut *write).await?.rows_affected() == 0 {
        return Ok(());
    }
    let subject = format!("{line}/{version}");
    let change = Change {
        action: "restore.unknown-package",
        subject: &subject,
        from: serde_json::Value::Null,
        to: json!({"sha256": sha256}),
    };
    audit::record_own(write, change, now).await?;
    let detail = json!({
        "problem": "devices run a package that was published after the backup; they are left alone",
        "sha256": sha256,
        "next": format!("send the package again: cloud-hub model upload {line} FILE, then cloud-hub model publish {line} \
                         {version}; or let devices be moved away from it: cloud-hub restore overrule {line} {version} \
                         --reason WHY"),
    });
    let alert = alerts::Raise { kind: UNKNOWN, subject: &subject, severity: "critical", detail };
    alerts::raise(write, alert, now).await?;
    Ok(())
}

/// A package that was unknown is a release now.
async fn settle(write: &mut SqliteConnection, line: &str, version: i64, sha256: &str, now: Micros) -> sqlx::Result<()> {
    let query = "update restore_packages set state = 'known' where line = $1 and sha256 = $2 and state = 'unknown'
                 and exists (select 1 from releases where line = $1 and sha256 = $2)";
    let settled = sqlx::query(query).bind(line).bind(sha256).execute(&mut *write).await?;
    if settled.rows_affected() > 0 {
        alerts::resolve(write, UNKNOWN, &format!("{line}/{version}"), now).await?;
        for member in rollout::members(&mut *write).await.unwrap_or_default() {
            let runs = |it: &tributary_wire::LineReport| it.committed.is_some_and(|p| p.sha256.to_string() == sha256);
            if member.report.as_ref().is_some_and(|report| report.lines.iter().any(runs)) {
                follow(write, &member, now).await?;
            }
        }
    }
    Ok(())
}

async fn follow(write: &mut SqliteConnection, member: &rollout::Member, now: Micros) -> sqlx::Result<()> {
    match rollout::follow(write, member, now).await {
        Err(rollout::RolloutError::Catalog(error)) => Err(error),
        Err(error) => {
            tracing::warn!(device_id = %member.device, error = crate::api::chain(&error), "its wishes stay as they are");
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

#[derive(sqlx::FromRow)]
struct First {
    generation: i64,
}

async fn first_or_later(
    write: &mut SqliteConnection,
    restore: &Restore,
    device: &DeviceId,
    report: &Report,
    now: Micros,
) -> anyhow::Result<()> {
    let reported = report.base().generation.0 as i64;
    let own: Option<i64> = sqlx::query_scalar("select generation from assignments where device = $1")
        .bind(device.as_str())
        .fetch_optional(&mut *write)
        .await?;
    let query = "select generation from restore_reports where device = $1 and epoch = $2";
    let first: Option<First> =
        sqlx::query_as(query).bind(device.as_str()).bind(restore.epoch).fetch_optional(&mut *write).await?;
    if let Some(first) = first {
        if reported > own.unwrap_or(0).max(first.generation) {
            let detail = json!({
                "problem": "the device was given an assignment that this hub did not sign, after it had reported here: \
                            another hub with the same keys is at work, perhaps the one that was thought lost",
                "reported": reported, "signed_here": own,
                "next": "stop the other hub, or take its keys from it (deploy/hub/keys.md, A stolen hub)",
            });
            let alert = alerts::Raise { kind: ANOTHER, subject: device.as_str(), severity: "critical", detail };
            alerts::raise(write, alert, now).await?;
        }
        return Ok(());
    }
    let (named, signed) = (report.base().generation, Generation(own.unwrap_or(0) as u64));
    let standing = Standing::read(&mut *write).await?;
    let follows = standing.is_some_and(|standing| standing.restored.follows(device, named, signed));
    let timestamp = report.metadata().map_or(0, |metadata| metadata.timestamp as i64);
    let audit = report.audit();
    sqlx::query(
        "insert into restore_reports (device, epoch, reported, generation, timestamp, audit_number, audit_hash)
         values ($1, $2, $3, $4, $5, $6, $7) on conflict (device) do nothing",
    )
    .bind(device.as_str())
    .bind(restore.epoch)
    .bind(now.0)
    .bind(reported)
    .bind(timestamp)
    .bind(audit.map_or(0, |head| head.number as i64))
    .bind(audit.map_or(String::new(), |head| head.hash.to_string()))
    .execute(&mut *write)
    .await?;
    if follows {
        let members = rollout::members(&mut *write).await?;
        if let Some(member) = members.iter().find(|member| member.device == *device) {
            follow(write, member, now).await?;
        }
    }
    Ok(())
}

/// Whether rollouts still wait after a restore. Asked at every look at them; ends the wait when it is over.
pub async fn waits(hub: &Hub, now: Micros) -> anyhow::Result<bool> {
    let mut reader = hub.catalog.reader().acquire().await?;
    let Some(restore) = Restore::newest(&mut reader).await?.filter(Restore::waits) else { return Ok(false) };
    let reported = standing::reported(&mut reader, restore.epoch).await?;
    drop(reader);
    let Some(reason) = standing::over(&restore, reported, &hub.config.backup, now) else { return Ok(true) };
    go_on(hub, &restore, &reason, now).await?;
    Ok(false)
}

/// Ends the wait, and answers the devices that have reported meanwhile.
pub async fn go_on(hub: &Hub, restore: &Restore, reason: &str, now: Micros) -> anyhow::Result<bool> {
    let mut write = hub.catalog.write().await?;
    let ended = standing::end(&mut write, restore.epoch, reason, now).await?;
    if ended {
        alerts::resolve(&mut write, super::RESTORED, "hub", now).await?;
    }
    write.commit().await?;
    Ok(ended)
}

/// An operator's word that devices may be moved away from a package that nobody here knows; whether there was one.
pub async fn overrule(
    write: &mut SqliteConnection,
    line: &LineName,
    version: VersionNumber,
    reason: &str,
    now: Micros,
) -> sqlx::Result<bool> {
    let query =
        "update restore_packages set state = 'overruled' where line = $1 and version = $2 and state = 'unknown'";
    let done = sqlx::query(query).bind(line.as_str()).bind(i64::from(version.0)).execute(&mut *write).await?;
    if done.rows_affected() == 0 {
        return Ok(false);
    }
    let subject = format!("{line}/{version}");
    let (from, to) = (json!({"state": "unknown"}), json!({"state": "overruled", "reason": reason}));
    audit::record(write, Change { action: "restore.overrule", subject: &subject, from, to }, now).await?;
    alerts::resolve(write, UNKNOWN, &subject, now).await?;
    Ok(true)
}
