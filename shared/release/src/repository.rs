//! Where things lie in the signed repository, and what stands beside a package there.
//!
//! The repository is one of The Update Framework (specification 1.0.34): `metadata/` holds the signed roles, `targets/`
//! the files, with consistent snapshots. The paths here are what its delegations speak of.

use serde::{Deserialize, Serialize};
use tributary_wire::{LineName, Micros, Sha256, VersionNumber};

use crate::{Requirements, ViewRef};

/// Target of the top-level role: the public keys that sign assignments, in the form of
/// [`VerifyingKeys`](crate::VerifyingKeys).
pub const ASSIGNMENT_KEYS: &str = "assignments/keys.json";

/// Delegations that exist beside those of the model lines, each with the paths it may sign. `*` stands for one part of
/// a path.
pub const RESERVED_ROLES: [(&str, &str); 3] =
    [("agent", "agent/*"), ("nodes", "nodes/*/*"), ("features", "features/*/*")];

/// The delegated role of a model line; it may sign [`line_paths`].
pub fn line_role(line: &LineName) -> String {
    format!("models/{line}")
}

/// The paths that belong to a model line.
pub fn line_paths(line: &LineName) -> String {
    format!("models/{line}/*")
}

/// The target path of a package.
pub fn package_path(line: &LineName, version: VersionNumber) -> String {
    format!("models/{line}/v{version}.tpk")
}

/// The target path of an image for sensor nodes of one type, such as `nodes/vibration/v3.img`.
pub fn node_path(kind: &str, version: u32) -> String {
    format!("nodes/{kind}/v{version}.img")
}

/// Where a target lies below `targets/`: with consistent snapshots its file name carries its hash.
pub fn hashed_path(path: &str, sha256: &Sha256) -> String {
    match path.rsplit_once('/') {
        Some((folder, name)) => format!("{folder}/{sha256}.{name}"),
        None => format!("{sha256}.{path}"),
    }
}

/// What the targets metadata says about a package beside its length and hash, under the name `tributary` of the
/// target's `custom`: enough for a device to see, before it downloads anything, whether it can run it.
///
/// Integers and text only: the canonical form that is signed knows no other numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageCustom {
    /// The model line.
    pub line: LineName,
    /// The version within its line.
    pub version: VersionNumber,
    /// When it was published, UTC microseconds.
    pub published: Micros,
    /// The feature view that it carries.
    pub view: ViewRef,
    /// What it needs from a device.
    pub requires: Requirements,
}

/// The name under which [`PackageCustom`] stands in a target's `custom`.
pub const CUSTOM: &str = "tributary";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_stands_before_the_file_name_and_not_before_the_path() {
        let line = LineName::new("card-fraud").unwrap();
        let path = package_path(&line, VersionNumber(7));
        assert_eq!(path, "models/card-fraud/v7.tpk");
        let hash = Sha256([0xab; 32]);
        assert_eq!(hashed_path(&path, &hash), format!("models/card-fraud/{hash}.v7.tpk"));
        assert_eq!(hashed_path("x", &hash), format!("{hash}.x"));
    }
}
