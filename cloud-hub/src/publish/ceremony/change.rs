//! The next version of a file that people sign: what it said, with keys, lines and files added and taken away.

use std::collections::BTreeSet;

use tributary_release::{ASSIGNMENT_KEYS, RESERVED_ROLES, line_role};
use tributary_wire::{LineName, Micros};

use super::super::roles::{Delegation, PublicKey, RootContent, Signers, Target, TargetsContent};

/// How the keys of assignments are called among the roles below targets.
pub const ASSIGNMENTS: &str = "assignments";

/// What is to be different. Roles are those that the file lists keys for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// Keys that may sign from now on. A role that is not delegated yet becomes so, with one signature.
    pub add: Vec<(String, PublicKey)>,
    /// Keys that may no longer sign: by the start of their names, or by their holders.
    pub remove: Vec<(String, String)>,
    /// Keys that others take the place of, in every role that the file lists them for.
    pub replace: Vec<(String, PublicKey)>,
    /// How many signatures a role needs.
    pub threshold: Vec<(String, u64)>,
    /// Roles that are no longer delegated.
    pub drop: Vec<String>,
}

/// Why the next version cannot be written.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ChangeError {
    /// The file lists no keys for that role.
    #[error("{role:?} is no role whose keys stand in {file}; those are {known}")]
    Role {
        /// Asked for.
        role: String,
        /// Which file.
        file: &'static str,
        /// What could be asked for.
        known: String,
    },
    /// No key, or more than one, is meant.
    #[error("{wanted:?} means {found} of the keys of {role}, expected exactly one; they are {known}")]
    Key {
        /// Which role.
        role: String,
        /// Asked for.
        wanted: String,
        /// How many fit.
        found: usize,
        /// Those that there are.
        known: String,
    },
    /// Nothing by that name is there.
    #[error("{what} {name:?} is not there, so it cannot go")]
    Absent {
        /// What kind of thing.
        what: &'static str,
        /// Which one.
        name: String,
    },
}

/// The next root.
pub fn next_root(old: &RootContent, change: &Change, expires: Micros) -> Result<RootContent, ChangeError> {
    let mut next = RootContent { version: old.version + 1, expires, ..old.clone() };
    if let Some(role) = change.drop.first() {
        return Err(not_in_root(role));
    }
    change.carry_out(&mut next, |next, role| match role {
        "root" => Ok(&mut next.root),
        "targets" => Ok(&mut next.targets),
        "snapshot" => Ok(&mut next.snapshot),
        "timestamp" => Ok(&mut next.timestamp),
        other => Err(not_in_root(other)),
    })?;
    let RootContent { root, targets, snapshot, timestamp, .. } = &mut next;
    let all = [("root", root), ("targets", targets), ("snapshot", snapshot), ("timestamp", timestamp)];
    change.replace_in("root", all.into_iter())?;
    Ok(next)
}

fn not_in_root(role: &str) -> ChangeError {
    ChangeError::Role { role: role.to_owned(), file: "root", known: "root, targets, snapshot, timestamp".to_owned() }
}

/// Whose keys stand in targets.
struct Below {
    delegations: Vec<Delegation>,
    assignments: Signers,
}

/// The next top-level targets.
pub fn next_targets(old: &TargetsContent, change: &Change, expires: Micros) -> Result<TargetsContent, ChangeError> {
    let announced = old.targets.iter().find(|target| target.path == ASSIGNMENT_KEYS);
    let announced = announced.and_then(|target| target.listed_keys().ok()).unwrap_or_default();
    let mut below = Below { delegations: old.delegations.clone(), assignments: Signers::any_of(announced) };
    for name in &change.drop {
        let role = role_of(name).ok_or_else(|| not_in_targets(name))?;
        let before = below.delegations.len();
        below.delegations.retain(|delegation| delegation.role != role);
        if below.delegations.len() == before {
            return Err(ChangeError::Absent { what: "role", name: role });
        }
    }
    for (name, _) in &change.add {
        let role = role_of(name).ok_or_else(|| not_in_targets(name))?;
        if role != ASSIGNMENTS && !below.delegations.iter().any(|delegation| delegation.role == role) {
            below.delegations.push(Delegation { role, signers: Signers::any_of([]) });
        }
    }
    change.carry_out(&mut below, |below, name| match role_of(name).ok_or_else(|| not_in_targets(name))? {
        role if role == ASSIGNMENTS => Ok(&mut below.assignments),
        role => {
            let found = below.delegations.iter_mut().find(|delegation| delegation.role == role);
            found.map(|delegation| &mut delegation.signers).ok_or_else(|| not_in_targets(name))
        }
    })?;
    let Below { mut delegations, mut assignments } = below;
    let all = delegations.iter_mut().map(|found| (found.role.as_str(), &mut found.signers));
    change.replace_in("targets", all.chain([(ASSIGNMENTS, &mut assignments)]))?;
    let targets = vec![Target::assignment_keys(&assignments.keys).0];
    Ok(TargetsContent { version: old.version + 1, expires, targets, delegations })
}

