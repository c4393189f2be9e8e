//! Snapshots of fleet-scope features: gathered part by part, stored when complete, so that they survive a restart.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tributary_features::{FleetTable, View};
use tributary_wire::{FeatureSnapshotV1, SnapshotNumber};

use crate::state::{Store, StoreError};

/// Where complete snapshots lie in the store, by view and version.
const SNAPSHOTS: &str = "fleet/";
/// More rows than any fleet needs, and few enough to hold: what a broken hub may make a device gather.
const MAX_ROWS: usize = 2_000_000;
/// Versions of a view of which a snapshot is kept: the one in use, and the one that a package on trial brings.
const KEPT_VERSIONS: usize = 2;

/// Why a part is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PartError {
    /// Its own numbers contradict each other.
    #[error("part {part} of {parts} of snapshot {number} of view {view:?}")]
    Numbers {
        /// Which view.
        view: String,
        /// Which snapshot.
        number: SnapshotNumber,
        /// The part.
        part: u16,
        /// How many there are.
        parts: u16,
    },
    /// It does not belong to the parts that came before.
    #[error("part {part} says the snapshot has {found} parts, the others say {expected}")]
    Parts {
        /// The part.
        part: u16,
        /// What the others say.
        expected: u16,
        /// What it says.
        found: u16,
    },
    /// The snapshot is larger than a device can hold.
    #[error("more than {MAX_ROWS} rows")]
    TooLarge,
}

/// Versions of a stored snapshot.
#[derive(Serialize, Deserialize)]
enum StoredSnapshot {
    V1(Vec<FeatureSnapshotV1>),
}

/// All parts of a snapshot.
#[derive(Debug, Clone)]
pub struct Complete {
    /// Of which view.
    pub view: String,
    /// Of which version of it.
    pub version: u32,
    /// Which one.
    pub number: SnapshotNumber,
    parts: Vec<FeatureSnapshotV1>,
}

/// What became of a complete snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// It is the newest of its view, and durable.
    Newest,
    /// A newer one is stored already.
    Old,
}

/// Snapshots that are not complete yet: the newest of each view and version.
#[derive(Debug, Default)]
pub struct Snapshots {
    gathering: BTreeMap<(String, u32), BTreeMap<u16, FeatureSnapshotV1>>,
}

impl Snapshots {
    /// Takes a part; gives the snapshot when that was the last one. Parts of a newer snapshot replace those of an
    /// older one, which the hub no longer sends.
    pub fn offer(&mut self, part: FeatureSnapshotV1) -> Result<Option<Complete>, PartError> {
        let FeatureSnapshotV1 { number, part: index, parts, .. } = part;
        if index >= parts || !is_name(&part.view) {
            return Err(PartError::Numbers { view: part.view.chars().take(80).collect(), number, part: index, parts });
        }
        let key = (part.view.clone(), part.view_version);
        let known = self.gathering.contains_key(&key);
        // A hub names a view and its next version at most; more keys than a few mean that it lost its way.
        if !known && self.gathering.len() >= 4 * KEPT_VERSIONS {
            self.gathering.clear();
        }
        let gathered = self.gathering.entry(key.clone()).or_default();
        if let Some(other) = gathered.values().next() {
            if other.number > number {
                return Ok(None);
            }
            if other.number < number {
                gathered.clear();
            } else if other.parts != parts {
                return Err(PartError::Parts { part: index, expected: other.parts, found: parts });
            }
        }
        gathered.insert(index, part);
        if gathered.values().map(|part| part.rows.len()).sum::<usize>() > MAX_ROWS {
            self.gathering.remove(&key);
            return Err(PartError::TooLarge);
        }
        if gathered.len() < usize::from(parts) {
            return Ok(None);
        }
        let parts = self.gathering.remove(&key).unwrap_or_default().into_values().collect();
        let (view, version) = key;
        Ok(Some(Complete { view, version, number, parts }))
    }
}

impl Complete {
    /// Makes it durable, unless a newer one is.
    pub fn store(&self, store: &Store) -> Result<Stored, StoreError> {
        let stored = read(store, &self.view, self.version)?;
        if stored.first().is_some_and(|part| part.number >= self.number) {
            return Ok(Stored::Old);
        }
        let bytes = postcard::to_allocvec(&StoredSnapshot::V1(self.parts.clone())).expect("plain data serialises");
        store.blob_put(&key(&self.view, self.version), &bytes)?;
        let own = key(&self.view, self.version);
        let mut others = store.blob_keys(&format!("{SNAPSHOTS}{}/", self.view))?;
        others.retain(|key| *key != own);
        for old in others.iter().rev().skip(KEPT_VERSIONS - 1) {
            store.blob_delete(old)?;
        }
        Ok(Stored::Newest)
    }
}

