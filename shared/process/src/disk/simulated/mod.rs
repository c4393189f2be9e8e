//! A disk in memory that forgets what was not synced, tears what was being written, and can be full or fail. For tests.

mod content;
mod file;
mod journal;
mod names;

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use content::Content;
pub use content::Harm;
pub use file::SimFile;
use journal::Operation;
pub use journal::Replay;
use names::Names;

use super::{Access, Disk, Growing, ReadAt};

/// The disk. Clones are the same disk, and handles of the same power cycle.
#[derive(Debug, Clone)]
pub struct SimDisk {
    inner: Arc<Mutex<Inner>>,
    /// The power cycle in which this handle works; `None`: in all.
    cycle: Option<u64>,
}

#[derive(Debug, Clone, Default)]
struct Inner {
    names: Names,
    contents: BTreeMap<u64, Content>,
    next: u64,
    /// Programs that died with their handles.
    cycle: u64,
    /// Power cuts.
    boots: u64,
    /// Changing operations so far: what cuts and faults are counted in.
    operations: u64,
    syncs: u64,
    /// Operations that met a fault, or no room.
    refusals: u64,
    /// The power fails at this operation, and stays away.
    cut_at: Option<u64>,
    /// The program dies at this operation.
    kill_at: Option<u64>,
    /// Single operations that fail, and how.
    faults: BTreeMap<u64, io::ErrorKind>,
    /// No file grows when all together would then have more bytes.
    capacity: Option<u64>,
    /// Decides how much of a write is taken at once.
    short_writes: Option<StdRng>,
    lying: bool,
    journal: Option<Vec<Operation>>,
    harm: Harm,
}

impl Default for SimDisk {
    fn default() -> Self {
        Self::new()
    }
}

impl SimDisk {
    /// An empty disk without limit.
    pub fn new() -> Self {
        Self { inner: Arc::default(), cycle: None }
    }

    /// A handle for a program that dies with the power: after the next [`SimDisk::crash`] or [`SimDisk::kill`] it does
    /// nothing any more, whatever of that program still runs.
    pub fn until_crash(&self) -> Self {
        Self { inner: self.inner.clone(), cycle: Some(self.lock().cycle) }
    }

    /// Cuts the power. Of what was not synced, `seed` decides what is left: of each file none of it, all of it, or some
    /// sectors; of the names each change by itself. `None` leaves nothing.
    pub fn crash(&self, seed: Option<u64>) {
        let mut inner = self.lock();
        let mut coin = seed.map(StdRng::seed_from_u64);
        inner.names.crash(coin.as_mut());
        let known: Vec<u64> = inner.names.contents().collect();
        inner.contents.retain(|id, _| known.contains(id));
        let Inner { contents, harm, .. } = &mut *inner;
        contents.values_mut().for_each(|content| *harm += content.crash(coin.as_mut()));
        inner.cycle += 1;
        inner.boots += 1;
        inner.cut_at = None;
        inner.kill_at = None;
        inner.faults.clear();
    }

    /// The program dies, and the machine goes on: its handles do nothing any more, as after [`SimDisk::crash`], but
    /// what it wrote is as it was, and a disk that fails goes on failing.
    pub fn kill(&self) {
        let mut inner = self.lock();
        inner.cycle += 1;
        inner.kill_at = None;
    }

    /// The program dies after so many more operations, as [`SimDisk::kill`] has it.
    pub fn kill_after(&self, operations: u64) {
        let mut inner = self.lock();
        inner.kill_at = Some(inner.operations + operations);
    }

    /// How often the power was cut: a name for what lasts from one cut to the next, as systems have one.
    pub fn boots(&self) -> u64 {
        self.lock().boots
    }

    /// The power fails after so many more operations: every later one fails, until [`SimDisk::crash`].
    pub fn fail_after(&self, operations: u64) {
        let mut inner = self.lock();
        inner.cut_at = Some(inner.operations + operations);
    }

    /// Whether an operation met the failing power.
    pub fn has_failed(&self) -> bool {
        let inner = self.lock();
        inner.cut_at.is_some_and(|at| inner.operations > at)
    }

    /// Ends what [`SimDisk::fail_after`] began without a power cut: a fault that passed.
    pub fn mend(&self) {
        self.lock().cut_at = None;
    }

    /// After so many more operations, one fails in this way. A sync that fails leaves in doubt for ever what it was to
    /// make durable, as Linux does.
    pub fn fail_once(&self, after: u64, kind: io::ErrorKind) {
        let mut inner = self.lock();
        let at = inner.operations + after;
        inner.faults.insert(at, kind);
    }

