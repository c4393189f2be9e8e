//! Takes what people signed: root, top-level targets, roles of attended lines and of agent, nodes and features.
//!
//! Every file is checked as a device checks it, and then for what devices cannot see: that packages are the registered
//! ones, that contents are here, that nothing in the field is dropped by mistake, that the hub can go on signing. All
//! files of one call, and the snapshot and timestamp that name them, are one transaction: a root that takes a key away
//! from the targets needs targets signed by the new one beside it.

mod error;

use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::SqliteConnection;
use tributary_release::VerifyingKeys;
use tributary_wire::{LineName, Micros};
use utoipa::ToSchema;

use super::roles::{self, Header, RoleError, RoleName, Target, TargetsContent};
use super::{PublishError, line_targets, sign, store};
use crate::audit::{self, Change};
use crate::hub::{Hub, HubEvent};
pub use error::ApplyError;

/// How far above the version in force a file may be. A backup that was restored is never a million signatures old; who
/// goes further would leave the role without a next version for ever.
const MAX_STEP: u64 = 1_000_000;

/// What the caller knows and says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Applying {
    /// Releases and roles that the files no longer name are to go. Without this, a file that drops any is refused.
    pub withdraw: bool,
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Applied {
    /// The roles that were taken, with their versions.
    pub applied: Vec<RoleVersion>,
    /// The roles that the hub signed in consequence.
    pub signed: Vec<RoleVersion>,
    /// Versions that are published now, such as `card-fraud/7`.
    pub published: Vec<String>,
    /// Versions that are no release any more.
    pub withdrawn: Vec<String>,
}

/// A version of a role's metadata.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RoleVersion {
    /// The role.
    pub role: String,
    /// Its version.
    pub version: u64,
}

/// Takes signed files, in whatever order they come.
pub async fn apply(hub: &Hub, files: &[Vec<u8>], applying: Applying) -> Result<Applied, ApplyError> {
    let now = hub.now();
    let mut read = Vec::new();
    for bytes in files {
        read.push((roles::header(bytes)?, bytes.as_slice()));
    }
    // Who may sign what comes from above.
    read.sort_by(|(a, _), (b, _)| (&a.role, a.version).cmp(&(&b.role, b.version)));
    if read.is_empty() {
        return Err(ApplyError::Nothing);
    }
    keep_key_files(hub, &read).await?;
    let mut catalog = hub.catalog.write().await?;
    let mut applied = Applied::default();
    for (index, (header, bytes)) in read.iter().enumerate() {
        let Header { role, version, expires, .. } = header;
        // Of roots only the newest has to be in force, as for devices: the others lead to it, whatever their dates say.
        let leads_on = read.get(index + 1).is_some_and(|(next, _)| next.role == RoleName::Root);
        if *expires <= now && !leads_on {
            return Err(ApplyError::Expired { role: role.clone(), version: *version, expires: *expires });
        }
        take(hub, &mut catalog, (header, bytes), applying, &mut applied, now).await?;
    }
    let root = store::newest(&mut *catalog, "root").await?.ok_or(PublishError::NoRepository)?;
    let targets = store::newest(&mut *catalog, "targets").await?.ok_or(PublishError::NoRepository)?;
    let counts = roles::verify(&root.bytes, &RoleName::Targets, &targets.bytes);
    counts.map_err(|problem| ApplyError::Targets { problem })?;
    let signed = sign::bring_up_to_date(&mut catalog, &hub.keys, &hub.config.publish, now).await?;
    applied.signed = signed.into_iter().map(|(role, version)| RoleVersion { role, version }).collect();
    let announced = announced(&targets.bytes)?;
    catalog.commit().await?;
    hub.keys.announce(&announced);
    if read.iter().any(|(header, _)| matches!(header.role, RoleName::Root | RoleName::Targets))
        || !applied.withdrawn.is_empty()
    {
        hub.bus.publish(HubEvent::TakenBack);
    }
    // A run that waits for its release goes on.
    hub.training.ring();
    Ok(applied)
}

