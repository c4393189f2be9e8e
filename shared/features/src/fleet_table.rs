//! Fleet-scope features on a device: the last complete snapshot that the hub sent.
use tributary_wire::{FeatureSnapshotV1, SnapshotNumber};

use crate::{Marks, Micros, Row, View};

/// What became of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// It completed its snapshot, which is served from now on.
    Complete(SnapshotNumber),
    /// More parts are needed.
    Partial,
    /// It belongs to a snapshot not newer than the one being served or gathered, or was here before.
    Old,
}

/// Why a part of a snapshot was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// It belongs to another view or version.
    #[error("snapshot of view {found_name} version {found_version}; this is {name} version {version}")]
    View {
        /// This view's name.
        name: String,
        /// This view's version.
        version: u32,
        /// The snapshot's.
        found_name: String,
        /// The snapshot's.
        found_version: u32,
    },
    /// Its parts, entity, features or rows do not fit.
    #[error("snapshot {number}: {problem}")]
    Malformed {
        /// Which snapshot.
        number: SnapshotNumber,
        /// What does not fit.
        problem: String,
    },
}

/// The last complete snapshot, and the parts of the next.
pub struct FleetTable {}

impl FleetTable {
    /// A table without any snapshot.
    pub fn new(_view: &View) -> Self {
        todo!()
    }
    /// Takes one part.
    pub fn offer(&mut self, _part: FeatureSnapshotV1) -> Result<Offer, SnapshotError> {
        todo!()
    }
    /// The snapshot being served, and the event time at which it was taken.
    pub fn serving(&self) -> Option<(SnapshotNumber, Micros)> {
        todo!()
    }
    /// Fills the fleet-scope features; declared defaults and a mark when there is no snapshot or it is too old.
    pub fn fill(&self, _row: &Row, _out: &mut [f32]) -> Marks {
        todo!()
    }
}
