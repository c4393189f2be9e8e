//! Metadata: small, read into memory, exempt from the budget.

use std::time::Duration;

use tributary_release::chain::{Fetched, Source, SourceError};

use super::Origins;
use super::error::{DownloadError, OriginError};
use super::origin::Origin;

impl Origins {
    /// A file of at most `max` bytes; `None` when there is no such file. A hub's word settles that; a mirror may only not
    /// have it yet.
    pub async fn small(&self, path: &str, max: u64) -> Result<Option<Vec<u8>>, DownloadError> {
        self.first(path, max, true).await
    }

    /// The same for a file that is not part of the signed repository, such as an index of patches: each hub makes its own,
    /// so that one has none says nothing of the others. `None` when all say so.
    pub(super) async fn unsigned(&self, path: &str, max: u64) -> Result<Option<Vec<u8>>, DownloadError> {
        self.first(path, max, false).await
    }

    async fn first(&self, path: &str, max: u64, hub_settles: bool) -> Result<Option<Vec<u8>>, DownloadError> {
        let (mut last, mut missing) = (None, false);
        for origin in self.order() {
            let place = &self.0.origins[origin];
            match self.read(place, path, max).await {
                Ok(bytes) => {
                    self.worked(origin);
                    return Ok(Some(bytes));
                }
                Err(error) if error.is_missing() => {
                    if hub_settles && place.is_hub() {
                        return Ok(None);
                    }
                    missing = true;
                }
                Err(error) => {
                    self.failed(origin, path, &error);
                    last = Some((place.name(), error));
                }
            }
        }
        match last {
            None if missing => Ok(None),
            // A mirror that has no file and another that failed are together no reason to wait for signed metadata.
            Some(_) if missing && hub_settles => Ok(None),
            None => Err(DownloadError::NoHub),
            Some((origin, error)) => {
                Err(DownloadError::Failed { path: path.to_owned(), origin, source: Box::new(error) })
            }
        }
    }

    async fn read(&self, place: &Origin, path: &str, max: u64) -> Result<Vec<u8>, OriginError> {
        let (patience, whole) = (self.0.config.patience.0, self.0.config.metadata_patience.0);
        let read = async {
            let mut body = place.open(path, 0, None, patience).await?;
            let too_long = |found| OriginError::Length { expected: max, found };
            if let Some(found) = body.length().filter(|length| *length > max) {
                return Err(too_long(found));
            }
            let (expected, mut bytes) = (body.length(), Vec::new());
            while let Some(piece) = body.chunk().await? {
                bytes.extend_from_slice(&piece);
                if bytes.len() as u64 > max {
                    return Err(too_long(bytes.len() as u64));
                }
            }
            let found = bytes.len() as u64;
            match expected.filter(|expected| *expected != found) {
                Some(expected) => Err(OriginError::Cut { expected, found }),
                None => Ok(bytes),
            }
        };
        let seconds = whole.max(Duration::from_secs(1)).as_secs();
        tokio::time::timeout(whole, read).await.map_err(|_| OriginError::Late { seconds })?
    }
}

impl Source for Origins {
    fn metadata<'a>(&'a self, name: &'a str, max: u64) -> Fetched<'a> {
        Box::pin(async move { self.small(&format!("metadata/{name}"), max).await.map_err(SourceError::from) })
    }

    fn target<'a>(&'a self, path: &'a str, max: u64) -> Fetched<'a> {
        Box::pin(async move { self.small(&format!("targets/{path}"), max).await.map_err(SourceError::from) })
    }
}
