//! The hub's own keys, made when they are first needed.
//!
//! ```text
//! keys/snapshot.key  timestamp.key  assignment.key     made at the first start
//! keys/lines/LINE.key                                  of an unattended line, made when a person asks for it
//! keys/ROLE.ID.key                                     further ones, for rotation
//! ```
//!
//! Holding a key gives no right: root and targets say which keys count for which role, and the hub signs with those of
//! its keys that they list.

use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use anyhow::Context;
use rand::TryRngCore;
use rand::rngs::OsRng;
use tributary_release::{KeyId, SigningKey, VerifyingKeys};
use tributary_wire::LineName;

/// What a key of the hub is made for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// Says which metadata belongs together.
    Snapshot,
    /// Says that it is fresh.
    Timestamp,
    /// Signs what each device should run.
    Assignment,
    /// Signs releases of an unattended line.
    Line(LineName),
}

impl Purpose {
    /// Path below the key folder, without the ending.
    fn stem(&self) -> String {
        match self {
            Self::Snapshot => "snapshot".to_owned(),
            Self::Timestamp => "timestamp".to_owned(),
            Self::Assignment => "assignment".to_owned(),
            Self::Line(line) => format!("lines/{line}"),
        }
    }

    fn of_stem(folder: &str, stem: &str) -> Option<Self> {
        match (folder, stem) {
            ("", "snapshot") => Some(Self::Snapshot),
            ("", "timestamp") => Some(Self::Timestamp),
            ("", "assignment") => Some(Self::Assignment),
            ("lines", line) => LineName::new(line).ok().map(Self::Line),
            _ => None,
        }
    }
}

impl std::fmt::Display for Purpose {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Line(line) => f.write_str(&tributary_release::line_role(line)),
            other => f.write_str(&other.stem()),
        }
    }
}

/// The secret keys of the hub.
#[derive(Debug)]
pub struct Keys {
    folder: PathBuf,
    held: RwLock<Vec<(Purpose, SigningKey)>>,
    /// The one that assignments are signed with now.
    assignment: RwLock<SigningKey>,
    /// Held by whoever makes a key that somebody asked for, so that two who ask at once get one.
    pub making: tokio::sync::Mutex<()>,
}

/// What an older version of the program kept beside its keys, and what took its place.
const UNUSED: [(&str, &str); 2] = [
    ("line.key", "every unattended line has a key of its own, below lines/"),
    ("trust.json", "devices trust the root of the signed repository, which enrolment brings"),
];

impl Keys {
    /// Reads the keys in `folder`, making those that every hub has. Files that no longer count are named in the log.
    pub fn open(folder: &Path) -> anyhow::Result<Self> {
        let lines = folder.join("lines");
        std::fs::create_dir_all(&lines).with_context(|| format!("make the key folder {}", lines.display()))?;
        for purpose in [Purpose::Snapshot, Purpose::Timestamp, Purpose::Assignment] {
            open_key(&folder.join(format!("{}.key", purpose.stem())))?;
        }
        let mut held = read_folder(folder, "")?;
        held.extend(read_folder(&lines, "lines")?);
        let assignment = open_key(&folder.join("assignment.key"))?;
        for (name, instead) in UNUSED {
            let path = folder.join(name);
            if path.exists() {
                tracing::warn!(path = %path.display(), instead, "not used any more: delete it once no older hub needs it");
            }
        }
        Ok(Self {
            folder: folder.to_owned(),
            held: RwLock::new(held),
            assignment: RwLock::new(assignment),
            making: tokio::sync::Mutex::default(),
        })
    }

    /// Reads the keys that are there and makes none: for whoever only looks.
    pub fn read(folder: &Path) -> anyhow::Result<Self> {
        let mut held = read_folder(folder, "")?;
        let lines = folder.join("lines");
        if lines.is_dir() {
            held.extend(read_folder(&lines, "lines")?);
        }
        let assignment = SigningKey::load(&folder.join("assignment.key")).context("read the key of assignments")?;
        let (held, assignment) = (RwLock::new(held), RwLock::new(assignment));
        Ok(Self { folder: folder.to_owned(), held, assignment, making: tokio::sync::Mutex::default() })
    }

    /// The key that assignments are signed with.
    pub fn assignment(&self) -> SigningKey {
        self.assignment.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Signs assignments from now on with the first of these keys that the hub holds: those that the repository
    /// announces. `false`: it holds none of them, and nothing changed.
    pub fn announce(&self, announced: &VerifyingKeys) -> bool {
        let ids = announced.ids();
        let held = self.all();
        let Some(key) = ids.iter().find_map(|id| held.iter().find(|key| key.id() == *id)) else { return false };
        *self.assignment.write().unwrap_or_else(PoisonError::into_inner) = key.clone();
        true
    }

    /// All keys that the hub holds for a purpose.
    pub fn of(&self, purpose: &Purpose) -> Vec<SigningKey> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        held.iter().filter(|(of, _)| of == purpose).map(|(_, key)| key.clone()).collect()
    }

