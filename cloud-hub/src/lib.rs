//! The hub: gathers what devices saw, finds out when a model has gone stale, trains a better one, proves it, signs it
//! and rolls it out.
//!
//! In the order in which data flows: the gateway (its own crate) hands records to [`ingest`], which commits them to the
//! lake (its own crate) and to the [`catalog`] in one transaction and answers for them. Everything else reads from
//! there. [`hub::Hub`] holds the parts together.

pub mod config;
pub mod hub;
pub mod catalog;
pub mod bus;
pub mod access;
pub mod audit;
pub mod identity;
pub mod admission;
pub mod ingest;
pub mod metrics;
pub mod materialize;
pub mod labels;
pub mod registry;
pub mod publish;
pub mod patches;
pub mod lines;
pub mod training;
pub mod monitor;
pub mod rollout;
pub mod sampling;
pub mod orders;
pub mod backup;
pub mod api;
pub mod pages;
pub mod doctor;
pub mod commands;

pub use commands::main as cli;
pub use config::Config;
pub use hub::{Hub, serve};
