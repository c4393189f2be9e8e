//! Commands of the hub: done once, one at a time, and answered until the hub has the answer.
//!
//! The hub sends a command again until it knows its result, so a device remembers which ones it has begun and done
//! ([`memory`]): on the disk before it does anything. What the device's own settings do not allow is refused.

mod bundle;
mod memory;
pub mod restart;
mod work;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, mpsc, watch};
use tributary_process::clock::Clock;
use tributary_process::logging::Tail;
use tributary_wire::{Command, CommandId, CommandV1, Order};

pub use memory::MemoryError;
pub use work::run;

use memory::Memory;

/// Commands that wait for their turn; the hub sends those again that find no place.
const WAITING: usize = 16;

/// Which commands of the hub this device carries out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OrdersConfig {
    /// `logs`, `diagnostics`, `restart`, `rotate-key`. The hub has rules of its own; both must allow.
    pub allow: Vec<Allowed>,
}

impl Default for OrdersConfig {
    fn default() -> Self {
        Self { allow: vec![Allowed::Logs, Allowed::Diagnostics] }
    }
}

/// A kind of command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Allowed {
    /// Sending the last lines of the log.
    Logs,
    /// Sending a bundle for whoever looks for a fault.
    Diagnostics,
    /// Starting the agent again.
    Restart,
    /// Making a new key and having it certified.
    RotateKey,
}

impl Allowed {
    fn of(order: &Order) -> Self {
        match order {
            Order::Logs { .. } => Self::Logs,
            Order::Diagnostics => Self::Diagnostics,
            Order::Restart => Self::Restart,
            Order::RotateKey => Self::RotateKey,
        }
    }
}

/// What takes its time and may fail; the error in words.
pub type Doing<'a> = Pin<Box<dyn Future<Output = Result<String, String>> + Send + 'a>>;

/// What commands show and change; given by the wiring.
pub struct Parts {
    /// Which are carried out.
    pub config: OrdersConfig,
    /// Where the device remembers them.
    pub folder: PathBuf,
    /// The state folder, whose sizes are shown.
    pub state_dir: PathBuf,
    /// The last lines of the log; nothing where logging was not started with it.
    pub log: Tail,
    /// All settings, as TOML.
    pub settings: String,
    /// The agent's status.
    pub status: Box<dyn Fn() -> serde_json::Value + Send + Sync>,
    /// The agent's metrics.
    pub metrics: Box<dyn Fn() -> String + Send + Sync>,
    /// Ends the process in an orderly way, to be started again.
    pub restart: Box<dyn Fn() + Send + Sync>,
    /// Makes a new key and has it certified; says in words what is there now.
    pub rotate_key: Box<dyn Fn() -> Doing<'static> + Send + Sync>,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// What the connection to the hub has to do with commands. Clones share it.
#[derive(Debug, Clone)]
pub struct Handle {
    heard: mpsc::Sender<CommandV1>,
    link: watch::Sender<bool>,
    answers: Arc<Answers>,
}

/// Answers on their way out.
#[derive(Debug, Default)]
struct Answers {
    waiting: Mutex<VecDeque<(CommandId, Vec<u8>)>>,
    more: Notify,
}

impl Answers {
    fn add(&self, id: &CommandId, answer: Vec<u8>) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.iter().all(|(other, _)| other != id) {
            waiting.push_back((id.clone(), answer));
            self.more.notify_one();
        }
    }

    fn take(&self) -> Option<Vec<u8>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front().map(|(_, answer)| answer)
    }
}

impl Handle {
    /// Takes in a message of the hub; why not, in words.
    pub fn heard(&self, message: &[u8]) -> Result<(), String> {
        let Command::V1(command) = Command::decode(message).map_err(|error| error.to_string())?;
        let full = |_| format!("{WAITING} commands wait already; the hub will send it again");
        self.heard.try_send(command).map_err(full)
    }

    /// A connection stands: answers that may not have arrived go out again.
    pub fn connected(&self) {
        self.link.send_replace(true);
    }

    /// No connection stands any more: what was sent last may not have arrived.
    pub fn disconnected(&self) {
        self.link.send_replace(false);
    }

    /// One behind which nobody works.
    #[cfg(test)]
    pub fn nobody() -> Self {
        Self { heard: mpsc::channel(1).0, link: watch::channel(false).0, answers: Arc::default() }
    }

    /// The next answer to publish; waits for it. Nothing is lost when the wait is given up.
    pub async fn answer(&self) -> Vec<u8> {
        loop {
            let more = self.answers.more.notified();
            if let Some(answer) = self.answers.take() {
                // Others may wait behind it.
                self.answers.more.notify_one();
                return answer;
            }
            more.await;
        }
    }
}

/// The working half: [`run`] it once.
pub struct Worker {
    parts: Arc<Parts>,
    memory: Memory,
    heard: mpsc::Receiver<CommandV1>,
    link: watch::Receiver<bool>,
    answers: Arc<Answers>,
}

/// Makes both halves; reads what the device remembers.
pub fn new(parts: Parts) -> Result<(Handle, Worker), MemoryError> {
    let memory = Memory::open(parts.folder.clone())?;
    let (sender, heard) = mpsc::channel(WAITING);
    let (connections, link) = watch::channel(false);
    let answers = Arc::<Answers>::default();
    let handle = Handle { heard: sender, link: connections, answers: answers.clone() };
    Ok((handle, Worker { parts: Arc::new(parts), memory, heard, link, answers }))
}
