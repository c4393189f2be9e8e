//! The device's program: takes events, makes features, decides, and keeps every record until the hub has it.
//!
//! [`Agent::build`] opens the state and binds the sockets, [`Agent::run`] works until it is told to stop. What the
//! device decides about packages and links stands in `edge-agent-core`; here is what touches disk and network.

pub mod config;
pub mod identity;
pub mod sources;
pub mod state;
pub mod windows;
pub mod packages;
pub mod serve;
pub mod download;
pub mod trust;
pub mod update;
pub mod orders;
pub mod tuf;
pub mod link;
pub mod api;
pub mod metrics;
mod capabilities;
mod agent;
pub mod doctor;
pub mod commands;
#[cfg(test)]
mod testing;

use edge_agent_core::words;

pub use agent::{Agent, BuildError};
pub use commands::cli;

/// Version of this agent.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
