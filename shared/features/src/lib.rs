//! Feature views and windows: the one implementation, used by device, hub and training.
//!
//! A [`View`] says what an event looks like and which features are made of it. [`View::row`] turns an [`Event`]
//! into a checked [`Row`]; from there on everything is numbers in the view's order:
//!
//! * [`DeviceWindows`] on a device, over its own events in accept order, with [`FleetTable`] beside it for the
//!   values that the hub sent;
//! * [`FleetWindows`] on the hub, over all devices and their labels;
//! * [`Replay`] in training: the whole view exactly at event time over a time-ordered stream.
//!
//! [`vibration`] turns windows of samples into values of events, with the code that a sensor node runs.
//!
//! Values enter windows as integers (units of 2^-20, see [`fixed`]), so a sum does not depend on the order in which
//! its terms came: whoever replays the same events gets the same bits. This crate does no I/O and reads no clock.

mod event;
mod view;
mod parse;
mod calendar;
pub mod fixed;
mod marks;
mod simple;
mod hash;
mod plan;
mod series;
mod table;
mod device;
mod fleet_table;
mod fleet;
mod replay;
pub mod vibration;

/// Version of the language of feature views that this build reads; it grows with every kind of feature that an older
/// build would refuse.
pub const VIEW_LANGUAGE: u32 = 1;

pub use device::DeviceWindows;
pub use event::{Event, Row, RowError, Value};
pub use fleet::{EntityValues, FleetValues, FleetWindows};
pub use fleet_table::{FleetTable, Offer, SnapshotError};
pub use marks::Marks;
pub use parse::ViewError;
pub use replay::Replay;
pub use table::StateError;
pub use tributary_wire::{EntityKey, EventId, Micros};
pub use view::{
    Aggregate, EntityField, EntityKind, Feature, FeatureKind, FleetSettings, Scope, ValueField, ValueKind, View, Window,
};
