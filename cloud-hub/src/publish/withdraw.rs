//! A release is taken back: the next metadata of its line no longer names it, so no device installs it any more. What runs
//! goes on: a device that has committed to the release keeps it until it is sent to another one.

use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::SqliteConnection;
use tributary_release::package_path;
use tributary_wire::{LineName, Micros, VersionNumber};
use utoipa::ToSchema;

use super::releases::{self, Release, find};
use super::{PublishError, sign};
use crate::audit::{self, Change};
use crate::hub::Hub;
use crate::lines::story;

/// What the caller says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Withdrawing<'a> {
    /// Why, for people.
    pub reason: &'a str,
    /// Also when devices are to run it.
    pub even_if_wanted: bool,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Withdrawn {
    /// The release as it is now.
    pub release: Release,
    /// Who still wants it; those devices go on with what they have, and cannot fetch it.
    pub wanted_by: Vec<String>,
}

/// Takes a release back. The metadata without it is signed in the same transaction; asking again changes nothing.
pub async fn withdraw(
    hub: &Hub,
    catalog: &mut SqliteConnection,
    (line, version): (&LineName, VersionNumber),
    Withdrawing { reason, even_if_wanted }: Withdrawing<'_>,
    now: Micros,
) -> Result<Withdrawn, PublishError> {
    let found = find(catalog, line, version).await?;
    let mut release = found.ok_or_else(|| PublishError::NoRelease { line: line.clone(), version })?;
    let wanted_by = wanted_by(catalog, line, version).await?;
    if release.is_withdrawn() {
        return Ok(Withdrawn { release, wanted_by });
    }
    if release.is_published() {
        // A line that is delegated to nobody any more needs no signature.
        let signers = sign::Offline::read(catalog).await?.signers(line)?;
        if signers.is_some_and(|signers| sign::own_keys(&hub.keys, &signers).is_err()) {
            let path = package_path(line, version);
            return Err(PublishError::Attended { line: line.clone(), version, path });
        }
    }
    if !wanted_by.is_empty() && !even_if_wanted {
        return Err(PublishError::Wanted { line: line.clone(), version, by: wanted_by });
    }
    let before = std::mem::replace(&mut release.state, "withdrawn".to_owned());
    releases::put(catalog, &release).await?;
    let subject = format!("{line}/{version}");
    let from = json!({"state": before, "sha256": release.sha256, "key": release.key_id});
    let to = json!({"state": release.state, "reason": reason, "wanted_by": wanted_by});
    audit::record(catalog, Change { action: "release.withdraw", subject: &subject, from, to }, now).await?;
    let message = format!("version {version} was withdrawn: {reason}");
    story::tell(catalog, line, "withdrawn", &message, json!({"version": version}), now).await?;
    sign::bring_up_to_date(catalog, &hub.keys, &hub.config.publish, now).await?;
    Ok(Withdrawn { release, wanted_by })
}

/// Rollouts that lead to a release, or whose devices would go back to it, and devices that are to run it.
async fn wanted_by(
    catalog: &mut SqliteConnection,
    line: &LineName,
    version: VersionNumber,
) -> Result<Vec<String>, sqlx::Error> {
    let query = "select id, version = $2, state from rollouts r where state <> 'stopped'
                 and id in (select max(id) from rollouts where line = $1 group by role)
                 and (version = $2 or state <> 'completed' and exists (
                     select 1 from rollout_devices where rollout = r.id and rolled_back is null
                     and json_extract(before_json, '$.version') = $2)) order by id";
    let version = i64::from(version.0);
    let rollouts: Vec<(i64, bool, String)> =
        sqlx::query_as(query).bind(line.as_str()).bind(version).fetch_all(&mut *catalog).await?;
    let query = "select count(distinct device), min(device) from wishes where line = $1 and version = $2";
    let (devices, first): (i64, Option<String>) =
        sqlx::query_as(query).bind(line.as_str()).bind(version).fetch_one(catalog).await?;
    let mut by: Vec<String> = rollouts
        .into_iter()
        .map(|(id, leads, state)| format!("rollout {id} ({state}{})", if leads { "" } else { ", the way back" }))
        .collect();
    match (devices, first) {
        (1, Some(first)) => by.push(format!("device {first}")),
        (more @ 2.., Some(first)) => by.push(format!("{more} devices, {first} among them")),
        _ => {}
    }
    Ok(by)
}
