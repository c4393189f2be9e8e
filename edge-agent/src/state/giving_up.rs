//! What goes when there is not room, or time, for everything: the least of what never travelled, and a gap in its place.
//!
//! Which class goes first is [`Class`]'s to say; within a class the oldest does. Every gap says how many records went, why,
//! and from which time they were, and takes up the gaps beside it, so that many drops cost one entry.
//!
//! What the disk did not keep goes too, whenever that is noticed, and what is known of it then is what the index knows.
//! It may have travelled before, so its gap stands for its number alone.

use std::sync::atomic::Ordering;

use edge_agent_core::keeping::Class;
use redb::WriteTransaction;
use tributary_wire::{
    Batch, BatchBody, BatchHeaderV1, BodyEncoding, ClockState, DropReason, Dropped, Incarnation, LossReason, Lost,
    Micros, SequenceNumber, Stamp, StreamName,
};

use super::outbox::{Book, dropped_key};
use super::records::{Entry, Gap};
use super::tables::{DROPPED, META};
use super::{Store, StoreError};

/// Batches that one transaction gives up at most, so that no caller waits long for it.
const MOST: usize = 128;

/// How much is kept, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keeping {
    /// Disk for batches that are not acknowledged.
    pub bytes: u64,
    /// Age at which raw observations are given up, in microseconds.
    pub age: Option<i64>,
}

/// A batch that may be given up.
type Spare = (String, u64);

impl Book {
    /// Gives up what has no room or is too old, a bounded number at a time; how many records that cost.
    pub(super) fn give_up(
        &mut self,
        transaction: &WriteTransaction,
        incarnation: Incarnation,
        stamp: Stamp,
        (keeping, form): (Keeping, GapForm),
    ) -> Result<u64, redb::Error> {
        let mut dropped = 0;
        for _ in 0..MOST {
            let Some(((stream, number), reason)) = self.next_to_go(keeping, stamp.wall) else { break };
            let Some(entry) = self.remove(transaction, &stream, number)? else { break };
            dropped += entry.records;
            let lost = Lost { reason, records: entry.records, span: entry.span };
            self.count(transaction, &stream, &lost)?;
            self.widen_gap(transaction, (incarnation, stamp), form, &stream, number, lost)?;
        }
        Ok(dropped)
    }

    /// Puts a gap in the place of a batch that is damaged; how that travels.
    fn give_up_damaged(
        &mut self,
        transaction: &WriteTransaction,
        life: (Incarnation, u64),
        form: GapForm,
        stream: &str,
        number: u64,
    ) -> Result<Option<Vec<u8>>, redb::Error> {
        let Some(entry) = self.remove(transaction, stream, number)? else { return Ok(None) };
        let (incarnation, boot) = life;
        let clock = ClockState::Unsynchronised;
        let stamp = Stamp { boot, monotonic: 0, wall: Micros(entry.closed), clock };
        let gap = match entry.gap {
            // What it stands for was counted before.
            Some(gap) => *gap,
            None => {
                let lost = Lost { reason: LossReason::Corrupt, records: entry.records, span: entry.span };
                self.count(transaction, stream, &lost)?;
                Gap { to: number, lost: vec![lost] }
            }
        };
        self.put_gap(transaction, (incarnation, stamp), form, stream, number, gap).map(Some)
    }

    fn count(&mut self, transaction: &WriteTransaction, stream: &str, lost: &Lost) -> Result<(), redb::Error> {
        let so_far = self.dropped_by.entry((stream.to_owned(), lost.reason)).or_default();
        *so_far += lost.records;
        self.dropped += lost.records;
        let mut meta = transaction.open_table(META)?;
        meta.insert(dropped_key(stream, lost.reason).as_str(), *so_far)?;
        meta.insert(DROPPED, self.dropped)?;
        Ok(())
    }

