//! Fleet-scope features at the hub: all devices, all labels that were known.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use tributary_wire::{EntityKey, EventId, FeatureSnapshotV1, SnapshotNumber, SnapshotRow};

use crate::plan::Plan;
use crate::table::Table;
use crate::{Marks, Micros, Row, Scope, View};

/// Labels of events that never came: more than these are not kept, so that wrong ids cannot fill the memory.
const MAX_WAITING: usize = 1_000_000;

/// Fleet-scope windows over the events of all devices and their labels.
///
/// Events come in any order and any time after they happened; what decides is the time that is asked for. A label
/// counts from the instant on at which it was known.
pub struct FleetWindows {
    tables: Vec<Table>,
    features: Vec<(String, Vec<String>, Vec<usize>)>,
    places: usize,
    /// Events within reach, so that a label finds its event and an event comes once.
    events: HashMap<EventId, Known>,
    /// Labels whose event has not come.
    waiting: HashMap<EventId, bool>,
    /// Labels that are not known yet at the latest time asked for, with a number that keeps their order.
    due: BinaryHeap<Reverse<(Micros, u64, EventId, bool)>>,
    given: u64,
    clock: i64,
    swept: i64,
    reach: i64,
}

struct Known {
    time: i64,
    /// One per table.
    keys: Vec<EntityKey>,
    label: bool,
}

impl FleetWindows {
    /// Empty windows.
    pub fn new(view: &View) -> Self {
        let tables: Vec<_> = Plan::of(view, &[Scope::Fleet]).into_iter().map(|plan| Table::new(plan, false)).collect();
        let features = tables.iter().map(|table| {
            let places: Vec<_> = table.plan.outputs.iter().map(|output| output.at).collect();
            let names = places.iter().map(|at| view.features()[*at].name.clone()).collect();
            (table.plan.name.clone(), names, places)
        });
        Self {
            features: features.collect(),
            tables,
            places: view.features().len(),
            events: HashMap::new(),
            waiting: HashMap::new(),
            due: BinaryHeap::new(),
            given: 0,
            clock: i64::MIN,
            swept: i64::MIN,
            reach: view.reach(Scope::Fleet),
        }
    }

    /// Takes an event, in any order; an id that is known already, or one out of every window's reach, changes nothing.
    pub fn observe(&mut self, id: &EventId, row: &Row) {
        let forget = self.clock.saturating_sub(self.reach);
        if row.time.0 <= forget || self.events.contains_key(id) {
            return;
        }
        let label = self.waiting.remove(id).unwrap_or(false);
        for table in &mut self.tables {
            table.insert(row, label && table.plan.labels, forget);
        }
        let keys = self.tables.iter().map(|table| table.key(row).clone()).collect();
        self.events.insert(id.clone(), Known { time: row.time.0, keys, label });
    }

    /// Takes a label that may be used from `known_at` on, before or after its event; the last one known holds.
    pub fn label(&mut self, id: &EventId, known_at: Micros, label: bool) {
        if known_at.0 <= self.clock {
            self.apply(id, label);
        } else {
            self.due.push(Reverse((known_at, self.given, id.clone(), label)));
            self.given += 1;
        }
    }

    fn apply(&mut self, id: &EventId, label: bool) {
        let Some(event) = self.events.get_mut(id) else {
            if self.waiting.len() < MAX_WAITING || self.waiting.contains_key(id) {
                self.waiting.insert(id.clone(), label);
            }
            return;
        };
        let difference = i64::from(label) - i64::from(std::mem::replace(&mut event.label, label));
        if difference == 0 {
            return;
        }
        for (table, key) in self.tables.iter_mut().zip(&event.keys) {
            if table.plan.labels {
                table.change_label(key, event.time, difference);
            }
        }
    }

    /// Takes in the labels known by `t`, and forgets what is out of reach.
    fn advance(&mut self, t: i64) {
        self.clock = self.clock.max(t);
        while self.due.peek().is_some_and(|Reverse((known_at, ..))| known_at.0 <= self.clock) {
            if let Some(Reverse((_, _, id, label))) = self.due.pop() {
                self.apply(&id, label);
            }
        }
        // A sweep looks at everything held, so it waits until a fair share of that may be out of reach.
        if self.clock.saturating_sub(self.swept) > self.reach / 8 {
            self.swept = self.clock;
            let forget = self.clock.saturating_sub(self.reach);
            self.tables.iter_mut().for_each(|table| table.evict(forget));
            self.events.retain(|_, event| event.time > forget);
        }
    }

    /// Values of every entity at `t`. Labels known by `t` are taken in: later calls must not ask for an earlier time.
    pub fn values_at(&mut self, t: Micros) -> FleetValues {
        self.advance(t.0);
        let mut out = vec![0.0; self.places];
        let entities = self.tables.iter().zip(&self.features).map(|(table, (entity, names, places))| {
            let mut keys: Vec<_> = table.keys().collect();
            // Sorted, so that equal windows give equal snapshots.
            keys.sort_unstable();
            let rows = keys.into_iter().filter_map(|key| {
                table.peek(key, t.0, None, &mut out);
                let values: Vec<_> = places.iter().map(|at| out[*at]).collect();
                values.iter().any(|value| *value != 0.0).then(|| (key.clone(), values))
            });
            EntityValues { entity: entity.clone(), features: names.clone(), rows: rows.collect() }
        });
        FleetValues { taken: t, entities: entities.collect() }
    }

    /// Fills the fleet-scope features of `row` exactly at its time, with the labels known by then. Rows come in time
    /// order; a window without delay includes the row's own event if it was observed before.
    pub fn fill_at(&mut self, row: &Row, out: &mut [f32]) -> Marks {
        self.advance(row.time.0);
        self.tables.iter_mut().fold(Marks::NONE, |marks, table| marks | table.query_key(row, out))
    }

    /// How many events are held.
    pub fn events(&self) -> usize {
        self.events.len()
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
    /// Parts of at most about `max_bytes` in their byte form; at least one per entity, so that an empty snapshot still
    /// arrives.
    pub fn into_parts(self, view: &View, number: SnapshotNumber, max_bytes: usize) -> Vec<FeatureSnapshotV1> {
        let lifetime = view.fleet().map_or(1, |fleet| fleet.lifetime);
        let mut parts = Vec::new();
        for entity in self.entities {
            let names: usize = entity.features.iter().map(|name| name.len() + 2).sum();
            let head = 64 + view.name().len() + entity.entity.len() + names;
            let empty = FeatureSnapshotV1 {
                view: view.name().to_owned(),
                view_version: view.version(),
                number,
                taken: self.taken,
                lifetime,
                part: 0,
                parts: 0,
                entity: entity.entity,
                features: entity.features,
                rows: Vec::new(),
            };
            let mut part = empty.clone();
            let mut bytes = head;
            for (key, values) in entity.rows {
                let size = 4 * values.len()
                    + 3
                    + match &key {
                        EntityKey::Int(_) => 11,
                        EntityKey::Text(text) => text.len() + 6,
                    };
                if bytes + size > max_bytes && !part.rows.is_empty() {
                    parts.push(std::mem::replace(&mut part, empty.clone()));
                    bytes = head;
                }
                bytes += size;
                part.rows.push(SnapshotRow { key, values });
            }
            parts.push(part);
        }
        let count = u16::try_from(parts.len()).expect("a snapshot has far fewer than 65536 parts");
        for (number, part) in (0..).zip(&mut parts) {
            (part.part, part.parts) = (number, count);
        }
        parts
    }
}
