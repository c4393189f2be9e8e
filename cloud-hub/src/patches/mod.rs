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

use cloud_hub_core::rollout::{Rollout, RolloutState};
use serde::{Deserialize, Serialize};
use sqlx::SqliteConnection;
use tributary_process::config::{ByteSize, HumanDuration};
use tributary_wire::Micros;

use crate::rollout::{Member, RolloutError};

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

/// How many patches to a rollout's release are still to be made; 0 when the rollout would not wait for them.
pub async fn awaited(
    catalog: &mut SqliteConnection,
    config: &Config,
    rollout: &Rollout,
    members: &[Member],
    now: Micros,
) -> Result<usize, RolloutError> {
    let running = matches!(rollout.state, RolloutState::Running { .. });
    if !running || !config.enabled || rollout.policy.patch_wait_s == 0 {
        return Ok(0);
    }
    let (sha256, length) = (rollout.target.sha256, rollout.target.length);
    let held = field::held(catalog, members, rollout.line.as_str(), &sha256).await?;
    let known = store::of_target(catalog, &sha256).await?;
    Ok(plan::open(&plan::Target { sha256, length, held }, &known, config, now))
}
