//! Brings one release onto this device: what is signed, whether it fits, the bytes, every check.

use std::io;
use std::sync::Arc;

use edge_agent_core::fit::{self, Capabilities};
use edge_agent_core::updater::{Doubt, FetchFailure};
use tributary_release::chain::Target;
use tributary_release::{CUSTOM, PackageCustom, package_path};
use tributary_wire::{LineName, ReleaseRef};

use crate::download::{DownloadError, Origins};
use crate::packages::{ActivePackage, OpenError, PackageFiles};
use crate::trust::{Trust, TrustError};
use crate::words::in_words;

/// What a fetch works with.
#[derive(Clone)]
pub(super) struct Fetcher {
    pub(super) trust: Trust,
    pub(super) capabilities: Arc<Capabilities>,
    pub(super) origins: Origins,
    pub(super) files: PackageFiles,
    /// The lowest version of the snapshot metadata that speaks of what is assigned.
    pub(super) snapshot: u64,
    /// What the packages that stay in memory with it declare to need.
    pub(super) beside: u64,
    /// Whether the release was committed here before: then its hash says enough, and no network is needed.
    pub(super) known: bool,
}

/// Why a release did not get here.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The chain of metadata does not hold, or does not list the release.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The line's role signed something else under this version.
    #[error("target {path} is {found:?}, the assignment says {expected:?}")]
    Other {
        /// Its path in the repository.
        path: String,
        /// As assigned.
        expected: ReleaseRef,
        /// As signed.
        found: ReleaseRef,
    },
    /// The signed metadata does not say what the package is and needs.
    #[error("target {path} is not described as a package of its line: {problem}")]
    Undescribed {
        /// Its path in the repository.
        path: String,
        /// What is missing or wrong.
        problem: String,
    },
    /// This device could not run it, so nothing of it was downloaded.
    #[error("this device cannot run it: {}", .0.join("; "))]
    Unfit(Vec<String>),
    /// This device's disk.
    #[error("package store")]
    Disk(#[from] io::Error),
    /// Nobody gave the package as it was released.
    #[error(transparent)]
    Download(#[from] DownloadError),
    /// The package must not run here.
    #[error("package")]
    Open(#[from] OpenError),
}

impl FetchError {
    /// Whether another attempt may help. Whoever sits between hub and device can spoil bytes, so a bad signature or
    /// hash condemns a release only when it comes again and again; what was proven to be the release and still does
    /// not work is refused at once.
    pub fn failure(&self) -> FetchFailure {
        match self {
            Self::Disk(_) => FetchFailure::Unreachable,
            Self::Download(DownloadError::File(error)) | Self::Open(OpenError::File(error)) => {
                match error.is_damage() {
                    true => FetchFailure::Damaged,
                    false => FetchFailure::Unreachable,
                }
            }
            Self::Download(_) => FetchFailure::Unreachable,
            // Metadata that is expired, behind or does not hold is the repository's fault, or of whoever sits before it.
            Self::Trust(error) if error.is_temporary() => FetchFailure::Unreachable,
            Self::Trust(_) | Self::Other { .. } => FetchFailure::Damaged,
            Self::Unfit(lacks) => FetchFailure::Unfit(lacks.clone()),
            Self::Open(_) | Self::Undescribed { .. } => FetchFailure::Refused,
        }
    }
}

/// What the stored metadata says about a release that was fetched before, without asking anybody.
pub async fn vouch(trust: &Trust, line: &LineName, release: &ReleaseRef) -> Result<(), Doubt> {
    let path = package_path(line, release.version);
    let stored = trust.stored_target(&path).await.map_err(FetchError::from);
    let checked = stored.and_then(|target| is_released(path, release, &target));
    checked.map_err(|error| {
        let reason = format!("its trial does not begin: {}", in_words(&error));
        match error.failure() {
            FetchFailure::Unreachable => Doubt::Unclear(reason),
            _ => Doubt::TakenBack(reason),
        }
    })
}

/// What is signed under a version must be what was assigned.
fn is_released(path: String, release: &ReleaseRef, signed: &Target) -> Result<(), FetchError> {
    let found = ReleaseRef { version: release.version, length: signed.length, sha256: signed.sha256 };
    match found == *release {
        true => Ok(()),
        false => Err(FetchError::Other { path, expected: release.clone(), found }),
    }
}

impl Fetcher {
    /// Everything between an assignment and a package that may be tried. What is on disk already is not fetched again,
    /// but checked again.
    pub(super) async fn fetch(self, line: LineName, release: ReleaseRef) -> Result<ActivePackage, FetchError> {
        if !self.known {
            check_listed(&self.trust, (&self.capabilities, self.beside), &line, &release, self.snapshot).await?;
        }
        // Another role may be fetching it.
        let files = self.files.turn(&release.sha256).await;
        if !files.has(&release.sha256) && !self.origins.by_patch(&files, &release).await? {
            self.origins.package(&files, &line, &release).await?;
        }
        blocking(move || open(&files, &line, &release)).await?
    }
}

/// The role of the line must have signed exactly what was assigned, in metadata at least as new as this snapshot, and
/// this device must be able to run it, beside packages that declare to need so much memory.
pub async fn check_listed(
    trust: &Trust,
    (capabilities, beside): (&Capabilities, u64),
    line: &LineName,
    release: &ReleaseRef,
    snapshot: u64,
) -> Result<(), FetchError> {
    let path = package_path(line, release.version);
    let signed = trust.target(&path, snapshot).await?;
    is_released(path.clone(), release, &signed)?;
    let custom = signed.custom.and_then(|mut custom| Some(custom.get_mut(CUSTOM)?.take()));
    let says: PackageCustom = serde_json::from_value(custom.unwrap_or_default())
        .map_err(|error| FetchError::Undescribed { path: path.clone(), problem: error.to_string() })?;
    if (&says.line, says.version) != (line, release.version) {
        let problem = format!("it is described as {} version {}", says.line, says.version);
        return Err(FetchError::Undescribed { path, problem });
    }
    let lacks = fit::check(&says, capabilities, beside);
    if lacks.is_empty() { Ok(()) } else { Err(FetchError::Unfit(lacks)) }
}

/// Every check of a package that is on disk. Wrong bytes make room for others.
pub fn open(files: &PackageFiles, line: &LineName, release: &ReleaseRef) -> Result<ActivePackage, FetchError> {
    let opened = ActivePackage::open(files, line, release);
    if matches!(&opened, Err(OpenError::File(error)) if error.is_damage()) {
        files.remove(&release.sha256)?;
    }
    Ok(opened?)
}

/// Runs what reads whole files beside the runtime.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)
}
