//! Commands to devices: logs, diagnostics, restart, a new key.
//!
//! An operator asks once; the hub sends until it has the result or the deadline has passed, and a device does it once
//! whatever it hears ([`decide`]). What may be asked of which device stands in the hub's settings ([`policy`]); the
//! device's own settings must allow it too.

pub mod decide;
pub mod policy;
pub mod store;
mod driver;
mod results;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cloud_hub_gateway::Upward;
use serde::{Deserialize, Serialize};
use sqlx::SqliteConnection;
use tokio::sync::{Notify, mpsc};
use tributary_process::config::HumanDuration;
use tributary_wire::{CommandId, DeviceId, Micros, Order};

pub use driver::run;
pub use results::Ignored;

use crate::hub::Hub;
use policy::{Refusal, Rule};

/// Results that wait to be stored; more are dropped, and asked for again.
pub const QUEUE: usize = 16;
/// Lines of a log that may be asked for: more never fit into an answer.
pub const LINES_MAX: u32 = 100_000;
/// Commands of one device that have no result yet.
const OPEN_MAX: i64 = 32;

/// What may be asked of devices, and how long it is tried.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Which devices may be asked for what: the first rule that fits a device decides. Where none fits, logs and
    /// diagnostics are allowed.
    pub rules: Vec<Rule>,
    /// How long a command is tried when the operator does not say.
    pub deadline: HumanDuration,
    /// How long a command may be tried at most.
    pub longest_deadline: HumanDuration,
    /// A device that is connected and does not answer is asked again after this.
    pub again: HumanDuration,
    /// Commands and results are removed this long after their end.
    pub keep: HumanDuration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            rules: Vec::new(),
            deadline: HumanDuration(Duration::from_secs(15 * 60)),
            longest_deadline: HumanDuration(Duration::from_secs(7 * 86_400)),
            again: HumanDuration(Duration::from_secs(30)),
            keep: HumanDuration(Duration::from_secs(30 * 86_400)),
        }
    }
}

/// Why a command is not taken.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// No such device.
    #[error("there is no device {0}")]
    NoDevice(DeviceId),
    /// No such command.
    #[error("device {0} has no command {1}")]
    NoCommand(DeviceId, String),
    /// The settings do not allow it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Longer than allowed, or none at all.
    #[error("a deadline of {found} s is asked for; 1 to {longest} are allowed (commands.longest_deadline)")]
    Deadline {
        /// Asked for.
        found: u64,
        /// Allowed.
        longest: u64,
    },
    /// The agent is too old.
    #[error("the agent of device {0} reads messages of version {1}; commands need version 2: update the agent first")]
    TooOld(DeviceId, u8),
    /// Too many at once.
    #[error("device {0} has {OPEN_MAX} commands without a result; cancel some, or wait")]
    TooMany(DeviceId),
    /// It is on its way, or over.
    #[error("command {id} is {state}; only a queued one can be cancelled")]
    NotQueued {
        /// Which.
        id: String,
        /// Where it stands.
        state: String,
    },
    /// The catalog failed.
    #[error("catalog")]
    Catalog(#[from] sqlx::Error),
}

/// What other parts of the hub have to do with commands. Clones share it.
#[derive(Debug, Clone)]
pub struct Orders {
    bell: Arc<Notify>,
    counters: Arc<Counters>,
}

/// The hub's half of the way up for results: run it once.
#[derive(Debug)]
pub struct Incoming(mpsc::Receiver<Upward>);

/// Counts since the start.
#[derive(Debug, Default)]
struct Counters {
    sent: AtomicU64,
    results: AtomicU64,
    ignored: [AtomicU64; Ignored::ALL.len()],
}

impl Orders {
    /// Makes it, with both ends of the way for results.
    pub fn new() -> (Self, mpsc::Sender<Upward>, Incoming) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (Self { bell: Arc::default(), counters: Arc::default() }, sender, Incoming(receiver))
    }

    /// There is something to send.
    pub fn ring(&self) {
        self.bell.notify_one();
    }

    /// Commands sent, repeated ones included.
    pub fn sent(&self) -> u64 {
        self.counters.sent.load(Ordering::Relaxed)
    }

    /// Results stored.
    pub fn results(&self) -> u64 {
        self.counters.results.load(Ordering::Relaxed)
    }

    /// Results that changed nothing, by reason.
    pub fn ignored(&self, reason: Ignored) -> u64 {
        self.counters.ignored[reason as usize].load(Ordering::Relaxed)
    }
}

/// What an operator asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Of which device.
    pub device: DeviceId,
    /// What.
    pub order: Order,
    /// How long to try.
    pub deadline: Option<Duration>,
}

/// Takes a command in, if it is allowed.
pub async fn ask(hub: &Hub, asked: Asked) -> Result<store::Command, OrderError> {
    let (config, now) = (&hub.config.commands, hub.now());
    let deadline = asked.deadline.unwrap_or(config.deadline.0);
    let longest = config.longest_deadline.0.as_secs();
    if deadline.as_secs() < 1 || deadline.as_secs() > longest {
        return Err(OrderError::Deadline { found: deadline.as_secs(), longest });
    }
    let mut catalog = hub.catalog.write().await?;
    let command = take(&mut catalog, config, asked, deadline, now).await?;
    catalog.commit().await?;
    hub.orders.ring();
    Ok(command)
}

async fn take(
    catalog: &mut SqliteConnection,
    config: &Config,
    Asked { device, order, .. }: Asked,
    deadline: Duration,
    now: Micros,
) -> Result<store::Command, OrderError> {
    let known = store::device(catalog, &device).await?.ok_or_else(|| OrderError::NoDevice(device.clone()))?;
    policy::allows(&config.rules, &device, &known.place, &order)?;
    if let Some(reads) = known.reads.filter(|reads| *reads < 2) {
        return Err(OrderError::TooOld(device, reads));
    }
    if store::open_of(catalog, &device).await? >= OPEN_MAX {
        return Err(OrderError::TooMany(device));
    }
    let id = CommandId::new(&ulid::Ulid::new().to_string().to_lowercase());
    let id = id.map_err(|error| sqlx::Error::Encode(error.into()))?;
    Ok(store::insert(catalog, store::New { id, device, order, deadline: now + deadline }, now).await?)
}

/// Gives up a command that was not sent yet.
pub async fn cancel(hub: &Hub, device: &DeviceId, id: &str) -> Result<store::Command, OrderError> {
    let mut catalog = hub.catalog.write().await?;
    let missing = || OrderError::NoCommand(device.clone(), id.to_owned());
    let command = store::find(&mut catalog, device, id).await?.ok_or_else(missing)?;
    if command.state != decide::State::Queued {
        return Err(OrderError::NotQueued { id: command.id, state: command.state.name().to_owned() });
    }
    store::cancel(&mut catalog, &command, hub.now()).await?;
    let cancelled = store::find(&mut catalog, device, id).await?.ok_or_else(missing)?;
    catalog.commit().await?;
    Ok(cancelled)
}
