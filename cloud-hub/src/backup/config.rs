//! When backups are made by themselves, and how long a restored hub waits.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tributary_process::config::HumanDuration;

/// Settings of backups.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where backups are written; empty: none are made by themselves, nor when the web API is asked for one. Outside
    /// `data_dir`, best on another machine's disk: there are keys inside.
    pub folder: PathBuf,
    /// How often one is made.
    pub every: HumanDuration,
    /// The least time between the end of one that the web API was asked for and the beginning of the next.
    pub pause: HumanDuration,
    /// How many are kept; older ones are removed when a new one is there.
    pub keep: usize,
    /// Whether the lake's files are copied too (linked where both lie on one file system).
    pub with_lake: bool,
    /// After a restore rollouts wait until this share of the devices has reported,
    pub restored_share: f64,
    /// but not longer than this.
    pub restored_wait: HumanDuration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            folder: PathBuf::new(),
            every: HumanDuration(Duration::from_secs(86_400)),
            pause: HumanDuration(Duration::from_secs(60)),
            keep: 7,
            with_lake: false,
            restored_share: 0.9,
            restored_wait: HumanDuration(Duration::from_secs(3_600)),
        }
    }
}

impl Config {
    /// The folder, if there is one.
    pub fn folder(&self) -> Option<&PathBuf> {
        Some(&self.folder).filter(|folder| !folder.as_os_str().is_empty())
    }

    /// Refuses what cannot be meant.
    pub fn check(&self) -> anyhow::Result<()> {
        let least = HumanDuration(Duration::from_secs(60));
        anyhow::ensure!(self.every.0 >= least.0, "backup.every is {}, expected at least {least}", self.every);
        anyhow::ensure!(self.keep >= 1, "backup.keep is 0, expected at least 1");
        let share = self.restored_share;
        anyhow::ensure!((0.0..=1.0).contains(&share), "backup.restored_share is {share}, expected 0 to 1");
        Ok(())
    }
}
