//! Verified metadata in the agent's state: several files are one transaction, so a refresh is kept wholly or not at all.

use std::io;
use std::sync::Arc;

use tributary_release::chain::MetadataFiles;

use crate::state::{Store, StoreError};

const PREFIX: &str = "trust/";

/// Metadata in the state.
pub struct StoredFiles(Arc<Store>);

impl StoredFiles {
    /// In this state.
    pub fn new(store: Arc<Store>) -> Self {
        Self(store)
    }
}

impl MetadataFiles for StoredFiles {
    fn load(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        self.0.blob_get(&format!("{PREFIX}{name}")).map_err(io_error)
    }

    fn store(&self, files: &[(String, Vec<u8>)]) -> io::Result<()> {
        let named: Vec<_> = files.iter().map(|(name, bytes)| (format!("{PREFIX}{name}"), bytes.clone())).collect();
        self.0.blobs_put(&named).map_err(io_error)
    }
}

fn io_error(error: StoreError) -> io::Error {
    io::Error::other(error)
}
