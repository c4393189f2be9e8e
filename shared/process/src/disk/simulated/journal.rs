//! What happened to a simulated disk, operation by operation, to be played again up to any of them.

use std::io;
use std::path::PathBuf;

use super::names::Entry;
use super::{Inner, SimDisk};

/// One changing operation.
#[derive(Debug, Clone)]
pub(super) enum Operation {
    Folder(PathBuf),
    Make(PathBuf),
    Write(u64, usize, Vec<u8>),
    Length(u64, usize),
    Sync(u64),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
    SyncFolder(PathBuf),
}

impl Inner {
    /// Does it, and writes it down if a journal is kept.
    pub(super) fn perform(&mut self, operation: Operation) -> io::Result<()> {
        match &operation {
            Operation::Folder(path) => self.names.link(path, Entry::Folder)?,
            Operation::Make(path) => {
                self.next += 1;
                self.names.link(path, Entry::File(self.next))?;
                self.contents.insert(self.next, Default::default());
            }
            Operation::Write(id, offset, data) => self.content(*id).write(*offset, data),
            Operation::Length(id, length) => self.content(*id).set_length(*length),
            Operation::Sync(id) => {
                self.syncs += 1;
                if !self.lying {
                    self.content(*id).sync();
                }
            }
            Operation::Rename(from, to) => self.names.rename(from, to)?,
            Operation::Remove(path) => self.names.unlink(path)?,
            Operation::SyncFolder(folder) => {
                self.syncs += 1;
                if !self.lying {
                    self.names.sync(folder);
                }
            }
        }
        if let Some(journal) = &mut self.journal {
            journal.push(operation);
        }
        Ok(())
    }
}

/// Plays the journal of a disk again, so that a test can look at it, and cut its power, after every single operation.
#[derive(Debug)]
pub struct Replay {
    disk: SimDisk,
    journal: std::vec::IntoIter<Operation>,
    done: usize,
}

impl SimDisk {
    /// From here on every operation is written down; for an empty disk.
    pub fn keep_journal(&self) {
        self.lock().journal = Some(Vec::new());
    }

    /// How many operations the journal has so far.
    pub fn journal_length(&self) -> usize {
        self.lock().journal.as_ref().map_or(0, Vec::len)
    }

    /// Begins to play the journal again, on a new disk.
    pub fn replay(&self) -> Replay {
        let journal = self.lock().journal.clone().unwrap_or_default();
        Replay { disk: Self::new(), journal: journal.into_iter(), done: 0 }
    }
}

impl Replay {
    /// A copy of the disk as it was after so many operations; not fewer than the last time.
    pub fn after(&mut self, operations: usize) -> SimDisk {
        while self.done < operations
            && let Some(operation) = self.journal.next()
        {
            self.done += 1;
            self.disk.lock().perform(operation).expect("what went well goes well again");
        }
        let inner = self.disk.lock().clone();
        SimDisk { inner: std::sync::Arc::new(std::sync::Mutex::new(inner)), cycle: None }
    }
}
