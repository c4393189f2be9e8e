//! Backups of a hub, and a hub made from one again.
//!
//! [`create()`] copies the catalog and what it names; [`schedule`] does so by itself and for whoever may ask. [`restore()`]
//! makes a data folder of it. The first start then takes in what the lake's files and the quarantine know beyond the
//! backup ([`crate::ingest::take_in`]); after that devices tell what they know ([`reports`]), and until they have, little
//! is signed ([`standing`]).

mod archive;
mod config;
mod create;
mod error;
mod look;
pub mod manifest;
pub mod reports;
mod restore;
mod revocations;
pub mod schedule;
pub mod standing;
pub mod status;
mod trees;

pub use config::Config;
pub use create::{Made, Wish as CreateWish, create, name};
pub use error::BackupError;
pub use look::{Listed, Verified, list, verify};
pub use reports::{go_on, heard, overrule, waits};
pub use restore::{Restored, Wish as RestoreWish, check_finished, restore};
pub use schedule::Backups;
pub use standing::{Restore, Standing};

use std::sync::Arc;

/// The alert that this hub was restored; it ends when rollouts go on.
pub const RESTORED: &str = "hub-restored";

/// Hears how far the work is, in words.
pub type Tell = Arc<dyn Fn(&str) + Send + Sync>;
