//! A ledger in memory whose commits lie on a [`Disk`]: a power cut in the middle of one leaves the old or the new.
//!
//! The tables are memory; the disk holds one small file that names the last commit. It is replaced as a transaction
//! would be written: so a full disk, a failed sync or a power cut strikes it as it strikes the lake beside it.

mod tables;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cloud_hub_lake::{FileEntry, StreamSchema};
use tributary_process::disk::{self, Access, Disk};
use tributary_wire::{DeviceId, LossReason, Micros, SequenceNumber, Sha256, StreamName};

use super::{Entry, Ledger, LedgerError, Standing};
use crate::catalog::alerts::Raise;
use crate::catalog::batches::{Numbering, State};
pub use tables::Gap;
use tables::{Tables, What};

/// What the file takes: a page, so that a disk without room has none for a commit either.
const PAGE: usize = 4096;

/// The ledger of a simulated hub.
#[derive(Debug, Clone)]
pub struct MemoryLedger {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    /// Every commit ever tried, over all lives: which of them count, the disk says.
    tried: Arc<Mutex<Vec<Tried>>>,
    tables: Arc<Mutex<Tables>>,
}

/// A commit, and the one that it stands on; they are numbered from 1.
#[derive(Debug)]
struct Tried {
    on: u64,
    what: What,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn failed(error: io::Error) -> LedgerError {
    LedgerError::Catalog(sqlx::Error::Io(error))
}

impl MemoryLedger {
    /// An empty ledger that keeps its commits in a new file of a folder that is there.
    pub fn create(disk: Arc<dyn Disk>, path: impl Into<PathBuf>) -> Result<Self, LedgerError> {
        let ledger = Self { disk, path: path.into(), tried: Arc::default(), tables: Arc::default() };
        ledger.place(0).map_err(failed)?;
        Ok(ledger)
    }

    /// The ledger as its file has it, for the next life of the program.
    pub fn reopen(&self, on: Arc<dyn Disk>) -> Result<Self, LedgerError> {
        // The program before this one may have died between the commit's name and its sync.
        on.sync_folder(disk::folder_of(&self.path)).map_err(failed)?;
        let number = committed(&*on, &self.path).map_err(failed)?;
        let mut tables = lock(&self.tables).clone();
        if tables.number != number {
            tables = self.replay(number);
        }
        let tables = Arc::new(Mutex::new(tables));
        Ok(Self { disk: on, path: self.path.clone(), tried: self.tried.clone(), tables })
    }

    /// What devices gave up, in the order in which it came.
    pub fn gaps(&self) -> Vec<Gap> {
        lock(&self.tables).gaps.clone()
    }

    /// Records given up for a reason, in all streams.
    pub fn lost(&self, reason: LossReason) -> u64 {
        lock(&self.tables).gaps.iter().filter(|gap| gap.lost.reason == reason).map(|gap| gap.lost.records).sum()
    }

    /// Alerts that are open: kind and subject.
    pub fn alerts(&self) -> Vec<(String, String)> {
        lock(&self.tables).alerts.keys().cloned().collect()
    }

    /// Messages that are aside: whose, and why.
    pub fn kept(&self) -> Vec<(DeviceId, &'static str)> {
        let tables = lock(&self.tables);
        let all = tables.kept.iter().flat_map(|(device, kept)| kept.values().map(move |aside| (device, aside)));
        all.filter(|(_, aside)| !aside.replayed).map(|(device, aside)| (device.clone(), aside.reason)).collect()
    }

    /// Commits one change upon the tables as they are.
    fn commit(&self, what: What) -> Result<(), LedgerError> {
        let mut tables = lock(&self.tables);
        let number = {
            let mut tried = lock(&self.tried);
            tried.push(Tried { on: tables.number, what });
            tried.len() as u64
        };
        let placed = self.place(number);
        // A commit that failed may have happened all the same; readers of this life see what the file says.
        if placed.is_ok() || committed(&*self.disk, &self.path).is_ok_and(|found| found == number) {
            tables.apply(number, &lock(&self.tried)[number as usize - 1].what);
        }
        placed.map_err(failed)
    }

