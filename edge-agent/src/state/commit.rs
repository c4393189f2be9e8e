//! The one transaction of the event path, and what it left behind.

use edge_agent_core::sampling::Memory;
use redb::{ReadableTable, WriteTransaction};
use tributary_wire::{Micros, Stamp};

use super::batching;
use super::outbox::ClosedBatch;
use super::records::{self, Accepted, Answer, SketchRecord, SourceState};
use super::tables::{
    ACCEPTED, BATCHED_THROUGH, BLOBS, LOST_THROUGH, META, NEXT_ACCEPT, SAMPLING, SEEN, SEEN_ORDER, SKETCHES, SOURCES,
};
use super::{Store, StoreError};

/// At most this many old records are cleared away in one transaction, so that no caller waits long for it.
const SWEEP: usize = 2048;

/// What becomes durable together.
#[derive(Debug, Default)]
pub struct Commit<'a> {
    /// New events, in accept order, each with the answer to remember.
    pub accepted: &'a [(Accepted, Answer)],
    /// Where sources stand now.
    pub sources: Vec<(&'a str, &'a SourceState)>,
    /// Sketches being filled, by key; `None` removes one.
    pub open_sketches: Vec<(String, Option<Vec<u8>>)>,
    /// Sketches that are finished.
    pub sketches: Vec<SketchRecord>,
    /// Batches that are complete.
    pub batches: Vec<ClosedBatch>,
    /// Events up to this number are in batches now.
    pub batched_through: Option<u64>,
    /// Which old records may go; `None` leaves them for another time.
    pub sweep: Option<Sweep>,
    /// What the sampler remembers once these events are in; `None`: as before.
    pub sampling: Option<&'a Memory>,
}

/// Which old records may go.
#[derive(Debug, Clone, Copy)]
pub struct Sweep {
    /// Event ids accepted up to this number …
    pub forget_through: u64,
    /// … or before this wall time are forgotten.
    pub forget_before: Micros,
    /// Accepted events up to this number may go …
    pub trim_through: u64,
    /// … when their time is before this one: no window asks for them any more.
    pub trim_before: Micros,
    /// Accepted events up to this number go in any case.
    pub budget_through: u64,
}

/// What a commit cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Committed {
    /// Records that were given up for want of room or time.
    pub dropped: u64,
    /// Events up to this event time are not all kept any more.
    pub lost_through: Option<Micros>,
}

/// What a restart finds.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The next accept number.
    pub next: u64,
    /// Events up to this number are in batches.
    pub batched_through: u64,
    /// First accepted event that is kept.
    pub first_kept: Option<u64>,
    /// Events up to this event time are not all kept.
    pub lost_through: Option<Micros>,
    /// Sources.
    pub sources: Vec<(String, SourceState)>,
    /// Sketches being filled.
    pub open_sketches: Vec<(String, Vec<u8>)>,
    /// What the sampler remembers.
    pub sampling: Memory,
}

impl Store {
    /// Makes everything in `commit` durable, or nothing. After an error the caller reopens the store and starts from
    /// [`Store::load`].
    pub fn commit(&self, commit: &Commit<'_>, stamp: Stamp) -> Result<Committed, StoreError> {
        let mut book = self.book();
        let database = self.database()?;
        let transaction = database.begin_write()?;
        let incarnation = self.incarnation;
        let committed = (|| {
            write_events(&transaction, commit)?;
            for batch in &commit.batches {
                book.add(&transaction, incarnation, stamp, batch)?;
            }
            if !commit.sketches.is_empty() {
                book.add(&transaction, incarnation, stamp, &batching::sketches(&commit.sketches))?;
            }
            let dropped = book.give_up(&transaction, incarnation, stamp, self.keeping())?;
            let lost_through = match commit.sweep {
                Some(rules) => sweep(&transaction, rules)?,
                None => None,
            };
            Ok::<_, redb::Error>(Committed { dropped, lost_through })
        })()
        .map_err(StoreError::write)?;
        transaction.commit().map_err(StoreError::write)?;
        drop(database);
        drop(book);
        if !commit.batches.is_empty() || !commit.sketches.is_empty() {
            self.changed.send_modify(|changes| *changes += 1);
        }
        Ok(committed)
    }

