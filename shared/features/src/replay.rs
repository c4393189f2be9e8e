//! The whole view exactly at event time, for training on a stream whose labels come with it.
use crate::{Marks, Row, View};

/// Every feature of a view, whatever its scope, exactly at event time.
pub struct Replay {}

impl Replay {
    /// Empty windows.
    pub fn new(_view: &View) -> Self {
        todo!()
    }
    /// Takes an event and fills all features. `label` is taken to be known after the view's label delay, which no
    /// label feature looks inside. Rows come in time order; a late one is inserted where it belongs.
    pub fn observe(&mut self, _row: &Row, _label: bool, _out: &mut [f32]) -> Marks {
        todo!()
    }
}
