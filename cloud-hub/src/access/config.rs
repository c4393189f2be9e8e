//! Settings of access.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tributary_process::config::HumanDuration;

/// How long sessions last, and how often somebody may be wrong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AccessConfig {
    /// A browser's session ends after this, however busy it is,
    pub session: HumanDuration,
    /// or when it was not used for this long.
    pub session_idle: HumanDuration,
    /// Wrong tokens that an address may show per minute; then it has to wait.
    pub failures_per_minute: u32,
}

impl Default for AccessConfig {
    fn default() -> Self {
        Self {
            session: HumanDuration(Duration::from_secs(12 * 3_600)),
            session_idle: HumanDuration(Duration::from_secs(3_600)),
            failures_per_minute: 10,
        }
    }
}
