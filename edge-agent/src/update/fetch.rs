//! Brings one release onto this device: statement, bytes, every check.

use std::io;
use std::sync::Arc;

use edge_agent_core::updater::FetchFailure;
use tributary_process::http::ClientError;
use tributary_release::{ReleaseError, SignedRelease, VerifyingKeys, verify_release};
use tributary_wire::{LineName, ReleaseRef};

use crate::identity::Web;
use crate::packages::{ActivePackage, FileError, OpenError, PackageFiles, Partial};

/// A signed statement has a few hundred bytes.
const MAX_STATEMENT_BYTES: usize = 4096;

/// What a fetch works with.
#[derive(Clone)]
pub(super) struct Fetcher {
    pub(super) hub: Web,
    pub(super) keys: Arc<VerifyingKeys>,
    pub(super) files: PackageFiles,
}

/// Why a release did not get here.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Nobody to ask.
    #[error("no hub is known")]
    NoHub,
    /// The hub did not answer, or not as it should.
    #[error("hub")]
    Hub(#[from] ClientError),
    /// The statement is not one.
    #[error("release statement")]
    Statement(#[from] tributary_wire::DecodeError),
    /// The statement is too long to be one.
    #[error("release statement of {found} bytes, at most {MAX_STATEMENT_BYTES} are expected")]
    LongStatement {
        /// Its length.
        found: usize,
    },
    /// Statement or file are not what was assigned.
    #[error("release")]
    Release(#[from] ReleaseError),
    /// This device's disk.
    #[error("package store")]
    Disk(#[from] io::Error),
    /// The hub sent more than was released.
    #[error("the hub sent more than the {expected} bytes released")]
    TooLong {
        /// As released.
        expected: u64,
    },
    /// The hub stopped sending; what came is kept.
    #[error("the hub stopped after {found} of {expected} bytes")]
    Cut {
        /// As released.
        expected: u64,
        /// What is on disk.
        found: u64,
    },
    /// This device lacks what the package needs; nothing was downloaded.
    #[error("it does not fit this device: {}", .0.join("; "))]
    Unfit(Vec<String>),
    /// What came is not what was released, or cannot be kept.
    #[error(transparent)]
    File(#[from] FileError),
    /// The package must not run here.
    #[error("package")]
    Open(#[from] OpenError),
}

impl FetchError {
    /// Whether another attempt may help. Whoever sits between hub and device can spoil bytes, so a bad signature or
    /// hash condemns a release only when it comes again and again; what was proven to be the release and still does
    /// not work is refused at once.
    pub(super) fn failure(&self) -> FetchFailure {
        match self {
            Self::NoHub | Self::Hub(_) | Self::Disk(_) | Self::Cut { .. } => FetchFailure::Unreachable,
            Self::Release(ReleaseError::File { .. }) => FetchFailure::Unreachable,
            Self::File(error) | Self::Open(OpenError::File(error)) => match error.is_damage() {
                true => FetchFailure::Damaged,
                false => FetchFailure::Unreachable,
            },
            Self::Statement(_) | Self::LongStatement { .. } | Self::Release(_) | Self::TooLong { .. } => {
                FetchFailure::Damaged
            }
            Self::Unfit(lacks) => FetchFailure::Unfit(lacks.clone()),
            Self::Open(_) => FetchFailure::Refused,
        }
    }
}

impl Fetcher {
    /// Everything between an assignment and a package that may be tried. What is on disk already is not fetched again,
    /// but checked again.
    pub(super) async fn fetch(self, line: LineName, release: ReleaseRef) -> Result<ActivePackage, FetchError> {
        self.check_statement(&line, &release).await?;
        if !self.files.has(&release.sha256) {
            self.download(&release).await?;
        }
        let files = self.files.clone();
        let opened = {
            let release = release.clone();
            blocking(move || ActivePackage::open(&files, &line, &release)).await?
        };
        if matches!(&opened, Err(OpenError::File(error)) if error.is_damage()) {
            self.files.remove(&release.sha256)?;
        }
        Ok(opened?)
    }

    async fn check_statement(&self, line: &LineName, release: &ReleaseRef) -> Result<(), FetchError> {
        let verify = |bytes: &[u8]| -> Result<(), FetchError> {
            verify_release(&self.keys, line, release, &SignedRelease::decode(bytes)?)?;
            Ok(())
        };
        if self.files.statement(&release.sha256).is_some_and(|kept| verify(&kept).is_ok()) {
            return Ok(());
        }
        let path = format!("/api/v1/releases/{line}/{}", release.version);
        let hub = self.hub.client().ok_or(FetchError::NoHub)?;
        let answer = hub.send(hyper::Method::GET, &path, "", bytes::Bytes::new()).await?.accepted()?;
        if answer.body.len() > MAX_STATEMENT_BYTES {
            return Err(FetchError::LongStatement { found: answer.body.len() });
        }
        verify(&answer.body)?;
        self.files.keep_statement(&release.sha256, &answer.body)?;
        Ok(())
    }

    /// Streams the file to disk: memory holds one chunk, and a restart goes on where the file ends.
    async fn download(&self, release: &ReleaseRef) -> Result<(), FetchError> {
        let mut partial = self.files.partial(release)?;
        if partial.written() < release.length {
            let path = format!("/api/v1/packages/{}", release.sha256);
            let hub = self.hub.client().ok_or(FetchError::NoHub)?;
            let mut download = hub.download(&path, partial.written()).await?;
            if download.start != partial.written() {
                partial.restart()?;
            }
            while let Some(chunk) = download.chunk().await? {
                if partial.written() + chunk.len() as u64 > release.length {
                    partial.restart()?;
                    return Err(FetchError::TooLong { expected: release.length });
                }
                partial.write(&chunk)?;
            }
        }
        if partial.written() < release.length {
            return Err(FetchError::Cut { expected: release.length, found: partial.written() });
        }
        finish(partial).await
    }
}

async fn finish(partial: Partial) -> Result<(), FetchError> {
    blocking(move || partial.finish()).await??;
    Ok(())
}

/// Runs what reads whole files beside the runtime.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)
}
