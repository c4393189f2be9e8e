//! What a backup says about itself: its first member.

use serde::{Deserialize, Serialize};
use tributary_wire::{AuditHead, Micros, Sha256};

/// What [`Manifest::format`] says.
pub const FORMAT: &str = "tributary-hub-backup";
/// The form that this program writes, and the highest that it reads.
pub const VERSION: u32 = 1;
/// Name of the manifest, the first member.
pub const MANIFEST: &str = "manifest.json";
/// Name of the catalog, the member after it.
pub const CATALOG: &str = "catalog.db";
/// Name of the list of the lake's files.
pub const LAKE: &str = "lake.jsonl";
/// Name of the settings that the hub ran with.
pub const SETTINGS: &str = "config.toml";

/// A backup's first member: what the others are, and of which hub.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// `tributary-hub-backup`.
    pub format: String,
    /// Version of the form.
    pub version: u32,
    /// When the copy of the catalog was taken, UTC microseconds: what came later is not in it.
    pub made: Micros,
    /// Version of the program that made it.
    pub program: String,
    /// Fingerprint of the authority that devices know the hub by; none: it lies outside the data folder.
    pub authority: Option<Sha256>,
    /// Number of the catalog's newest migration.
    pub migration: i64,
    /// Newest entry of the audit log.
    pub audit: Head,
    /// The lake's files at that time.
    pub lake: LakeCounts,
    /// Files that the hub needs and that lie outside its data folder, so that they are not here.
    pub outside: Vec<String>,
    /// Everything else in the file, in its order.
    pub members: Vec<Member>,
}

/// An entry of the audit log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Its number.
    pub number: u64,
    /// Its hash.
    pub hash: Sha256,
}

impl From<AuditHead> for Head {
    fn from(head: AuditHead) -> Self {
        Self { number: head.number, hash: head.hash }
    }
}

/// How much the lake held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LakeCounts {
    /// Files.
    pub files: u64,
    /// Their rows.
    pub rows: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Whether the files were copied, into the folder `lake` beside the backup.
    pub copied: bool,
}

/// One file in a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its path below the hub's data folder.
    pub path: String,
    /// How many bytes.
    pub length: u64,
    /// Their hash.
    pub sha256: Sha256,
}

/// A line of `lake.jsonl`: a file of the lake as the catalog names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LakeFile {
    /// Place in the order of commits.
    pub number: i64,
    /// Path below the lake's folder.
    pub path: String,
    /// How many rows.
    pub rows: u64,
    /// How many bytes.
    pub bytes: u64,
}

impl Manifest {
    /// Bytes of all members.
    pub fn bytes(&self) -> u64 {
        self.members.iter().map(|member| member.length).sum()
    }
}

/// Whether a member's path stays below the folder that it is unpacked into, whatever the system.
pub fn is_plain(path: &str) -> bool {
    let part = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains(['\\', ':', '\0']);
    path.len() <= 512 && path.split('/').all(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_members_never_lead_out_of_the_folder() {
        for good in ["catalog.db", "keys/lines/card-fraud.key", "quarantine/edge-1/01J.batch"] {
            assert!(is_plain(good), "{good}");
        }
        for bad in ["", "/etc/passwd", "../keys", "keys/../../x", "keys//x", "./x", "c:\\x", "keys/"] {
            assert!(!is_plain(bad), "{bad}");
        }
    }
}