    /// The batch to give up now, and why.
    fn next_to_go(&self, keeping: Keeping, now: Micros) -> Option<(Spare, LossReason)> {
        if let Some(age) = keeping.age {
            let before = now.0.saturating_sub(age);
            let aged = self.spare(|class, entry| class.ages() && entry.closed < before);
            if let Some(spare) = aged {
                return Some((spare, LossReason::Age));
            }
        }
        let over = self.bytes > keeping.bytes;
        self.spare(|_, _| over).map(|spare| (spare, LossReason::DiskBudget))
    }

    /// The least of the batches that never travelled and that `goes` for: by class, then by age.
    fn spare(&self, goes: impl Fn(Class, &Entry) -> bool) -> Option<Spare> {
        let mut least: Option<(Class, i64, &str, u64)> = None;
        for (stream, book) in &self.streams {
            let batches = book.entries.range(book.offered + 1..).filter(|(_, entry)| entry.gap.is_none());
            for (number, entry) in batches {
                let class = Class::of(stream, entry.remarkable);
                if !goes(class, entry) {
                    break;
                }
                let place = (class, entry.closed, stream.as_str(), *number);
                least = Some(least.map_or(place, |least| least.min(place)));
                // What is behind is younger: only an ordinary observation there could still be less.
                if class != Class::Remarkable {
                    break;
                }
            }
        }
        least.map(|(_, _, stream, number)| (stream.to_owned(), number))
    }

    /// Puts a gap in the place of a batch, together with the gaps just before and behind it.
    fn widen_gap(
        &mut self,
        transaction: &WriteTransaction,
        life: (Incarnation, Stamp),
        form: GapForm,
        stream: &str,
        number: u64,
        lost: Lost,
    ) -> Result<(), redb::Error> {
        let (mut first, mut gap) = (number, Gap { to: number, lost: vec![lost] });
        let book = &self.streams[stream];
        let before = book.entries.range(book.offered + 1..number).next_back();
        let before = before.filter(|(_, entry)| entry.gap.as_ref().is_some_and(|gap| gap.to + 1 == number));
        let behind = book.entries.get_key_value(&(number + 1)).filter(|(_, entry)| entry.gap.is_some());
        let beside: Vec<u64> = before.into_iter().chain(behind).map(|(number, _)| *number).collect();
        for number in beside {
            let Some(other) = self.remove(transaction, stream, number)?.and_then(|entry| entry.gap) else { continue };
            first = first.min(number);
            gap.to = gap.to.max(other.to);
            other.lost.into_iter().for_each(|lost| add(&mut gap.lost, lost));
        }
        self.put_gap(transaction, life, form, stream, first, gap).map(drop)
    }

    /// Stores a gap; how it travels.
    fn put_gap(
        &mut self,
        transaction: &WriteTransaction,
        (incarnation, stamp): (Incarnation, Stamp),
        form: GapForm,
        stream: &str,
        first: u64,
        gap: Gap,
    ) -> Result<Vec<u8>, redb::Error> {
        let body = form.body(&gap).encode();
        let header = BatchHeaderV1 {
            incarnation,
            stream: super::batching::stream(stream),
            sequence: SequenceNumber(first),
            rows: 0,
            encoding: BodyEncoding::Plain,
            body_bytes: body.len() as u32,
            body_crc: 0,
            stamp,
        };
        let bytes = Batch::new(header, body).encode();
        let entry = Entry {
            records: gap.lost.iter().map(|lost| lost.records).sum(),
            bytes: bytes.len() as u64,
            closed: stamp.wall.0,
            remarkable: false,
            span: None,
            gap: Some(Box::new(gap)),
        };
        self.put(transaction, stream, first, entry, &bytes)?;
        Ok(bytes)
    }
}

