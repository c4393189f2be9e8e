//! The durable queue of batches: numbering, offering and freeing.
//!
//! A number that was offered to the link may be at the hub already, so what it stands for never changes again: only
//! batches that were never offered are [given up](super::giving_up), and those that the disk did not keep. The mark of what
//! was offered is durable before the batch travels.

use std::collections::BTreeMap;

use redb::{Database, Durability, ReadableDatabase, ReadableTable, WriteTransaction};
use tributary_wire::{
    Batch, BatchBody, BatchHeaderV1, BodyEncoding, DroppedRecords, Held, Incarnation, LossReason, Micros,
    SequenceNumber, Stamp, StreamName,
};

use super::giving_up::whole;
use super::records::{self, Entry};
use super::tables::{DROPPED, META, OUTBOX, OUTBOX_INDEX};
use super::{Store, StoreError};

/// Offers are marked this many numbers ahead, so that one sync serves many batches. As many batches per stream at
/// most are spared by the budget after a restart though they never travelled.
const MARK_AHEAD: u64 = 32;

/// A batch that has no number yet.
#[derive(Debug, Clone)]
pub struct ClosedBatch {
    stream: StreamName,
    records: u64,
    body: Vec<u8>,
    body_bytes: u32,
    encoding: BodyEncoding,
    /// Event times of the earliest and of the latest of its records.
    span: Option<(Micros, Micros)>,
    remarkable: bool,
}

impl ClosedBatch {
    pub(super) fn new(stream: StreamName, records: u64, body: &BatchBody, span: Option<(Micros, Micros)>) -> Self {
        let plain = body.encode();
        let body_bytes = plain.len() as u32;
        // Compressing into memory fails only when memory does; then the body travels as it is.
        let (body, encoding) = match zstd::bulk::compress(&plain, 3) {
            Ok(packed) if packed.len() < plain.len() => (packed, BodyEncoding::Zstd),
            _ => (plain, BodyEncoding::Plain),
        };
        Self { stream, records, body, body_bytes, encoding, span, remarkable: false }
    }

    /// Says whether it holds close and rare observations, which are given up after the others.
    pub(super) fn remarkable(self, remarkable: bool) -> Self {
        Self { remarkable, ..self }
    }
}

/// What the outbox holds and what it gave up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Outgoing {
    /// Batches that are not acknowledged.
    pub batches: u64,
    /// Their size.
    pub bytes: u64,
    /// Records given up since the state began.
    pub dropped: u64,
}

#[derive(Debug, Default)]
pub(super) struct StreamBook {
    /// Last number given.
    last: u64,
    /// Highest number that was handed out.
    pub(super) offered: u64,
    /// Highest number that is durably marked as handed out.
    mark: u64,
    pub(super) entries: BTreeMap<u64, Entry>,
}

/// The outbox's index in memory: some eighty bytes per batch.
#[derive(Debug, Default)]
pub(super) struct Book {
    pub(super) streams: BTreeMap<String, StreamBook>,
    pub(super) bytes: u64,
    /// Records given up since the state began …
    pub(super) dropped: u64,
    /// … and by stream and reason, as far as an earlier build counted so.
    pub(super) dropped_by: BTreeMap<(String, LossReason), u64>,
    /// What the last receipt of each stream freed. That does not wait for the disk, so a file that is opened again may
    /// bring it back, and nobody would send it or free it any more.
    pub(super) freed: BTreeMap<StreamName, (SequenceNumber, Vec<SequenceNumber>)>,
}

fn last_key(stream: &str) -> String {
    format!("last/{stream}")
}

fn mark_key(stream: &str) -> String {
    format!("offered/{stream}")
}

/// Where the records of a stream that were given up for a reason are counted.
pub(super) fn dropped_key(stream: &str, reason: LossReason) -> String {
    format!("dropped/{}/{stream}", reason.name())
}