    /// What was answered for an event id, if it is remembered.
    pub fn answer(&self, id: &str) -> Result<Option<Answer>, StoreError> {
        let table = self.database()?.begin_read()?.open_table(SEEN).map_err(StoreError::read)?;
        match table.get(id).map_err(StoreError::read)? {
            Some(bytes) => records::decode_answer(id, bytes.value()).map(Some),
            None => Ok(None),
        }
    }

    /// Everything a restart needs, except the accepted events.
    pub fn load(&self) -> Result<Loaded, StoreError> {
        let database = self.database()?;
        let transaction = database.begin_read()?;
        let mut loaded = Loaded { next: 1, ..Loaded::default() };
        let meta = transaction.open_table(META).map_err(StoreError::read)?;
        let number = |key: &str| -> Result<Option<u64>, StoreError> {
            Ok(meta.get(key).map_err(StoreError::read)?.map(|value| value.value()))
        };
        loaded.next = number(NEXT_ACCEPT)?.unwrap_or(1);
        loaded.batched_through = number(BATCHED_THROUGH)?.unwrap_or(0);
        loaded.lost_through = number(LOST_THROUGH)?.map(|bits| Micros(bits as i64));
        let blobs = transaction.open_table(BLOBS).map_err(StoreError::read)?;
        if let Some(memory) = blobs.get(SAMPLING).map_err(StoreError::read)? {
            loaded.sampling = records::decode("memory of the sampler", SAMPLING, memory.value())?;
        }
        let accepted = transaction.open_table(ACCEPTED).map_err(StoreError::read)?;
        loaded.first_kept = accepted.first().map_err(StoreError::read)?.map(|(key, _)| key.value());
        for entry in transaction.open_table(SOURCES).map_err(StoreError::read)?.iter().map_err(StoreError::read)? {
            let (key, value) = entry.map_err(StoreError::read)?;
            loaded.sources.push((key.value().to_owned(), records::decode("source", key.value(), value.value())?));
        }
        for entry in transaction.open_table(SKETCHES).map_err(StoreError::read)?.iter().map_err(StoreError::read)? {
            let (key, value) = entry.map_err(StoreError::read)?;
            loaded.open_sketches.push((key.value().to_owned(), value.value().to_vec()));
        }
        Ok(loaded)
    }

    /// Calls `each` with every kept event behind `after`, in accept order.
    pub fn replay(&self, after: u64, mut each: impl FnMut(Accepted)) -> Result<(), StoreError> {
        let table = self.database()?.begin_read()?.open_table(ACCEPTED).map_err(StoreError::read)?;
        for entry in table.range(after + 1..).map_err(StoreError::read)? {
            let (key, value) = entry.map_err(StoreError::read)?;
            each(records::decode_accepted(&key.value().to_string(), value.value())?);
        }
        Ok(())
    }

    /// One kept event.
    pub fn accepted(&self, number: u64) -> Result<Option<Accepted>, StoreError> {
        let table = self.database()?.begin_read()?.open_table(ACCEPTED).map_err(StoreError::read)?;
        match table.get(number).map_err(StoreError::read)? {
            Some(bytes) => records::decode_accepted(&number.to_string(), bytes.value()).map(Some),
            None => Ok(None),
        }
    }

    /// Accept numbers and ids that are remembered, behind `after`; a test reconciles them with the lake.
    pub fn remembered(&self, after: u64, limit: usize) -> Result<Vec<(u64, String)>, StoreError> {
        let table = self.database()?.begin_read()?.open_table(SEEN_ORDER).map_err(StoreError::read)?;
        let mut ids = Vec::new();
        for entry in table.range(after + 1..).map_err(StoreError::read)?.take(limit) {
            let (key, value) = entry.map_err(StoreError::read)?;
            ids.push((key.value(), value.value().to_owned()));
        }
        Ok(ids)
    }
}

