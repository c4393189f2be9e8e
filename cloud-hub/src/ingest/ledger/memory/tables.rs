//! The tables of the ledger in memory, and what a commit makes of them. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cloud_hub_lake::{FileEntry, StreamSchema};
use tributary_wire::{DeviceId, Lost, SequenceNumber, Sha256, StreamName};

use super::super::{Answer, Entry};
use crate::catalog::batches::{Numbering, State};

/// One commit.
#[derive(Debug)]
pub(super) enum What {
    Entry(Arc<Entry>),
    Raise(String, String),
    Resolve(String, String),
}

#[derive(Debug, Clone, Default)]
pub(super) struct Tables {
    /// The last commit.
    pub(super) number: u64,
    pub(super) schemas: BTreeMap<StreamName, StreamSchema>,
    pub(super) files: Vec<FileEntry>,
    pub(super) through: BTreeMap<Numbering, SequenceNumber>,
    pub(super) answers: BTreeMap<Numbering, BTreeMap<u64, Answer>>,
    pub(super) gaps: Vec<Gap>,
    pub(super) kept: BTreeMap<DeviceId, BTreeMap<Sha256, Aside>>,
    /// Kind and subject → how often it was raised.
    pub(super) alerts: BTreeMap<(String, String), u64>,
    pub(super) devices: BTreeSet<DeviceId>,
}

#[derive(Debug, Clone)]
pub(super) struct Aside {
    id: String,
    pub(super) path: String,
    pub(super) bytes: u64,
    pub(super) reason: &'static str,
    times: u64,
    pub(super) replayed: bool,
}

/// What a device gave up, as queries see it.
#[derive(Debug, Clone, PartialEq)]
pub struct Gap {
    /// Whose.
    pub of: Numbering,
    /// The first number that will not come.
    pub first: SequenceNumber,
    /// The last.
    pub last: SequenceNumber,
    /// What was in them.
    pub lost: Lost,
}

impl Tables {
    /// Whether a number of the entry is taken.
    pub(super) fn races(&self, entry: &Entry) -> bool {
        let mut new: BTreeSet<(&Numbering, u64)> = BTreeSet::new();
        entry.answers.iter().any(|a| {
            let known = self.answers.get(&a.of).and_then(|known| known.get(&a.sequence.0));
            let replays = a.replays && known.is_some_and(|known| known.state == State::Quarantined);
            !replays && (known.is_some() || !new.insert((&a.of, a.sequence.0)))
        })
    }

    /// The entry's files with their numbers.
    pub(super) fn numbered(&self, entry: &Entry) -> Vec<FileEntry> {
        let last = self.files.last().map_or(0, |file| file.number);
        (last + 1..).zip(&entry.files).map(|(number, file)| FileEntry { number, ..file.clone() }).collect()
    }

    pub(super) fn apply(&mut self, number: u64, what: &What) {
        self.number = number;
        match what {
            What::Entry(entry) => self.enter(entry),
            What::Raise(kind, subject) => {
                *self.alerts.entry((kind.clone(), subject.clone())).or_default() += 1;
            }
            What::Resolve(kind, subject) => {
                self.alerts.remove(&(kind.clone(), subject.clone()));
            }
        }
    }

    fn enter(&mut self, entry: &Entry) {
        self.devices.extend(entry.senders().into_iter().cloned());
        for (stream, (schema, had)) in &entry.schemas {
            self.schemas.entry(stream.clone()).or_default().columns.extend_from_slice(&schema.columns[*had..]);
        }
        self.files.extend(self.numbered(entry));
        for a in &entry.answers {
            let known = self.answers.entry(a.of.clone()).or_default();
            if let Some(known) = known.get_mut(&a.sequence.0) {
                (known.state, known.rows) = (State::Stored, a.rows);
                continue;
            }
            known.insert(a.sequence.0, a.clone());
            let gap = |lost: &Lost| Gap { of: a.of.clone(), first: a.sequence, last: a.last, lost: lost.clone() };
            self.gaps.extend(a.lost.iter().map(gap));
            if let Some(through) = entry.through.get(&a.of) {
                self.through.insert(a.of.clone(), *through);
            }
        }
        for kept in &entry.kept {
            let aside = Aside {
                id: kept.id.clone(),
                path: kept.path.clone(),
                bytes: kept.bytes,
                reason: kept.reason,
                times: 0,
                replayed: false,
            };
            self.kept.entry(kept.device.clone()).or_default().entry(kept.hash).or_insert(aside).times += 1;
        }
        for (device, hash) in &entry.again {
            if let Some(aside) = self.kept.get_mut(device).and_then(|kept| kept.get_mut(hash)) {
                aside.times += 1;
            }
        }
        for aside in self.kept.values_mut().flat_map(BTreeMap::values_mut) {
            aside.replayed |= entry.replayed.contains(&aside.id);
        }
        for alert in entry.alerts() {
            *self.alerts.entry((alert.kind.to_owned(), alert.subject.to_owned())).or_default() += 1;
        }
    }
}
