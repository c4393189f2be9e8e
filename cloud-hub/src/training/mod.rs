//! Training runs: rows in the catalog, carried out one at a time by a child process.
//!
//! A run is `queued → running → succeeded | failed | cancelled`. While it runs, its step says where it stands
//! (`dataset`, `train`, `register`); the step is stored before it is done, so that a hub that stops in the middle
//! goes on there. Training itself never runs inside the hub: when it runs out of memory, the gateway must stay.

pub mod runs;
pub mod datasets;
pub mod progress;
pub mod compare;
mod spec;
mod child;
mod worker;

pub use worker::run as work;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Mutex;

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// How runs are carried out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainingConfig {
    /// The program of the child process; empty: the one that runs now.
    pub program: PathBuf,
    /// Arguments before `train run DIR`, for a program that is the hub only under a subcommand.
    pub arguments: Vec<String>,
    /// How often a run is started again after the hub stopped in the middle of it.
    pub attempts: u32,
}

impl Default for TrainingConfig {
    fn default() -> Self {
        Self { program: PathBuf::new(), arguments: Vec::new(), attempts: 3 }
    }
}

/// What the web API and the worker share: a bell, and a way to stop the run that is under way.
#[derive(Debug, Default)]
pub struct Training {
    bell: Notify,
    under_way: Mutex<HashMap<i64, CancellationToken>>,
}

impl Training {
    /// Wakes the worker: a run was queued.
    pub fn ring(&self) {
        self.bell.notify_one();
    }

    /// Stops a run if it is under way; whether it was.
    pub fn cancel(&self, run: i64) -> bool {
        let under_way = self.under_way.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        under_way.get(&run).map(CancellationToken::cancel).is_some()
    }

    fn begin(&self, run: i64) -> CancellationToken {
        let token = CancellationToken::new();
        let mut under_way = self.under_way.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        under_way.insert(run, token.clone());
        token
    }

    fn end(&self, run: i64) {
        self.under_way.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).remove(&run);
    }
}

/// The folder of a run below the hub's data folder.
pub fn folder(data: &std::path::Path, run: i64) -> PathBuf {
    data.join("runs").join(run.to_string())
}
