//! What this device believes of the signed repository: the chain of metadata from its root of trust, and the keys that
//! may tell it what to run.
//!
//! The root comes with enrolment (or by `trust.root`). Everything after it comes by the chain, is durable before it
//! counts, and is brought up to date at intervals and whenever an assignment speaks of something newer.

mod files;
mod keys;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use edge_agent_core::lines::Believed;
use edge_agent_core::refresh::Pace;
use tributary_process::clock::Clock;
use tributary_process::shutdown::Shutdown;
use tributary_release::chain::{Chain, ChainError, ChainLimits, MetadataFiles, Source, Target};
use tributary_release::{ASSIGNMENT_KEYS, KeyError, VerifyingKeys};
use tributary_wire::{MetadataVersions, Micros};

use crate::identity::Time;
use crate::words::in_words;

pub use files::StoredFiles;
use keys::KEPT_KEYS;

/// The largest image of a sensor node.
const MAX_SMALL_TARGET_BYTES: u64 = 4 << 20;
/// Metadata that was refreshed less long ago is not asked for again because of one more download.
const FRESH: Duration = Duration::from_secs(60);

/// Why nothing can be believed.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// There is no root to begin from.
    #[error("no root of trust: enrol this device with a hub that has a signed repository, or set `trust.root`")]
    NoRoot,
    /// The chain does not hold, or cannot be fetched.
    #[error("signed repository")]
    Chain(#[from] ChainError),
    /// The repository is older than what the hub speaks of.
    #[error("the repository's snapshot has version {found}, the assignment was signed against {needed}")]
    Behind {
        /// As the assignment says.
        needed: u64,
        /// As verified.
        found: u64,
    },
    /// The keys of assignments cannot be read, though they are signed.
    #[error("keys of assignments")]
    Keys(#[from] KeyError),
}

impl TrustError {
    /// Whether trying again later may help, because nothing was proven to be wrong with a release.
    pub fn is_temporary(&self) -> bool {
        !matches!(self, Self::Chain(ChainError::NotListed { .. }))
    }
}

/// Shared by everyone who has to believe something.
#[derive(Clone)]
pub struct Trust(Arc<Shared>);

struct Shared {
    chain: Option<tokio::sync::Mutex<Chain>>,
    files: Arc<dyn MetadataFiles>,
    time: Time,
    clock: Arc<dyn Clock>,
    seen: Mutex<Seen>,
}

/// What the last refresh showed.
#[derive(Default)]
struct Seen {
    keys: VerifyingKeys,
    /// The keys of assignments that are announced are not here yet; no others count.
    awaits_keys: bool,
    versions: Option<MetadataVersions>,
    expires: Option<Micros>,
    /// By the monotonic clock.
    refreshed: Option<Duration>,
    problem: Option<String>,
}

impl std::fmt::Debug for Trust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trust").field("versions", &self.versions()).finish_non_exhaustive()
    }
}

