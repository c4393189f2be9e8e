//! Carries out what the updaters decide: stores, downloads, swaps, and feeds them what serving shows.
//!
//! One task owns all updaters. [`Updates::build`] puts the committed packages in place before anything is served;
//! [`Updates::run`] then works until the agent stops. Everyone else talks through [`Handle`].

pub mod stored;
pub mod slot;
pub mod fetch;
mod handle;
mod place;
mod run;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use edge_agent_core::Now;
use edge_agent_core::fit::Capabilities;
use edge_agent_core::lines::{Lines, LinesSettings, Of};
use edge_agent_core::updater::UpdaterSettings;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tributary_process::clock::Clock;
use tributary_process::config::HumanDuration;
use tributary_wire::{DeviceId, LineName, Micros, ReleaseRef};

pub use fetch::FetchError;
pub use handle::Handle;
use handle::{Message, Shown};
use place::Done;
use slot::Slot;

use crate::download::Origins;
use crate::identity::Time;
use crate::packages::PackageFiles;
use crate::serve::Serving;
use crate::state::{Store, StoreError};
use crate::trust::Trust;

/// How patient updates are.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UpdateConfig {
    /// Restarts that a trial survives.
    pub crash_allowance: u32,
    /// How long a checked package waits for a hub that cannot be reached before its trial begins all the same.
    pub offline_wait: HumanDuration,
    /// How often the hub is asked again whether the trial may begin.
    pub ask_every: HumanDuration,
    /// First wait after a failed download.
    pub fetch_retry: HumanDuration,
    /// Longest wait after a failed download.
    pub fetch_retry_cap: HumanDuration,
    /// How often a package on trial is looked at.
    pub look_every: HumanDuration,
    /// How often the signed metadata is brought up to date when nothing else asks for it.
    pub refresh_every: HumanDuration,
}

impl Default for UpdateConfig {
    fn default() -> Self {
        let settings = UpdaterSettings::default();
        Self {
            crash_allowance: settings.crash_allowance,
            offline_wait: HumanDuration(settings.offline_wait),
            ask_every: HumanDuration(settings.ask_every),
            fetch_retry: HumanDuration(settings.fetch_retry),
            fetch_retry_cap: HumanDuration(settings.fetch_retry_cap),
            look_every: HumanDuration(Duration::from_millis(250)),
            refresh_every: HumanDuration(Duration::from_secs(6 * 3600)),
        }
    }
}

impl UpdateConfig {
    /// As the updaters want them.
    pub fn settings(&self) -> UpdaterSettings {
        UpdaterSettings {
            crash_allowance: self.crash_allowance,
            offline_wait: self.offline_wait.0,
            ask_every: self.ask_every.0,
            fetch_retry: self.fetch_retry.0,
            fetch_retry_cap: self.fetch_retry_cap.0,
            ..UpdaterSettings::default()
        }
    }
}

/// What updates work with.
pub struct Parts {
    /// This device.
    pub device: DeviceId,
    /// The lines that are served here; an assignment of another is refused.
    pub lines: Vec<LineName>,
    /// Settings.
    pub config: UpdateConfig,
    /// Whom to believe.
    pub trust: Trust,
    /// Where packages are fetched.
    pub origins: Origins,
    /// Where packages are kept.
    pub files: PackageFiles,
    /// What this device can run.
    pub capabilities: Arc<Capabilities>,
    /// Where states are kept.
    pub store: Arc<Store>,
    /// What serves.
    pub serving: Arc<Serving>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The earliest that it can be: the signed times that were seen.
    pub time: Time,
    /// Chance.
    pub seed: u64,
}

/// Why updates cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// The state cannot be read.
    #[error("state of updates")]
    Store(#[from] StoreError),
    /// A stored record is not one.
    #[error("stored updater {key}")]
    Record {
        /// Its name.
        key: String,
        /// What does not fit.
        source: postcard::Error,
    },
    /// The runtime is going down.
    #[error("runtime")]
    Runtime(#[from] io::Error),
}

/// What is under way for one line and role.
#[derive(Default)]
struct Line {
    slot: Slot,
    engine: &'static str,
    fetching: Option<AbortHandle>,
}

/// All updaters of this device.
pub struct Updates {
    parts: Parts,
    lines: Lines,
    places: BTreeMap<Of, Line>,
    messages: mpsc::UnboundedReceiver<Message>,
    again: mpsc::UnboundedSender<Message>,
    /// Asking for newer metadata, for the assignment that came last.
    refreshing: Option<AbortHandle>,
    /// While it starts: fetches that wait until what stays in memory is there, so that it is known what fits beside it.
    postponed: Option<Vec<(Of, ReleaseRef, u64, bool)>>,
    done: mpsc::UnboundedReceiver<Done>,
    done_sender: mpsc::UnboundedSender<Done>,
    shown: Arc<Mutex<Shown>>,
    changed: watch::Sender<u64>,
}

impl Updates {
    /// Reads what is stored, undoes a trial that a restart cut short, and puts the committed packages in place.
    pub async fn build(parts: Parts) -> Result<(Self, Handle), UpdateError> {
        let store = parts.store.clone();
        let (records, remembered) =
            fetch::blocking(move || Ok::<_, UpdateError>((stored::records(&store)?, stored::remembered(&store)?)))
                .await??;
        let settings = LinesSettings {
            device: parts.device.clone(),
            lines: parts.lines.clone(),
            updater: parts.config.settings(),
            seed: parts.seed,
        };
        let (lines, orders) = Lines::recover(settings, records, now(&parts));
        let (message_sender, messages) = mpsc::unbounded_channel();
        let (done_sender, done) = mpsc::unbounded_channel();
        let shown = Arc::new(Mutex::new(Shown::default()));
        let (changed, changes) = watch::channel(0);
        let again = message_sender.clone();
        let handle = Handle { messages: message_sender, shown: shown.clone(), changed: changes };
        let mut updates = Self {
            parts,
            lines,
            places: BTreeMap::new(),
            messages,
            again,
            refreshing: None,
            postponed: Some(Vec::new()),
            done,
            done_sender,
            shown,
            changed,
        };
        updates.recover(orders, &remembered).await;
        Ok((updates, handle))
    }

    fn now(&self) -> Now {
        now(&self.parts)
    }
}

fn now(parts: &Parts) -> Now {
    Now {
        wall: Micros(parts.clock.wall()).max(parts.time.passed()),
        monotonic: Duration::from_micros(parts.clock.monotonic()),
    }
}