/// The stored snapshot of a view as a table to serve from; empty when there is none or it does not fit the view.
pub fn fleet_table(store: &Store, view: &View) -> FleetTable {
    let mut table = FleetTable::new(view);
    let parts = read(store, view.name(), view.version()).unwrap_or_else(|error| {
        tracing::warn!(%error, "the stored feature snapshot cannot be read");
        Vec::new()
    });
    for part in parts {
        if let Err(error) = table.offer(part) {
            tracing::warn!(%error, view = view.name(), "the stored feature snapshot does not fit its view");
            return FleetTable::new(view);
        }
    }
    table
}

fn read(store: &Store, view: &str, version: u32) -> Result<Vec<FeatureSnapshotV1>, StoreError> {
    let key = key(view, version);
    let Some(bytes) = store.blob_get(&key)? else { return Ok(Vec::new()) };
    match postcard::from_bytes(&bytes) {
        Ok(StoredSnapshot::V1(parts)) => Ok(parts),
        Err(error) => {
            tracing::warn!(%error, key, "a stored feature snapshot is damaged; the next one replaces it");
            Ok(Vec::new())
        }
    }
}

/// Versions are padded, so that keys are in the order of versions.
fn key(view: &str, version: u32) -> String {
    format!("{SNAPSHOTS}{view}/{version:010}")
}

/// The name becomes part of a key.
fn is_name(view: &str) -> bool {
    (1..=63).contains(&view.len()) && !view.contains('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(number: u64, part: u16, parts: u16) -> FeatureSnapshotV1 {
        FeatureSnapshotV1 {
            view: "fraud".into(),
            view_version: 1,
            number: SnapshotNumber(number),
            taken: tributary_wire::Micros(0),
            lifetime: 1,
            part,
            parts,
            entity: "terminal_id".into(),
            features: vec!["terminal_count_1d".into()],
            rows: Vec::new(),
        }
    }

    #[test]
    fn parts_in_any_order_and_repeated_make_one_snapshot() {
        let mut snapshots = Snapshots::default();
        assert!(snapshots.offer(part(1, 2, 3)).unwrap().is_none());
        assert!(snapshots.offer(part(1, 0, 3)).unwrap().is_none());
        assert!(snapshots.offer(part(1, 0, 3)).unwrap().is_none());
        let complete = snapshots.offer(part(1, 1, 3)).unwrap().unwrap();
        assert_eq!((complete.number, complete.parts.len()), (SnapshotNumber(1), 3));
    }

    #[test]
    fn a_newer_snapshot_replaces_an_unfinished_one_and_an_older_part_is_left_out() {
        let mut snapshots = Snapshots::default();
        snapshots.offer(part(1, 0, 2)).unwrap();
        snapshots.offer(part(2, 0, 2)).unwrap();
        assert!(snapshots.offer(part(1, 1, 2)).unwrap().is_none());
        assert_eq!(snapshots.offer(part(2, 1, 2)).unwrap().unwrap().number, SnapshotNumber(2));
    }

    #[test]
    fn contradicting_numbers_are_named() {
        let mut snapshots = Snapshots::default();
        assert!(matches!(snapshots.offer(part(1, 3, 3)), Err(PartError::Numbers { part: 3, parts: 3, .. })));
        snapshots.offer(part(1, 0, 3)).unwrap();
        assert!(matches!(snapshots.offer(part(1, 1, 2)), Err(PartError::Parts { expected: 3, found: 2, .. })));
    }

    #[test]
    fn the_newest_snapshot_survives_a_restart_and_an_older_one_does_not_replace_it() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("state"), crate::state::StoreOptions::default()).unwrap();
        let complete = |number| Snapshots::default().offer(part(number, 0, 1)).unwrap().unwrap();
        assert_eq!(complete(7).store(&store).unwrap(), Stored::Newest);
        assert_eq!(complete(6).store(&store).unwrap(), Stored::Old);
        assert_eq!(read(&store, "fraud", 1).unwrap()[0].number, SnapshotNumber(7));
        assert_eq!(read(&store, "fraud", 2).unwrap(), []);
    }
}
