//! What is in backups, and whether they are whole.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::create::{PREFIX, SUFFIX};
use super::manifest::{LAKE, LakeFile, Manifest};
use super::{BackupError, archive, restore, trees};

/// What a verification found.
#[derive(Debug, Clone, Serialize)]
pub struct Verified {
    /// What the backup says about itself.
    pub manifest: Manifest,
    /// Files that it names and a lake does not have, if one was looked at.
    pub missing: Option<Vec<LakeFile>>,
}

/// Reads a whole backup and checks every hash; with a lake also whether it has the files that the backup names.
pub fn verify(path: &Path, lake: Option<&Path>) -> Result<Verified, BackupError> {
    let mut text = Vec::new();
    let manifest = archive::read(path, &mut |member, from| {
        if member.path == LAKE {
            from.read_to_end(&mut text).map_err(BackupError::file("read", path))?;
        }
        Ok(())
    })?;
    let missing = match lake {
        None => None,
        Some(lake) => Some(restore::lost(&restore::lake_files(path, &text)?, &trees::files(lake)?)),
    };
    Ok(Verified { manifest, missing })
}

/// A backup in a folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Where it is.
    pub path: PathBuf,
    /// How long it is.
    pub bytes: u64,
    /// When it was taken, UTC microseconds; none: it does not say.
    pub made: Option<i64>,
    /// Why it cannot be read, if so.
    pub problem: Option<String>,
}

/// Backups in a folder by the names that they get, oldest first. Only their beginnings are read.
pub fn list(folder: &Path) -> Result<Vec<Listed>, BackupError> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(BackupError::file("list", folder))? {
        let entry = entry.map_err(BackupError::file("list", folder))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with(PREFIX) || !name.ends_with(SUFFIX) {
            continue;
        }
        let path = entry.path();
        let bytes = entry.metadata().map_or(0, |found| found.len());
        let (made, problem) = match archive::manifest(&path) {
            Ok(manifest) => (Some(manifest.made.0), None),
            Err(error) => (None, Some(crate::api::chain(&error))),
        };
        found.push(Listed { path, bytes, made, problem });
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}
