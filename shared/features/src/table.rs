//! The series of every entity of one kind: found by key, stored by key, forgotten when out of reach.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use tributary_wire::EntityKey;

use crate::event::Row;
use crate::fixed;
use crate::hash::KeyHash;
use crate::marks::Marks;
use crate::plan::Plan;
use crate::series::{Series, Shape};

/// Why stored window state cannot be taken back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// The bytes are not a state this build reads.
    #[error("not a window state: {0}")]
    Malformed(String),
    /// The state belongs to another entity, or was kept for other windows.
    #[error("window state of {found} does not fit the view: {problem}")]
    Foreign {
        /// The entity that the state names.
        found: String,
        /// What does not fit.
        problem: &'static str,
    },
}

/// Bytes of a stored state. A published field never changes; the first byte is the version.
#[derive(Serialize, Deserialize)]
enum State {
    V1(StateV1),
}

#[derive(Serialize, Deserialize)]
struct StateV1 {
    /// Entries older than this before the newest may be missing: a view that looks farther back must not take them.
    reach: i64,
    floor: i64,
    columns: Vec<String>,
    /// Time of each entry less that of the one before.
    times: Vec<i64>,
    /// Fixed-point values, column by column.
    values: Vec<Vec<i64>>,
}

/// See the module.
pub(crate) struct Table {
    pub(crate) plan: Plan,
    shape: Shape,
    slots: HashMap<EntityKey, u32, KeyHash>,
    series: Vec<Series>,
    free: Vec<u32>,
    /// What changed since the last [`Table::take_dirty`]; only kept where somebody stores it.
    dirty: Option<HashMap<EntityKey, (), KeyHash>>,
    scratch: Vec<i64>,
}

impl Table {
    pub(crate) fn new(plan: Plan, keep_dirty: bool) -> Self {
        let shape = Shape::of(&plan);
        let dirty = keep_dirty.then(HashMap::default);
        let scratch = vec![0; plan.offsets.len()];
        Self { plan, shape, slots: HashMap::default(), series: Vec::new(), free: Vec::new(), dirty, scratch }
    }

