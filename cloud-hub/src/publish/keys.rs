//! The hub's own keys, made at its first start, and the file of public keys that devices are given.

use std::path::Path;

use anyhow::Context;
use rand::TryRngCore;
use rand::rngs::OsRng;
use tributary_release::{SigningKey, VerifyingKeys};

/// The secret keys of the hub. Two, because they prove different things and will live in different places.
#[derive(Debug, Clone)]
pub struct Keys {
    /// Signs releases of unattended lines.
    pub line: SigningKey,
    /// Signs assignments.
    pub assignment: SigningKey,
}

/// Name of the file with the public keys.
pub const TRUST_FILE: &str = "trust.json";

impl Keys {
    /// Reads the keys in `folder`, making those that are not there, and writes the public ones beside them.
    pub fn open(folder: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| format!("make the key folder {}", folder.display()))?;
        let keys =
            Self { line: open_key(&folder.join("line.key"))?, assignment: open_key(&folder.join("assignment.key"))? };
        let trust = keys.trust().to_json();
        let path = folder.join(TRUST_FILE);
        if std::fs::read_to_string(&path).ok().as_deref() != Some(trust.as_str()) {
            tributary_process::durable::write(&path, trust.as_bytes())
                .with_context(|| format!("write {}", path.display()))?;
        }
        tracing::info!(trust = %path.display(), "devices need this file of public keys");
        Ok(keys)
    }

    /// The public keys, for devices.
    pub fn trust(&self) -> VerifyingKeys {
        VerifyingKeys::new([self.line.verifying_key(), self.assignment.verifying_key()])
    }
}

fn open_key(path: &Path) -> anyhow::Result<SigningKey> {
    if path.exists() {
        return SigningKey::load(path).context("read a signing key");
    }
    let mut seed = [0; 32];
    OsRng.try_fill_bytes(&mut seed).context("take random bytes for a key")?;
    let key = SigningKey::generate(seed);
    // Written beside and renamed: a crash must not leave half a key that every later start trips over.
    let half = path.with_extension("new");
    let _ = std::fs::remove_file(&half);
    key.save(&half).context("write a signing key")?;
    std::fs::rename(&half, path).with_context(|| format!("name the key {}", path.display()))?;
    tributary_process::durable::sync_folder(path.parent().unwrap_or(Path::new(".")))?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_made_once_kept_private_and_their_public_halves_lie_beside() {
        let folder = tempfile::tempdir().unwrap();
        let first = Keys::open(&folder.path().join("keys")).unwrap();
        let again = Keys::open(&folder.path().join("keys")).unwrap();
        assert_eq!((first.line.id(), first.assignment.id()), (again.line.id(), again.assignment.id()));
        assert_ne!(first.line.id(), first.assignment.id());
        let trust = VerifyingKeys::load(&folder.path().join("keys").join(TRUST_FILE)).unwrap();
        assert!(trust.get(first.line.id()).is_some() && trust.get(first.assignment.id()).is_some());
        #[cfg(unix)]
        for name in ["line.key", "assignment.key"] {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(folder.path().join("keys").join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
    }
}