fn write_events(transaction: &WriteTransaction, commit: &Commit<'_>) -> Result<(), redb::Error> {
    let mut meta = transaction.open_table(META)?;
    if let Some((last, _)) = commit.accepted.last() {
        meta.insert(NEXT_ACCEPT, last.number + 1)?;
        let mut accepted = transaction.open_table(ACCEPTED)?;
        let mut seen = transaction.open_table(SEEN)?;
        let mut order = transaction.open_table(SEEN_ORDER)?;
        for (event, answer) in commit.accepted {
            accepted.insert(event.number, records::encode_accepted(event).as_slice())?;
            seen.insert(event.event.id.as_str(), records::encode_answer(answer).as_slice())?;
            order.insert(event.number, event.event.id.as_str())?;
        }
    }
    if let Some(through) = commit.batched_through {
        meta.insert(BATCHED_THROUGH, through)?;
    }
    if let Some(memory) = commit.sampling {
        transaction.open_table(BLOBS)?.insert(SAMPLING, records::encode(memory).as_slice())?;
    }
    let mut sources = transaction.open_table(SOURCES)?;
    for (name, state) in &commit.sources {
        sources.insert(*name, records::encode(*state).as_slice())?;
    }
    let mut sketches = transaction.open_table(SKETCHES)?;
    for (key, sketch) in &commit.open_sketches {
        match sketch {
            Some(bytes) => sketches.insert(key.as_str(), bytes.as_slice())?,
            None => sketches.remove(key.as_str())?,
        };
    }
    Ok(())
}

/// Clears away ids and events that are old enough, a bounded number at a time; up to which event time events are lost.
fn sweep(transaction: &WriteTransaction, rules: Sweep) -> Result<Option<Micros>, redb::Error> {
    let mut order = transaction.open_table(SEEN_ORDER)?;
    let mut seen = transaction.open_table(SEEN)?;
    for _ in 0..SWEEP {
        let Some((number, id)) = order.first()?.map(|(number, id)| (number.value(), id.value().to_owned())) else {
            break;
        };
        if number > rules.forget_through && !is_older(&seen, &id, rules.forget_before)? {
            break;
        }
        order.remove(number)?;
        seen.remove(id.as_str())?;
    }
    let mut meta = transaction.open_table(META)?;
    let before = meta.get(LOST_THROUGH)?.map(|bits| Micros(bits.value() as i64));
    let mut lost = before;
    let mut accepted = transaction.open_table(ACCEPTED)?;
    for _ in 0..SWEEP {
        let Some((number, time)) = accepted.first()?.map(|(number, event)| (number.value(), time_of(event.value())))
        else {
            break;
        };
        let due = number <= rules.budget_through
            || number <= rules.trim_through && time.is_none_or(|time| time < rules.trim_before);
        if !due {
            break;
        }
        accepted.remove(number)?;
        lost = lost.max(time);
    }
    if let Some(time) = lost.filter(|_| lost != before) {
        meta.insert(LOST_THROUGH, time.0 as u64)?;
    }
    Ok(lost)
}

fn time_of(event: &[u8]) -> Option<Micros> {
    records::decode_accepted("", event).ok().map(|accepted| accepted.event.time)
}

fn is_older(
    seen: &impl ReadableTable<&'static str, &'static [u8]>,
    id: &str,
    wall: Micros,
) -> Result<bool, redb::Error> {
    let answer = seen.get(id)?.map(|bytes| records::decode_answer(id, bytes.value()));
    // One that cannot be read answers nobody.
    Ok(answer.and_then(Result::ok).is_none_or(|answer| answer.wall < wall))
}
