//! From what a file shall say to its bytes.

use serde_json::{Map, Value, json};
use tributary_release::SigningKey;
use tributary_wire::Micros;

use super::document::{HOLDERS, ROLE, unsigned};
use super::{
    Delegation, FileMeta, Files, RoleError, RoleName, RootContent, SPECIFICATION, Signers, TargetsContent, read, sign,
};

/// The next root file, unsigned.
pub fn build_root(content: &RootContent) -> Result<Vec<u8>, RoleError> {
    unsigned(&root_value(content)?)
}

/// The next file of the top-level targets or of a delegated role, unsigned.
pub fn build_targets(role: &RoleName, content: &TargetsContent) -> Result<Vec<u8>, RoleError> {
    unsigned(&targets_value(role, content)?)
}

/// The next file of a delegated role, signed with these keys.
pub fn sign_delegated(role: &RoleName, content: &TargetsContent, keys: &[SigningKey]) -> Result<Vec<u8>, RoleError> {
    sign(&build_targets(role, content)?, keys)
}

/// The next snapshot: `files` are those of targets and of every delegated role.
pub fn sign_snapshot(version: u64, expires: Micros, files: &Files, keys: &[SigningKey]) -> Result<Vec<u8>, RoleError> {
    let meta: Map<String, Value> = files.iter().map(|(name, file)| (name.clone(), file_value(*file))).collect();
    sign(&unsigned(&with_header("snapshot", version, expires, [("meta", meta.into())])?)?, keys)
}

/// The next timestamp.
pub fn sign_timestamp(
    version: u64,
    expires: Micros,
    snapshot: FileMeta,
    keys: &[SigningKey],
) -> Result<Vec<u8>, RoleError> {
    let meta = json!({ "snapshot.json": file_value(snapshot) });
    sign(&unsigned(&with_header("timestamp", version, expires, [("meta", meta)])?)?, keys)
}

pub(super) fn root_value(content: &RootContent) -> Result<Value, RoleError> {
    read::check_root(content)?;
    let mut keys = Keys::default();
    let mut roles = Map::new();
    for (role, signers) in [
        ("root", &content.root),
        ("targets", &content.targets),
        ("snapshot", &content.snapshot),
        ("timestamp", &content.timestamp),
    ] {
        roles.insert(role.to_owned(), json!({ "keyids": keys.add(signers), "threshold": signers.threshold }));
    }
    let fields = [("consistent_snapshot", json!(true)), ("roles", roles.into())];
    let mut value = with_header("root", content.version, content.expires, fields)?;
    keys.holders_into(&mut value);
    value["keys"] = keys.keys.into();
    Ok(value)
}

pub(super) fn targets_value(role: &RoleName, content: &TargetsContent) -> Result<Value, RoleError> {
    read::check_targets(role, content)?;
    let mut targets = Map::new();
    for target in &content.targets {
        let mut entry = json!({ "length": target.length, "hashes": { "sha256": target.sha256 } });
        if let Some(custom) = &target.custom {
            entry["custom"] = custom.clone();
        }
        targets.insert(target.path.clone(), entry);
    }
    let mut value = with_header("targets", content.version, content.expires, [("targets", targets.into())])?;
    if let RoleName::Delegated(name) = role {
        value[ROLE] = json!(name);
        return Ok(value);
    }
    let mut keys = Keys::default();
    let mut delegations: Vec<&Delegation> = content.delegations.iter().collect();
    delegations.sort_by(|a, b| a.role.cmp(&b.role));
    let mut roles = Vec::new();
    for Delegation { role, signers } in delegations {
        roles.push(json!({
            "name": role, "keyids": keys.add(signers), "threshold": signers.threshold,
            "paths": [read::paths_of(role)],
            // A path belongs to one role: no other one is asked for it.
            "terminating": true,
        }));
    }
    keys.holders_into(&mut value);
    value["delegations"] = json!({ "keys": keys.keys, "roles": roles });
    Ok(value)
}

/// Keys as they are met, and who holds them.
#[derive(Default)]
struct Keys {
    keys: Map<String, Value>,
    holders: Map<String, Value>,
}

impl Keys {
    /// The names of these keys, in their order.
    fn add(&mut self, signers: &Signers) -> Vec<String> {
        let mut names = Vec::new();
        for key in &signers.keys {
            let name = key.id();
            if !key.holder.is_empty() {
                self.holders.insert(name.clone(), json!(key.holder));
            }
            let value = json!({ "keytype": "ed25519", "scheme": "ed25519", "keyval": { "public": key.key.to_hex() } });
            self.keys.insert(name.clone(), value);
            names.push(name);
        }
        names.sort_unstable();
        names
    }

    fn holders_into(&mut self, value: &mut Value) {
        if !self.holders.is_empty() {
            value[HOLDERS] = std::mem::take(&mut self.holders).into();
        }
    }
}

fn with_header<const N: usize>(
    kind: &str,
    version: u64,
    expires: Micros,
    fields: [(&str, Value); N],
) -> Result<Value, RoleError> {
    // The specification has no parts of seconds.
    let expires = Micros(expires.0.div_euclid(Micros::SECOND).saturating_mul(Micros::SECOND));
    read::check_instant(expires)?;
    let mut value = json!({
        "_type": kind, "spec_version": SPECIFICATION, "version": version, "expires": expires.to_string(),
    });
    for (name, field) in fields {
        value[name] = field;
    }
    Ok(value)
}

fn file_value(file: FileMeta) -> Value {
    json!({ "version": file.version, "length": file.length, "hashes": { "sha256": file.sha256 } })
}
