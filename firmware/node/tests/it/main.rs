//! The node's logic on this machine: its parts on a mocked bus, its records, and the whole node with an agent that the
//! test plays, under a virtual clock.

mod bench;
mod fuzz;
mod link;
mod parts;
mod remains;
mod sensors;
mod store;
mod updates;
