//! From bytes to what a file says, and what no file may say.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use sigstore_tuf::{Key, RoleKeys};
use tributary_release::{RESERVED_ROLES, VerifyingKey, line_paths};
use tributary_wire::{LineName, Micros, Sha256};

use super::document::{Document, HOLDERS, Signed};
use super::{Delegation, PublicKey, RoleError, RoleName, RootContent, Signers, Target, TargetsContent, build};

/// The most signers of one role, and the most delegations: devices read all of it.
const MAX_SIGNERS: usize = 64;
const MAX_DELEGATIONS: usize = 4_096;
/// The longest name of a holder.
const MAX_HOLDER: usize = 100;

/// What a root file says. No signature is checked.
pub fn read_root(bytes: &[u8]) -> Result<RootContent, RoleError> {
    let document = Document::read(bytes)?;
    let Signed::Root(root) = &document.signed else { return Err(kind(&document, "root")) };
    let signers = |role: &str| {
        let listed = root.signed().role(role);
        let listed = listed.ok_or_else(|| RoleError::Malformed(format!("root lists no keys for {role}")))?;
        signers(listed, &root.signed().keys, &document.value[HOLDERS])
    };
    let content = RootContent {
        version: document.header.version,
        expires: document.header.expires,
        root: signers("root")?,
        targets: signers("targets")?,
        snapshot: signers("snapshot")?,
        timestamp: signers("timestamp")?,
    };
    check_same(&document, build::root_value(&content)?)?;
    Ok(content)
}

/// What a targets file says: the top-level one or a delegated role's. No signature is checked.
pub fn read_targets(bytes: &[u8]) -> Result<TargetsContent, RoleError> {
    let document = Document::read(bytes)?;
    let Signed::Targets(targets) = &document.signed else { return Err(kind(&document, "targets")) };
    let mut delegations = Vec::new();
    if let Some(found) = &targets.signed().delegations {
        for role in &found.roles {
            let signers = signers(&role.role_keys(), &found.keys, &document.value[HOLDERS])?;
            delegations.push(Delegation { role: role.name.clone(), signers });
        }
    }
    let mut listed = Vec::new();
    for (path, target) in &targets.signed().targets {
        let sha256 = target.hashes.get("sha256").map(String::as_str).unwrap_or_default();
        let sha256: Sha256 = sha256.parse().map_err(|error| RoleError::Malformed(format!("target {path}: {error}")))?;
        listed.push(Target { path: path.clone(), length: target.length, sha256, custom: target.custom.clone() });
    }
    let (version, expires) = (document.header.version, document.header.expires);
    let content = TargetsContent { version, expires, targets: listed, delegations };
    check_same(&document, build::targets_value(&document.header.role, &content)?)?;
    Ok(content)
}

fn kind(document: &Document, expected: &str) -> RoleError {
    RoleError::Kind { expected: expected.to_owned(), found: document.header.role.to_string() }
}

/// A field that is not understood here could mean something to a device, and a later version would lose it.
fn check_same(document: &Document, understood: Value) -> Result<(), RoleError> {
    if document.value == understood {
        return Ok(());
    }
    let (found, understood) = (document.value.as_object(), understood.as_object().cloned().unwrap_or_default());
    let different = found.into_iter().flatten().find(|(name, value)| understood.get(*name) != Some(value));
    let field = different.map_or("a field is missing", |(name, _)| name);
    let role = &document.header.role;
    Err(RoleError::Malformed(format!("{role}: {field:.60}: not as this program writes it, so it is not trusted")))
}

fn signers(listed: &RoleKeys, keys: &BTreeMap<String, Key>, holders: &Value) -> Result<Signers, RoleError> {
    let mut found = Vec::new();
    for name in &listed.keyids {
        let Some(key) = keys.get(name).filter(|key| key.keytype == "ed25519" && key.scheme == "ed25519") else {
            return Err(RoleError::Malformed(format!("key {name:.64} is missing or is not of the kind ed25519")));
        };
        let key = VerifyingKey::from_hex(&key.keyval.public);
        let key = key.map_err(|error| RoleError::Malformed(format!("key {name:.64}: {error}")))?;
        found.push(PublicKey::new(key, holders[name.as_str()].as_str().unwrap_or_default()));
    }
    // As people look for them.
    found.sort_by_cached_key(|key| (key.holder.clone(), key.id()));
    Ok(Signers { keys: found, threshold: listed.threshold as u64 })
}

