//! Whether a device would believe the repository as it stands: the same chain, fed from the catalog.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use sqlx::SqlitePool;
use tributary_release::chain::{Chain, ChainError, ChainLimits, Fetched, MetadataFiles, Source};
use tributary_release::package_path;
use tributary_wire::{LineName, MetadataVersions, Micros, VersionNumber};

use super::path::{self, Wanted};
use super::store;

/// What a device comes to believe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proven {
    /// The metadata that it walked through.
    pub versions: MetadataVersions,
    /// Published releases that it found named, with the hash that the catalog has.
    pub releases: u64,
}

/// Why a device would not believe it.
#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    /// The chain does not hold.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The catalog does not answer, or holds something else than metadata.
    #[error("the catalog")]
    Catalog(#[from] sqlx::Error),
    /// The chain names another package than the catalog.
    #[error("{path} is another package to devices than to this hub")]
    Other {
        /// Which.
        path: String,
    },
}

/// Walks the chain from the first root, as a device does that was just enrolled by it, and looks every published release
/// up.
pub async fn as_a_device(catalog: &SqlitePool, now: Micros) -> Result<Proven, ProofError> {
    let root = store::version(catalog, "root", 1).await?;
    let root = match root {
        Some(root) => root,
        // The first one may have come with another number.
        None => store::newest(catalog, "root").await?.ok_or(sqlx::Error::RowNotFound)?,
    };
    let source = Arc::new(Stored(catalog.clone()));
    let mut chain = Chain::open(&root.bytes, source, Arc::new(Forgetting::default()), ChainLimits::default())?;
    let versions = chain.refresh(now).await?;
    let query = "select line, version, sha256 from releases where state = 'published' order by line, version";
    let published: Vec<(String, i64, String)> = sqlx::query_as(query).fetch_all(catalog).await?;
    let mut releases = 0;
    for (line, version, sha256) in published {
        let Ok(line) = LineName::new(&line) else { continue };
        let path = package_path(&line, VersionNumber(version as u32));
        if chain.target(&path, now).await?.sha256.to_string() != sha256 {
            return Err(ProofError::Other { path });
        }
        releases += 1;
    }
    Ok(Proven { versions, releases })
}

/// The repository's metadata as it lies in the catalog.
struct Stored(SqlitePool);

impl Source for Stored {
    fn metadata<'a>(&'a self, name: &'a str, max: u64) -> Fetched<'a> {
        Box::pin(async move {
            let found = match path::read(&format!("metadata/{name}")) {
                Some(Wanted::Timestamp) => store::newest(&self.0, "timestamp").await?,
                Some(Wanted::Metadata { role, version }) => store::version(&self.0, &role, version).await?,
                _ => None,
            };
            Ok(found.map(|stored| stored.bytes).filter(|bytes| bytes.len() as u64 <= max))
        })
    }

    fn target<'a>(&'a self, _path: &'a str, _max: u64) -> Fetched<'a> {
        Box::pin(async { Ok(None) })
    }
}

/// Keeps nothing beyond this look.
#[derive(Default)]
struct Forgetting(Mutex<HashMap<String, Vec<u8>>>);

impl MetadataFiles for Forgetting {
    fn load(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned())
    }

    fn store(&self, files: &[(String, Vec<u8>)]) -> io::Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(files.iter().cloned());
        Ok(())
    }
}
