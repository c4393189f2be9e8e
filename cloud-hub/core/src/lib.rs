//! What the hub decides, and nothing of how it is carried out: no I/O, no clock, no tokio. `now` is passed in.
//!
//! In the order of the loop: [`flow`] says how much a device may send, [`lives`] whether what it reports is news,
//! [`drift`] and [`quality`] judge what devices and labels say about a version, [`alert`] keeps what people should know,
//! [`registry`] decides which version an alias names, and [`rollout::plan`] moves a fleet, or those that a [`selector`]
//! means, to a release and back.

pub mod flow;
pub mod lives;
pub mod drift;
pub mod quality;
pub mod alert;
pub mod registry;
pub mod selector;
pub mod rollout;
