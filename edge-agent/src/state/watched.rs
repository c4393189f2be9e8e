//! A backend whose failed syncs are remembered and mended.

use std::io;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::{BackendError, StorageBackend};

/// Written again at once.
const PIECE: usize = 1 << 20;

/// Passes redb's calls on and notes a sync that fails.
///
/// After a failed sync the kernel takes what it could not write for written: readers see it, and no later sync writes
/// it. Whoever opens the file again and builds on what it shows loses it at the next power cut
/// (<https://wiki.postgresql.org/wiki/Fsync_Errors>). So before redb sees such a file again, all of it is written once
/// more. A process that is started anew after a failed sync cannot know of it.
#[derive(Debug)]
pub(super) struct Watched {
    backend: Box<dyn StorageBackend>,
    in_doubt: Arc<AtomicBool>,
}

impl Watched {
    /// Writes everything again if something is in doubt.
    pub(super) fn new(backend: Box<dyn StorageBackend>, in_doubt: Arc<AtomicBool>) -> io::Result<Self> {
        if in_doubt.load(Ordering::Acquire) {
            rewrite(&*backend)?;
            in_doubt.store(false, Ordering::Release);
        }
        Ok(Self { backend, in_doubt })
    }
}

fn rewrite(backend: &dyn StorageBackend) -> io::Result<()> {
    let length = backend.len()?;
    tracing::warn!(bytes = length, "a sync failed: the state is written once more");
    let mut buffer = vec![0; PIECE];
    let mut offset = 0;
    while offset < length {
        let piece = &mut buffer[..PIECE.min((length - offset) as usize)];
        backend.read(offset, piece)?;
        backend.write(offset, piece)?;
        offset += piece.len() as u64;
    }
    backend.sync_data()
}

impl StorageBackend for Watched {
    fn len(&self) -> io::Result<u64> {
        self.backend.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.backend.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.backend.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.backend.sync_data().inspect_err(|_| self.in_doubt.store(true, Ordering::Release))
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.backend.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.backend.close()
    }

    // The trait's own answers say that there are no locks, and then nothing keeps a second process out.

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.backend.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.backend.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.backend.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.backend.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.backend.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.backend.query_lock_range(start, end)
    }
}
