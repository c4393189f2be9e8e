//! A disk in memory that forgets what was not synced, and that can be full. For tests only.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use redb::StorageBackend;

/// The disk; clones are the same disk.
#[derive(Debug, Clone, Default)]
pub struct SimDisk {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    /// As the last sync left it.
    durable: Vec<u8>,
    /// As readers see it.
    current: Vec<u8>,
    /// Since the last sync.
    unsynced: Vec<Change>,
    /// Backends of an earlier power cycle fail.
    cycle: u64,
    /// No byte beyond this.
    capacity: Option<usize>,
    syncs: u64,
    /// The power fails after this many more writes or syncs.
    fuse: Option<u64>,
}

#[derive(Debug, Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Length(usize),
}

impl Change {
    fn apply(&self, disk: &mut Vec<u8>) {
        match self {
            Self::Write(offset, data) => {
                if disk.len() < offset + data.len() {
                    disk.resize(offset + data.len(), 0);
                }
                disk[*offset..offset + data.len()].copy_from_slice(data);
            }
            Self::Length(length) => disk.resize(*length, 0),
        }
    }
}

impl SimDisk {
    /// An empty disk without limit.
    pub fn new() -> Self {
        Self::default()
    }

    /// A handle for redb; it fails for ever after the next [`SimDisk::crash`].
    pub fn backend(&self) -> SimBackend {
        SimBackend { disk: self.clone(), cycle: self.lock().cycle }
    }

    /// Cuts the power: of the writes since the last sync, each is kept or lost by a coin from `seed`; `None` loses all.
    pub fn crash(&self, seed: Option<u64>) {
        let mut inner = self.lock();
        let mut coin = seed.map(StdRng::seed_from_u64);
        let unsynced = std::mem::take(&mut inner.unsynced);
        for change in unsynced {
            if coin.as_mut().is_some_and(|coin| coin.random_bool(0.5)) {
                change.apply(&mut inner.durable);
            }
        }
        inner.current = inner.durable.clone();
        inner.cycle += 1;
        inner.fuse = None;
    }

    /// From now on every call fails after `operations` more writes or syncs, until the next [`SimDisk::crash`].
    pub fn fail_after(&self, operations: u64) {
        self.lock().fuse = Some(operations);
    }

    /// Ends what [`SimDisk::fail_after`] began without a power cut: a fault that passed.
    pub fn mend(&self) {
        self.lock().fuse = None;
    }

    /// Lets the disk be full at `bytes`; `None` makes room again.
    pub fn set_capacity(&self, bytes: Option<usize>) {
        self.lock().capacity = bytes;
    }

    /// Bytes in use.
    pub fn used(&self) -> usize {
        self.lock().current.len()
    }

    /// How often something was made durable.
    pub fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One power cycle's handle to a [`SimDisk`]; clones are of the same cycle.
#[derive(Debug, Clone)]
pub struct SimBackend {
    disk: SimDisk,
    cycle: u64,
}

impl SimBackend {
    fn inner(&self) -> io::Result<MutexGuard<'_, Inner>> {
        let inner = self.disk.lock();
        if inner.cycle == self.cycle { Ok(inner) } else { Err(io::Error::other("the power was cut")) }
    }

    fn change(&self, change: Change) -> io::Result<()> {
        let mut inner = self.inner()?;
        burn(&mut inner)?;
        let end = match &change {
            Change::Write(offset, data) => offset + data.len(),
            Change::Length(length) => *length,
        };
        if inner.capacity.is_some_and(|capacity| end > capacity.max(inner.durable.len())) {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "no space left on the simulated disk"));
        }
        change.apply(&mut inner.current);
        inner.unsynced.push(change);
        Ok(())
    }
}

fn burn(inner: &mut Inner) -> io::Result<()> {
    match &mut inner.fuse {
        Some(0) => Err(io::Error::other("the power is failing")),
        Some(left) => {
            *left -= 1;
            Ok(())
        }
        None => Ok(()),
    }
}

impl StorageBackend for SimBackend {
    fn len(&self) -> io::Result<u64> {
        Ok(self.inner()?.current.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let inner = self.inner()?;
        let offset = offset as usize;
        match inner.current.get(offset..offset + out.len()) {
            Some(bytes) => {
                out.copy_from_slice(bytes);
                Ok(())
            }
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(Change::Length(len as usize))
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut inner = self.inner()?;
        burn(&mut inner)?;
        let unsynced = std::mem::take(&mut inner.unsynced);
        for change in unsynced {
            change.apply(&mut inner.durable);
        }
        inner.syncs += 1;
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(Change::Write(offset as usize, data.to_vec()))
    }
}