/// The paths that a delegated role may sign; `None` for what is no such role.
pub(super) fn paths_of(role: &str) -> Option<String> {
    match role.strip_prefix("models/") {
        Some(line) => LineName::new(line).ok().map(|line| line_paths(&line)),
        None => RESERVED_ROLES.iter().find(|(name, _)| *name == role).map(|(_, paths)| (*paths).to_owned()),
    }
}

fn check_signers(role: &str, signers: &Signers) -> Result<(), RoleError> {
    let malformed = |problem: String| Err(RoleError::Malformed(format!("{role}: {problem}")));
    let different: BTreeSet<String> = signers.keys.iter().map(PublicKey::id).collect();
    let keys = signers.keys.len();
    match () {
        () if different.len() != keys => malformed("a key is listed twice".to_owned()),
        () if keys > MAX_SIGNERS => malformed(format!("{keys} keys, at most {MAX_SIGNERS}")),
        () if signers.threshold == 0 || signers.threshold > keys as u64 => malformed(format!(
            "{} of {}: from 1 to all of them can be asked for",
            counted(signers.threshold, "signature"),
            counted(keys as u64, "key")
        )),
        () => match signers.keys.iter().find(|key| !is_name(&key.holder)) {
            Some(key) => malformed(format!("the holder of key {:.8}: at most {MAX_HOLDER} printable bytes", key.id())),
            None => Ok(()),
        },
    }
}

fn counted(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// Nothing in it moves the cursor of the terminal on which somebody decides whether to sign.
fn is_name(holder: &str) -> bool {
    holder.len() <= MAX_HOLDER && !holder.chars().any(char::is_control)
}

pub(super) fn check_root(content: &RootContent) -> Result<(), RoleError> {
    for (role, signers) in [
        ("root", &content.root),
        ("targets", &content.targets),
        ("snapshot", &content.snapshot),
        ("timestamp", &content.timestamp),
    ] {
        check_signers(role, signers)?;
    }
    Ok(())
}

pub(super) fn check_targets(role: &RoleName, content: &TargetsContent) -> Result<(), RoleError> {
    let malformed = |problem: String| Err(RoleError::Malformed(format!("{role}: {problem}")));
    let mut names = BTreeSet::new();
    for Delegation { role: name, signers } in &content.delegations {
        check_signers(name, signers)?;
        if *role != RoleName::Targets || paths_of(name).is_none() || !names.insert(name) {
            return malformed(format!("delegates {name}: not a role that can be, or one delegated twice"));
        }
    }
    if names.len() > MAX_DELEGATIONS {
        return malformed(format!("{} delegations, at most {MAX_DELEGATIONS}", names.len()));
    }
    let mut paths = BTreeSet::new();
    for Target { path, custom, .. } in &content.targets {
        let own = match role {
            RoleName::Delegated(name) => paths_of(name).is_some_and(|pattern| matches(&pattern, path)),
            // Everything else belongs to a delegated role, which alone devices would ask.
            _ => path == tributary_release::ASSIGNMENT_KEYS,
        };
        if !own || !paths.insert(path) {
            return malformed(format!("the target {path:?} does not belong to it, or stands there twice"));
        }
        if custom.as_ref().is_some_and(|custom| !custom.is_object()) {
            return malformed(format!("the target {path:?}: custom is no object"));
        }
    }
    Ok(())
}

/// `*` stands for one part of a path, or its part up to the next character.
fn matches(pattern: &str, path: &str) -> bool {
    let fits = |(pattern, part): (&str, &str)| pattern == part || pattern == "*" && is_part(part);
    pattern.split('/').count() == path.split('/').count() && pattern.split('/').zip(path.split('/')).all(fits)
}

fn is_part(part: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    !part.is_empty() && !part.starts_with('.') && part.len() <= 200 && part.bytes().all(plain)
}

pub(super) fn check_instant(expires: Micros) -> Result<(), RoleError> {
    match expires.0 {
        // Years of four digits.
        1..=253_402_300_799_999_999 => Ok(()),
        _ => Err(RoleError::Malformed(format!("expires {expires}"))),
    }
}