impl Trust {
    /// Begins with what is stored. Without a root nothing new is ever believed.
    pub async fn open(
        root: Option<&[u8]>,
        source: Arc<dyn Source>,
        files: Arc<dyn MetadataFiles>,
        time: Time,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, TrustError> {
        let limits = ChainLimits { small_target_bytes: MAX_SMALL_TARGET_BYTES, ..ChainLimits::default() };
        let chain = root.map(|root| Chain::open(root, source, files.clone(), limits)).transpose()?;
        let mut seen = Seen::default();
        // Kept after they were verified, like the record of what is committed: no expiry takes them away.
        match files.load(KEPT_KEYS) {
            Ok(Some(bytes)) => seen.keys = keys::read(&bytes).unwrap_or_default(),
            Ok(None) => {}
            Err(error) => seen.problem = Some(format!("stored keys of assignments: {error}")),
        }
        let chain = chain.map(tokio::sync::Mutex::new);
        let trust = Self(Arc::new(Shared { chain, files, time, clock, seen: Mutex::new(seen) }));
        if let Some(chain) = &trust.0.chain {
            let mut chain = chain.lock().await;
            if let Ok(versions) = chain.recall(trust.now()).await {
                trust.remember(versions, chain.expires());
                trust.judge_keys(chain.target(ASSIGNMENT_KEYS, trust.now()).await);
            }
        }
        Ok(trust)
    }

    /// Brings the metadata and the keys of assignments up to date.
    pub async fn refresh(&self) -> Result<MetadataVersions, TrustError> {
        let chain = self.0.chain.as_ref().ok_or(TrustError::NoRoot)?;
        let refreshed = self.refresh_locked(&mut *chain.lock().await).await;
        let mut seen = self.seen();
        match &refreshed {
            Ok(_) => (seen.refreshed, seen.problem) = (Some(self.monotonic()), None),
            // A network that is away is the link's to complain about.
            Err(TrustError::Chain(error)) if error.is_unreachable() => {}
            Err(error) => seen.problem = Some(format!("the signed repository is not believed: {}", in_words(error))),
        }
        refreshed
    }

    async fn refresh_locked(&self, chain: &mut Chain) -> Result<MetadataVersions, TrustError> {
        let now = self.now();
        let versions = chain.refresh(now).await?;
        self.remember(versions, chain.expires());
        self.refresh_keys(chain, now).await?;
        Ok(versions)
    }

    /// What the chain says about a target, from metadata at least as new as this snapshot. Fresh metadata is asked for;
    /// without a network what is stored will do, as long as it is new enough and has not expired.
    pub async fn target(&self, path: &str, snapshot: u64) -> Result<Target, TrustError> {
        let chain = self.0.chain.as_ref().ok_or(TrustError::NoRoot)?;
        let fresh = self.seen().refreshed.is_some_and(|at| self.monotonic().saturating_sub(at) < FRESH);
        // Only a hub that says how new the metadata must be lets us know that we need not ask.
        let enough = snapshot > 0 && self.versions().is_some_and(|versions| versions.snapshot >= snapshot);
        if !(fresh && enough) {
            match self.refresh().await {
                Err(TrustError::Chain(error)) if error.is_unreachable() => {
                    // The reason that the network gave is worth more than that the stored metadata is not enough.
                    let recalled = chain.lock().await.recall(self.now()).await;
                    recalled.map_err(|stored| if stored.is_unreachable() { error } else { stored })?;
                }
                other => drop(other?),
            }
        }
        let found = self.versions().map_or(0, |versions| versions.snapshot);
        if found < snapshot {
            return Err(TrustError::Behind { needed: snapshot, found });
        }
        let target = chain.lock().await.target(path, self.now()).await;
        if target.is_err() {
            // Whatever it was may be mended by what is newer.
            self.seen().refreshed = None;
        }
        Ok(target?)
    }

    /// What the stored metadata alone says about a target, without asking anybody.
    pub async fn stored_target(&self, path: &str) -> Result<Target, TrustError> {
        let chain = self.0.chain.as_ref().ok_or(TrustError::NoRoot)?.lock().await;
        Ok(chain.stored_target(path, self.now()).await?)
    }

    /// The content of a small target, checked by the chain: an image for a sensor node.
    pub async fn small_target(&self, path: &str) -> Result<Vec<u8>, TrustError> {
        self.target(path, 0).await?;
        let chain = self.0.chain.as_ref().ok_or(TrustError::NoRoot)?;
        Ok(chain.lock().await.small_target(path, None, self.now()).await?)
    }

    /// The keys that may sign assignments, as last announced.
    pub fn assignment_keys(&self) -> VerifyingKeys {
        self.seen().keys.clone()
    }

    /// What an assignment that arrives now is held against.
    pub fn believed(&self) -> Believed {
        let seen = self.seen();
        Believed { keys: seen.keys.clone(), snapshot: seen.versions.map_or(0, |versions| versions.snapshot) }
    }

    /// Time never runs before what somebody trusted has signed, whatever the system clock says.
    pub fn raise_time(&self, signed: Micros) {
        self.0.time.raise(signed);
    }

    /// The newest metadata that was verified; none before the first.
    pub fn versions(&self) -> Option<MetadataVersions> {
        self.seen().versions
    }

    /// When the first of the verified top-level files expires.
    pub fn expires(&self) -> Option<Micros> {
        self.seen().expires
    }

    /// Whether keys of assignments are announced that have not come.
    pub fn awaits_keys(&self) -> bool {
        self.seen().awaits_keys
    }

    /// What keeps this device from believing anything new, if something does.
    pub fn problem(&self) -> Option<String> {
        let (now, seen) = (self.now(), self.seen());
        if self.0.chain.is_none() {
            return Some(TrustError::NoRoot.to_string());
        }
        let expired = seen.expires.filter(|expires| *expires <= now);
        let stale = expired.map(|expires| {
            format!("the signed metadata expired at {expires} and was not refreshed: no installation begins")
        });
        seen.problem.clone().or(stale).or_else(|| seen.awaits_keys.then(|| keys::AWAITED.to_owned()))
    }

    /// Refreshes at intervals until the signal is given.
    pub async fn run(self, every: Duration, shutdown: Shutdown) {
        let mut wait = Duration::ZERO;
        let mut pace = Pace::new(every, rand::random());
        loop {
            tokio::select! {
                () = shutdown.given() => return,
                () = tokio::time::sleep(wait) => {}
            }
            wait = match self.refresh().await {
                Ok(versions) => {
                    tracing::debug!(?versions, "signed metadata is up to date");
                    pace.next_wait(true)
                }
                Err(TrustError::NoRoot) => return shutdown.given().await,
                Err(error) => {
                    tracing::warn!(error = %in_words(&error), "signed metadata was not refreshed");
                    pace.next_wait(false)
                }
            };
        }
    }

    fn remember(&self, versions: MetadataVersions, expires: Option<Micros>) {
        self.0.time.vouch_until(expires);
        let mut seen = self.seen();
        (seen.versions, seen.expires) = (Some(versions), expires);
    }

    fn now(&self) -> Micros {
        self.0.time.now()
    }

    fn monotonic(&self) -> Duration {
        Duration::from_micros(self.0.clock.monotonic())
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