    /// All keys that the hub holds, for whatever purpose.
    pub fn all(&self) -> Vec<SigningKey> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        held.iter().map(|(_, key)| key.clone()).collect()
    }

    /// The key that the hub has for a purpose, made if there is none.
    pub fn get_or_make(&self, purpose: &Purpose) -> anyhow::Result<SigningKey> {
        match self.of(purpose).into_iter().next() {
            Some(key) => Ok(key),
            None => self.make(purpose),
        }
    }

    /// A new key for a purpose, beside those that are there. It counts as soon as root or targets list it.
    pub fn make(&self, purpose: &Purpose) -> anyhow::Result<SigningKey> {
        let key = new_key()?;
        self.keep(purpose, &key)?;
        Ok(key)
    }

    /// Keeps a key of [`new_key`] for a purpose.
    pub fn keep(&self, purpose: &Purpose, key: &SigningKey) -> anyhow::Result<()> {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        let stem = purpose.stem();
        let first = self.folder.join(format!("{stem}.key"));
        let path = if first.exists() { self.folder.join(format!("{stem}.{}.key", key.id())) } else { first };
        key.save(&path).context("write a signing key")?;
        held.push((purpose.clone(), key.clone()));
        tracing::info!(%purpose, key = %key.id(), "a key was made");
        Ok(())
    }

    /// Whether the hub holds the key of that name.
    pub fn holds(&self, id: KeyId) -> bool {
        self.all().iter().any(|key| key.id() == id)
    }
}

/// A key that nobody has seen.
pub fn new_key() -> anyhow::Result<SigningKey> {
    let mut seed = [0; 32];
    OsRng.try_fill_bytes(&mut seed).context("take random bytes for a key")?;
    Ok(SigningKey::generate(seed))
}

fn open_key(path: &Path) -> anyhow::Result<SigningKey> {
    if path.exists() {
        return SigningKey::load(path).context("read a signing key");
    }
    let key = new_key()?;
    key.save(path).context("write a signing key")?;
    Ok(key)
}

/// The keys of one folder: first the one named after its purpose alone, then the further ones.
fn read_folder(folder: &Path, name: &str) -> anyhow::Result<Vec<(Purpose, SigningKey)>> {
    let within = || format!("read the key folder {}", folder.display());
    let mut held = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(within)? {
        let path = entry.with_context(within)?.path();
        let file = path.file_name().and_then(|file| file.to_str()).unwrap_or_default();
        let Some(stem) = file.strip_suffix(".key") else { continue };
        let (stem, further) = stem.split_once('.').map_or((stem, ""), |(stem, further)| (stem, further));
        let Some(purpose) = Purpose::of_stem(name, stem) else { continue };
        let key = SigningKey::load(&path).context("read a signing key")?;
        held.push((purpose, further.to_owned(), key));
    }
    held.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
    Ok(held.into_iter().map(|(purpose, _, key)| (purpose, key)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_made_once_kept_private_and_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        let first = Keys::open(&path).unwrap();
        let line = Purpose::Line(LineName::new("card-fraud").unwrap());
        assert!(first.of(&line).is_empty(), "a line has no key here until somebody asks for one");
        let of_line = first.get_or_make(&line).unwrap();
        assert_eq!(first.get_or_make(&line).unwrap().id(), of_line.id());
        let further = first.make(&Purpose::Snapshot).unwrap();
        let again = Keys::open(&path).unwrap();
        let ids = |keys: &Keys| keys.all().iter().map(SigningKey::id).collect::<std::collections::BTreeSet<_>>();
        assert_eq!(ids(&first), ids(&again));
        assert_eq!(ids(&again).len(), 5);
        assert!(again.holds(of_line.id()) && again.holds(further.id()));
        assert!(!again.holds(SigningKey::generate([1; 32]).id()));
        let snapshots: Vec<_> = again.of(&Purpose::Snapshot).iter().map(SigningKey::id).collect();
        assert_eq!(snapshots[1], further.id());
        #[cfg(unix)]
        for name in ["snapshot.key", "timestamp.key", "assignment.key", "lines/card-fraud.key"] {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(path.join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
    }

    #[test]
    fn assignments_are_signed_with_a_key_that_was_announced() {
        let folder = tempfile::tempdir().unwrap();
        let keys = Keys::open(folder.path()).unwrap();
        let (old, stranger) = (keys.assignment(), SigningKey::generate([1; 32]));
        let new = keys.make(&Purpose::Assignment).unwrap();
        assert!(!keys.announce(&VerifyingKeys::new([stranger.verifying_key()])));
        assert_eq!(keys.assignment().id(), old.id());
        assert!(keys.announce(&VerifyingKeys::new([
            stranger.verifying_key(),
            new.verifying_key(),
            old.verifying_key()
        ])));
        assert_eq!(keys.assignment().id(), new.id());
    }
}
