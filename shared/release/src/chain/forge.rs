//! A repository for tests that anybody may spoil: every role's content, keys, version and expiry can be set, and what is
//! written is signed by whichever keys the test says, rightful or not.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use serde_json::{Map, Value, json};
use tributary_wire::Micros;

use super::{Fetched, MetadataFiles, Source};
use crate::{SigningKey, digest, hashed_path};

/// Who signs a role, and how many of them it takes.
#[derive(Debug, Clone)]
pub struct Signers {
    /// The keys that count.
    pub keys: Vec<SigningKey>,
    /// How many have to sign.
    pub threshold: usize,
}

impl Signers {
    /// One key.
    pub fn one(seed: u8) -> Self {
        Self { keys: vec![SigningKey::generate([seed; 32])], threshold: 1 }
    }
}

/// The roles of a small repository: root (2 of 3), targets, snapshot, timestamp, and delegated roles.
#[derive(Debug, Clone)]
pub struct Forge {
    /// Version of the next root.
    pub root_version: u64,
    /// Version of the next targets.
    pub targets_version: u64,
    /// Version of the next snapshot.
    pub snapshot_version: u64,
    /// Version of the next timestamp.
    pub timestamp_version: u64,
    /// Keys of the root.
    pub root: Signers,
    /// Keys of the top-level targets.
    pub targets: Signers,
    /// Keys of the snapshot.
    pub snapshot: Signers,
    /// Keys of the timestamp.
    pub timestamp: Signers,
    /// When everything expires …
    pub expires: Micros,
    /// … but for these roles.
    pub expired: BTreeMap<String, Micros>,
    /// Targets of the top-level role: path, content, custom.
    pub files: BTreeMap<String, (Vec<u8>, Option<Value>)>,
    /// Delegated roles by name.
    pub delegated: BTreeMap<String, Delegated>,
    /// Who signs a delegated role in place of its rightful keys.
    pub impostors: BTreeMap<String, Vec<SigningKey>>,
}

/// A delegated role.
#[derive(Debug, Clone)]
pub struct Delegated {
    /// Keys that the delegation names.
    pub signers: Signers,
    /// Paths that it may list.
    pub paths: Vec<String>,
    /// Version of the next file.
    pub version: u64,
    /// Its targets.
    pub files: BTreeMap<String, (Vec<u8>, Option<Value>)>,
}

impl Default for Forge {
    fn default() -> Self {
        let root = [1, 2, 3].map(|seed| SigningKey::generate([seed; 32])).to_vec();
        Self {
            root_version: 1,
            targets_version: 1,
            snapshot_version: 1,
            timestamp_version: 1,
            root: Signers { keys: root, threshold: 2 },
            targets: Signers::one(10),
            snapshot: Signers::one(11),
            timestamp: Signers::one(12),
            expires: Micros(4_000_000_000_000_000),
            expired: BTreeMap::new(),
            files: BTreeMap::new(),
            delegated: BTreeMap::new(),
            impostors: BTreeMap::new(),
        }
    }
}

impl Forge {
    /// A repository with one model line, signed by one key.
    pub fn with_line(line: &str, seed: u8) -> Self {
        let mut forge = Self::default();
        let delegated = Delegated {
            signers: Signers::one(seed),
            paths: vec![format!("models/{line}/*")],
            version: 1,
            files: BTreeMap::new(),
        };
        forge.delegated.insert(format!("models/{line}"), delegated);
        forge
    }

    fn end(&self, role: &str) -> Micros {
        self.expired.get(role).copied().unwrap_or(self.expires)
    }

    /// The root file, signed by these keys.
    pub fn root_file(&self, keys: &[SigningKey]) -> Vec<u8> {
        let mut all = Map::new();
        let mut roles = Map::new();
        let named = [
            ("root", &self.root),
            ("targets", &self.targets),
            ("snapshot", &self.snapshot),
            ("timestamp", &self.timestamp),
        ];
        for (role, signers) in named {
            roles.insert(role.into(), role_value(signers, &mut all));
        }
        let fields = json!({ "consistent_snapshot": true, "keys": all, "roles": roles });
        signed("root", self.root_version, self.end("root"), fields, keys)
    }

