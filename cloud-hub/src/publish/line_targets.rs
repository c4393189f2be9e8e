//! What a person signed for a line, against what is registered: which versions are published by it, and which no longer.

use serde_json::{Value, json};
use sqlx::SqliteConnection;
use tributary_release::{CUSTOM, PackageCustom, line_role, package_path};
use tributary_wire::{LineName, Micros, VersionNumber};

use super::apply::{Applied, ApplyError};
use super::releases::{self, Release};
use super::roles::{RoleName, Target, TargetsContent};
use crate::audit::{self, Change};
use crate::lines::story;
use crate::registry::versions;

/// Publishes what the content names and was not yet, and takes back what it no longer names; the answer names the latter,
/// and it is for the caller to refuse it and roll back.
pub(super) async fn take(
    catalog: &mut SqliteConnection,
    line: &LineName,
    (content, signed_by): (&TargetsContent, &str),
    applied: &mut Applied,
    now: Micros,
) -> Result<Vec<String>, ApplyError> {
    let mut dropped = Vec::new();
    for mut release in releases::in_state(catalog, line, "published").await? {
        let path = package_path(line, VersionNumber(release.version as u32));
        if content.targets.iter().all(|target| target.path != path) {
            release.state = "withdrawn".to_owned();
            dropped.push(path);
            change(catalog, line, &release, ("release.withdraw", "withdrawn"), now).await?;
            applied.withdrawn.push(format!("{line}/{}", release.version));
        }
    }
    for target in &content.targets {
        let custom = check(catalog, line, target).await?;
        let known = releases::find(catalog, line, custom.version).await?;
        match known.as_ref() {
            Some(known) if known.is_published() => continue,
            // Whoever drafted the file had not heard of it yet.
            Some(known) if known.is_withdrawn() => {
                return Err(wrong(
                    line,
                    target,
                    "it was withdrawn, and a withdrawn release never comes back".to_owned(),
                ));
            }
            _ => {}
        }
        let release = Release {
            line: line.to_string(),
            version: custom.version.0.into(),
            sha256: target.sha256.to_string(),
            length: target.length as i64,
            state: "published".to_owned(),
            key_id: signed_by.to_owned(),
            published: custom.published.0,
        };
        change(catalog, line, &release, ("release.publish", "published"), now).await?;
        applied.published.push(format!("{line}/{}", release.version));
    }
    Ok(dropped)
}

async fn change(
    catalog: &mut SqliteConnection,
    line: &LineName,
    release: &Release,
    (action, kind): (&str, &str),
    now: Micros,
) -> Result<(), ApplyError> {
    releases::put(catalog, release).await?;
    let subject = format!("{line}/{}", release.version);
    let to = json!({"sha256": release.sha256, "length": release.length, "key": release.key_id});
    audit::record(catalog, Change { action, subject: &subject, from: Value::Null, to }, now).await?;
    let message = format!("version {} was {kind} by what a person signed", release.version);
    story::tell(catalog, line, kind, &message, json!({"version": release.version}), now).await?;
    Ok(())
}

fn wrong(line: &LineName, target: &Target, problem: String) -> ApplyError {
    ApplyError::Target { role: RoleName::Delegated(line_role(line)), path: target.path.clone(), problem }
}

/// A package in the line's role is exactly a registered version.
async fn check(catalog: &mut SqliteConnection, line: &LineName, target: &Target) -> Result<PackageCustom, ApplyError> {
    let wrong = |problem: String| wrong(line, target, problem);
    let beside = target.custom.as_ref().map(|custom| custom[CUSTOM].clone()).unwrap_or_default();
    let custom: PackageCustom =
        serde_json::from_value(beside).map_err(|error| wrong(format!("what stands beside it: {error}")))?;
    if package_path(line, custom.version) != target.path {
        return Err(wrong(format!("beside it stands version {} of line {}", custom.version, custom.line)));
    }
    let record = versions::find(catalog, line, custom.version).await?;
    let registered = record.ok_or_else(|| wrong("no such version is registered".to_owned()))?.reference()?;
    if (registered.sha256, registered.length) != (target.sha256, target.length) {
        let (found, length) = (target.sha256, target.length);
        return Err(wrong(format!(
            "hash {found} and {length} bytes, the registered version has {} and {}",
            registered.sha256, registered.length
        )));
    }
    let expected = releases::custom(catalog, line, custom.version, custom.published).await?;
    if custom != expected {
        return Err(wrong("what stands beside it is not what the package's manifest says".to_owned()));
    }
    Ok(custom)
}
