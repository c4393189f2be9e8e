//! Windows of one device over its own events.
use crate::{Marks, Micros, Row, StateError, View};

/// Event- and device-scope features of a device, over its events in accept order.
pub struct DeviceWindows {}

impl DeviceWindows {
    /// Empty windows.
    pub fn new(_view: &View) -> Self {
        todo!()
    }
    /// Takes an event into the windows and fills its event- and device-scope features; fleet-scope places of `out` are left as they are.
    /// `out` has one place per feature of the view.
    pub fn observe(&mut self, _row: &Row, _out: &mut [f32]) -> Marks {
        todo!()
    }
    /// Fills what [`DeviceWindows::observe`] would fill, and leaves the windows as they are (`POST /v1/predict`).
    pub fn peek(&mut self, _row: &Row, _out: &mut [f32]) -> Marks {
        todo!()
    }
    /// The newest event time that entered the windows.
    pub fn newest(&self) -> Option<Micros> {
        todo!()
    }
    /// Keys and states of entities that changed since the last call, for a durable store to put.
    pub fn take_dirty(&mut self) -> Vec<(Vec<u8>, Vec<u8>)> {
        todo!()
    }
    /// Takes back one entity's state as [`DeviceWindows::take_dirty`] gave it.
    pub fn restore(&mut self, _key: &[u8], _state: &[u8]) -> Result<(), StateError> {
        todo!()
    }
    /// Declares that events up to and including `through` are lost: windows that reach back so far are marked cold.
    pub fn set_cold_through(&mut self, _through: Option<Micros>) {
        todo!()
    }
    /// Forgets entities whose events can no longer enter a window when event time has reached `watermark`; returns their keys
    /// for the durable store to remove.
    pub fn evict(&mut self, _watermark: Micros) -> Vec<Vec<u8>> {
        todo!()
    }
    /// How many entities and events are held.
    pub fn held(&self) -> (usize, usize) {
        todo!()
    }
}
