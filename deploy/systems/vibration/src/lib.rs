//! A machine whose bearing wears: the feature view, a generator of its vibration, and the int8 anomaly model that its
//! sensor nodes run, learnt from what they sent.
//!
//! ```text
//! node: windows, features, score ──► agent: events ──► hub: lake ──► `vibration train` ──► signed image ──► agent ──► node
//! ```
//!
//! [`Vibration`] is the physics, [`learn`] the learning, `lake::windows` what was recorded, `lake::image` what goes back. The
//! model's arithmetic is `tributary-signal`'s, the same code that a node runs, so the cases in an image come out on the
//! node to the last bit or the node refuses it.

mod bearing;
#[cfg(feature = "lake")]
pub mod commands;
mod inputs;
#[cfg(feature = "lake")]
pub mod lake;
mod learn;
mod net;

pub use bearing::{Bearing, Vibration, VibrationConfig};
pub use inputs::{AXES, BANDS, HOP, INPUTS, Input, WINDOW, WindowOf, inputs_of};
pub use learn::{LearnError, Learnt, Parity, learn};

/// The feature view `vibration`: three values of each window and three means over a node's last hours.
pub const VIEW_TOML: &str = include_str!("../view.toml");
