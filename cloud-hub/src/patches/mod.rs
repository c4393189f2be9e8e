//! Patches: cheaper ways to released packages, for the versions that are in the field.
//!
//! Whatever is made here is unsigned and can be made again; a device believes the hash of what comes out and nothing
//! else. One patch is made at a time, in a thread that rests as long as it worked.

mod plan;
mod field;
mod store;
mod serve;
mod work;

pub use serve::open;
pub use store::{State, Stored, of_target, total};
pub use work::run;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tributary_process::config::{ByteSize, HumanDuration};

/// What patches may cost the hub.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Whether any are made.
    pub enabled: bool,
    /// How often is looked at what is released and what is in the field.
    pub interval: HumanDuration,
    /// For how many older packages of a line patches to a release are made; those on most devices come first.
    pub bases: usize,
    /// Larger packages get none: making one takes memory for both packages and about a second for a megabyte.
    pub largest_package: ByteSize,
    /// Disk that all patches together may take.
    pub disk: ByteSize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: true,
            interval: HumanDuration(Duration::from_secs(5)),
            bases: 8,
            largest_package: ByteSize(64 << 20),
            disk: ByteSize(1 << 30),
        }
    }
}