impl Book {
    pub(super) fn load(database: &Database) -> Result<Self, StoreError> {
        let transaction = database.begin_read().map_err(StoreError::read)?;
        let mut book = Self::default();
        let meta = transaction.open_table(META).map_err(StoreError::read)?;
        for entry in meta.iter().map_err(StoreError::read)? {
            let (key, value) = entry.map_err(StoreError::read)?;
            let value = value.value();
            if let Some(stream) = key.value().strip_prefix("last/") {
                book.streams.entry(stream.to_owned()).or_default().last = value;
            } else if let Some(stream) = key.value().strip_prefix("offered/") {
                let stream = book.streams.entry(stream.to_owned()).or_default();
                (stream.mark, stream.offered) = (value, value);
            } else if key.value() == DROPPED {
                book.dropped = value;
            } else if let Some((reason, stream)) =
                key.value().strip_prefix("dropped/").and_then(|it| it.split_once('/'))
                && let Some(reason) = LossReason::ALL.into_iter().find(|it| it.name() == reason)
            {
                book.dropped_by.insert((stream.to_owned(), reason), value);
            }
        }
        let index = transaction.open_table(OUTBOX_INDEX).map_err(StoreError::read)?;
        for entry in index.iter().map_err(StoreError::read)? {
            let (key, value) = entry.map_err(StoreError::read)?;
            let (stream, number) = key.value();
            let entry = records::decode_entry(&format!("{stream}/{number}"), value.value())?;
            book.bytes += entry.bytes;
            book.streams.entry(stream.to_owned()).or_default().entries.insert(number, entry);
        }
        Ok(book)
    }

    /// Numbers a batch and stores it.
    pub(super) fn add(
        &mut self,
        transaction: &WriteTransaction,
        incarnation: Incarnation,
        stamp: Stamp,
        batch: &ClosedBatch,
    ) -> Result<(), redb::Error> {
        let book = self.streams.entry(batch.stream.as_str().to_owned()).or_default();
        book.last += 1;
        let number = book.last;
        transaction.open_table(META)?.insert(last_key(batch.stream.as_str()).as_str(), number)?;
        let header = BatchHeaderV1 {
            incarnation,
            stream: batch.stream.clone(),
            sequence: SequenceNumber(number),
            rows: batch.records as u32,
            encoding: batch.encoding,
            body_bytes: batch.body_bytes,
            body_crc: 0,
            stamp,
        };
        let bytes = Batch::new(header, batch.body.clone()).encode();
        let entry = Entry {
            records: batch.records,
            bytes: bytes.len() as u64,
            closed: stamp.wall.0,
            remarkable: batch.remarkable,
            span: batch.span,
            gap: None,
        };
        self.put(transaction, batch.stream.as_str(), number, entry, &bytes)
    }

    pub(super) fn put(
        &mut self,
        transaction: &WriteTransaction,
        stream: &str,
        number: u64,
        entry: Entry,
        bytes: &[u8],
    ) -> Result<(), redb::Error> {
        transaction.open_table(OUTBOX)?.insert((stream, number), bytes)?;
        transaction.open_table(OUTBOX_INDEX)?.insert((stream, number), records::encode_entry(&entry).as_slice())?;
        self.bytes += entry.bytes;
        self.streams.entry(stream.to_owned()).or_default().entries.insert(number, entry);
        Ok(())
    }

    pub(super) fn remove(
        &mut self,
        transaction: &WriteTransaction,
        stream: &str,
        number: u64,
    ) -> Result<Option<Entry>, redb::Error> {
        transaction.open_table(OUTBOX)?.remove((stream, number))?;
        transaction.open_table(OUTBOX_INDEX)?.remove((stream, number))?;
        let entry = self.streams.get_mut(stream).and_then(|book| book.entries.remove(&number));
        self.bytes -= entry.as_ref().map_or(0, |entry| entry.bytes);
        Ok(entry)
    }
}

impl Store {
    /// Streams that hold or ever held a batch.
    pub fn outbox_streams(&self) -> Result<Vec<StreamName>, StoreError> {
        let book = self.book();
        Ok(book.streams.keys().filter_map(|name| StreamName::new(name).ok()).collect())
    }

    /// From where on batches of each stream wait for their receipts.
    pub fn outbox_held(&self) -> Vec<Held> {
        let book = self.book();
        let held = |(name, own): (&String, &StreamBook)| {
            // What was never handed out cannot have a receipt, whatever became of it.
            let gone = own.last.min(own.offered);
            let first = own.entries.keys().next().copied().unwrap_or(u64::MAX).min(gone.saturating_add(1));
            Some(Held { stream: StreamName::new(name).ok()?, first: SequenceNumber(first) })
        };
        book.streams.iter().filter_map(held).collect()
    }

