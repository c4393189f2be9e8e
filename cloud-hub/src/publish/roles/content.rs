//! What files say, apart from their bytes.

use serde_json::Value;
use tributary_release::{KeyError, VerifyingKey, VerifyingKeys, digest};
use tributary_wire::{Micros, Sha256};

use super::{PublicKey, Signers};

/// What a root file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootContent {
    /// Counts up by one.
    pub version: u64,
    /// Until when.
    pub expires: Micros,
    /// Who may sign root.
    pub root: Signers,
    /// Who may sign targets.
    pub targets: Signers,
    /// Who may sign snapshots.
    pub snapshot: Signers,
    /// Who may sign timestamps.
    pub timestamp: Signers,
}

/// What a targets file says: the top-level one, or that of a delegated role.
#[derive(Debug, Clone, PartialEq)]
pub struct TargetsContent {
    /// Counts up.
    pub version: u64,
    /// Until when.
    pub expires: Micros,
    /// The files that it vouches for.
    pub targets: Vec<Target>,
    /// The roles below; empty in a delegated role.
    pub delegations: Vec<Delegation>,
}

/// A file that a targets role vouches for.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// Its path, such as `models/card-fraud/v7.tpk`.
    pub path: String,
    /// Its length in bytes.
    pub length: u64,
    /// Its hash.
    pub sha256: Sha256,
    /// What else is said of it: an object without floating-point numbers.
    pub custom: Option<Value>,
}

impl Target {
    /// The top-level target with the keys that sign assignments, and the content of its file. The keys stand beside it
    /// too: who signs on another machine sees them, and the hub can write the file from them.
    pub fn assignment_keys(keys: &[PublicKey]) -> (Self, String) {
        let content = VerifyingKeys::new(keys.iter().map(|key| key.key.clone())).to_json();
        let listed: Vec<Value> =
            keys.iter().map(|key| serde_json::json!({"public": key.key.to_hex(), "holder": key.holder})).collect();
        let target = Self {
            path: tributary_release::ASSIGNMENT_KEYS.to_owned(),
            length: content.len() as u64,
            sha256: digest(content.as_bytes()),
            custom: Some(serde_json::json!({ tributary_release::CUSTOM: { "keys": listed } })),
        };
        (target, content)
    }

    /// The keys that [`assignment_keys`](Self::assignment_keys) wrote beside the target.
    pub fn listed_keys(&self) -> Result<Vec<PublicKey>, KeyError> {
        let custom = self.custom.as_ref().map(|custom| &custom[tributary_release::CUSTOM]["keys"]);
        let listed = custom.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        listed
            .iter()
            .map(|key| {
                let public = VerifyingKey::from_hex(key["public"].as_str().unwrap_or_default())?;
                Ok(PublicKey::new(public, key["holder"].as_str().unwrap_or_default()))
            })
            .collect()
    }
}

/// A role below targets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delegation {
    /// Its name, such as `models/card-fraud`. Which paths it may sign follows from it.
    pub role: String,
    /// Who may sign it.
    pub signers: Signers,
}
