//! What must survive: one redb file for accepted events, their answers, source offsets, the outbox, the updater's
//! blobs and the identity of this state.
//!
//! [`Store::commit`] is the only way in for events: the source's offset, the event, its observations, its idempotency
//! key and the batches that it completes become durable together or not at all. This module alone names redb.

mod records;
mod tables;
mod batching;
mod create;
mod outbox;
mod giving_up;
mod commit;
mod mark;
mod watched;
mod overlay;
mod inspect;
#[cfg(any(test, feature = "simulation"))]
pub mod simdisk;

use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use edge_agent_core::words::panic_in_words;
use redb::backends::FileBackend;
use redb::{Builder, Database, ReadTransaction, StorageBackend, WriteTransaction};
use tokio::sync::watch;
use tributary_process::disk::RealDisk;
use tributary_wire::{Incarnation, Micros};

pub use batching::{BatchLimits, OpenBatch};
pub(crate) use batching::{event_bytes, observation_bytes};
pub use commit::{Commit, Committed, Loaded, Sweep};
pub use giving_up::Keeping;
pub use inspect::{Contents, Damage, inspect};
pub use outbox::{ClosedBatch, Outgoing};
pub use records::{Accepted, Answer, Observation, SketchRecord, SourceState};

use mark::Mark;
use outbox::Book;
use watched::Watched;

/// Why the state could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file could not be opened as our state.
    #[error("could not open the state in {location}{}", taken(source))]
    Open {
        /// Which file.
        location: String,
        /// What redb said.
        #[source]
        source: redb::Error,
    },
    /// A read or a write failed: a full disk, a broken one.
    #[error("the state could not be {doing}")]
    Storage {
        /// `read` or `written`.
        doing: &'static str,
        /// What redb said.
        #[source]
        source: redb::Error,
    },
    /// A stored value is not what was stored.
    #[error("{what} {key} in the state is damaged: {problem}")]
    Damaged {
        /// Which kind of value.
        what: &'static str,
        /// Which one.
        key: String,
        /// What does not fit.
        problem: String,
    },
    /// An earlier failure closed the file; it is opened again by the writer.
    #[error("the state is closed after a failed write")]
    Closed,
}

impl StoreError {
    fn read(source: impl Into<redb::Error>) -> Self {
        Self::Storage { doing: "read", source: source.into() }
    }

    fn write(source: impl Into<redb::Error>) -> Self {
        Self::Storage { doing: "written", source: source.into() }
    }

    /// Whether what is stored is damaged, which no later attempt changes: a person has to look.
    pub fn is_broken(&self) -> bool {
        match self {
            Self::Damaged { .. } => true,
            Self::Open { source, .. } | Self::Storage { source, .. } => match source {
                redb::Error::Corrupted(_) | redb::Error::UpgradeRequired(_) => true,
                // What redb says of bytes that are none of its own.
                redb::Error::Io(error) => {
                    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
                }
                redb::Error::TableTypeMismatch { .. } | redb::Error::TypeDefinitionChanged { .. } => true,
                _ => false,
            },
            Self::Closed => false,
        }
    }

    /// What is wrong, without where: for whoever says that already.
    pub fn cause(&self) -> &dyn std::error::Error {
        match self {
            Self::Open { source, .. } => source,
            other => other,
        }
    }

    /// Whether another process has the state open.
    pub fn is_held(&self) -> bool {
        matches!(self, Self::Open { source: redb::Error::DatabaseAlreadyOpen, .. })
    }

    /// Whether the disk is full.
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::Storage { source: redb::Error::Io(error), .. } if error.kind() == io::ErrorKind::StorageFull)
    }
}

fn taken(source: &redb::Error) -> &'static str {
    match source {
        redb::Error::DatabaseAlreadyOpen => ": another agent works with it and holds its lock",
        _ => "",
    }
}

type OpenBackend = Box<dyn Fn() -> io::Result<Box<dyn StorageBackend>> + Send + Sync>;

enum Location {
    File(PathBuf),
    Backend(OpenBackend),
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Backend(_) => f.write_str("a given backend"),
        }
    }
}

/// How the store is opened.
#[derive(Debug, Clone, Copy)]
pub struct StoreOptions {
    /// Memory for redb's pages; its own default is a gibibyte.
    pub cache_bytes: usize,
    /// Disk for batches that are not acknowledged.
    pub outbox_budget: u64,
    /// Wall time now: the incarnation of a new state.
    pub wall: Micros,
    /// Random number of this start of the process.
    pub boot: u64,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self { cache_bytes: 4 << 20, outbox_budget: 256 << 20, wall: Micros(0), boot: rand::random() }
    }
}

/// The device's durable state. Calls block on the disk: from async code through `spawn_blocking`.
pub struct Store {
    location: Location,
    mark: Option<Mark>,
    options: StoreOptions,
    /// `None` after a failed write, until [`Store::reopen`]: redb refuses everything after an I/O error.
    database: RwLock<Option<Database>>,
    book: Mutex<Book>,
    incarnation: Incarnation,
    changed: watch::Sender<u64>,
    keeping: Mutex<Keeping>,
    hub_reads: AtomicU8,
    suspect: AtomicBool,
    /// Whether a sync failed, which leaves what it was to keep in doubt: the kernel shows it and may never write it.
    in_doubt: Arc<AtomicBool>,
}

impl Store {
    /// Opens the state in a file, or makes a new one.
    pub fn open(path: &Path, options: StoreOptions) -> Result<Self, StoreError> {
        let mark = Mark::beside(path, Arc::new(RealDisk), mark::boot());
        Self::open_at(Location::File(path.to_owned()), Some(mark), options)
    }

