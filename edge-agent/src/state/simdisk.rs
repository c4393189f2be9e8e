//! The state on a simulated disk, beside whatever else lies there. For tests only.

use std::io;
use std::path::Path;
use std::sync::Arc;

use redb::{Builder, ReadableTable, StorageBackend};
use tributary_process::disk::SimFile;

use super::create::make_if_missing;
use super::mark::Mark;
use super::tables::OUTBOX;
use super::{Location, Store, StoreError, StoreOptions};

pub use tributary_process::disk::SimDisk;

/// Where the state lies on a simulated disk.
pub const STATE: &str = "/state.redb";

/// Opens the state of this disk as [`Store::open`] opens a file; it fails for ever after the next [`SimDisk::crash`] or
/// [`SimDisk::kill`].
pub fn open(disk: &SimDisk, options: StoreOptions) -> Result<Store, StoreError> {
    let (mark, disk) = (mark(disk), disk.until_crash());
    Store::open_at(Location::Backend(Box::new(move || Ok(Box::new(backend(&disk)?)))), Some(mark), options)
}

/// Lets the state pass for one that was closed in order, whatever became of it.
pub fn pretend_closed(disk: &SimDisk) {
    mark(disk).close();
}

/// The batches in the outbox, as they lie on the disk: stream, number, bytes.
pub fn batches(store: &Store) -> Result<Vec<(String, u64, Vec<u8>)>, StoreError> {
    let table = store.database()?.begin_read()?.open_table(OUTBOX).map_err(StoreError::read)?;
    let stored = table.iter().map_err(StoreError::read)?.map(|stored| {
        let (key, bytes) = stored.map_err(StoreError::read)?;
        let (stream, number) = key.value();
        Ok((stream.to_owned(), number, bytes.value().to_vec()))
    });
    stored.collect()
}

fn mark(disk: &SimDisk) -> Mark {
    Mark::beside(Path::new(STATE), Arc::new(disk.until_crash()), disk.boots().to_string())
}

/// Opens the state of this disk for redb, or makes it; it fails for ever after the next [`SimDisk::crash`].
pub fn backend(disk: &SimDisk) -> io::Result<SimBackend> {
    let path = Path::new(STATE);
    let create = |builder: &Builder, path: &Path| {
        let file = disk.file(path).map_err(redb::Error::Io)?;
        builder.create_with_backend(SimBackend(file)).map_err(redb::Error::from)
    };
    make_if_missing(disk, path, &Builder::new(), create).map_err(io::Error::other)?;
    Ok(SimBackend(disk.file(path)?))
}

/// One power cycle's handle to the state on a [`SimDisk`].
#[derive(Debug, Clone)]
pub struct SimBackend(SimFile);

impl StorageBackend for SimBackend {
    fn len(&self) -> io::Result<u64> {
        self.0.length()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_length(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, data)
    }
}