    /// Lets the disk be full at so many bytes; `None` makes room again.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.lock().capacity = bytes;
    }

    /// Lets writes take only a part at once, as `seed` decides.
    pub fn set_short_writes(&self, seed: Option<u64>) {
        self.lock().short_writes = seed.map(StdRng::seed_from_u64);
    }

    /// Makes syncs succeed without effect, as a bad drive does.
    pub fn set_lying(&self, lying: bool) {
        self.lock().lying = lying;
    }

    /// Flips one bit of a file, durably, as an old drive does.
    pub fn rot(&self, path: &Path, byte: usize) -> io::Result<()> {
        let mut inner = self.lock();
        let id = inner.names.file(path)?;
        inner.content(id).rot(byte)
    }

    /// Puts other bytes into a file, durably, as a drive does that mixes up its sectors, or takes its own copy of them.
    pub fn put(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut inner = self.lock();
        let id = inner.names.file(path)?;
        inner.content(id).put(bytes);
        Ok(())
    }

    /// Bytes in use.
    pub fn used(&self) -> u64 {
        self.lock().used()
    }

    /// Changing operations so far: creations, writes, truncations, syncs, renames, removals.
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// How often something was made durable.
    pub fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    /// What it did to writes so far.
    pub fn harm(&self) -> Harm {
        self.lock().harm
    }

    /// How many operations it refused so far: whatever failed meanwhile had a reason.
    pub fn refusals(&self) -> u64 {
        self.lock().refusals
    }

    /// A file to be read and written at any place; it is made when it is not there.
    pub fn file(&self, path: &Path) -> io::Result<SimFile> {
        let known = self.reader()?.names.file(path);
        let id = match known {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.change()?.make(path)?,
            known => known?,
        };
        Ok(self.handle(id))
    }

    fn handle(&self, id: u64) -> SimFile {
        SimFile::new(Self { inner: self.inner.clone(), cycle: Some(self.lock().cycle) }, id)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reader(&self) -> io::Result<MutexGuard<'_, Inner>> {
        let inner = self.lock();
        match self.cycle.is_none_or(|cycle| cycle == inner.cycle) {
            true => Ok(inner),
            false => Err(io::Error::other("the power was cut")),
        }
    }

    /// Counts an operation, which may be the one that fails.
    fn change(&self) -> io::Result<MutexGuard<'_, Inner>> {
        let mut inner = self.reader()?;
        let operation = inner.operations;
        inner.operations += 1;
        if inner.kill_at.is_some_and(|at| operation >= at) {
            inner.kill_at = None;
            inner.cycle += 1;
            return Err(io::Error::other("the program was killed"));
        }
        if inner.cut_at.is_some_and(|at| operation >= at) {
            inner.refusals += 1;
            return Err(io::Error::other("the power is failing"));
        }
        match inner.faults.remove(&operation) {
            Some(kind) => {
                inner.refusals += 1;
                Err(io::Error::new(kind, "a simulated fault"))
            }
            None => Ok(inner),
        }
    }
}

impl Inner {
    fn content(&mut self, id: u64) -> &mut Content {
        // A file that lost its name in a crash is not there for handles of the next cycle; those of this one keep it.
        self.contents.entry(id).or_default()
    }

    fn used(&self) -> u64 {
        self.contents.values().map(Content::length).sum()
    }

    /// How much a file may grow.
    fn room(&self) -> u64 {
        self.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(self.used()))
    }

    /// An operation found no room.
    fn full(&mut self) -> io::Error {
        self.refusals += 1;
        io::Error::new(io::ErrorKind::StorageFull, "no space left on the simulated disk")
    }

    fn make(&mut self, path: &Path) -> io::Result<u64> {
        self.perform(Operation::Make(path.to_owned()))?;
        Ok(self.next)
    }
}

impl Disk for SimDisk {
    fn create_folder(&self, folder: &Path) -> io::Result<()> {
        let mut missing: Vec<PathBuf> = Vec::new();
        for path in folder.ancestors() {
            if self.reader()?.names.has_folder(path) {
                break;
            }
            missing.push(path.to_owned());
        }
        missing.into_iter().rev().try_for_each(|path| self.change()?.perform(Operation::Folder(path)))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Read + Send>> {
        let mut inner = self.reader()?;
        let id = inner.names.file(path)?;
        Ok(Box::new(io::Cursor::new(inner.content(id).bytes().to_vec())))
    }

    fn open_at(&self, path: &Path) -> io::Result<Arc<dyn ReadAt>> {
        let id = self.reader()?.names.file(path)?;
        Ok(Arc::new(self.handle(id)))
    }

    fn create(&self, path: &Path, _access: Access) -> io::Result<Box<dyn Growing>> {
        let mut inner = self.change()?;
        let id = match inner.names.file(path) {
            Ok(id) => {
                inner.perform(Operation::Length(id, 0))?;
                id
            }
            Err(_) => inner.make(path)?,
        };
        drop(inner);
        Ok(Box::new(self.handle(id)))
    }

    fn append(&self, path: &Path) -> io::Result<Box<dyn Growing>> {
        Ok(Box::new(self.file(path)?))
    }

    fn length(&self, path: &Path) -> io::Result<u64> {
        let mut inner = self.reader()?;
        let id = inner.names.file(path)?;
        Ok(inner.content(id).length())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change()?.perform(Operation::Rename(from.to_owned(), to.to_owned()))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.change()?.perform(Operation::Remove(path.to_owned()))
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        self.reader()?.names.files(folder)
    }

    fn folders(&self, folder: &Path) -> io::Result<Vec<String>> {
        self.reader()?.names.folders(folder)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        self.change()?.perform(Operation::SyncFolder(folder.to_owned()))
    }

    fn free(&self, _folder: &Path) -> io::Result<u64> {
        Ok(self.reader()?.room())
    }
}

/// Whether a thing that was in doubt is left. Without a coin nothing is.
fn is_left(coin: &mut Option<&mut StdRng>) -> bool {
    coin.as_mut().is_some_and(|coin| coin.random_bool(0.5))
}
