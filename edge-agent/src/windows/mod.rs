//! The device's windows: in memory, with a snapshot on disk that is written behind.
//!
//! The snapshot only saves time. What it misses is replayed from the accepted events in the state; when it is lost,
//! broken or of another view, all kept events are replayed, and what they cannot bring back is marked cold.

mod snapshot;
mod inspect;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tributary_features::{DeviceWindows, Marks, Micros, Row, View};
use tributary_wire::Incarnation;

use crate::state::{Loaded, Store, StoreError};
pub use inspect::{Seen, inspect};
#[cfg(test)]
pub(crate) use snapshot::broken;
use snapshot::{Snapshot, Stamp};

/// When and where snapshots are written.
#[derive(Debug, Clone)]
pub struct SnapshotRules {
    /// Folder of the snapshot; `None` keeps none.
    pub folder: Option<PathBuf>,
    /// Memory for its pages.
    pub cache_bytes: u64,
    /// After this many events …
    pub events: u64,
    /// … or this many microseconds of monotonic time.
    pub every: u64,
}

/// How the windows came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    /// Accept number of the snapshot that was used.
    pub snapshot: Option<u64>,
    /// Events replayed after it.
    pub replayed: u64,
    /// Events that did not fit the view.
    pub unfit: u64,
    /// Why the snapshot was thrown away, if it was.
    pub problem: Option<String>,
}

/// Windows of one feature view over the accepted events.
pub struct Windows {
    view: Arc<View>,
    device: DeviceWindows,
    rules: SnapshotRules,
    snapshot: Option<Snapshot>,
    incarnation: Incarnation,
    cold_through: Option<Micros>,
    /// Last event in the windows.
    last: u64,
    /// Last event in the last snapshot that was begun, and when that was.
    begun: (u64, u64),
}

impl Windows {
    /// Brings the windows to the state after the last accepted event.
    pub fn recover(
        view: Arc<View>,
        store: &Store,
        loaded: &Loaded,
        rules: SnapshotRules,
        now: u64,
    ) -> Result<(Self, Recovery), StoreError> {
        let last = loaded.next - 1;
        let mut recovery = Recovery { snapshot: None, replayed: 0, unfit: 0, problem: None };
        let mut device = DeviceWindows::new(&view);
        let mut cold_through = loaded.lost_through;
        let mut from = 0;
        let mut snapshot = None;
        if let Some(folder) = &rules.folder {
            let (opened, found) = open_snapshot(folder, rules.cache_bytes, &view, store, loaded, &mut recovery.problem);
            snapshot = opened;
            if let Some((stamp, entries)) = found {
                let restored = entries.iter().try_for_each(|(key, state)| device.restore(key, state));
                match restored {
                    Ok(()) => {
                        (from, cold_through) = (stamp.number, stamp.cold_through);
                        recovery.snapshot = Some(stamp.number);
                    }
                    Err(error) => {
                        recovery.problem = Some(error.to_string());
                        device = DeviceWindows::new(&view);
                        drop(snapshot.take());
                        snapshot = start_over(folder, rules.cache_bytes, &mut recovery.problem);
                    }
                }
            }
        }
        let mut scratch = vec![0.0; view.features().len()];
        store.replay(from, |accepted| match view.row(&accepted.event) {
            Ok(row) => {
                device.observe(&row, &mut scratch);
                recovery.replayed += 1;
            }
            // Accepted under another view: it can enter no window of this one, and so counts as lost to it.
            Err(_) => {
                recovery.unfit += 1;
                cold_through = cold_through.max(Some(accepted.event.time));
            }
        })?;
        device.set_cold_through(cold_through);
        let incarnation = store.incarnation();
        let begun = (from, now);
        Ok((Self { view, device, rules, snapshot, incarnation, cold_through, last, begun }, recovery))
    }

    /// The view these windows are of.
    pub fn view(&self) -> &Arc<View> {
        &self.view
    }

    /// Takes an event in; see [`DeviceWindows::observe`].
    pub fn observe(&mut self, number: u64, row: &Row, out: &mut [f32]) -> Marks {
        self.last = number;
        self.device.observe(row, out)
    }

    /// What [`Windows::observe`] would serve.
    pub fn peek(&self, row: &Row, out: &mut [f32]) -> Marks {
        self.device.peek(row, out)
    }

    /// The newest event time in the windows.
    pub fn newest(&self) -> Option<Micros> {
        self.device.newest()
    }

    /// The earliest event time that some later event may still ask for.
    pub fn needed_from(&self) -> Option<Micros> {
        let reach = self.view.reach(tributary_features::Scope::Device) + self.view.lateness();
        self.newest().map(|newest| Micros(newest.0.saturating_sub(reach)))
    }

    /// Entities and events held in memory.
    pub fn held(&self) -> (usize, usize) {
        self.device.held()
    }

    /// Last event whose place in the snapshot is safe.
    pub fn snapshot_through(&self) -> Option<u64> {
        self.snapshot.as_ref().and_then(Snapshot::durable_through)
    }

    /// To be called when everything observed is durable: begins a snapshot if one is due. A snapshot must never be
    /// ahead of the state, or a crash would bring back windows with events that were never accepted.
    pub fn after_commit(&mut self, now: u64) {
        let due = self.last >= self.begun.0 + self.rules.events || now >= self.begun.1 + self.rules.every;
        if due && self.last > self.begun.0 {
            self.write_snapshot(now);
        }
    }

    /// Begins a snapshot now, unless one is being written.
    pub fn write_snapshot(&mut self, now: u64) {
        let Some(snapshot) = self.snapshot.as_ref().filter(|snapshot| snapshot.is_idle()) else { return };
        if let Some(newest) = self.device.newest() {
            self.device.evict(newest);
        }
        let changed = self.device.take_dirty();
        let stamp = Stamp {
            view: snapshot::fingerprint(&self.view),
            incarnation: self.incarnation.0,
            number: self.last,
            cold_through: self.cold_through,
            entries: 0,
            sum: 0,
        };
        snapshot.begin(stamp, changed);
        self.begun = (self.last, now);
    }

    /// Waits for the snapshot being written.
    pub fn settle(&self) {
        if let Some(snapshot) = &self.snapshot {
            snapshot.settle();
        }
    }
}

type Found = (Stamp, Vec<(Vec<u8>, Vec<u8>)>);

fn open_snapshot(
    folder: &Path,
    cache_bytes: u64,
    view: &View,
    store: &Store,
    loaded: &Loaded,
    problem: &mut Option<String>,
) -> (Option<Snapshot>, Option<Found>) {
    let found = match Snapshot::open(folder, cache_bytes) {
        Ok((snapshot, None)) => return (Some(snapshot), None),
        Ok((snapshot, Some((stamp, entries)))) => {
            let wrong = stamp.mismatch(Some(view), store.incarnation(), loaded);
            match wrong {
                None => return (Some(snapshot), Some((stamp, entries))),
                Some(wrong) => {
                    drop(snapshot);
                    wrong
                }
            }
        }
        Err(error) => error,
    };
    *problem = Some(found);
    (start_over(folder, cache_bytes, problem), None)
}

fn start_over(folder: &Path, cache_bytes: u64, problem: &mut Option<String>) -> Option<Snapshot> {
    let removed = std::fs::remove_dir_all(folder).map_err(|error| error.to_string());
    let opened = removed.and_then(|()| Snapshot::open(folder, cache_bytes));
    match opened {
        Ok((snapshot, _)) => Some(snapshot),
        Err(error) => {
            *problem = Some(format!("{}; no snapshot is kept: {error}", problem.take().unwrap_or_default()));
            None
        }
    }
}
