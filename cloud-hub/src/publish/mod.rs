//! Publishing: a version becomes a release when the signed repository names its package.
//!
//! The repository is one of The Update Framework. People sign root and top-level targets with keys that the hub never
//! sees ([`apply`]); targets say who may sign each line. A line is *unattended* when that is a key of the hub: then
//! [`publish`] signs at once. Else it is *attended*, and the release waits until a person's signature is applied. The
//! hub signs snapshot and timestamp, and signs them again before they get old ([`run`]). All of it lies in the catalog
//! ([`store`]), so that a release, the metadata that names it and its entry in the audit log are one transaction.
//! Devices and mirrors fetch it through [`files`].
//!
//! A published release never changes: asking again gives the same one.

mod error;
mod keys;
mod path;
mod releases;
pub mod roles;
pub mod store;
mod plan;
mod sign;
mod apply;
mod line_targets;
mod run;
pub mod files;
pub mod ceremony;
pub mod lifetimes;
pub mod status;
pub mod warnings;
pub mod proof;
mod streams;
mod sizes;
mod open;
mod withdraw;

pub use apply::{Applied, ApplyError, Applying, RoleVersion, apply};
pub use error::PublishError;
pub use keys::{Keys, Purpose, new_key};
pub use plan::Config;
pub use releases::{Release, find, list};
pub use run::{announce, run};
pub use streams::Streams;
pub use withdraw::{Withdrawing, Withdrawn, withdraw};

use serde_json::{Value, json};
use sqlx::SqliteConnection;
use tributary_wire::{LineName, Micros, VersionNumber};

use crate::audit::{self, Change};
use crate::hub::Hub;
use crate::lines::story;
use crate::registry::versions;
use roles::{RoleName, TargetsContent};

/// Makes the release of a version: signed at once for an unattended line, else waiting for a person. The answer says
/// whether it was new.
pub async fn publish(
    hub: &Hub,
    catalog: &mut SqliteConnection,
    line: &LineName,
    version: VersionNumber,
    now: Micros,
) -> Result<(Release, bool), PublishError> {
    if let Some(known) = find(catalog, line, version).await? {
        return match known.state.as_str() {
            "withdrawn" => Err(PublishError::Withdrawn { line: line.clone(), version }),
            _ => Ok((known, false)),
        };
    }
    let reference = versions::get(catalog, line, version).await?.reference()?;
    let offline = sign::Offline::read(catalog).await?;
    let signers = offline.signers(line)?.ok_or_else(|| PublishError::NoRole { line: line.clone() })?;
    let unattended = sign::own_keys(&hub.keys, &signers).ok();
    let named = |keys: &[tributary_release::SigningKey]| {
        keys.iter().map(|key| roles::key_id(&key.verifying_key())).collect::<Vec<_>>().join(" ")
    };
    let release = Release {
        line: line.to_string(),
        version: version.0.into(),
        sha256: reference.sha256.to_string(),
        length: reference.length as i64,
        state: if unattended.is_some() { "published" } else { "waiting" }.to_owned(),
        key_id: unattended.as_deref().map(named).unwrap_or_default(),
        published: now.0,
    };
    releases::put(catalog, &release).await?;
    let (action, kind, message) = match unattended {
        Some(_) => ("release.publish", "published", format!("version {version} was published, signed by the hub")),
        None => (
            "release.wait",
            "waits-for-a-signature",
            format!("version {version} is to be published; somebody who holds the line's key has to sign it"),
        ),
    };
    let subject = format!("{line}/{version}");
    let to = json!({"sha256": release.sha256, "length": release.length, "key": release.key_id});
    audit::record(catalog, Change { action, subject: &subject, from: Value::Null, to }, now).await?;
    story::tell(catalog, line, kind, &message, json!({"version": version}), now).await?;
    sign::bring_up_to_date(catalog, &hub.keys, &hub.config.publish, now).await?;
    Ok((release, true))
}

/// When people last changed whom devices believe, or took releases back; 0: never.
pub async fn taken_back(catalog: &mut SqliteConnection) -> Result<Micros, sqlx::Error> {
    let query = "select coalesce(max(at), 0) from (
                     select max(stored) as at from metadata where role in ('root', 'targets')
                     union all select max(time) from line_events where kind = 'withdrawn') changes";
    Ok(Micros(sqlx::query_scalar(query).fetch_one(catalog).await?))
}

/// The next version of a line's role, unsigned: what is signed there now, and the releases that wait.
pub async fn draft_line(
    catalog: &mut SqliteConnection,
    line: &LineName,
    expires: Micros,
) -> Result<Vec<u8>, PublishError> {
    let offline = sign::Offline::read(catalog).await?;
    offline.signers(line)?.ok_or_else(|| PublishError::NoRole { line: line.clone() })?;
    let role = tributary_release::line_role(line);
    let version = store::newest(&mut *catalog, &role).await?.map_or(0, |stored| stored.version as u64) + 1;
    let mut targets = Vec::new();
    for state in ["published", "waiting"] {
        for release in releases::in_state(catalog, line, state).await? {
            targets.push(releases::target(catalog, &release).await?);
        }
    }
    let content = TargetsContent { version, expires, targets, delegations: Vec::new() };
    Ok(roles::build_targets(&RoleName::Delegated(role), &content)?)
}
