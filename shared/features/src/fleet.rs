//! Fleet-scope features at the hub: all devices, all labels that were known.
use tributary_wire::{FeatureSnapshotV1, SnapshotNumber};

use crate::{EntityKey, EventId, Marks, Micros, Row, View};

/// Fleet-scope windows over the events of all devices and their labels.
pub struct FleetWindows {}

impl FleetWindows {
    /// Empty windows.
    pub fn new(_view: &View) -> Self {
        todo!()
    }
    /// Takes an event, in any order; an id that is known already changes nothing.
    pub fn observe(&mut self, _id: &EventId, _row: &Row) {
        todo!()
    }
    /// Takes a label that may be used from `known_at` on, before or after its event; the last one given holds.
    pub fn label(&mut self, _id: &EventId, _known_at: Micros, _label: bool) {
        todo!()
    }
    /// Values of every entity at `t`. Labels known by `t` are taken in: later calls must not ask for an earlier time.
    pub fn values_at(&mut self, _t: Micros) -> FleetValues {
        todo!()
    }
    /// Fills the fleet-scope features of `row` exactly at its time, with the labels known by then. Rows come in time order.
    pub fn fill_at(&mut self, _row: &Row, _out: &mut [f32]) -> Marks {
        todo!()
    }
}

/// Values of every entity at one instant.
#[derive(Debug, Clone, PartialEq)]
pub struct FleetValues {
    /// The instant.
    pub taken: Micros,
    /// One per entity that has fleet-scope features.
    pub entities: Vec<EntityValues>,
}

/// Values of one kind of entity.
#[derive(Debug, Clone, PartialEq)]
pub struct EntityValues {
    /// Name of the entity, such as `terminal_id`.
    pub entity: String,
    /// Names of its features.
    pub features: Vec<String>,
    /// Those with any value other than 0, by key.
    pub rows: Vec<(EntityKey, Vec<f32>)>,
}

impl FleetValues {
    /// Parts of at most about `max_bytes` in their byte form; at least one, so that an empty snapshot still arrives.
    pub fn into_parts(self, _view: &View, _number: SnapshotNumber, _max_bytes: usize) -> Vec<FeatureSnapshotV1> {
        todo!()
    }
}
