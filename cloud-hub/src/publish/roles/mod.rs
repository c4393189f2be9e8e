//! The signed files of the repository: what they say, how they are written, signed and checked.
//!
//! Bytes in, bytes out: nothing here reads files, the catalog or a clock. The repository is one of The Update Framework
//! (specification 1.0.34); what is written here is read, put into its canonical form and verified by the same code as on
//! devices, and this module is the only one of the hub that knows it.
//!
//! A file is built unsigned ([`build_root`], [`build_targets`]), [`sign`]ed on as many machines as its threshold asks
//! for, put together with [`merge`], and accepted with [`verify`] alone. [`read_root`] and [`read_targets`] give back
//! what was built; [`describe`] says in words what a new version changes.
//!
//! Who holds a key is written beside the keys, in the signed part (`x-tributary-holders`), so that people who sign a
//! change see names. A delegated role names itself (`x-tributary-role`): the specification leaves that to file names,
//! which a carried file may lose.

mod build;
mod content;
mod describe;
mod document;
mod read;
mod sign;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use tributary_release::{VerifyingKey, digest};
use tributary_wire::Sha256;

pub use build::{build_root, build_targets, sign_delegated, sign_snapshot, sign_timestamp};
pub use content::{Delegation, RootContent, Target, TargetsContent};
pub use describe::describe;
pub use document::{Header, MAX_BYTES, header};
pub use read::{read_root, read_targets};
pub use sign::{Progress, listed, merge, progress, sign, verify};

/// The version of the specification that the files follow.
pub const SPECIFICATION: &str = "1.0.34";

/// The role of a signed file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RoleName {
    /// Says which keys belong to which role.
    Root,
    /// Delegates to lines and the other delegated roles, and names the keys that sign assignments.
    Targets,
    /// Says which versions of the files belong together.
    Snapshot,
    /// Says which snapshot is the newest; short-lived.
    Timestamp,
    /// A role below targets, such as `models/card-fraud` or `agent`.
    Delegated(String),
}

impl RoleName {
    /// The role as metadata names it.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Root => "root",
            Self::Targets => "targets",
            Self::Snapshot => "snapshot",
            Self::Timestamp => "timestamp",
            Self::Delegated(name) => name,
        }
    }

    /// The file's name in the repository: with its version in front, and encoded.
    pub fn file_name(&self, version: u64) -> String {
        let name = self.as_str().replace('/', "%2F");
        if *self == Self::Timestamp { "timestamp.json".to_owned() } else { format!("{version}.{name}.json") }
    }
}

impl fmt::Display for RoleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for RoleName {
    type Err = RoleError;

    fn from_str(text: &str) -> Result<Self, RoleError> {
        match text {
            "root" => Ok(Self::Root),
            "targets" => Ok(Self::Targets),
            "snapshot" => Ok(Self::Snapshot),
            "timestamp" => Ok(Self::Timestamp),
            name => read::paths_of(name).map(|_| Self::Delegated(name.to_owned())).ok_or_else(|| {
                let expected = "root, targets, snapshot, timestamp, agent, nodes, features or models/LINE";
                RoleError::Malformed(format!("{text:?} is no role; expected {expected}"))
            }),
        }
    }
}

/// Why a file is refused.
#[derive(Debug, thiserror::Error)]
pub enum RoleError {
    /// More bytes than any such file has.
    #[error("{found} bytes; signed metadata has at most {MAX_BYTES}")]
    Size {
        /// How many.
        found: usize,
    },
    /// More bytes than devices take of this role.
    #[error("{role} {version} has {found} bytes, devices take at most {most} of it")]
    Large {
        /// Which role.
        role: RoleName,
        /// Which version of it.
        version: u64,
        /// How many bytes it has.
        found: u64,
        /// How many it may have.
        most: u64,
    },
    /// Not JSON, or not the fields of metadata.
    #[error("not signed metadata: {0}")]
    Json(#[from] serde_json::Error),
    /// The verifier of the devices refuses it.
    #[error(transparent)]
    Verifier(#[from] sigstore_tuf::Error),
    /// Devices could not make sense of it, or would make another sense of it.
    #[error("{0}")]
    Malformed(String),
    /// Another role's file.
    #[error("this is {found}, expected {expected}")]
    Kind {
        /// Asked for.
        expected: String,
        /// There.
        found: String,
    },
    /// Nobody may sign this role.
    #[error("{by} knows no role {role}")]
    Unlisted {
        /// Which role.
        role: RoleName,
        /// What lists keys, such as `targets 4`.
        by: String,
    },
    /// Too few of those that may sign have signed.
    #[error("{role} {version} needs {needed} of the signatures that {by} lists and has {found}; missing: {missing}")]
    Threshold {
        /// Which role.
        role: RoleName,
        /// Which version of it.
        version: u64,
        /// What lists keys.
        by: String,
        /// How many are needed.
        needed: u64,
        /// How many there are.
        found: usize,
        /// Who could sign yet.
        missing: String,
    },
}

/// A public key and who holds its secret half.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    /// The key.
    pub key: VerifyingKey,
    /// In words, such as `Alice` or `hub`; may be empty.
    pub holder: String,
}

impl PublicKey {
    /// A key and its holder.
    pub fn new(key: VerifyingKey, holder: impl Into<String>) -> Self {
        Self { key, holder: holder.into() }
    }

    /// Its name in metadata.
    pub fn id(&self) -> String {
        key_id(&self.key)
    }
}

/// The start of the key's name, and its holder.
impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.id()[..8])?;
        if self.holder.is_empty() { Ok(()) } else { write!(f, " ({})", self.holder) }
    }
}

/// The name of a key in metadata: SHA-256 over its canonical JSON, in hexadecimal.
pub fn key_id(key: &VerifyingKey) -> String {
    key_hash(key).to_string()
}

fn key_hash(key: &VerifyingKey) -> Sha256 {
    let json = format!(r#"{{"keytype":"ed25519","keyval":{{"public":"{}"}},"scheme":"ed25519"}}"#, key.to_hex());
    digest(json.as_bytes())
}

/// Who may sign a role, and how many of them it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signers {
    /// The keys.
    pub keys: Vec<PublicKey>,
    /// How many of them have to sign.
    pub threshold: u64,
}

impl Signers {
    /// One signature of any of these keys.
    pub fn any_of(keys: impl IntoIterator<Item = PublicKey>) -> Self {
        Self { keys: keys.into_iter().collect(), threshold: 1 }
    }

    /// Whether a key is among them.
    pub fn has(&self, key: &VerifyingKey) -> bool {
        self.keys.iter().any(|known| known.key == *key)
    }
}

/// How one file of metadata names another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileMeta {
    /// Its version.
    pub version: u64,
    /// Its length in bytes.
    pub length: u64,
    /// Its hash.
    pub sha256: Sha256,
}

impl FileMeta {
    /// Of a file in its byte form.
    pub fn of(version: u64, bytes: &[u8]) -> Self {
        Self { version, length: bytes.len() as u64, sha256: digest(bytes) }
    }
}

/// The files that a snapshot lists, by their names without versions, such as `models/card-fraud.json`.
pub type Files = BTreeMap<String, FileMeta>;
