//! The chain of metadata that makes a device believe a target: root → timestamp → snapshot → targets → delegated role.
//!
//! The workflow is that of The Update Framework, specification 1.0.34, section 5, done by sigstore-tuf, which passes the
//! public conformance suite; this module is the only one that names it. Added here: metadata is durable before a refresh
//! counts as done (else a restart would forget how far the repository had come, and a rollback would pass), stored
//! metadata works without a network, and every error says which role is meant.
//!
//! Nothing here opens a connection or reads a clock: files come through [`Source`], `now` is an argument.

mod bridge;
mod error;
#[cfg(any(test, feature = "simulation"))]
pub mod forge;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use serde_json::Value;
use sigstore_tuf::{TargetFile, TrustedMetadataSet, Updater, UpdaterConfig};
use tributary_wire::{MetadataVersions, Micros, Sha256};

use bridge::{Bridge, Failure, Fetch, Stored, instant};
pub use error::ChainError;

/// Why a source gave no answer.
pub type SourceError = Box<dyn std::error::Error + Send + Sync>;

/// What a source gives: the bytes, `None` when there is no such file, or why it cannot tell.
pub type Fetched<'a> = Pin<Box<dyn Future<Output = Result<Option<Vec<u8>>, SourceError>> + Send + 'a>>;

/// Where the files of a repository come from. Whatever it gives is checked; it only must not give more than `max` bytes,
/// and must come to an end: a source that trickles is its own to cut off.
pub trait Source: Send + Sync {
    /// A file of `metadata/`, such as `3.snapshot.json`.
    fn metadata<'a>(&'a self, name: &'a str, max: u64) -> Fetched<'a>;

    /// A small file of `targets/`, such as `assignments/<sha256>.keys.json`. Packages do not come this way.
    fn target<'a>(&'a self, path: &'a str, max: u64) -> Fetched<'a>;
}

/// Where a device keeps verified metadata. Names are those of the specification without versions (`timestamp.json`,
/// `models%2Fcard-fraud.json`), and `root_history/<version>.root.json`.
pub trait MetadataFiles: Send + Sync {
    /// The file, or `None` if it was never stored.
    fn load(&self, name: &str) -> io::Result<Option<Vec<u8>>>;

    /// Stores all of these, durable when it returns; in one step where that is possible. After a power cut each file is
    /// either the old or the new one.
    fn store(&self, files: &[(String, Vec<u8>)]) -> io::Result<()>;
}

/// How much a repository may make a device read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChainLimits {
    /// The largest `root.json`.
    pub root_bytes: u64,
    /// The largest `timestamp.json`.
    pub timestamp_bytes: u64,
    /// The largest `snapshot.json`.
    pub snapshot_bytes: u64,
    /// The largest file of a targets role.
    pub targets_bytes: u64,
    /// The largest target that is read into memory.
    pub small_target_bytes: u64,
    /// Root files that are followed in one refresh: a device may have slept for years.
    pub root_rotations: u32,
    /// Roles that are asked for one target.
    pub delegations: u32,
}

impl Default for ChainLimits {
    fn default() -> Self {
        Self::DEVICES
    }
}

impl ChainLimits {
    /// What devices take. Whoever signs for them stays below it.
    pub const DEVICES: Self = Self {
        root_bytes: 512_000,
        timestamp_bytes: 16_384,
        snapshot_bytes: 2_000_000,
        targets_bytes: 5_000_000,
        small_target_bytes: 1_000_000,
        root_rotations: 256,
        delegations: 32,
    };

    /// The largest file of a role, by its name in metadata.
    pub fn of_role(&self, role: &str) -> u64 {
        match role {
            "root" => self.root_bytes,
            "timestamp" => self.timestamp_bytes,
            "snapshot" => self.snapshot_bytes,
            _ => self.targets_bytes,
        }
    }