    /// Number of the first batch of a stream behind `after`.
    pub fn outbox_next_number(
        &self,
        stream: &StreamName,
        after: SequenceNumber,
    ) -> Result<Option<SequenceNumber>, StoreError> {
        let book = self.book();
        let entries = book.streams.get(stream.as_str()).map(|book| &book.entries);
        let first = entries.and_then(|entries| entries.range(after.0.saturating_add(1)..).next());
        Ok(first.map(|(number, _)| SequenceNumber(*number)))
    }

    /// The first batch of a stream behind `after`, as it travels. From here on it is never dropped for want of room or
    /// time. One that is not there any more, or not as it was stored, is given up: a gap travels under its number.
    pub fn outbox_next(
        &self,
        stream: &StreamName,
        after: SequenceNumber,
    ) -> Result<Option<(SequenceNumber, Vec<u8>)>, StoreError> {
        let mut book = self.book();
        let Some(own) = book.streams.get_mut(stream.as_str()) else { return Ok(None) };
        let Some((&number, _)) = own.entries.range(after.0.saturating_add(1)..).next() else { return Ok(None) };
        if number > own.mark {
            let mark = number + MARK_AHEAD - 1;
            self.write(|transaction| {
                transaction.open_table(META)?.insert(mark_key(stream.as_str()).as_str(), mark)?;
                Ok(())
            })?;
            own.mark = mark;
        }
        own.offered = own.offered.max(number);
        let number = SequenceNumber(number);
        let table = self.database()?.begin_read()?.open_table(OUTBOX).map_err(StoreError::read)?;
        let stored = table.get((stream.as_str(), number.0)).map_err(StoreError::read)?;
        let bytes = match whole(stored.as_ref().map(|stored| stored.value()), self.incarnation, stream, number) {
            Ok(bytes) => Some(bytes),
            Err(problem) => self.give_up_damaged(&mut book, stream, number, &problem)?,
        };
        Ok(bytes.map(|bytes| (number, bytes)))
    }

    /// Forgets batches that the hub has: everything through a number, and some beyond; how many there were. Losing
    /// this in a crash only sends them again, so it does not wait for the disk.
    pub fn outbox_free(
        &self,
        stream: &StreamName,
        through: SequenceNumber,
        scattered: &[SequenceNumber],
    ) -> Result<u64, StoreError> {
        let mut book = self.book();
        let Some(own) = book.streams.get(stream.as_str()) else { return Ok(0) };
        // A receipt cannot free what was never given out: a hub that says so speaks of another life of this state.
        let through = through.0.min(own.offered);
        let scattered: Vec<_> = scattered.iter().copied().filter(|number| number.0 <= own.offered).collect();
        let mut numbers: Vec<u64> = own.entries.range(..=through).map(|(number, _)| *number).collect();
        let beyond = scattered.iter().map(|number| number.0);
        numbers.extend(beyond.filter(|n| *n > through && own.entries.contains_key(n)));
        // Remembered before it is done: what the disk brings back is freed again.
        book.freed.insert(stream.clone(), (SequenceNumber(through), scattered));
        if numbers.is_empty() {
            return Ok(0);
        }
        let database = self.database()?;
        let mut transaction = database.begin_write()?;
        transaction.set_durability(Durability::None).map_err(|error| StoreError::write(redb::Error::from(error)))?;
        for number in &numbers {
            book.remove(&transaction, stream.as_str(), *number).map_err(|error| self.failed(error))?;
        }
        transaction.commit().map_err(|error| self.failed(error))?;
        drop(book);
        self.changed.send_modify(|changes| *changes += 1);
        Ok(numbers.len() as u64)
    }

    /// Batches and bytes that wait for a receipt.
    pub fn outbox_size(&self) -> (u64, u64) {
        let outgoing = self.outgoing();
        (outgoing.batches, outgoing.bytes)
    }

    /// What the outbox holds and what it gave up.
    pub fn outgoing(&self) -> Outgoing {
        let book = self.book();
        let batches = book.streams.values().map(|stream| stream.entries.len() as u64).sum();
        Outgoing { batches, bytes: book.bytes, dropped: book.dropped }
    }

    /// Records that were given up since the state began, by stream and reason.
    pub fn dropped(&self) -> Vec<DroppedRecords> {
        let book = self.book();
        let read = |((stream, reason), records): (&(String, LossReason), &u64)| {
            let stream = StreamName::new(stream).ok()?;
            Some(DroppedRecords { stream, reason: *reason, records: *records })
        };
        book.dropped_by.iter().filter_map(read).collect()
    }
}
