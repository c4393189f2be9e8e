//! The state of an agent that does not run, looked at without changing a byte of it.

use std::fs::File;
use std::path::Path;

use redb::{ReadableTable, ReadableTableMetadata};
use tributary_wire::{Incarnation, Micros, SequenceNumber};

use super::giving_up::whole;
use super::outbox::Book;
use super::overlay::Overlay;
use super::tables::{ACCEPTED, DROPPED, META, NEXT_ACCEPT, OUTBOX, SEEN};
use super::{Store, StoreError, StoreOptions, batching, guarded, records};

/// What the state holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// Which life of the device's state it is.
    pub incarnation: Incarnation,
    /// Events accepted in this life.
    pub accepted: u64,
    /// Of those, still here to rebuild windows from.
    pub kept: u64,
    /// Batches that the hub has not acknowledged.
    pub batches: u64,
    /// Of those, not as they were stored.
    pub damaged: u64,
    /// Records in them.
    pub records: u64,
    /// Their size.
    pub bytes: u64,
    /// When the oldest of them was closed.
    pub oldest: Option<Micros>,
    /// Accepted events that are in no batch yet.
    pub unbatched: u64,
    /// Records given up in this life.
    pub dropped: u64,
}

/// A state file that cannot be trusted.
#[derive(Debug)]
pub struct Damage {
    /// What is wrong with it.
    pub error: StoreError,
    /// What it holds, as far as that could still be counted.
    pub contents: Option<Box<Contents>>,
}

/// Opens a state file over changes that stay in memory, as an agent would open it, and reads all of it: redb's own
/// structure with its checksums, then every record. Whoever calls holds the file's lock.
pub fn inspect(path: &Path) -> Result<(Store, Contents), Damage> {
    let alone = |error| Damage { error, contents: None };
    let open =
        |error: std::io::Error| alone(StoreError::Open { location: path.display().to_string(), source: error.into() });
    let length = std::fs::metadata(path).map_err(open)?.len();
    if length == 0 {
        let source = redb::Error::Corrupted("the file is empty".to_owned());
        return Err(alone(StoreError::Open { location: path.display().to_string(), source }));
    }
    File::open(path).map_err(open)?;
    let file = path.to_owned();
    let store = Store::open_with(move || Overlay::new(File::open(&file)?), StoreOptions::default()).map_err(alone)?;
    let counted = guarded(&store.location, || store.count());
    match (guarded(&store.location, || store.check()), counted) {
        (Ok(()), Ok(contents)) => Ok((store, contents)),
        (Err(error), counted) => Err(Damage { error, contents: counted.ok().map(Box::new) }),
        (Ok(()), Err(error)) => Err(Damage { error, contents: None }),
    }
}

impl Store {
    /// Lets redb check its structure and every checksum.
    fn check(&self) -> Result<(), StoreError> {
        let mut guard = self.database.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        let database = guard.as_mut().ok_or(StoreError::Closed)?;
        match database.check_integrity().map_err(StoreError::read)? {
            true => Ok(()),
            // It would go on from an older state; but what came after that has been answered for, and may have
            // travelled under numbers that would come again.
            false => Err(StoreError::read(redb::Error::Corrupted("checksums or free pages do not fit".to_owned()))),
        }
    }

    /// Reads every record there is.
    fn count(&self) -> Result<Contents, StoreError> {
        let loaded = self.load()?;
        let database = self.database()?;
        let book = Book::load(database.get())?;
        let transaction = database.begin_read()?;
        let meta = transaction.open_table(META).map_err(StoreError::read)?;
        let number = |key: &str| -> Result<u64, StoreError> {
            Ok(meta.get(key).map_err(StoreError::read)?.map_or(0, |value| value.value()))
        };
        let accepted = number(NEXT_ACCEPT)?.max(1) - 1;
        let mut contents = Contents {
            incarnation: self.incarnation,
            accepted,
            kept: transaction.open_table(ACCEPTED).map_err(StoreError::read)?.len().map_err(StoreError::read)?,
            batches: 0,
            damaged: 0,
            records: 0,
            bytes: 0,
            oldest: None,
            unbatched: accepted.saturating_sub(loaded.batched_through),
            dropped: number(DROPPED)?,
        };
        self.replay(0, |_| {})?;
        let seen = transaction.open_table(SEEN).map_err(StoreError::read)?;
        for entry in seen.iter().map_err(StoreError::read)? {
            let (id, answer) = entry.map_err(StoreError::read)?;
            records::decode_answer(id.value(), answer.value())?;
        }
        let outbox = transaction.open_table(OUTBOX).map_err(StoreError::read)?;
        let mut named = 0;
        for (stream, own) in &book.streams {
            let name = batching::stream(stream);
            for (number, entry) in &own.entries {
                let stored = outbox.get((stream.as_str(), *number)).map_err(StoreError::read)?;
                named += u64::from(stored.is_some());
                let stored = stored.as_ref().map(|stored| stored.value());
                // The agent gives such a one up when it would be sent.
                let damaged = whole(stored, self.incarnation, &name, SequenceNumber(*number)).is_err();
                contents.damaged += u64::from(damaged);
                contents.batches += 1;
                contents.records += if entry.gap.is_none() { entry.records } else { 0 };
                contents.bytes += entry.bytes;
                let closed = Micros(entry.closed);
                contents.oldest = Some(contents.oldest.map_or(closed, |oldest| oldest.min(closed)));
            }
        }
        let stored = outbox.len().map_err(StoreError::read)?;
        if stored != named {
            let problem = format!("of {stored} that are there {named} are in the index");
            return Err(StoreError::Damaged { what: "outbox", key: "index".to_owned(), problem });
        }
        Ok(contents)
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::tests::{batch, rows, stamp};
    use super::super::{Commit, StoreOptions};
    use super::*;

    /// A state with 99 accepted events, of which those up to 90 wait in one batch per stream.
    fn state() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.redb");
        let store =
            Store::open(&path, StoreOptions { wall: Micros(1_900_000_000_000_000), ..Default::default() }).unwrap();
        let accepted = rows(1, 100);
        let batches = batch(&accepted[..90]);
        let commit = Commit { accepted: &accepted, batches, batched_through: Some(90), ..Commit::default() };
        store.commit(&commit, stamp()).unwrap();
        (folder, path)
    }

