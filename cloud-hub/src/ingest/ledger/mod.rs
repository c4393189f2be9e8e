//! What ingest needs of the catalog: what it reads to plan a group, and the one transaction that carries it out.
//!
//! In a hub that is [`Catalog`](crate::catalog::Catalog). A simulated hub has `MemoryLedger` (feature `simulation`),
//! which passes the same tests and keeps its commits on the simulated disk. The audit log is the catalog's alone.

mod sql;
#[cfg(any(test, feature = "simulation"))]
mod memory;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use cloud_hub_lake::{FileEntry, StreamSchema};
use serde_json::json;
use tributary_wire::{DeviceId, Lost, Micros, SequenceNumber, Sha256, StreamName};

use super::TakenIn;
use crate::audit::Noted;
use crate::catalog::alerts::Raise;
use crate::catalog::batches::{Numbering, State};
use crate::catalog::quarantine::Kept;

#[cfg(any(test, feature = "simulation"))]
pub use memory::{Gap, MemoryLedger};

/// Why the ledger was not read or not changed.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// Someone else answered for a number meanwhile; nothing changed.
    #[error("a number was answered for by someone else")]
    Raced,
    /// The database failed. After a change that failed nobody knows whether it happened.
    #[error("the catalog")]
    Catalog(#[from] sqlx::Error),
}

/// Up to where a stream is complete, and the ranges of numbers answered for beyond that.
pub type Standing = (SequenceNumber, Vec<(u64, u64)>);

/// A number to answer for.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Whose number.
    pub of: Numbering,
    /// The number.
    pub sequence: SequenceNumber,
    /// The same, except for a gap.
    pub last: SequenceNumber,
    /// Hash of the body.
    pub hash: Sha256,
    /// Rows in the lake.
    pub rows: u64,
    /// What became of it.
    pub state: State,
    /// When it came.
    pub received: Micros,
    /// What a gap says was given up.
    pub lost: Vec<Lost>,
    /// Set when a replay turns quarantine into stored.
    pub replays: bool,
}

/// One transaction: everything of it becomes durable, or nothing.
#[derive(Debug, Clone, Default)]
pub struct Entry {
    /// Streams whose columns grow: the whole schema, and how many columns it had before.
    pub schemas: BTreeMap<StreamName, (StreamSchema, usize)>,
    /// Files that begin to count, in order; they get their numbers here.
    pub files: Vec<FileEntry>,
    /// Numbers answered for. One that is taken makes the whole entry [`LedgerError::Raced`].
    pub answers: Vec<Answer>,
    /// Up to where streams are complete then.
    pub through: BTreeMap<Numbering, SequenceNumber>,
    /// Messages put aside.
    pub kept: Vec<Kept>,
    /// Messages that are aside already and came again.
    pub again: Vec<(DeviceId, Sha256)>,
    /// Ids of messages put aside that are replayed by this.
    pub replayed: Vec<String>,
    /// What goes into the audit log.
    pub noted: Vec<Noted>,
    /// Numbers that came with two bodies.
    pub cloned: Vec<(Numbering, SequenceNumber)>,
    /// Devices whose quarantine is full.
    pub overfull: Vec<DeviceId>,
    /// Set when the whole ledger was lost and is made again: what was found.
    pub rebuilt: Option<TakenIn>,
}

impl Entry {
    /// Whether nothing has to change.
    pub fn is_empty(&self) -> bool {
        self.answers.is_empty()
            && self.kept.is_empty()
            && self.again.is_empty()
            && self.cloned.is_empty()
            && self.overfull.is_empty()
    }

    /// Devices that were heard of.
    fn senders(&self) -> BTreeSet<&DeviceId> {
        let kept = self.kept.iter().map(|kept| &kept.device);
        self.answers.iter().map(|answer| &answer.of.device).chain(kept).collect()
    }

    /// What people have to know.
    fn alerts(&self) -> Vec<Raise<'_>> {
        let cloned = self.cloned.iter().map(|(of, sequence)| {
            let problem = "a batch number came with two different bodies: the device's state was copied or set back";
            let detail = json!({ "problem": problem, "stream": of.stream.as_str(), "sequence": sequence.0 });
            Raise { kind: "cloned-state", subject: of.device.as_str(), severity: "critical", detail }
        });
        let overfull = self.overfull.iter().map(|device| {
            let detail = json!({ "problem": "its bad batches are refused until some are taken out" });
            Raise { kind: "quarantine-full", subject: device.as_str(), severity: "warning", detail }
        });
        cloned.chain(overfull).collect()
    }
}

/// What ingest plans with and commits to. Clones share it.
pub trait Ledger: Clone + fmt::Debug + Send + Sync + 'static {
    /// Where a stream of a device stands.
    fn progress(&self, of: &Numbering) -> impl Future<Output = Result<Standing, LedgerError>> + Send;

    /// The hash and the state that a number was answered for with; none for one inside a gap, or one never answered for.
    fn answered(
        &self,
        of: &Numbering,
        sequence: SequenceNumber,
    ) -> impl Future<Output = Result<Option<(Sha256, State)>, LedgerError>> + Send;

    /// Whether a message of a device is aside, or was until it was replayed.
    fn is_kept(&self, device: &DeviceId, hash: &Sha256) -> impl Future<Output = Result<bool, LedgerError>> + Send;

    /// Bytes aside for a device.
    fn kept_bytes(&self, device: &DeviceId) -> impl Future<Output = Result<u64, LedgerError>> + Send;

    /// Where messages that are aside lie, below the quarantine folder.
    fn kept_paths(&self) -> impl Future<Output = Result<Vec<String>, LedgerError>> + Send;

    /// Files that count, in commit order.
    fn files(&self) -> impl Future<Output = Result<Vec<FileEntry>, LedgerError>> + Send;

    /// The columns of all streams.
    fn schemas(&self) -> impl Future<Output = Result<Vec<(StreamName, StreamSchema)>, LedgerError>> + Send;

    /// Makes all of an entry durable: its files with their numbers.
    fn enter(&self, entry: &Entry, now: Micros) -> impl Future<Output = Result<Vec<FileEntry>, LedgerError>> + Send;

    /// Finds out whether it takes anything, by committing nothing. What was committed before is durable then.
    fn probe(&self) -> impl Future<Output = Result<(), LedgerError>> + Send;

    /// Raises an alert outside an entry.
    fn raise(&self, alert: Raise<'_>, now: Micros) -> impl Future<Output = Result<(), LedgerError>> + Send;

    /// Resolves what is open of a kind for a subject.
    fn resolve(&self, kind: &str, subject: &str, now: Micros) -> impl Future<Output = Result<(), LedgerError>> + Send;
}