/// Nobody has to carry the file with the keys of assignments: it is written from what stands beside the target, before
/// the transaction, so that nobody waits for the disk there. One that is refused later is a file that nothing names.
async fn keep_key_files(hub: &Hub, files: &[(Header, &[u8])]) -> Result<(), ApplyError> {
    let targets = files.iter().filter(|(header, _)| header.role == RoleName::Targets);
    let announced =
        targets.filter_map(|(_, bytes)| roles::read_targets(bytes).ok()).flat_map(|content| content.targets);
    let files: Vec<String> = announced.filter_map(|target| Some(keys_of(&target).ok()?.to_json())).collect();
    let packages = hub.packages.clone();
    let kept =
        tokio::task::spawn_blocking(move || files.iter().try_for_each(|file| packages.put(file.as_bytes()).map(drop)));
    let kept = kept.await.map_err(std::io::Error::other).flatten();
    Ok(kept.map_err(crate::registry::RegistryError::File)?)
}

async fn take(
    hub: &Hub,
    catalog: &mut SqliteConnection,
    (header, bytes): (&Header, &[u8]),
    applying: Applying,
    applied: &mut Applied,
    now: Micros,
) -> Result<(), ApplyError> {
    let Header { role, version, expires, signed_by } = header;
    let (role, version, expires) = (role.clone(), *version, *expires);
    let known = store::newest(&mut *catalog, role.as_str()).await?;
    let last = known.as_ref().map_or(0, |known| known.version as u64);
    match &role {
        RoleName::Root => {
            // The first one vouches for itself: devices that enrol pin it.
            let before = known.as_ref().map_or(bytes, |known| &known.bytes);
            if version != last + 1 {
                let role = role.to_string();
                return Err(PublishError::Version { role, expected: last + 1, exactly: true, found: version }.into());
            }
            roles::verify(before, &role, bytes)?;
        }
        RoleName::Targets => {
            let root = store::newest(&mut *catalog, "root").await?.ok_or(PublishError::NoRepository)?;
            roles::verify(&root.bytes, &role, bytes)?;
            let content = roles::read_targets(bytes)?;
            check_top_level(hub, &content)?;
            let before = known.as_ref().map(|known| roles::read_targets(&known.bytes)).transpose()?;
            let gone = before.into_iter().flat_map(|before| before.delegations).map(|delegation| delegation.role);
            let gone = gone.filter(|name| !content.delegations.iter().any(|delegation| delegation.role == *name));
            may_drop((&role, version), gone.collect(), applying)?;
        }
        RoleName::Delegated(_) => {
            let targets = store::newest(&mut *catalog, "targets").await?.ok_or(PublishError::NoRepository)?;
            roles::verify(&targets.bytes, &role, bytes).map_err(|error| match error {
                RoleError::Unlisted { .. } => ApplyError::NotDelegated { role: role.clone() },
                other => other.into(),
            })?;
        }
        RoleName::Snapshot | RoleName::Timestamp => return Err(ApplyError::Online { role }),
    }
    let most = last.saturating_add(MAX_STEP);
    if version > most {
        return Err(ApplyError::Leap { role, known: last, most, found: version });
    }
    if let RoleName::Delegated(name) = &role {
        let content = roles::read_targets(bytes)?;
        let dropped = match name.strip_prefix("models/") {
            Some(line) => {
                let line = LineName::new(line).map_err(|_| ApplyError::NotDelegated { role: role.clone() })?;
                line_targets::take(catalog, &line, (&content, &signed_by.join(" ")), applied, now).await?
            }
            None => {
                content.targets.iter().try_for_each(|target| check_content(hub, &role, target))?;
                let before = known.as_ref().map(|known| roles::read_targets(&known.bytes)).transpose()?;
                let before = before.into_iter().flat_map(|before| before.targets).map(|target| target.path);
                before.filter(|path| !content.targets.iter().any(|target| target.path == *path)).collect()
            }
        };
        may_drop((&role, version), dropped, applying)?;
    }
    store::put(catalog, role.as_str(), version, bytes, expires, now).await?;
    let from = json!({"version": last});
    let to = json!({"version": version, "sha256": tributary_release::digest(bytes), "signed_by": signed_by});
    audit::record(catalog, Change { action: "metadata.apply", subject: role.as_str(), from, to }, now).await?;
    applied.applied.push(RoleVersion { role: role.to_string(), version });
    Ok(())
}

