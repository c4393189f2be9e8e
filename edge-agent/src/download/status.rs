//! What is under way, for local status.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use tributary_wire::{Sha256, VersionNumber};

/// Arrivals that are remembered.
const REMEMBERED: usize = 8;

/// All downloads of this moment; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct DownloadStatus(Arc<Mutex<Shown>>);

#[derive(Debug, Default)]
struct Shown {
    next: u64,
    under_way: BTreeMap<u64, Progress>,
    /// By origin, why it failed last, until it works again.
    failures: BTreeMap<String, String>,
    arrived: VecDeque<Arrival>,
}

/// A package that came, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Arrival {
    /// Its version.
    pub version: VersionNumber,
    /// Its hash.
    pub sha256: Sha256,
    /// `patch`, `compressed` or `plain`.
    pub way: &'static str,
    /// Length of what was fetched.
    pub bytes: u64,
    /// Length of the package.
    pub of: u64,
    /// Who gave it, since this process began; none when all of it was here.
    pub from: Vec<String>,
}

/// One download.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// Its path in the repository.
    pub path: String,
    /// What is on disk.
    pub bytes: u64,
    /// Its length.
    pub of: u64,
    /// Where it comes from.
    pub from: Option<String>,
    /// What it waits for.
    pub waits_for: Option<String>,
}

/// Everything at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct DownloadView {
    /// What is under way, the oldest first.
    pub under_way: Vec<Progress>,
    /// By origin: why it failed last, until it works again.
    pub failures: BTreeMap<String, String>,
    /// The packages that came last since this process began, the newest last.
    pub arrived: Vec<Arrival>,
}

impl DownloadStatus {
    /// As it is now.
    pub fn view(&self) -> DownloadView {
        let shown = self.shown();
        DownloadView {
            under_way: shown.under_way.values().cloned().collect(),
            failures: shown.failures.clone(),
            arrived: shown.arrived.iter().cloned().collect(),
        }
    }

    /// A download begins, or goes on; it is shown until the entry is dropped.
    pub(super) fn begin(&self, path: &str, bytes: u64, of: u64) -> Entry {
        let mut shown = self.shown();
        let number = shown.next;
        shown.next += 1;
        let progress = Progress { path: path.to_owned(), bytes, of, from: None, waits_for: None };
        shown.under_way.insert(number, progress);
        Entry { status: self.clone(), number }
    }

    pub(super) fn arrived(&self, arrival: Arrival) {
        let mut shown = self.shown();
        let arrived = &mut shown.arrived;
        arrived.push_back(arrival);
        if arrived.len() > REMEMBERED {
            arrived.pop_front();
        }
    }

    pub(super) fn failed(&self, origin: String, why: String) {
        self.shown().failures.insert(origin, why);
    }

    pub(super) fn worked(&self, origin: &str) {
        self.shown().failures.remove(origin);
    }

    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One download's line in the status.
#[derive(Debug)]
pub(super) struct Entry {
    status: DownloadStatus,
    number: u64,
}

impl Entry {
    fn change(&self, change: impl FnOnce(&mut Progress)) {
        if let Some(progress) = self.status.shown().under_way.get_mut(&self.number) {
            change(progress);
        }
    }

    pub(super) fn from(&self, origin: &str) {
        self.change(|progress| progress.from = Some(origin.to_owned()));
    }

    pub(super) fn has(&self, bytes: u64) {
        self.change(|progress| progress.bytes = bytes);
    }

    pub(super) fn waits(&self, what: String) {
        self.change(|progress| progress.waits_for = Some(what));
    }

    pub(super) fn goes_on(&self) {
        self.change(|progress| progress.waits_for = None);
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.status.shown().under_way.remove(&self.number);
    }
}
