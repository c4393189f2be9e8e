//! What every program of ours needs around its work: configuration, logging, durable files, an HTTP client, shutdown.
//!
//! This crate knows no domain word: no device, no model, no topic.

pub mod checkup;
pub mod clock;
pub mod config;
pub mod disk;
pub mod durable;
pub mod http;
pub mod logging;
pub mod output;
pub mod resources;
pub mod shutdown;
