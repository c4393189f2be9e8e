//! The snapshot of the windows in sled, written by a thread of its own. This module alone names sled.
//!
//! sled has lost data on abrupt stops, so nothing it gives back is believed without the count and the sum over all
//! entries that the stamp carries.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tributary_features::View;
use tributary_wire::{Incarnation, Micros};

use crate::state::Loaded;

/// What a snapshot is of. Format 1; another format does not decode and is thrown away.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Stamp {
    /// Fingerprint of the view.
    pub view: [u8; 32],
    /// Of which life of the state.
    pub incarnation: u32,
    /// Last event in it.
    pub number: u64,
    /// Windows reaching back to here are cold.
    pub cold_through: Option<Micros>,
    /// How many entries.
    pub entries: u64,
    /// Sum over the hashes of all entries.
    pub sum: u64,
}

const STAMP: &[u8] = b"stamp-1";
const ENTRIES: &str = "entries";
const STAMPS: &str = "stamps";
/// What sled says when somebody has the folder open, how long that is waited for, and how often it is looked.
const HELD: &str = "could not acquire lock";
const PATIENCE: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(10);
/// A stamp that was never written.
const NONE: u64 = u64::MAX;

type Entries = Vec<(Vec<u8>, Vec<u8>)>;

struct Job {
    stamp: Stamp,
    changed: Entries,
}

enum Message {
    Write(Job),
    Settle(mpsc::Sender<()>),
}

#[derive(Debug)]
struct Progress {
    durable: AtomicU64,
    busy: AtomicBool,
    broken: AtomicBool,
}

/// The open snapshot.
pub(super) struct Snapshot {
    jobs: Option<mpsc::Sender<Message>>,
    progress: Arc<Progress>,
    thread: Option<JoinHandle<()>>,
}

/// Tells views apart by everything they say.
pub(super) fn fingerprint(view: &View) -> [u8; 32] {
    Sha256::digest(view.source().as_bytes()).into()
}

fn hash(key: &[u8], value: &[u8]) -> u64 {
    let mut hasher = Sha256::new();
    hasher.update((key.len() as u64).to_le_bytes());
    hasher.update(key);
    hasher.update(value);
    let digest: [u8; 32] = hasher.finalize().into();
    u64::from_le_bytes(digest[..8].try_into().expect("eight of 32 bytes"))
}

impl Stamp {
    /// Why this snapshot is of no use here, if it is not.
    pub(super) fn mismatch(&self, view: Option<&View>, incarnation: Incarnation, loaded: &Loaded) -> Option<String> {
        let first = loaded.first_kept.unwrap_or(loaded.next);
        if view.is_some_and(|view| self.view != fingerprint(view)) {
            Some("the snapshot is of another feature view".into())
        } else if self.incarnation != incarnation.0 {
            Some(format!("the snapshot is of incarnation {}, this is {incarnation}", self.incarnation))
        } else if self.number >= loaded.next {
            Some(format!("the snapshot is at event {}, the state only at {}", self.number, loaded.next - 1))
        } else if self.number + 1 < first {
            Some(format!("the snapshot is at event {}, the state only keeps events from {first}", self.number))
        } else {
            None
        }
    }
}

impl Snapshot {
    /// Opens or makes the folder and reads all of it; every doubt is an error in words.
    pub(super) fn open(folder: &Path, cache_bytes: u64) -> Result<(Self, Option<(Stamp, Entries)>), String> {
        // sled panics over some damage, and a cache must keep no agent from starting.
        let opened = std::panic::catch_unwind(|| Self::open_unguarded(folder, cache_bytes));
        opened.unwrap_or_else(|_| Err("the library gave up on its files".to_owned()))
    }

    fn open_unguarded(folder: &Path, cache_bytes: u64) -> Result<(Self, Option<(Stamp, Entries)>), String> {
        let failed = |error: sled::Error| error.to_string();
        let config = sled::Config::new().path(folder).cache_capacity(cache_bytes).flush_every_ms(None);
        let begun = Instant::now();
        let db = loop {
            match config.open() {
                // Threads of sled's own hold the folder for a moment longer than whoever had it before; that there is no
                // other agent is the state's to know.
                Err(error) if error.to_string().contains(HELD) && begun.elapsed() < PATIENCE => sleep(LOOK),
                opened => break opened.map_err(failed)?,
            }
        };
        let found = read(&db)?;
        let entries = found.as_ref().map_or((0, 0), |(stamp, _)| (stamp.entries, stamp.sum));
        let durable = found.as_ref().map_or(NONE, |(stamp, _)| stamp.number);
        let progress = Arc::new(Progress {
            durable: AtomicU64::new(durable),
            busy: AtomicBool::new(false),
            broken: AtomicBool::new(false),
        });
        let (jobs, queue) = mpsc::channel();
        let shared = progress.clone();
        let thread = std::thread::Builder::new()
            .name("window-snapshot".into())
            .spawn(move || work(&db, entries, &queue, &shared))
            .map_err(|error| error.to_string())?;
        Ok((Self { jobs: Some(jobs), progress, thread: Some(thread) }, found))
    }