    /// The file of a delegated role, signed by these keys.
    pub fn delegated_file(&self, role: &str, keys: &[SigningKey]) -> Vec<u8> {
        let delegated = &self.delegated[role];
        signed("targets", delegated.version, self.end(role), json!({ "targets": entries(&delegated.files) }), keys)
    }

    /// The top-level targets file, signed by these keys.
    pub fn targets_file(&self, keys: &[SigningKey]) -> Vec<u8> {
        let mut all = Map::new();
        let roles: Vec<Value> = self
            .delegated
            .iter()
            .map(|(name, delegated)| {
                let mut value = role_value(&delegated.signers, &mut all);
                value["name"] = json!(name);
                value["paths"] = json!(delegated.paths);
                value["terminating"] = json!(true);
                value
            })
            .collect();
        let fields = json!({ "targets": entries(&self.files), "delegations": { "keys": all, "roles": roles } });
        signed("targets", self.targets_version, self.end("targets"), fields, keys)
    }

    /// The snapshot file, signed by these keys. It names versions and hashes of the files given.
    pub fn snapshot_file(&self, files: &BTreeMap<String, (u64, Vec<u8>)>, keys: &[SigningKey]) -> Vec<u8> {
        let meta: Map<String, Value> =
            files.iter().map(|(name, (version, bytes))| (name.clone(), file_value(*version, bytes))).collect();
        signed("snapshot", self.snapshot_version, self.end("snapshot"), json!({ "meta": meta }), keys)
    }

    /// The timestamp file over a snapshot, signed by these keys.
    pub fn timestamp_file(&self, snapshot: &[u8], keys: &[SigningKey]) -> Vec<u8> {
        let meta = json!({ "snapshot.json": file_value(self.snapshot_version, snapshot) });
        signed("timestamp", self.timestamp_version, self.end("timestamp"), json!({ "meta": meta }), keys)
    }

    /// Writes everything, signed by its rightful keys.
    pub fn publish(&self, repository: &MemoryRepository) {
        repository.put(&format!("{}.root.json", self.root_version), self.root_file(&self.root.keys));
        self.publish_below(repository);
    }

    /// Writes everything below the root.
    pub fn publish_below(&self, repository: &MemoryRepository) {
        let targets = self.targets_file(&self.targets.keys);
        let mut files = BTreeMap::from([("targets.json".to_owned(), (self.targets_version, targets.clone()))]);
        repository.put(&format!("{}.targets.json", self.targets_version), targets);
        for (name, role) in &self.delegated {
            let bytes = self.delegated_file(name, self.impostors.get(name).unwrap_or(&role.signers.keys));
            repository.put(&format!("{}.{}.json", role.version, name.replace('/', "%2F")), bytes.clone());
            files.insert(format!("{name}.json"), (role.version, bytes));
            repository.put_targets(&role.files);
        }
        repository.put_targets(&self.files);
        let snapshot = self.snapshot_file(&files, &self.snapshot.keys);
        repository.put(&format!("{}.snapshot.json", self.snapshot_version), snapshot.clone());
        repository.put("timestamp.json", self.timestamp_file(&snapshot, &self.timestamp.keys));
    }

    /// Raises the versions of everything below the root by one, for the next publication.
    pub fn next(&mut self) {
        self.targets_version += 1;
        self.snapshot_version += 1;
        self.timestamp_version += 1;
        self.delegated.values_mut().for_each(|role| role.version += 1);
    }
}

/// Files of a repository in memory; a test changes them behind the device's back.
#[derive(Debug, Default)]
pub struct MemoryRepository {
    files: Mutex<BTreeMap<String, Vec<u8>>>,
    asked: Mutex<Vec<String>>,
}