    pub(crate) fn key<'row>(&self, row: &'row Row) -> &'row EntityKey {
        &row.entities[self.plan.entity]
    }

    /// Takes an event in. Those up to and including `forget` may be given up.
    #[inline]
    pub(crate) fn insert(&mut self, row: &Row, label: bool, forget: i64) -> u32 {
        let key = &row.entities[self.plan.entity];
        let slot = match self.slots.get(key) {
            Some(slot) => *slot,
            None => self.new_slot(key),
        };
        let (shape, columns) = (self.shape, &self.plan.columns);
        // Views let only required values into windows, so every row has them.
        let column = |number: usize| fixed::from_f64(row.values[columns[number]].unwrap_or(0.0));
        self.series[slot as usize].insert(shape, row.time.0, column, label, forget, self.plan.max_events);
        if let Some(dirty) = &mut self.dirty
            && !dirty.contains_key(key)
        {
            dirty.insert(key.clone(), ());
        }
        slot
    }

    #[cold]
    fn new_slot(&mut self, key: &EntityKey) -> u32 {
        let empty = Series::new(self.shape);
        let slot = match self.free.pop() {
            Some(slot) => {
                self.series[slot as usize] = empty;
                slot
            }
            None => {
                self.series.push(empty);
                (self.series.len() - 1) as u32
            }
        };
        self.slots.insert(key.clone(), slot);
        slot
    }

    /// Fills the features of an entity at `t`; it moves cursors when time goes forward, else it searches.
    #[inline]
    pub(crate) fn query(&mut self, slot: u32, t: i64, out: &mut [f32]) -> Marks {
        let (shape, plan) = (self.shape, &self.plan);
        let series = &mut self.series[slot as usize];
        if t >= series.latest_query() {
            series.advance(shape, &plan.offsets, t);
            write(plan, shape, series, series.cursors(shape), out);
        } else {
            search(plan, shape, series, t, &mut self.scratch);
            write(plan, shape, series, &self.scratch, out);
        }
        if series.floor() > t - plan.reach() { Marks::TRUNCATED } else { Marks::NONE }
    }

    /// Fills the features of the entity of `row` at its time, and leaves everything as it is; with `present`, as if the
    /// row had been taken in.
    pub(crate) fn peek(&self, key: &EntityKey, t: i64, present: Option<&Row>, out: &mut [f32]) -> Marks {
        let (shape, plan) = (self.shape, &self.plan);
        let slot = self.slots.get(key).copied();
        let mut positions = vec![0; plan.offsets.len()];
        if let Some(slot) = slot {
            search(plan, shape, &self.series[slot as usize], t, &mut positions);
        }
        let series = slot.map(|slot| &self.series[slot as usize]);
        for output in &plan.outputs {
            let present = present.filter(|_| plan.offsets[output.near] == 0);
            let (from, to) = (positions[output.far], positions[output.near]);
            let own = |column: usize| match present {
                Some(row) => i128::from(fixed::from_f64(row.values[plan.columns[column]].unwrap_or(0.0))),
                None => 0,
            };
            let sum = |column| series.map_or(0, |series| series.sum(shape, column, from, to)) + own(column);
            let labels = || series.map_or(0, |series| series.labels(shape, from, to));
            let count = (to - from) as u64 + u64::from(present.is_some());
            out[output.at] = output.term.value(count, sum, labels);
        }
        match series {
            Some(series) if series.floor() > t - plan.reach() => Marks::TRUNCATED,
            _ => Marks::NONE,
        }
    }

    /// Fills the features of the entity of `row`, which need not have any events.
    pub(crate) fn query_key(&mut self, row: &Row, out: &mut [f32]) -> Marks {
        match self.slots.get(self.key(row)) {
            Some(slot) => self.query(*slot, row.time.0, out),
            None => {
                for output in &self.plan.outputs {
                    out[output.at] = 0.0;
                }
                Marks::NONE
            }
        }
    }

    /// Fills the declared defaults.
    pub(crate) fn fill_defaults(&self, out: &mut [f32]) {
        for output in &self.plan.outputs {
            out[output.at] = output.default;
        }
    }

    pub(crate) fn change_label(&mut self, key: &EntityKey, time: i64, difference: i64) {
        if let Some(slot) = self.slots.get(key) {
            self.series[*slot as usize].change_label(self.shape, time, difference);
        }
    }

    /// Every entity, in no order.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &EntityKey> {
        self.slots.keys()
    }

    /// How many entities and events are held.
    pub(crate) fn held(&self) -> (usize, usize) {
        (self.slots.len(), self.slots.values().map(|slot| self.series[*slot as usize].len()).sum())
    }

    /// Gives up all events up to and including `forget`, and the entities that have none left.
    pub(crate) fn evict(&mut self, forget: i64) {
        let (series, free, shape) = (&mut self.series, &mut self.free, self.shape);
        let dirty = &mut self.dirty;
        self.slots.retain(|key, slot| {
            let held = &mut series[*slot as usize];
            held.forget(shape, forget);
            if held.len() > 0 {
                return true;
            }
            *held = Series::new(shape);
            free.push(*slot);
            if let Some(dirty) = dirty {
                dirty.insert(key.clone(), ());
            }
            false
        });
    }

    /// Key and state of every entity that changed; the state of one that is gone is empty.
    pub(crate) fn take_dirty(&mut self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let dirty = self.dirty.as_mut().map(std::mem::take).unwrap_or_default();
        let mut changed: Vec<_> = dirty.into_keys().collect();
        // In key order, so that the same events always write the same bytes.
        changed.sort_unstable();
        changed.into_iter().map(|key| (self.stored_key(&key), self.state(&key))).collect()
    }

    fn stored_key(&self, key: &EntityKey) -> Vec<u8> {
        encode(&(&self.plan.name, key))
    }

    fn state(&self, key: &EntityKey) -> Vec<u8> {
        let Some(slot) = self.slots.get(key) else { return Vec::new() };
        let (shape, series) = (self.shape, &self.series[*slot as usize]);
        let positions = || series.first()..series.end();
        let mut before = 0;
        let times = positions().map(|position| {
            let time = series.time(shape, position);
            time - std::mem::replace(&mut before, time)
        });
        let times = times.collect();
        let value = |column, position| series.sum(shape, column, position, position + 1) as i64;
        let columns = 0..self.plan.columns.len();
        let values = columns.map(|column| positions().map(|position| value(column, position)).collect());
        let values = values.collect();
        let (reach, floor, columns) = (self.plan.reach(), series.floor(), self.plan.column_names.clone());
        encode(&State::V1(StateV1 { reach, floor, columns, times, values }))
    }

    /// Takes one entity's state back; `None` when the key belongs to another table.
    pub(crate) fn restore(&mut self, key: &[u8], state: &[u8]) -> Result<Option<i64>, StateError> {
        let malformed = |error: postcard::Error| StateError::Malformed(error.to_string());
        let (name, key): (String, EntityKey) = postcard::from_bytes(key).map_err(malformed)?;
        if name != self.plan.name {
            return Ok(None);
        }
        let State::V1(state) = postcard::from_bytes(state).map_err(malformed)?;
        let foreign = |problem| StateError::Foreign { found: format!("{name} {key}"), problem };
        if state.columns != self.plan.column_names {
            return Err(foreign("it holds other values"));
        }
        if state.reach < self.plan.reach() {
            return Err(foreign("it does not reach back far enough"));
        }
        if state.values.len() != state.columns.len() || state.values.iter().any(|v| v.len() != state.times.len()) {
            return Err(foreign("its columns differ in length"));
        }
        let slot = match self.slots.get(&key) {
            Some(slot) => *slot,
            None => self.new_slot(&key),
        };
        let mut series = Series::new(self.shape);
        let mut time = 0_i64;
        for (at, difference) in state.times.iter().enumerate() {
            time = time.saturating_add(*difference);
            let column = |number: usize| state.values[number][at];
            series.insert(self.shape, time, column, false, i64::MIN, self.plan.max_events);
        }
        series.set_floor(series.floor().max(state.floor));
        let newest = series.newest(self.shape);
        self.series[slot as usize] = series;
        Ok(Some(newest.unwrap_or(i64::MIN)))
    }
}

fn search(plan: &Plan, shape: Shape, series: &Series, t: i64, positions: &mut [i64]) {
    for (position, offset) in positions.iter_mut().zip(&plan.offsets) {
        *position = series.position(shape, t - offset);
    }
}

#[inline]
fn write(plan: &Plan, shape: Shape, series: &Series, positions: &[i64], out: &mut [f32]) {
    for output in &plan.outputs {
        let (from, to) = (positions[output.far], positions[output.near]);
        let sum = |column| series.sum(shape, column, from, to);
        out[output.at] = output.term.value((to - from) as u64, sum, || series.labels(shape, from, to));
    }
}

fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    // Serialising plain data into a growing vector has no way to fail.
    postcard::to_allocvec(value).expect("plain data always serialises")
}