/// What is stored under a number, if that is the batch that was stored there: its own checksums say so, and its header
/// names it.
pub(super) fn whole(
    stored: Option<&[u8]>,
    incarnation: Incarnation,
    stream: &StreamName,
    number: SequenceNumber,
) -> Result<Vec<u8>, String> {
    let bytes = stored.ok_or("the index names it, but it is not there")?;
    let (header, body) = Batch::decode(bytes).map_err(|error| error.to_string())?;
    Batch::check_body(&header, body).map_err(|error| error.to_string())?;
    match (header.incarnation, &header.stream, header.sequence) == (incarnation, stream, number) {
        true => Ok(bytes.to_vec()),
        false => Err(format!("{}/{} of incarnation {} lies there", header.stream, header.sequence, header.incarnation)),
    }
}

/// Adds what was lost to what was lost for the same reason.
fn add(all: &mut Vec<Lost>, lost: Lost) {
    let Some(same) = all.iter_mut().find(|other| other.reason == lost.reason) else { return all.push(lost) };
    same.records += lost.records;
    same.span = match (same.span, lost.span) {
        (Some((a, b)), Some((c, d))) => Some((a.min(c), b.max(d))),
        // Whoever does not know one of them does not know the whole.
        _ => None,
    };
}

/// Which form of a gap the hub reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GapForm {
    Counts,
    WithTimes,
}

impl GapForm {
    fn body(self, gap: &Gap) -> BatchBody {
        let to = SequenceNumber(gap.to);
        match self {
            Self::WithTimes => BatchBody::GapV2 { to, lost: gap.lost.clone() },
            Self::Counts => {
                // An older hub knows of no age: to it, what had no time had no room.
                let reason = |reason| match reason {
                    LossReason::Corrupt => DropReason::Corrupt,
                    LossReason::DiskBudget | LossReason::Age => DropReason::DiskBudget,
                };
                let dropped = gap.lost.iter();
                let dropped = dropped.map(|lost| Dropped { reason: reason(lost.reason), records: lost.records });
                BatchBody::Gap { to, dropped: dropped.collect() }
            }
        }
    }
}

impl Store {
    /// Says how much is kept from now on. Nothing is given up before the next commit, or [`Store::give_up`].
    pub fn keep(&self, keeping: Keeping) {
        *self.keeping.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = keeping;
    }

    /// Says which version of messages the hub reads, as far as it has shown.
    pub fn hub_reads(&self, version: u8) {
        self.hub_reads.store(version, Ordering::Relaxed);
    }

    pub(super) fn keeping(&self) -> (Keeping, GapForm) {
        let form = if self.hub_reads.load(Ordering::Relaxed) >= 3 { GapForm::WithTimes } else { GapForm::Counts };
        (*self.keeping.lock().unwrap_or_else(std::sync::PoisonError::into_inner), form)
    }

    /// Whether something should go that nobody has given up yet.
    pub fn holds_too_much(&self, now: Micros) -> bool {
        let (keeping, _) = self.keeping();
        self.book().next_to_go(keeping, now).is_some()
    }

    /// Gives up what has no room or is too old, a bounded number of batches at a time; how many records that cost.
    /// After an error the state is to be opened again.
    pub fn give_up(&self, stamp: Stamp) -> Result<u64, StoreError> {
        let mut book = self.book();
        let (incarnation, keeping) = (self.incarnation, self.keeping());
        let dropped = self.write(|transaction| book.give_up(transaction, incarnation, stamp, keeping))?;
        drop(book);
        self.changed.send_modify(|changes| *changes += 1);
        Ok(dropped)
    }

    /// Gives up a batch that the disk did not keep, and says how the gap in its place travels.
    pub(super) fn give_up_damaged(
        &self,
        book: &mut Book,
        stream: &StreamName,
        number: SequenceNumber,
        problem: &str,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        tracing::error!(%stream, %number, problem, "a batch is damaged on the disk, and given up: look at dmesg");
        let (life, (_, form)) = ((self.incarnation, self.options.boot), self.keeping());
        self.write(|transaction| book.give_up_damaged(transaction, life, form, stream.as_str(), number.0))
    }
}
