//! Between our traits and those of the library.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sigstore_tuf::transport::FetchFuture;
use tributary_wire::Micros;

use super::{ChainError, Fetched, MetadataFiles, Source, SourceError};

/// Gathers what the library verified, to store it in one step. The library itself only warns when a store fails; here a
/// refresh whose metadata did not become durable has failed.
pub(super) struct Bridge {
    files: Arc<dyn MetadataFiles>,
    verified: Mutex<Vec<(String, Vec<u8>)>>,
}

impl Bridge {
    pub(super) fn new(files: Arc<dyn MetadataFiles>) -> Self {
        Self { files, verified: Mutex::default() }
    }

    pub(super) fn load(&self, name: &str) -> sigstore_tuf::Result<Option<Vec<u8>>> {
        if let Some((_, bytes)) = self.verified().iter().find(|(known, _)| known == name) {
            return Ok(Some(bytes.clone()));
        }
        self.files.load(name).map_err(|source| sigstore_tuf::Error::io(format!("stored metadata {name}"), source))
    }

    pub(super) fn take(&self, name: &str, bytes: &[u8]) {
        // Beside the unversioned names the library offers versioned ones, and targets: both would only pile up.
        let versioned = name.split_once('.').is_some_and(|(first, _)| first.parse::<u64>().is_ok());
        if versioned || name.starts_with("targets/") {
            return;
        }
        let mut verified = self.verified();
        verified.retain(|(known, _)| known != name);
        verified.push((name.to_owned(), bytes.to_vec()));
    }

    /// Makes everything durable that was verified and is not yet.
    pub(super) fn keep(&self) -> Result<(), ChainError> {
        let mut fresh = std::mem::take(&mut *self.verified());
        fresh.retain(|(name, bytes)| self.files.load(name).ok().flatten().as_deref() != Some(bytes));
        if fresh.is_empty() { Ok(()) } else { self.files.store(&fresh).map_err(ChainError::Store) }
    }

    fn verified(&self) -> MutexGuard<'_, Vec<(String, Vec<u8>)>> {
        self.verified.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A source as the library wants it. It remembers what the source itself said, which the library's error would flatten.
pub(super) struct Fetch {
    source: Arc<dyn Source>,
    failed: Failure,
}

#[derive(Clone, Default)]
pub(super) struct Failure(Arc<Mutex<Option<(String, SourceError)>>>);

impl Failure {
    /// What went wrong: the source's own words if it was the source.
    pub(super) fn take(&self, error: sigstore_tuf::Error) -> ChainError {
        match (error, self.0.lock().unwrap_or_else(PoisonError::into_inner).take()) {
            (sigstore_tuf::Error::Transport { .. }, Some((file, source))) => ChainError::Source { file, source },
            (error, _) => ChainError::from_tuf("metadata", error),
        }
    }

    fn keep(&self, file: &str, source: SourceError) -> sigstore_tuf::Error {
        let words = source.to_string();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((file.to_owned(), source));
        sigstore_tuf::Error::transport(words)
    }
}

impl Fetch {
    pub(super) fn new(source: Arc<dyn Source>) -> Self {
        Self { source, failed: Failure::default() }
    }

    pub(super) fn failure(&self) -> Failure {
        self.failed.clone()
    }

    async fn bounded(&self, name: &str, max: u64, answer: Fetched<'_>) -> sigstore_tuf::Result<Option<Vec<u8>>> {
        match answer.await {
            Ok(Some(bytes)) if bytes.len() as u64 > max => {
                let found = bytes.len();
                Err(self.failed.keep(name, format!("{found} bytes, at most {max} are expected").into()))
            }
            Ok(answer) => Ok(answer),
            Err(source) => Err(self.failed.keep(name, source)),
        }
    }
}

impl sigstore_tuf::Repository for Fetch {
    fn fetch_metadata<'a>(&'a self, name: &'a str, max_length: u64) -> FetchFuture<'a> {
        Box::pin(self.bounded(name, max_length, self.source.metadata(name, max_length)))
    }

    fn fetch_target<'a>(&'a self, path: &'a str, max_length: u64) -> FetchFuture<'a> {
        Box::pin(self.bounded(path, max_length, self.source.target(path, max_length)))
    }
}

/// The stored metadata as a source: what a device can know without a network.
pub(super) struct Stored(pub(super) Arc<dyn MetadataFiles>);

impl Source for Stored {
    fn metadata<'a>(&'a self, name: &'a str, _: u64) -> Fetched<'a> {
        let found = match name.split_once('.') {
            // Newer roots are followed from the history, before any source is asked.
            Some((version, "root.json")) if version.parse::<u64>().is_ok() => Ok(None),
            Some((version, rest)) if version.parse::<u64>().is_ok() => self.0.load(rest),
            _ => self.0.load(name),
        };
        Box::pin(std::future::ready(found.map_err(Into::into)))
    }

    fn target<'a>(&'a self, _: &'a str, _: u64) -> Fetched<'a> {
        Box::pin(std::future::ready(Ok(None)))
    }
}

pub(super) fn instant(now: Micros) -> Result<jiff::Timestamp, ChainError> {
    jiff::Timestamp::from_microsecond(now.0).map_err(|_| ChainError::Instant { found: now })
}
