//! What metadata says a mirror has to hold. Pure.

use std::path::Path;

use anyhow::Context as _;
use serde::Deserialize;
use serde_json::Value;
use tributary_release::hashed_path;
use tributary_wire::Sha256;

use super::super::Failure;

/// How metadata names another file of metadata.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Meta {
    pub(super) version: u64,
    pub(super) length: u64,
    pub(super) hashes: Hashes,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Hashes {
    pub(super) sha256: Sha256,
}

/// A file that metadata vouches for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) path: String,
    pub(super) length: Option<u64>,
    pub(super) sha256: Sha256,
}

/// The patches to one package, as `index.json` lists them.
#[derive(Debug, Deserialize)]
pub(super) struct Index {
    pub(super) patches: Vec<Patch>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Patch {
    pub(super) from: Option<Sha256>,
    pub(super) format: String,
    pub(super) length: u64,
    pub(super) sha256: Sha256,
}

pub(super) fn parse(path: &str, bytes: &[u8]) -> Result<Value, Failure> {
    let value = serde_json::from_slice(bytes).with_context(|| format!("the hub's {path} is not metadata"));
    Ok(value?)
}

/// What a snapshot or timestamp lists, by file name.
pub(super) fn listed(path: &str, metadata: &Value) -> Result<Vec<(String, Meta)>, Failure> {
    let entries = metadata["signed"]["meta"].as_object().into_iter().flatten();
    let read = |(name, meta): (&String, &Value)| {
        let meta = Meta::deserialize(meta).with_context(|| format!("what {path} says of {name}"))?;
        Ok((name.clone(), meta))
    };
    entries.map(read).collect()
}

/// What a targets role vouches for.
pub(super) fn targets(path: &str, metadata: &Value) -> Result<Vec<Content>, Failure> {
    let entries = metadata["signed"]["targets"].as_object().into_iter().flatten();
    let read = |(name, target): (&String, &Value)| {
        let hashes = Hashes::deserialize(&target["hashes"]).with_context(|| format!("what {path} says of {name}"))?;
        let path = format!("targets/{}", hashed_path(name, &hashes.sha256));
        Ok(Content { path, length: target["length"].as_u64(), sha256: hashes.sha256 })
    };
    entries.map(read).collect()
}

/// A name that the hub gave leads nowhere but into the folder.
pub(super) fn inside(path: &str) -> Result<&Path, Failure> {
    let plain = path.split('/').all(|part| !part.is_empty() && part != "." && part != ".." && !part.contains('\\'));
    if plain { Ok(Path::new(path)) } else { Err(anyhow::anyhow!("the hub names a file {path:?}").into()) }
}

pub(super) fn same(path: &str, expected: (u64, Sha256), found: (u64, Sha256)) -> Result<(), Failure> {
    if expected == found {
        return Ok(());
    }
    Err(Failure::Other(anyhow::Error::new(Mismatch { path: path.to_owned(), expected, found })))
}

/// A file is not what the file says that names it.
#[derive(Debug, thiserror::Error)]
#[error("the hub sent {path} with {} bytes and hash {}; what names it says {} and {}", found.0, found.1, expected.0, expected.1)]
pub(super) struct Mismatch {
    path: String,
    expected: (u64, Sha256),
    found: (u64, Sha256),
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn metadata_says_what_a_mirror_holds() {
        let hash = "ab".repeat(32);
        let snapshot =
            json!({"signed": {"meta": {"models/a.json": {"version": 3, "length": 9, "hashes": {"sha256": hash}}}}});
        let (name, meta) = listed("x", &snapshot).unwrap().remove(0);
        assert_eq!((name.as_str(), meta.version, meta.length), ("models/a.json", 3, 9));
        let role = json!({"signed": {"targets": {"models/a/v1.tpk": {"length": 5, "hashes": {"sha256": hash}}}}});
        let content = targets("x", &role).unwrap().remove(0);
        assert_eq!((content.path, content.length), (format!("targets/models/a/{hash}.v1.tpk"), Some(5)));
        let bare = json!({"signed": {"meta": {"models/a.json": {"version": 3}}}});
        assert!(
            matches!(listed("metadata/2.snapshot.json", &bare), Err(Failure::Other(error)) if format!("{error:#}").contains("models/a.json"))
        );
        assert!(
            inside("targets/../../etc/x").is_err()
                && inside("/etc/x").is_err()
                && inside("metadata/1.root.json").is_ok()
        );
    }
}