    /// Last event that is safe in the snapshot.
    pub(super) fn durable_through(&self) -> Option<u64> {
        let number = self.progress.durable.load(Ordering::Acquire);
        (number != NONE && !self.progress.broken.load(Ordering::Acquire)).then_some(number)
    }

    /// Whether a new one may begin.
    pub(super) fn is_idle(&self) -> bool {
        !self.progress.busy.load(Ordering::Acquire) && !self.progress.broken.load(Ordering::Acquire)
    }

    /// Begins writing; the caller has checked [`Snapshot::is_idle`]. An empty value removes its entry.
    pub(super) fn begin(&self, stamp: Stamp, changed: Entries) {
        self.progress.busy.store(true, Ordering::Release);
        if let Some(jobs) = &self.jobs
            && jobs.send(Message::Write(Job { stamp, changed })).is_err()
        {
            self.progress.broken.store(true, Ordering::Release);
        }
    }

    /// Waits until all that was begun is written.
    pub(super) fn settle(&self) {
        let (done, wait) = mpsc::channel();
        if let Some(jobs) = &self.jobs
            && jobs.send(Message::Settle(done)).is_ok()
        {
            // An error means the thread is gone, and with it the work.
            let _ = wait.recv();
        }
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            // The folder's lock must be free when this returns.
            let _ = thread.join();
        }
    }
}

fn read(db: &sled::Db) -> Result<Option<(Stamp, Entries)>, String> {
    let failed = |error: sled::Error| error.to_string();
    let Some(stamp) = db.open_tree(STAMPS).map_err(failed)?.get(STAMP).map_err(failed)? else {
        return match db.open_tree(ENTRIES).map_err(failed)?.is_empty() {
            true => Ok(None),
            false => Err("the snapshot has entries but no stamp".into()),
        };
    };
    let stamp: Stamp = postcard::from_bytes(&stamp).map_err(|error| format!("stamp of the snapshot: {error}"))?;
    let (mut entries, mut sum) = (Vec::new(), 0u64);
    for entry in &db.open_tree(ENTRIES).map_err(failed)? {
        let (key, value) = entry.map_err(failed)?;
        sum = sum.wrapping_add(hash(&key, &value));
        entries.push((key.to_vec(), value.to_vec()));
    }
    match (entries.len() as u64, sum) == (stamp.entries, stamp.sum) {
        true => Ok(Some((stamp, entries))),
        false => Err(format!(
            "the snapshot has {} entries that do not add up to its stamp's {}",
            entries.len(),
            stamp.entries
        )),
    }
}

fn work(db: &sled::Db, mut totals: (u64, u64), queue: &mpsc::Receiver<Message>, progress: &Progress) {
    for message in queue {
        match message {
            Message::Settle(done) => drop(done),
            Message::Write(job) => {
                let number = job.stamp.number;
                match write(db, &mut totals, job) {
                    Ok(()) => progress.durable.store(number, Ordering::Release),
                    Err(error) => {
                        tracing::warn!(%error, "the window snapshot cannot be written; windows will be rebuilt by replay");
                        progress.broken.store(true, Ordering::Release);
                    }
                }
                progress.busy.store(false, Ordering::Release);
            }
        }
    }
}

fn write(db: &sled::Db, (count, sum): &mut (u64, u64), job: Job) -> Result<(), sled::Error> {
    let tree = db.open_tree(ENTRIES)?;
    let mut batch = sled::Batch::default();
    for (key, value) in &job.changed {
        if let Some(old) = tree.get(key)? {
            *count -= 1;
            *sum = sum.wrapping_sub(hash(key, &old));
        }
        if value.is_empty() {
            batch.remove(key.as_slice());
        } else {
            *count += 1;
            *sum = sum.wrapping_add(hash(key, value));
            batch.insert(key.as_slice(), value.as_slice());
        }
    }
    // Entries first, stamp second, one sync: a crash in between leaves entries that the old stamp does not add up to.
    tree.apply_batch(batch)?;
    let stamp = Stamp { entries: *count, sum: *sum, ..job.stamp };
    let bytes = postcard::to_stdvec(&stamp).expect("plain data always serialises");
    db.open_tree(STAMPS)?.insert(STAMP, bytes)?;
    db.flush()?;
    Ok(())
}

/// What a crash between two writes could leave if sled kept no order: entries that no stamp speaks of.
#[cfg(test)]
pub(crate) fn broken(folder: &Path) {
    let db = sled::Config::new().path(folder).open().unwrap();
    db.open_tree(ENTRIES).unwrap().insert(b"entry", b"value").unwrap();
    db.flush().unwrap();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_held_for_a_moment_longer_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("windows");
        let held = sled::open(&path).unwrap();
        let holder = std::thread::spawn(move || {
            sleep(Duration::from_millis(100));
            drop(held);
        });
        assert!(Snapshot::open(&path, 1 << 20).is_ok());
        holder.join().unwrap();
    }
}
