//! Files that are carried between machines: keys and their public halves, signed metadata and what stands above it.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tributary_process::{durable, outln};
use tributary_release::{SigningKey, VerifyingKey};

use super::super::Failure;
use crate::publish::ceremony::random_seed;
use crate::publish::roles::{self, Header, MAX_BYTES, PublicKey, RoleName};

/// A file of public keys, as devices and hubs write them too.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PublicFile {
    keys: Vec<PublicEntry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PublicEntry {
    public: String,
    #[serde(default)]
    note: String,
}

/// Where the public half of a key lies.
pub(super) fn public_path(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".pub");
    name.into()
}

/// `keys new`.
pub(super) fn new_key(file: &Path, holder: Option<String>, json: bool) -> Result<(), Failure> {
    let stem = file.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let holder = holder.or(stem).unwrap_or_default();
    let key = SigningKey::generate(random_seed()?);
    save_key(file, &key, &holder)?;
    let public = PublicKey::new(key.verifying_key(), holder);
    let beside = public_path(file);
    if json {
        outln!("{:#}", json!({"key": public.id(), "holder": public.holder, "file": file, "public_file": beside}));
    } else {
        outln!("key {public}");
        outln!("  {}  secret: leave it on this machine, and keep a copy where it cannot burn", file.display());
        outln!("  {}  public: give it to whoever drafts root and targets", beside.display());
    }
    Ok(())
}

/// Writes a new secret key, which only its owner may read, and its public half beside it.
pub(super) fn save_key(file: &Path, key: &SigningKey, holder: &str) -> Result<(), Failure> {
    key.save(file).map_err(|error| anyhow::Error::new(error).context("a key that is there is never overwritten"))?;
    let entry = PublicEntry { public: key.verifying_key().to_hex(), note: holder.to_owned() };
    let text = serde_json::to_string_pretty(&PublicFile { keys: vec![entry] }).map_err(anyhow::Error::from)?;
    let path = public_path(file);
    durable::write(&path, format!("{text}\n").as_bytes()).with_context(|| format!("write {}", path.display()))?;
    Ok(())
}

/// The public key in a file, with its holder.
pub(super) fn read_public(file: &Path) -> Result<PublicKey, Failure> {
    let within = || format!("the public key in {}", file.display());
    let text = String::from_utf8(read(file)?).with_context(within)?;
    let found: PublicFile = serde_json::from_str(&text).with_context(|| {
        format!("{}: expected a file that `cloud-hub keys new` wrote beside a secret key (NAME.key.pub)", within())
    })?;
    let [entry] = found.keys.as_slice() else {
        return Err(anyhow!("{}: it holds {} keys, expected one", within(), found.keys.len()).into());
    };
    let key = VerifyingKey::from_hex(&entry.public).with_context(within)?;
    Ok(PublicKey::new(key, entry.note.as_str()))
}

/// A secret key.
pub(super) fn read_secret(file: &Path) -> Result<SigningKey, Failure> {
    Ok(SigningKey::load(file).map_err(anyhow::Error::new)?)
}

/// A file that is no longer than metadata may be.
pub(super) fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    let within = || format!("could not read {}", file.display());
    let length = std::fs::metadata(file).with_context(within)?.len();
    if length > MAX_BYTES as u64 {
        return Err(anyhow!("{}: {length} bytes, expected at most {MAX_BYTES}", within()).into());
    }
    Ok(std::fs::read(file).with_context(within)?)
}

/// A signed file on its way.
pub(super) struct Carried {
    pub path: PathBuf,
    pub header: Header,
    pub bytes: Vec<u8>,
}

impl Carried {
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let bytes = read(path)?;
        let header = roles::header(&bytes).with_context(|| path.display().to_string())?;
        Ok(Self { path: path.to_owned(), header, bytes })
    }

    /// The version before this one, if it lies beside it.
    pub fn previous(&self) -> Result<Option<Self>, Failure> {
        let Some(version) = self.header.version.checked_sub(1).filter(|version| *version > 0) else { return Ok(None) };
        self.beside(&self.header.role.file_name(version))
    }

    /// The files that say who may sign this one: for a root the one before it and itself, else the newest that lies
    /// beside it.
    pub fn delegators(&self) -> Result<Vec<Self>, Failure> {
        match &self.header.role {
            RoleName::Root => Ok(self.previous()?.into_iter().chain([Self::read(&self.path)?]).collect()),
            RoleName::Delegated(_) => self.newest(&RoleName::Targets),
            _ => self.newest(&RoleName::Root),
        }
    }

    fn newest(&self, role: &RoleName) -> Result<Vec<Self>, Failure> {
        let ending = format!(".{role}.json");
        let folder = self.folder();
        let within = || format!("could not look through {}", folder.display());
        let mut newest: Option<u64> = None;
        for entry in std::fs::read_dir(&folder).with_context(within)? {
            let name = entry.with_context(within)?.file_name().to_string_lossy().into_owned();
            newest = newest.max(name.strip_suffix(&ending).and_then(|version| version.parse().ok()));
        }
        let found = newest.map(|version| self.beside(&role.file_name(version))).transpose()?.flatten();
        Ok(found.into_iter().collect())
    }

    fn folder(&self) -> PathBuf {
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        folder.unwrap_or(Path::new(".")).to_owned()
    }

    fn beside(&self, name: &str) -> Result<Option<Self>, Failure> {
        let path = self.folder().join(name);
        if path.exists() { Self::read(&path).map(Some) } else { Ok(None) }
    }
}
