//! A backend on which nothing is believed that a failed sync may have left behind.

use std::io;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::{BackendError, StorageBackend};

use super::mark::Mark;

/// Written again at once.
const PIECE: usize = 1 << 20;

/// Passes redb's calls on, and notes a sync that fails and a program that ends otherwise than in order.
///
/// After a failed sync the kernel takes what it could not write for written: readers see it, and no later sync writes
/// it. Whoever opens the file again and builds on what it shows loses it at the next power cut
/// (<https://wiki.postgresql.org/wiki/Fsync_Errors>). So before redb sees such a file again, all of it is written once
/// more. A program that is started anew learns from the [`Mark`] that the one before it may have met such a failure.
///
/// All that happens with the first bytes that redb asks for: only then it holds the file's lock.
#[derive(Debug)]
pub(super) struct Watched {
    backend: Box<dyn StorageBackend>,
    mark: Option<Mark>,
    /// Kept beyond this opening of the file.
    in_doubt: Arc<AtomicBool>,
    begun: AtomicBool,
    /// Whether something was not written: what was written beside it, nobody will sync.
    failed: AtomicBool,
}

impl Watched {
    /// A file that nobody has looked into yet.
    pub(super) fn new(backend: Box<dyn StorageBackend>, mark: Option<Mark>, in_doubt: Arc<AtomicBool>) -> Self {
        Self { backend, mark, in_doubt, begun: AtomicBool::new(false), failed: AtomicBool::new(false) }
    }

    /// Writes everything again if something is in doubt, once.
    fn begin(&self) -> io::Result<()> {
        if self.begun.load(Ordering::Acquire) {
            return Ok(());
        }
        let not_closed = self.mark.as_ref().map_or(Ok(false), Mark::open)?;
        if not_closed || self.in_doubt.load(Ordering::Acquire) {
            // Until it is done: whoever fails in the middle begins anew.
            self.in_doubt.store(true, Ordering::Release);
            rewrite(&*self.backend)?;
            self.in_doubt.store(false, Ordering::Release);
        }
        self.begun.store(true, Ordering::Release);
        Ok(())
    }
}

fn rewrite(backend: &dyn StorageBackend) -> io::Result<()> {
    let length = backend.len()?;
    tracing::info!(bytes = length, "the state was not closed in order, or a sync failed: it is written once more");
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
        self.begin()?;
        self.backend.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.begin()?;
        self.backend.set_len(len).inspect_err(|_| self.failed.store(true, Ordering::Release))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.backend.sync_data().inspect_err(|_| self.in_doubt.store(true, Ordering::Release))
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.begin()?;
        self.backend.write(offset, data).inspect_err(|_| self.failed.store(true, Ordering::Release))
    }

    fn close(&self) -> io::Result<()> {
        // While redb still holds the lock: the next program may wait for it.
        let [begun, failed, in_doubt] =
            [&self.begun, &self.failed, &*self.in_doubt].map(|flag| flag.load(Ordering::Acquire));
        if let Some(mark) = self.mark.as_ref().filter(|_| begun && !failed && !in_doubt) {
            mark.close();
        }
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
