//! The first root and targets of a repository, and who keeps which key. What comes later is [`change`]d step by step.
//!
//! Pure but for [`simple`], which also hands the result to a hub: what a person does with `cloud-hub keys init`.

mod change;
#[cfg(test)]
mod tests;

pub use change::{ASSIGNMENTS, Change, ChangeError, next_role, next_root, next_targets, role_of};

use std::time::Duration;

use anyhow::Context;
use rand::TryRngCore;
use rand::rngs::OsRng;
use tributary_process::config::HumanDuration;
use tributary_release::{RESERVED_ROLES, SigningKey, digest, line_role};
use tributary_wire::{LineName, Micros};

use super::roles::{
    self, Delegation, PublicKey, RoleError, RoleName, RootContent, Signers, Target, TargetsContent, build_root,
    build_targets,
};
use super::{Applying, Keys, Purpose, apply};
use crate::hub::Hub;

/// What people sign is good for a year unless they say otherwise: often enough that they remember how, seldom enough
/// that it gets done.
pub const LIFE: Duration = Duration::from_secs(365 * 86_400);
/// Less is a mistake: the file has to be carried, signed, applied and fetched in that time.
const SHORTEST: Duration = Duration::from_secs(60);
/// More is one too: nobody notices any more that somebody can still sign.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);

/// The secret keys that people keep, each with the name of who keeps it.
#[derive(Debug, Clone)]
pub struct Custody {
    /// Sign root.
    pub root: Vec<(String, SigningKey)>,
    /// How many of them it takes.
    pub threshold: u64,
    /// Signs targets, and agent, nodes and features until these have keys of their own.
    pub targets: (String, SigningKey),
}

impl Custody {
    /// The same keys for the same seed, two of three for root.
    pub fn of_seed(seed: [u8; 32]) -> Self {
        let key = |name: String| {
            let seed = digest(&[&seed, name.as_bytes()].concat()).0;
            (name, SigningKey::generate(seed))
        };
        let root = (1..=3).map(|number| key(format!("root-{number}"))).collect();
        Self { root, threshold: 2, targets: key("targets".to_owned()) }
    }

    /// The root keys alone.
    pub fn root_keys(&self) -> Vec<SigningKey> {
        self.root.iter().map(|(_, key)| key.clone()).collect()
    }
}

/// Until when a file is good that is signed now.
pub fn expiry(now: Micros, life: Duration) -> Result<Micros, LifeError> {
    match (SHORTEST..=LONGEST).contains(&life) {
        true => Ok(now + life),
        false => Err(LifeError { found: HumanDuration(life) }),
    }
}

/// A life that no file should have.
#[derive(Debug, thiserror::Error, PartialEq)]
#[error("a file that is good for {found}; expected from {} to {}", HumanDuration(SHORTEST), HumanDuration(LONGEST))]
pub struct LifeError {
    found: HumanDuration,
}

/// 32 random bytes for a key.
pub fn random_seed() -> anyhow::Result<[u8; 32]> {
    let mut seed = [0; 32];
    OsRng.try_fill_bytes(&mut seed).context("take random bytes for a key")?;
    Ok(seed)
}

/// The public keys of a hub.
#[derive(Debug, Clone)]
pub struct Online {
    /// Signs snapshots.
    pub snapshot: PublicKey,
    /// Signs timestamps.
    pub timestamp: PublicKey,
    /// Signs assignments.
    pub assignment: PublicKey,
}

/// How the hub is named as the holder of a key.
pub const HUB: &str = "hub";

impl Online {
    /// Those that the hub has.
    pub fn of(keys: &Keys) -> anyhow::Result<Self> {
        let key = |purpose| Ok::<_, anyhow::Error>(held_by_hub(&keys.get_or_make(&purpose)?));
        let assignment = held_by_hub(&keys.assignment());
        Ok(Self { snapshot: key(Purpose::Snapshot)?, timestamp: key(Purpose::Timestamp)?, assignment })
    }
}

fn held_by_hub(key: &SigningKey) -> PublicKey {
    PublicKey::new(key.verifying_key(), HUB)
}

/// The delegation of a line to these keys, any of which may sign.
pub fn line(name: &LineName, keys: impl IntoIterator<Item = PublicKey>) -> Delegation {
    Delegation { role: line_role(name), signers: Signers::any_of(keys) }
}

/// The first root and targets, unsigned, with delegations for these lines and the reserved roles, which the targets key
/// signs until they have keys of their own.
pub fn first(
    root: Signers,
    targets: Signers,
    online: &Online,
    lines: Vec<Delegation>,
    expires: Micros,
) -> Result<(Vec<u8>, Vec<u8>), RoleError> {
    let reserved =
        RESERVED_ROLES.iter().map(|(role, _)| Delegation { role: (*role).to_owned(), signers: targets.clone() });
    let content = TargetsContent {
        version: 1,
        expires,
        targets: vec![Target::assignment_keys(std::slice::from_ref(&online.assignment)).0],
        delegations: lines.into_iter().chain(reserved).collect(),
    };
    let content = build_targets(&RoleName::Targets, &content)?;
    let root = build_root(&RootContent {
        version: 1,
        expires,
        root,
        targets,
        snapshot: Signers::any_of([online.snapshot.clone()]),
        timestamp: Signers::any_of([online.timestamp.clone()]),
    })?;
    Ok((root, content))
}

/// Gives a hub its repository, with keys that follow from the seed and these lines unattended: for tests and
/// demonstrations. Whoever knows the seed holds the keys.
pub async fn simple(hub: &Hub, seed: [u8; 32], lines: &[LineName]) -> anyhow::Result<Custody> {
    let custody = Custody::of_seed(seed);
    let mut delegations = Vec::new();
    for name in lines {
        delegations.push(line(name, [held_by_hub(&hub.keys.get_or_make(&Purpose::Line(name.clone()))?)]));
    }
    let public = |(holder, key): &(String, SigningKey)| PublicKey::new(key.verifying_key(), holder.as_str());
    let signers = Signers { keys: custody.root.iter().map(public).collect(), threshold: custody.threshold };
    let (online, expires) = (Online::of(&hub.keys)?, expiry(hub.now(), LIFE)?);
    let (root, targets) = first(signers, Signers::any_of([public(&custody.targets)]), &online, delegations, expires)?;
    let files =
        [roles::sign(&root, &custody.root_keys())?, roles::sign(&targets, std::slice::from_ref(&custody.targets.1))?];
    apply(hub, &files, Applying::default()).await?;
    Ok(custody)
}