    /// Opens the state on what `backend` makes; it is called again after a failed write. What the program before this
    /// one left is believed.
    pub fn open_with<B: StorageBackend>(
        backend: impl Fn() -> io::Result<B> + Send + Sync + 'static,
        options: StoreOptions,
    ) -> Result<Self, StoreError> {
        let open: OpenBackend = Box::new(move || Ok(Box::new(backend()?)));
        Self::open_at(Location::Backend(open), None, options)
    }

    fn open_at(location: Location, mark: Option<Mark>, options: StoreOptions) -> Result<Self, StoreError> {
        let in_doubt = Arc::default();
        let (database, incarnation, book) = guarded(&location, || {
            let database = open_database(&location, options.cache_bytes, mark.as_ref(), &in_doubt)?;
            let incarnation = tables::prepare(&database, options.wall, options.boot)?;
            let book = Book::load(&database)?;
            Ok((database, incarnation, book))
        })?;
        Ok(Self {
            location,
            mark,
            options,
            database: RwLock::new(Some(database)),
            book: Mutex::new(book),
            incarnation,
            changed: watch::Sender::new(0),
            keeping: Mutex::new(Keeping { bytes: options.outbox_budget, age: None }),
            hub_reads: AtomicU8::new(0),
            suspect: AtomicBool::new(false),
            in_doubt,
        })
    }

    /// Closes the file and opens it again, which brings back exactly what was durable.
    pub fn reopen(&self) -> Result<(), StoreError> {
        let mut book = self.book();
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        // The old one must be gone first: it holds the file's lock.
        *database = None;
        let (opened, loaded) = guarded(&self.location, || {
            let opened = open_database(&self.location, self.options.cache_bytes, self.mark.as_ref(), &self.in_doubt)?;
            let loaded = Book::load(&opened)?;
            Ok((opened, loaded))
        })?;
        let freed = std::mem::take(&mut book.freed);
        *book = Book { freed: freed.clone(), ..loaded };
        *database = Some(opened);
        self.suspect.store(false, Ordering::Release);
        drop((book, database));
        let free = |(stream, (through, scattered)): (&_, &(_, Vec<_>))| self.outbox_free(stream, *through, scattered);
        let again = freed.iter().try_for_each(|freed| free(freed).map(drop));
        // Whoever opens it again after this has to come back here.
        again.inspect_err(|_| self.suspect.store(true, Ordering::Release))
    }

    /// Whether a write failed since the state was opened; whoever owns the event path then reopens it.
    pub fn is_suspect(&self) -> bool {
        self.suspect.load(Ordering::Acquire)
    }

    fn failed(&self, source: impl Into<redb::Error>) -> StoreError {
        self.suspect.store(true, Ordering::Release);
        StoreError::write(source)
    }

    /// Disk that the device gives to batches without receipt, whatever a policy wants.
    pub fn outbox_room(&self) -> u64 {
        self.options.outbox_budget
    }

    /// Which life of the device's state this is.
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Random number of this start of the process.
    pub fn boot(&self) -> u64 {
        self.options.boot
    }

    /// Fires when the outbox changed.
    pub fn outbox_changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // A panic elsewhere left the book as the last successful transaction made it.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn database(&self) -> Result<Opened<'_>, StoreError> {
        let guard = self.database.read().unwrap_or_else(PoisonError::into_inner);
        if guard.is_some() { Ok(Opened(guard)) } else { Err(StoreError::Closed) }
    }
}

struct Opened<'a>(RwLockReadGuard<'a, Option<Database>>);

impl Opened<'_> {
    fn get(&self) -> &Database {
        self.0.as_ref().expect("checked when the guard was made")
    }

    fn begin_read(&self) -> Result<ReadTransaction, StoreError> {
        redb::ReadableDatabase::begin_read(self.get()).map_err(StoreError::read)
    }

    fn begin_write(&self) -> Result<WriteTransaction, StoreError> {
        self.get().begin_write().map_err(StoreError::write)
    }
}

/// redb takes some damage for impossible and panics over it; here that is damage like any other.
fn guarded<T>(location: &Location, work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let problem = panic_in_words(&*panic);
        Err(StoreError::Open { location: location.to_string(), source: redb::Error::Corrupted(problem) })
    })
}

fn open_database(
    location: &Location,
    cache_bytes: usize,
    mark: Option<&Mark>,
    in_doubt: &Arc<AtomicBool>,
) -> Result<Database, StoreError> {
    let open = |source: redb::Error| StoreError::Open { location: location.to_string(), source };
    let mut builder = Builder::new();
    builder.set_cache_size(cache_bytes);
    let backend: Box<dyn StorageBackend> = match location {
        Location::File(path) => {
            let create = |builder: &Builder, path: &Path| builder.create(path).map_err(redb::Error::from);
            create::make_if_missing(&RealDisk, path, &builder, create).map_err(open)?;
            let file = File::options().read(true).write(true).open(path).map_err(|error| open(error.into()))?;
            // redb would begin a new state in it. A new one gets its name only when it is whole, so this one has lost
            // everything, and whoever begins anew in silence hides that.
            if file.metadata().map_err(|error| open(error.into()))?.len() == 0 {
                return Err(open(redb::Error::Corrupted("the file is empty".to_owned())));
            }
            Box::new(FileBackend::new(file).map_err(|error| open(error.into()))?)
        }
        Location::Backend(backend) => backend().map_err(|error| open(error.into()))?,
    };
    let backend = Watched::new(backend, mark.cloned(), in_doubt.clone());
    builder.create_with_backend(backend).map_err(|error| open(error.into()))
}

#[cfg(test)]
pub(crate) mod tests;
#[cfg(test)]
mod giving_up_tests;
