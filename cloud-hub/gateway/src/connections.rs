//! Who is connected, and how to reach them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tributary_wire::DeviceId;
use tributary_wire::topic::{Channel, Topic};

use crate::integrations::Integrations;
use crate::tally::Tally;

/// Messages that wait for one device. Everything sent down is repeated when it is asked for again, so a full queue
/// drops the newest: receipts unite, assignments and snapshots are sent again after the next report.
const QUEUE: usize = 256;

/// Why a message did not go down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The device has no live connection.
    #[error("the device is not connected")]
    NotConnected,
    /// The device does not take its messages.
    #[error("the device's queue is full")]
    Full,
}

/// A message on its way down.
#[derive(Debug)]
pub(crate) struct Downward {
    pub topic: String,
    pub payload: Bytes,
}

/// What a session holds of its place in the table.
#[derive(Debug)]
pub(crate) struct Place {
    /// Tells sessions of the same device apart.
    pub number: u64,
    pub messages: mpsc::Receiver<Downward>,
    /// Given when a newer connection takes over.
    pub taken_over: CancellationToken,
    /// Whether a live connection had to go.
    pub took_over: bool,
}

#[derive(Debug)]
struct Connection {
    number: u64,
    messages: mpsc::Sender<Downward>,
    taken_over: CancellationToken,
}

/// The table of live connections; cheap to clone.
#[derive(Debug, Clone)]
pub struct Connections {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    devices: Mutex<HashMap<DeviceId, Connection>>,
    next: AtomicU64,
    tally: Tally,
    integrations: Integrations,
}

impl Connections {
    pub(crate) fn new(integrations: Integrations) -> Self {
        let shared =
            Shared { devices: Mutex::default(), next: AtomicU64::new(1), tally: Tally::default(), integrations };
        Self { shared: Arc::new(shared) }
    }

    fn devices(&self) -> MutexGuard<'_, HashMap<DeviceId, Connection>> {
        self.shared.devices.lock().expect("no code panics while it holds the table")
    }

    /// Sends to a device, if it is connected. A message that is sent may still be lost with its connection.
    pub fn send(&self, device: &DeviceId, channel: Channel, payload: impl Into<Bytes>) -> Result<(), SendError> {
        let devices = self.devices();
        let connection = devices.get(device).ok_or(SendError::NotConnected)?;
        let topic = Topic::new(device.clone(), channel).to_string();
        let message = Downward { topic, payload: payload.into() };
        connection.messages.try_send(message).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => SendError::Full,
            mpsc::error::TrySendError::Closed(_) => SendError::NotConnected,
        })
    }

    /// Publishes under `v1/hub/` for integrations to follow.
    pub fn publish_hub(&self, topic: &str, payload: impl Into<Bytes>) {
        self.shared.integrations.publish(topic, payload.into());
    }

    /// The connected devices.
    pub fn connected(&self) -> Vec<DeviceId> {
        let mut devices: Vec<DeviceId> = self.devices().keys().cloned().collect();
        devices.sort();
        devices
    }

    /// Whether a device is connected.
    pub fn is_connected(&self, device: &DeviceId) -> bool {
        self.devices().contains_key(device)
    }

    /// What was refused so far.
    pub fn tally(&self) -> &Tally {
        &self.shared.tally
    }

    pub(crate) fn integrations(&self) -> &Integrations {
        &self.shared.integrations
    }

    /// Gives a device's topics to a new connection; the older one, if any, is told to go.
    pub(crate) fn enter(&self, device: &DeviceId) -> Place {
        let number = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let (sender, messages) = mpsc::channel(QUEUE);
        let taken_over = CancellationToken::new();
        let connection = Connection { number, messages: sender, taken_over: taken_over.clone() };
        let older = self.devices().insert(device.clone(), connection);
        if let Some(older) = &older {
            older.taken_over.cancel();
        }
        Place { number, messages, taken_over, took_over: older.is_some() }
    }

    /// Ends a connection's entry, unless a newer one has taken it; whether it was still its own.
    pub(crate) fn leave(&self, device: &DeviceId, number: u64) -> bool {
        match self.devices().entry(device.clone()) {
            Entry::Occupied(entry) if entry.get().number == number => {
                entry.remove();
                true
            }
            _ => false,
        }
    }
}
