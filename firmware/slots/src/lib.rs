//! Where a node keeps its models and its firmware: two slots for each, in flash that loses power at any moment.
//!
//! ```text
//!            offered          whole, hash and        next start       self-test
//!                             test cases hold                         passed
//! slot free ────────► coming ────────────────► staged ─────────► trial ────────► confirmed, the other slot is free
//!                        │ power, restart         │                │ restart for any reason
//!                        └─► goes on at its page  └─► same         └─► reverted: the other slot runs, as before
//! ```
//!
//! What is confirmed is never written to: a new blob goes into the other slot, so whatever happens to it, the old one
//! still runs. Which slot counts stands in a [`journal`] whose every entry is the whole state, so a change of state is
//! one write, and a torn one is no change.
//!
//! Nothing is erased for a blob whose head does not carry the signature of a known key, the node's own type, its kind,
//! and a rollback index that is not below what was confirmed ([`Slots::offer`], [`Slots::part`]).
#![no_std]

mod image;
mod incoming;
mod journal;
mod layout;
mod slots;
mod taking;

pub use image::{KEY_BYTES, Trusted};
pub use layout::{Layout, WrongLayout};
pub use slots::{Boot, Slots};
