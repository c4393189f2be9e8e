//! Windows of one device over its own events.

use crate::plan::Plan;
use crate::simple::Simple;
use crate::table::Table;
use crate::{Marks, Micros, Row, Scope, StateError, View};

/// Event- and device-scope features of a device, over its events in accept order.
///
/// Memory is bounded: a series keeps at most [`View::max_events`] events, and [`DeviceWindows::evict`] forgets the
/// entities out of reach. Neither eviction nor a store and restore changes any feature by a bit.
pub struct DeviceWindows {
    simple: Simple,
    tables: Vec<Table>,
    lateness: i64,
    newest: i64,
    cold_through: i64,
}

impl DeviceWindows {
    /// Empty windows.
    pub fn new(view: &View) -> Self {
        let tables = Plan::of(view, &[Scope::Device]).into_iter().map(|plan| Table::new(plan, true)).collect();
        let lateness = view.lateness();
        Self { simple: Simple::new(view), tables, lateness, newest: i64::MIN, cold_through: i64::MIN }
    }

    /// Takes an event into the windows and fills its event- and device-scope features; fleet-scope places of `out`,
    /// which has one place per feature of the view, are left as they are.
    pub fn observe(&mut self, row: &Row, out: &mut [f32]) -> Marks {
        let mut marks = self.simple.fill(row, out) | self.lateness_of(row);
        if marks.contains(Marks::TOO_LATE) {
            self.tables.iter().for_each(|table| table.fill_defaults(out));
            return marks;
        }
        self.newest = self.newest.max(row.time.0);
        for table in &mut self.tables {
            // Nothing that comes later may look back farther than this.
            let forget = self.newest.saturating_sub(self.lateness).saturating_sub(table.plan.reach());
            let slot = table.insert(row, false, forget);
            marks |= table.query(slot, row.time.0, out);
            marks |= cold(row, table, self.cold_through);
        }
        marks
    }

    /// Fills what [`DeviceWindows::observe`] would fill, and leaves the windows as they are.
    pub fn peek(&self, row: &Row, out: &mut [f32]) -> Marks {
        let mut marks = self.simple.peek(row, out) | self.lateness_of(row);
        for table in &self.tables {
            if marks.contains(Marks::TOO_LATE) {
                table.fill_defaults(out);
            } else {
                marks |= table.peek(table.key(row), row.time.0, Some(row), out);
                marks |= cold(row, table, self.cold_through);
            }
        }
        marks
    }

    fn lateness_of(&self, row: &Row) -> Marks {
        if row.time.0 >= self.newest {
            Marks::NONE
        } else if row.time.0 >= self.newest.saturating_sub(self.lateness) {
            Marks::LATE
        } else {
            Marks::LATE | Marks::TOO_LATE
        }
    }

    /// The newest event time that entered the windows.
    pub fn newest(&self) -> Option<Micros> {
        (self.newest > i64::MIN).then_some(Micros(self.newest))
    }

    /// Keys and states of the entities that changed since the last call, for a durable store to put. The state of an
    /// entity that is no longer held is empty: the store removes it.
    pub fn take_dirty(&mut self) -> Vec<(Vec<u8>, Vec<u8>)> {
        self.tables.iter_mut().flat_map(Table::take_dirty).collect()
    }

    /// Takes back one entity's state as [`DeviceWindows::take_dirty`] gave it.
    pub fn restore(&mut self, key: &[u8], state: &[u8]) -> Result<(), StateError> {
        for table in &mut self.tables {
            if let Some(newest) = table.restore(key, state)? {
                self.newest = self.newest.max(newest);
                return Ok(());
            }
        }
        let found = format!("a key of {} bytes", key.len());
        Err(StateError::Foreign { found, problem: "no entity of the view has this name" })
    }

    /// Declares events up to and including `through` to be lost: windows that reach back so far are marked cold.
    pub fn set_cold_through(&mut self, through: Option<Micros>) {
        self.cold_through = through.map_or(i64::MIN, |through| through.0);
    }

    /// Forgets what can no longer enter a window when event time has reached `watermark`. The newest event seen bounds
    /// the watermark, so that a wrong one cannot change a feature.
    pub fn evict(&mut self, watermark: Micros) {
        let watermark = watermark.0.min(self.newest);
        for table in &mut self.tables {
            let forget = watermark.saturating_sub(self.lateness).saturating_sub(table.plan.reach());
            table.evict(forget);
        }
    }

    /// How many entities and events are held.
    pub fn held(&self) -> (usize, usize) {
        self.tables.iter().map(Table::held).fold((0, 0), |(a, b), (c, d)| (a + c, b + d))
    }
}

fn cold(row: &Row, table: &Table, cold_through: i64) -> Marks {
    if row.time.0.saturating_sub(table.plan.reach()) < cold_through { Marks::COLD } else { Marks::NONE }
}