    fn config(&self) -> UpdaterConfig {
        let mut config = UpdaterConfig::default();
        config.root_max_length = self.root_bytes;
        config.timestamp_max_length = self.timestamp_bytes;
        config.snapshot_max_length = self.snapshot_bytes;
        config.targets_max_length = self.targets_bytes;
        config.target_max_length = self.small_target_bytes;
        config.max_root_rotations = self.root_rotations;
        config.max_delegations = self.delegations;
        config
    }
}

/// A target that the chain vouches for.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// Its path, such as `models/card-fraud/v7.tpk`.
    pub path: String,
    /// Its length in bytes.
    pub length: u64,
    /// Its hash; a target without one cannot be checked here and counts as not listed.
    pub sha256: Sha256,
    /// What its role says beside.
    pub custom: Option<Value>,
}

/// What a refresh leaves behind.
struct Current {
    updater: Updater,
    bridge: Arc<Bridge>,
    failed: Failure,
}

/// What a device believes of a repository, from a root that it was given.
pub struct Chain {
    pinned: Vec<u8>,
    source: Arc<dyn Source>,
    files: Arc<dyn MetadataFiles>,
    limits: ChainLimits,
    /// After a refresh that succeeded; what it holds is also on disk.
    current: Option<Current>,
    versions: MetadataVersions,
}

impl std::fmt::Debug for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chain").field("versions", &self.versions).finish_non_exhaustive()
    }
}

/// The version of a root, if it is signed by its own threshold.
pub fn check_root(root: &[u8]) -> Result<u64, ChainError> {
    let trusted = TrustedMetadataSet::from_root(root).map_err(|error| ChainError::from_tuf("root", error))?;
    Ok(trusted.root().version)
}

impl Chain {
    /// Begins from a root that came over a trusted way. It must be signed by its own threshold; whether it has expired
    /// shows at the first refresh.
    pub fn open(
        pinned_root: &[u8],
        source: Arc<dyn Source>,
        files: Arc<dyn MetadataFiles>,
        limits: ChainLimits,
    ) -> Result<Self, ChainError> {
        let versions = MetadataVersions { root: check_root(pinned_root)?, ..MetadataVersions::default() };
        Ok(Self { pinned: pinned_root.to_vec(), source, files, limits, current: None, versions })
    }

    /// Asks the source for everything that is newer, and believes it if it follows from what is believed already. What
    /// was verified before something failed stays believed, and is durable, as the specification wants it.
    pub async fn refresh(&mut self, now: Micros) -> Result<MetadataVersions, ChainError> {
        self.walk(self.source.clone(), now).await
    }

    /// The same from what is stored, without asking anybody: for a device that starts without a network. Stored metadata
    /// that has expired vouches for nothing.
    pub async fn recall(&mut self, now: Micros) -> Result<MetadataVersions, ChainError> {
        self.walk(Arc::new(Stored(self.files.clone())), now).await
    }

    async fn walk(&mut self, source: Arc<dyn Source>, now: Micros) -> Result<MetadataVersions, ChainError> {
        self.current = None;
        let bridge = Arc::new(Bridge::new(self.files.clone()));
        let fetch = Fetch::new(source);
        let failed = fetch.failure();
        let updater = Updater::new(fetch, &self.pinned).map_err(|error| ChainError::from_tuf("root", error))?;
        let mut updater = updater.with_config(self.limits.config()).with_store(Keeper(bridge.clone()));
        let refreshed = updater.refresh(instant(now)?).await;
        bridge.keep()?;
        self.versions = versions(updater.trusted());
        match refreshed {
            Ok(()) => {
                self.current = Some(Current { updater, bridge, failed });
                Ok(self.versions)
            }
            Err(error) => Err(failed.take(error)),
        }
    }

    /// What the chain says about a target. Needs a refresh (or [`Chain::recall`]) before; asks the source for the
    /// metadata of the roles that may list the path.
    pub async fn target(&mut self, path: &str, now: Micros) -> Result<Target, ChainError> {
        let listed = self.listed(path, now).await?;
        let sha256 = listed.hashes.get("sha256").and_then(|text| text.parse().ok());
        let sha256 = sha256.ok_or_else(|| ChainError::NotListed { path: path.to_owned() })?;
        Ok(Target { path: path.to_owned(), length: listed.length, sha256, custom: listed.custom })
    }