fn not_in_targets(role: &str) -> ChangeError {
    let known = format!("{ASSIGNMENTS}, agent, nodes, features and the names of lines");
    ChangeError::Role { role: role.to_owned(), file: "targets", known }
}

/// The next file of a delegated role: files added, replaced or no longer named.
pub fn next_role(
    old: Option<&TargetsContent>,
    add: Vec<Target>,
    drop: &[String],
    expires: Micros,
) -> Result<TargetsContent, ChangeError> {
    let (version, mut targets) = old.map_or((1, Vec::new()), |old| (old.version + 1, old.targets.clone()));
    for path in drop {
        let before = targets.len();
        targets.retain(|target| target.path != *path);
        if targets.len() == before {
            return Err(ChangeError::Absent { what: "file", name: path.clone() });
        }
    }
    for target in add {
        targets.retain(|known| known.path != target.path);
        targets.push(target);
    }
    Ok(TargetsContent { version, expires, targets, delegations: Vec::new() })
}

/// The role below targets that a person means: `agent`, `assignments`, `card-fraud` or `models/card-fraud`.
pub fn role_of(name: &str) -> Option<String> {
    let known = RESERVED_ROLES.iter().map(|(role, _)| *role).chain([ASSIGNMENTS]);
    if known.into_iter().any(|role| role == name) {
        return Some(name.to_owned());
    }
    LineName::new(name.strip_prefix("models/").unwrap_or(name)).ok().map(|line| line_role(&line))
}

impl Change {
    fn replace_in<'a>(
        &self,
        file: &str,
        all: impl Iterator<Item = (&'a str, &'a mut Signers)>,
    ) -> Result<(), ChangeError> {
        let mut all: Vec<_> = all.collect();
        for (wanted, key) in &self.replace {
            let mut found = 0;
            for (role, signers) in &mut all {
                if !signers.keys.iter().any(|known| fits(known, wanted)) {
                    continue;
                }
                let old = meant(role, wanted, signers)?;
                signers.keys.retain(|known| *known != old && known.key != key.key);
                signers.keys.push(key.clone());
                found += 1;
            }
            if found == 0 {
                let known = all.iter().flat_map(|(_, signers)| &signers.keys).map(PublicKey::to_string);
                let known: BTreeSet<String> = known.collect();
                let known = known.into_iter().collect::<Vec<_>>().join(", ");
                return Err(ChangeError::Key { role: file.to_owned(), wanted: wanted.clone(), found, known });
            }
        }
        Ok(())
    }

    fn carry_out<T>(
        &self,
        next: &mut T,
        signers: impl for<'a> Fn(&'a mut T, &str) -> Result<&'a mut Signers, ChangeError>,
    ) -> Result<(), ChangeError> {
        for (role, wanted) in &self.remove {
            let signers = signers(next, role)?;
            let key = meant(role, wanted, signers)?;
            signers.keys.retain(|known| *known != key);
        }
        for (role, key) in &self.add {
            let signers = signers(next, role)?;
            // Given again it only gets the new holder.
            signers.keys.retain(|known| known.key != key.key);
            signers.keys.push(key.clone());
        }
        for (role, threshold) in &self.threshold {
            signers(next, role)?.threshold = *threshold;
        }
        Ok(())
    }
}

fn fits(key: &PublicKey, wanted: &str) -> bool {
    key.holder == wanted || wanted.len() >= 4 && key.id().starts_with(wanted)
}

/// The one key that a person means.
fn meant(role: &str, wanted: &str, signers: &Signers) -> Result<PublicKey, ChangeError> {
    let found: Vec<&PublicKey> = signers.keys.iter().filter(|key| fits(key, wanted)).collect();
    match found.as_slice() {
        [key] => Ok((*key).clone()),
        _ => Err(ChangeError::Key {
            role: role.to_owned(),
            wanted: wanted.to_owned(),
            found: found.len(),
            known: signers.keys.iter().map(PublicKey::to_string).collect::<Vec<_>>().join(", "),
        }),
    }
}