fn may_drop((role, version): (&RoleName, u64), dropped: Vec<String>, applying: Applying) -> Result<(), ApplyError> {
    if dropped.is_empty() || applying.withdraw {
        return Ok(());
    }
    Err(ApplyError::Drops { role: role.clone(), version, dropped })
}

/// The top-level targets name the keys of assignments and nothing else: every other path belongs to a role below.
fn check_top_level(hub: &Hub, content: &TargetsContent) -> Result<(), ApplyError> {
    let role = RoleName::Targets;
    let wrong = |path: &str, problem: &str| {
        Err(ApplyError::Target { role: RoleName::Targets, path: path.to_owned(), problem: problem.to_owned() })
    };
    for target in &content.targets {
        if target.path != tributary_release::ASSIGNMENT_KEYS {
            return wrong(&target.path, "every path but that of the keys for assignments belongs to a role below");
        }
        let keys = keys_of(target)?;
        if !keys.ids().iter().any(|id| hub.keys.holds(*id)) {
            let announced = keys.ids().iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            return Err(ApplyError::Assignments { announced });
        }
        check_content(hub, &role, target)?;
    }
    match content.targets.len() {
        1 => Ok(()),
        _ => wrong(tributary_release::ASSIGNMENT_KEYS, "expected once: it says whose assignments devices follow"),
    }
}

/// The keys for assignments that a target announces; its length and hash are those of their file.
fn keys_of(target: &Target) -> Result<VerifyingKeys, ApplyError> {
    let wrong = |problem: String| ApplyError::Target { role: RoleName::Targets, path: target.path.clone(), problem };
    let listed = target.listed_keys().map_err(|error| wrong(crate::api::chain(&error)))?;
    if listed.is_empty() {
        return Err(wrong("no keys stand beside it".to_owned()));
    }
    let keys = VerifyingKeys::new(listed.into_iter().map(|listed| listed.key));
    let file = keys.to_json();
    let (sha256, length) = (tributary_release::digest(file.as_bytes()), file.len() as u64);
    if (sha256, length) != (target.sha256, target.length) {
        let (found, expected) = (target.sha256, sha256);
        return Err(wrong(format!("its hash is {found}, the file of the keys beside it has {expected}")));
    }
    Ok(keys)
}

/// The keys for assignments that targets in force announce.
pub(super) fn announced(targets: &[u8]) -> Result<VerifyingKeys, ApplyError> {
    let content = roles::read_targets(targets)?;
    let target = content.targets.iter().find(|target| target.path == tributary_release::ASSIGNMENT_KEYS);
    target.map_or(Ok(VerifyingKeys::default()), keys_of)
}

/// What metadata names can be fetched: its content was sent before.
fn check_content(hub: &Hub, role: &RoleName, target: &Target) -> Result<(), ApplyError> {
    let wrong = |problem: String| Err(ApplyError::Target { role: role.clone(), path: target.path.clone(), problem });
    match std::fs::metadata(hub.packages.path(&target.sha256)) {
        Ok(file) if file.len() == target.length => Ok(()),
        Ok(file) => wrong(format!("with {} bytes, the content has {}", target.length, file.len())),
        Err(_) => wrong(format!("the hub has no content with hash {}; send that first", target.sha256)),
    }
}
