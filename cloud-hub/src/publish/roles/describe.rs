//! What a new version of a file changes, in words: for the person who is asked to sign it.

use std::collections::BTreeMap;

use super::{
    PublicKey, RoleError, RoleName, RootContent, Signers, Target, TargetsContent, header, read_root, read_targets,
};

/// One sentence per change from `old` to `new`; against nothing, all that `new` says.
pub fn describe(old: Option<&[u8]>, new: &[u8]) -> Result<Vec<String>, RoleError> {
    let header = header(new)?;
    let mut lines = Vec::new();
    if let Some(old) = old {
        let before = super::header(old)?;
        if before.role != header.role {
            return Err(RoleError::Kind { expected: header.role.to_string(), found: before.role.to_string() });
        }
        if before.version.checked_add(1) != Some(header.version) {
            lines.push(format!("version {} follows {}: this is not the next one", header.version, before.version));
        }
        if before.expires != header.expires {
            lines.push(format!("expires {} (was {})", header.expires, before.expires));
        }
    } else {
        lines.push(format!("expires {}", header.expires));
    }
    match header.role {
        RoleName::Root => root(&mut lines, old.map(read_root).transpose()?.as_ref(), &read_root(new)?),
        RoleName::Targets | RoleName::Delegated(_) => {
            targets(&mut lines, old.map(read_targets).transpose()?.as_ref(), &read_targets(new)?);
        }
        RoleName::Snapshot | RoleName::Timestamp => {}
    }
    if lines.is_empty() {
        lines.push("nothing but the version changes".to_owned());
    }
    Ok(lines)
}

fn root(lines: &mut Vec<String>, old: Option<&RootContent>, new: &RootContent) {
    for (role, before, after) in [
        ("root", old.map(|old| &old.root), &new.root),
        ("targets", old.map(|old| &old.targets), &new.targets),
        ("snapshot", old.map(|old| &old.snapshot), &new.snapshot),
        ("timestamp", old.map(|old| &old.timestamp), &new.timestamp),
    ] {
        signers(lines, role, before, after);
    }
}

fn targets(lines: &mut Vec<String>, old: Option<&TargetsContent>, new: &TargetsContent) {
    let roles = |content: &TargetsContent| -> BTreeMap<String, Signers> {
        content.delegations.iter().map(|found| (found.role.clone(), found.signers.clone())).collect()
    };
    let (before, after) = (old.map(roles).unwrap_or_default(), roles(new));
    for (role, listed) in &after {
        signers(lines, role, before.get(role), listed);
    }
    for role in before.keys().filter(|role| !after.contains_key(*role)) {
        lines.push(format!("{role}: nobody may sign it any longer; devices refuse what it names"));
    }
    let files = |content: &TargetsContent| -> BTreeMap<String, Target> {
        content.targets.iter().map(|target| (target.path.clone(), target.clone())).collect()
    };
    let (before, after) = (old.map(files).unwrap_or_default(), files(new));
    for (path, target) in &after {
        match before.get(path) {
            Some(known) if known == target => {}
            known if path == tributary_release::ASSIGNMENT_KEYS => assignment_keys(lines, known, target),
            Some(_) => lines.push(format!("{path}: other content, {} bytes, {}", target.length, target.sha256)),
            None => lines.push(format!("{path}: new, {} bytes, {}", target.length, target.sha256)),
        }
    }
    for path in before.keys().filter(|path| !after.contains_key(*path)) {
        lines.push(format!("{path}: gone; devices no longer install it"));
    }
}

fn assignment_keys(lines: &mut Vec<String>, old: Option<&Target>, new: &Target) {
    let keys = |target: &Target| target.listed_keys().ok();
    let as_signers = |keys: Vec<PublicKey>| Signers { keys, threshold: 1 };
    // The hash alone decides; a list beside it that is not that of the file would deceive who signs.
    let honest = keys(new).filter(|keys| Target::assignment_keys(keys).0.sha256 == new.sha256);
    match honest {
        None => lines.push(format!("assignments: keys in a file of its own, {}: see what it holds", new.sha256)),
        Some(after) => {
            let before = old.and_then(keys).map(as_signers);
            signers(lines, "assignments", before.as_ref(), &as_signers(after));
        }
    }
}

fn signers(lines: &mut Vec<String>, role: &str, old: Option<&Signers>, new: &Signers) {
    let list = |keys: &[PublicKey]| keys.iter().map(PublicKey::to_string).collect::<Vec<_>>().join(", ");
    let Some(old) = old else {
        let needed = if new.keys.len() == 1 { String::new() } else { format!("{} of ", new.threshold) };
        lines.push(format!("{role}: is signed by {needed}{}", list(&new.keys)));
        return;
    };
    for key in new.keys.iter().filter(|key| !old.has(&key.key)) {
        lines.push(format!("{role}: key {key} may sign from now on"));
    }
    for key in old.keys.iter().filter(|key| !new.has(&key.key)) {
        lines.push(format!("{role}: key {key} may no longer sign"));
    }
    for key in &new.keys {
        let known = old.keys.iter().find(|known| known.key == key.key);
        if let Some(known) = known.filter(|known| known.holder != key.holder) {
            lines.push(format!("{role}: key {known} is held by {:?} now", key.holder));
        }
    }
    if old.threshold != new.threshold {
        lines.push(format!("{role}: needs {} signatures (was {})", new.threshold, old.threshold));
    }
}
