//! A fleet and its hub in one process, in their own time, under every fault that a seed can think of. One thing happens
//! at a time: the hub writes on threads of a pool, as it ships, and each such piece of work is awaited before the next.
//!
//! What runs is the code that ships: the device's store, pipeline and outbox over redb on a simulated disk, the hub's
//! ingest over a lake on one. Only what carries things between them is made up here: clocks, network, power, the
//! source that brings events, and chance. One seed decides all of it, so a run that fails can be run again.
//!
//! There are two stories: events on their way into the lake (`data`), and releases on their way to devices (`rollout`).
//!
//! While a run goes on, checkers watch the promises: what was answered for is there, once, in the lake or in a gap.
//! After a while the faults stop, and everything must come to rest.

pub mod clock;
pub mod data;
pub mod faults;
pub mod figures;
pub mod network;
mod package;
pub mod schedule;
pub mod trace;
pub mod rollout;
pub mod replay;
pub mod seeds;