impl MemoryRepository {
    /// Puts a file of `metadata/`.
    pub fn put(&self, name: &str, bytes: Vec<u8>) {
        self.lock().insert(name.to_owned(), bytes);
    }

    /// The file of that name, metadata or `targets/…`.
    pub fn get(&self, name: &str) -> Option<Vec<u8>> {
        self.lock().get(name).cloned()
    }

    /// Takes a file away.
    pub fn remove(&self, name: &str) {
        self.lock().remove(name);
    }

    /// What was asked for since the last call.
    pub fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn put_targets(&self, files: &BTreeMap<String, (Vec<u8>, Option<Value>)>) {
        for (path, (content, _)) in files {
            self.put(&format!("targets/{}", hashed_path(path, &digest(content))), content.clone());
        }
    }

    fn answer(&self, name: String) -> Fetched<'_> {
        let found = self.get(&name);
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(name);
        Box::pin(std::future::ready(Ok(found)))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Vec<u8>>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Source for MemoryRepository {
    fn metadata<'a>(&'a self, name: &'a str, _: u64) -> Fetched<'a> {
        self.answer(name.to_owned())
    }

    fn target<'a>(&'a self, path: &'a str, _: u64) -> Fetched<'a> {
        self.answer(format!("targets/{path}"))
    }
}

impl MetadataFiles for MemoryRepository {
    fn load(&self, name: &str) -> std::io::Result<Option<Vec<u8>>> {
        Ok(self.get(name))
    }

    fn store(&self, files: &[(String, Vec<u8>)]) -> std::io::Result<()> {
        files.iter().for_each(|(name, bytes)| self.put(name, bytes.clone()));
        Ok(())
    }
}

fn entries(files: &BTreeMap<String, (Vec<u8>, Option<Value>)>) -> Map<String, Value> {
    let entry = |content: &[u8], custom: &Option<Value>| {
        let mut entry = json!({ "length": content.len(), "hashes": { "sha256": digest(content) } });
        custom.iter().for_each(|custom| entry["custom"] = custom.clone());
        entry
    };
    files.iter().map(|(path, (content, custom))| (path.clone(), entry(content, custom))).collect()
}

fn file_value(version: u64, bytes: &[u8]) -> Value {
    json!({ "version": version, "length": bytes.len(), "hashes": { "sha256": digest(bytes) } })
}

fn role_value(signers: &Signers, all: &mut Map<String, Value>) -> Value {
    let ids: Vec<String> = signers.keys.iter().map(key_id).collect();
    all.extend(signers.keys.iter().map(|key| (key_id(key), key_value(key))));
    json!({ "keyids": ids, "threshold": signers.threshold })
}

fn key_value(key: &SigningKey) -> Value {
    json!({ "keytype": "ed25519", "scheme": "ed25519", "keyval": { "public": key.verifying_key().to_hex() } })
}

fn key_id(key: &SigningKey) -> String {
    digest(&canonical(&key_value(key))).to_string()
}

fn canonical(value: &Value) -> Vec<u8> {
    sigstore_tuf::canonical_json::to_canonical_bytes(value).expect("integers and text only")
}

fn signed(kind: &str, version: u64, expires: Micros, fields: Value, keys: &[SigningKey]) -> Vec<u8> {
    let expires = Micros(expires.0 / 1_000_000 * 1_000_000).to_string();
    let mut value = json!({ "_type": kind, "spec_version": "1.0.34", "version": version, "expires": expires });
    for (name, field) in fields.as_object().into_iter().flatten() {
        value[name] = field.clone();
    }
    let bytes = canonical(&value);
    let signature = |key: &SigningKey| json!({ "keyid": key_id(key), "sig": crate::key::hex(&key.sign(&bytes)) });
    let signatures = keys.iter().map(signature).collect();
    serde_json::to_vec(&json!({ "signed": value, "signatures": Value::Array(signatures) }))
        .expect("JSON always serialises")
}