    #[test]
    fn a_whole_state_is_counted_and_not_touched_whether_it_was_closed_or_not() {
        let (folder, path) = state();
        let closed = std::fs::read(&path).unwrap();
        let (store, contents) = inspect(&path).unwrap();
        assert_eq!((contents.accepted, contents.kept, contents.unbatched, contents.dropped), (99, 99, 9, 0));
        assert!(contents.records >= 90 && contents.batches >= 1 && contents.bytes > 0, "{contents:?}");
        assert_eq!(contents.oldest, Some(stamp().wall));
        // Whatever the look stores is forgotten with it.
        store.blob_put("a", b"b").unwrap();
        drop(store);
        assert!(std::fs::read(&path).unwrap() == closed);
        // As a killed process leaves it: redb has to recover first, and does so in memory.
        let running = Store::open(&path, StoreOptions::default()).unwrap();
        running.blob_put("late", b"1").unwrap();
        let copy = folder.path().join("copy.redb");
        std::fs::copy(&path, &copy).unwrap();
        drop(running);
        let unclosed = std::fs::read(&copy).unwrap();
        let (store, found) = inspect(&copy).unwrap();
        assert_eq!((found.accepted, store.blob_get("late").unwrap()), (99, Some(b"1".to_vec())));
        assert!(std::fs::read(&copy).unwrap() == unclosed);
    }

    #[test]
    fn a_batch_that_is_not_what_was_stored_is_counted_and_condemns_nothing_else() {
        let (_folder, path) = state();
        let whole = inspect(&path).unwrap().1;
        let store = Store::open(&path, StoreOptions::default()).unwrap();
        // As after a page with a flipped bit was copied, which makes its checksum anew.
        let spoil = |transaction: &redb::WriteTransaction| {
            transaction.open_table(OUTBOX)?.insert(("events", 1), &b"rotten"[..])?;
            Ok(())
        };
        store.write(spoil).unwrap();
        drop(store);
        assert_eq!(inspect(&path).unwrap().1, Contents { damaged: 1, ..whole.clone() });
        let store = Store::open(&path, StoreOptions::default()).unwrap();
        let lose =
            |transaction: &redb::WriteTransaction| Ok(transaction.open_table(OUTBOX)?.remove(("events", 1))?.is_some());
        assert!(store.write(lose).unwrap());
        drop(store);
        assert_eq!(inspect(&path).unwrap().1, Contents { damaged: 1, ..whole });
        let store = Store::open(&path, StoreOptions::default()).unwrap();
        let name = |transaction: &redb::WriteTransaction| {
            transaction.open_table(OUTBOX)?.insert(("events", 9), &b"by nobody"[..])?;
            Ok(())
        };
        store.write(name).unwrap();
        drop(store);
        let damage = inspect(&path).err().unwrap();
        assert!(damage.error.to_string().contains("of 1 that are there 0 are in the index"), "{damage:?}");
    }

    #[test]
    fn every_flipped_byte_that_matters_is_found_and_none_is_mended_in_the_file() {
        let (_folder, path) = state();
        let whole = std::fs::read(&path).unwrap();
        let expected = inspect(&path).unwrap().1;
        let mut damaged = 0;
        let used = whole.iter().rposition(|byte| *byte != 0).unwrap();
        for at in (0..used).step_by(used / 60) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x55;
            std::fs::write(&path, &bytes).unwrap();
            match inspect(&path) {
                // It lay where nothing is stored.
                Ok((_, contents)) => assert_eq!(contents, expected, "byte {at}"),
                Err(damage) => {
                    damaged += 1;
                    assert!(damage.error.is_broken(), "byte {at}: {damage:?}");
                }
            }
            assert!(std::fs::read(&path).unwrap() == bytes, "byte {at}");
        }
        assert!(damaged > 10, "{damaged} of 60");
        for length in [0, 100, whole.len() / 2] {
            std::fs::write(&path, &whole[..length]).unwrap();
            assert!(inspect(&path).is_err_and(|damage| damage.error.is_broken()));
        }
    }
}
