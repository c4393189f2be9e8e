//! The whole view exactly at event time, for training on a stream whose labels come with it.

use crate::plan::Plan;
use crate::simple::Simple;
use crate::table::Table;
use crate::{Marks, Row, Scope, View};

/// Every feature of a view, whatever its scope, exactly at event time.
pub struct Replay {
    simple: Simple,
    tables: Vec<Table>,
    lateness: i64,
    newest: i64,
}

impl Replay {
    /// Empty windows.
    pub fn new(view: &View) -> Self {
        let plans = Plan::of(view, &[Scope::Device, Scope::Fleet]).into_iter();
        let tables = plans.map(|plan| Table::new(plan, false)).collect();
        Self { simple: Simple::new(view), tables, lateness: view.lateness(), newest: i64::MIN }
    }

    /// Takes an event and fills all features. `label` is taken to be known after the view's label delay, which no
    /// label feature looks inside. Rows come in time order; one within the view's lateness is inserted where it belongs.
    pub fn observe(&mut self, row: &Row, label: bool, out: &mut [f32]) -> Marks {
        let mut marks = self.simple.fill(row, out);
        if row.time.0 < self.newest {
            marks |= Marks::LATE;
            if row.time.0 < self.newest.saturating_sub(self.lateness) {
                self.tables.iter().for_each(|table| table.fill_defaults(out));
                return marks | Marks::TOO_LATE;
            }
        }
        self.newest = self.newest.max(row.time.0);
        for table in &mut self.tables {
            let forget = self.newest.saturating_sub(self.lateness).saturating_sub(table.plan.reach());
            let slot = table.insert(row, label, forget);
            marks |= table.query(slot, row.time.0, out);
        }
        marks
    }
}