    /// What the stored metadata alone says about a target, without asking anybody. It leaves alone what the last refresh
    /// brought.
    pub async fn stored_target(&self, path: &str, now: Micros) -> Result<Target, ChainError> {
        let source = Arc::new(Stored(self.files.clone()));
        let mut apart = Self::open(&self.pinned, source, self.files.clone(), self.limits)?;
        apart.refresh(now).await?;
        apart.target(path, now).await
    }

    async fn listed(&mut self, path: &str, now: Micros) -> Result<TargetFile, ChainError> {
        let Current { updater, bridge, failed } = self.current.as_mut().ok_or(ChainError::NotRefreshed)?;
        let found = updater.get_target_info(path, instant(now)?).await;
        bridge.keep()?;
        let found = found.map_err(|error| failed.take(error))?;
        found.ok_or_else(|| ChainError::NotListed { path: path.to_owned() })
    }

    /// A small target, checked, from the source; `held` is returned instead if it is what the chain vouches for.
    pub async fn small_target(
        &mut self,
        path: &str,
        held: Option<Vec<u8>>,
        now: Micros,
    ) -> Result<Vec<u8>, ChainError> {
        let listed = self.listed(path, now).await?;
        if let Some(held) = held.filter(|held| is(&listed.hashes, listed.length, held)) {
            return Ok(held);
        }
        let Current { updater, failed, .. } = self.current.as_ref().ok_or(ChainError::NotRefreshed)?;
        updater.download_target(&listed, path).await.map_err(|error| failed.take(error))
    }

    /// The newest metadata that is believed; zeros for what was never seen by this object.
    pub fn versions(&self) -> MetadataVersions {
        self.versions
    }

    /// The believed root, for whoever asks which keys count. After a refresh.
    pub fn root(&self) -> Option<&[u8]> {
        self.current.as_ref().map(|current| current.updater.trusted().root_bytes())
    }

    /// When the first of the top-level files expires. After a refresh.
    pub fn expires(&self) -> Option<Micros> {
        let trusted = self.current.as_ref()?.updater.trusted();
        let below = [
            trusted.timestamp().map(|role| role.expires),
            trusted.snapshot().map(|role| role.expires),
            trusted.targets_role("targets").map(|role| role.expires),
        ];
        let first = below.into_iter().flatten().fold(trusted.root().expires, std::cmp::min);
        Some(Micros(first.as_microsecond()))
    }
}

/// Whether these bytes are what all the hashes that we can count say, at least one of them.
fn is(hashes: &BTreeMap<String, String>, length: u64, bytes: &[u8]) -> bool {
    let same = |expected: &String, found: String| expected.eq_ignore_ascii_case(&found);
    let counted = [
        hashes.get("sha256").map(|expected| same(expected, crate::digest(bytes).to_string())),
        hashes.get("sha512").map(|expected| same(expected, crate::digest::sha512_hex(bytes))),
    ];
    let mut counted = counted.into_iter().flatten().peekable();
    bytes.len() as u64 == length && counted.peek().is_some() && counted.all(|same| same)
}

fn versions(trusted: &TrustedMetadataSet) -> MetadataVersions {
    MetadataVersions {
        root: trusted.root().version,
        timestamp: trusted.timestamp().map_or(0, |role| role.version),
        snapshot: trusted.snapshot().map_or(0, |role| role.version),
        targets: trusted.targets_role("targets").map_or(0, |role| role.version),
    }
}

/// The library owns its store; ours is shared with the one who asks afterwards whether everything was kept.
struct Keeper(Arc<Bridge>);

impl sigstore_tuf::MetadataStore for Keeper {
    fn load(&self, name: &str) -> sigstore_tuf::Result<Option<Vec<u8>>> {
        self.0.load(name)
    }

    fn store(&self, name: &str, bytes: &[u8]) -> sigstore_tuf::Result<()> {
        self.0.take(name, bytes);
        Ok(())
    }
}