    fn place(&self, number: u64) -> io::Result<()> {
        let mut page = vec![0; PAGE];
        page[..8].copy_from_slice(&number.to_le_bytes());
        page[PAGE - 8..].copy_from_slice(&number.to_le_bytes());
        disk::replace(&*self.disk, &self.path, &page, Access::Owner)
    }

    /// The tables after a commit and those that it stands on.
    fn replay(&self, number: u64) -> Tables {
        let tried = lock(&self.tried);
        let on = |number: &u64| tried.get(*number as usize - 1).map(|tried| tried.on).filter(|on| *on > 0);
        let first = Some(number).filter(|number| *number > 0);
        let mut numbers: Vec<u64> = std::iter::successors(first, on).collect();
        numbers.reverse();
        let mut tables = Tables::default();
        numbers.into_iter().for_each(|number| tables.apply(number, &tried[number as usize - 1].what));
        tables
    }
}

/// The last commit that the file names.
fn committed(disk: &dyn Disk, path: &Path) -> io::Result<u64> {
    let page = disk.read(path, PAGE as u64)?;
    let number = |at: usize| page.get(at..at + 8).map(|bytes| u64::from_le_bytes(bytes.try_into().unwrap_or_default()));
    match (number(0), number(PAGE - 8)) {
        (Some(first), Some(last)) if first == last => Ok(first),
        found => Err(io::Error::new(io::ErrorKind::InvalidData, format!("the ledger's page is torn: {found:?}"))),
    }
}

impl Ledger for MemoryLedger {
    async fn progress(&self, of: &Numbering) -> Result<Standing, LedgerError> {
        let tables = lock(&self.tables);
        let through = tables.through.get(of).copied().unwrap_or(SequenceNumber(0));
        let beyond = tables.answers.get(of).into_iter().flat_map(|known| known.range(through.0 + 1..));
        Ok((through, beyond.map(|(first, answer)| (*first, answer.last.0)).collect()))
    }

    async fn answered(&self, of: &Numbering, sequence: SequenceNumber) -> Result<Option<(Sha256, State)>, LedgerError> {
        let tables = lock(&self.tables);
        let known = tables.answers.get(of).and_then(|known| known.get(&sequence.0));
        Ok(known.map(|answer| (answer.hash, answer.state)))
    }

    async fn is_kept(&self, device: &DeviceId, hash: &Sha256) -> Result<bool, LedgerError> {
        Ok(lock(&self.tables).kept.get(device).is_some_and(|kept| kept.contains_key(hash)))
    }

    async fn kept_bytes(&self, device: &DeviceId) -> Result<u64, LedgerError> {
        let tables = lock(&self.tables);
        let aside = tables.kept.get(device).into_iter().flat_map(BTreeMap::values);
        Ok(aside.filter(|aside| !aside.replayed).map(|aside| aside.bytes).sum())
    }

    async fn kept_paths(&self) -> Result<Vec<String>, LedgerError> {
        let tables = lock(&self.tables);
        Ok(tables.kept.values().flat_map(BTreeMap::values).map(|aside| aside.path.clone()).collect())
    }

    async fn files(&self) -> Result<Vec<FileEntry>, LedgerError> {
        Ok(lock(&self.tables).files.clone())
    }

    async fn schemas(&self) -> Result<Vec<(StreamName, StreamSchema)>, LedgerError> {
        Ok(lock(&self.tables).schemas.clone().into_iter().collect())
    }

    async fn enter(&self, entry: &Entry, _now: Micros) -> Result<Vec<FileEntry>, LedgerError> {
        let files = {
            let tables = lock(&self.tables);
            if tables.races(entry) {
                return Err(LedgerError::Raced);
            }
            tables.numbered(entry)
        };
        self.commit(What::Entry(Arc::new(entry.clone())))?;
        Ok(files)
    }

    async fn probe(&self) -> Result<(), LedgerError> {
        self.commit(What::Entry(Arc::default()))
    }

    async fn raise(&self, alert: Raise<'_>, _now: Micros) -> Result<(), LedgerError> {
        self.commit(What::Raise(alert.kind.to_owned(), alert.subject.to_owned()))
    }

    async fn resolve(&self, kind: &str, subject: &str, _now: Micros) -> Result<(), LedgerError> {
        self.commit(What::Resolve(kind.to_owned(), subject.to_owned()))
    }
}
