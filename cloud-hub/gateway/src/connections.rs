//! Who is connected, and how to reach them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use rumqttd::protocol::DisconnectReasonCode;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tributary_wire::DeviceId;
use tributary_wire::topic::Channel;

use crate::Transport;
use crate::clients::Clients;
use crate::packets::Ending;
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
    pub channel: Channel,
    pub payload: Bytes,
}

/// What a session holds of its place in the table.
#[derive(Debug)]
pub(crate) struct Place {
    /// Tells sessions of the same device apart.
    pub number: u64,
    pub messages: mpsc::Receiver<Downward>,
    /// Whether a live connection had to go.
    pub took_over: bool,
}

/// Told when a connection has to end.
#[derive(Debug)]
pub(crate) struct Leave(oneshot::Receiver<Go>);

impl Leave {
    /// Waits until this connection has to end.
    pub async fn told(&mut self) -> Ending {
        match (&mut self.0).await {
            Ok((code, why)) => Ending::Told(code, why),
            // Its entry in the table is gone, which only its own session removes without a word.
            Err(_) => std::future::pending().await,
        }
    }
}

/// Why a connection has to end.
type Go = (DisconnectReasonCode, String);

#[derive(Debug)]
struct Connection {
    number: u64,
    transport: Transport,
    messages: mpsc::Sender<Downward>,
    /// Taken by whoever tells it to go.
    go: Option<oneshot::Sender<Go>>,
}

impl Connection {
    fn tell(&mut self, code: DisconnectReasonCode, why: &str) -> bool {
        self.go.take().is_some_and(|go| go.send((code, why.to_owned())).is_ok())
    }
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
    clients: Clients,
    /// Memory for messages that nobody has taken yet, in bytes.
    room: Arc<Semaphore>,
    queue_bytes: usize,
}

impl Connections {
    pub(crate) fn new(clients: Clients, queue_bytes: usize) -> Self {
        let (devices, next) = (Mutex::default(), AtomicU64::new(1));
        let room = Arc::new(Semaphore::new(queue_bytes));
        Self { shared: Arc::new(Shared { devices, next, tally: Tally::default(), clients, room, queue_bytes }) }
    }

    /// The memory for messages that nobody has taken yet.
    pub(crate) fn room(&self) -> Arc<Semaphore> {
        self.shared.room.clone()
    }

    /// Bytes of messages that devices sent and that are not done with.
    pub fn waiting_bytes(&self) -> u64 {
        self.shared.queue_bytes.saturating_sub(self.shared.room.available_permits()) as u64
    }

    fn devices(&self) -> MutexGuard<'_, HashMap<DeviceId, Connection>> {
        self.shared.devices.lock().expect("no code panics while it holds the table")
    }

    /// Sends to a device, if it is connected. A message that is sent may still be lost with its connection.
    pub fn send(&self, device: &DeviceId, channel: Channel, payload: impl Into<Bytes>) -> Result<(), SendError> {
        let devices = self.devices();
        let connection = devices.get(device).ok_or(SendError::NotConnected)?;
        let message = Downward { channel, payload: payload.into() };
        connection.messages.try_send(message).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => SendError::Full,
            mpsc::error::TrySendError::Closed(_) => SendError::NotConnected,
        })
    }

    /// Publishes under `v1/hub/` for integrations to follow.
    pub fn publish_hub(&self, topic: &str, payload: impl Into<Bytes>) {
        self.shared.clients.publish_hub(topic, payload.into());
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

    pub(crate) fn clients(&self) -> &Clients {
        &self.shared.clients
    }

    /// By which way a device is connected, if it is.
    pub fn transport(&self, device: &DeviceId) -> Option<Transport> {
        self.devices().get(device).map(|connection| connection.transport)
    }

    /// Ends a device's live connection at once and tells it why; whether there was one.
    pub fn close(&self, device: &DeviceId, why: &str) -> bool {
        let mut devices = self.devices();
        // Its entry stays until its session has ended, which then says that the device is gone.
        devices
            .get_mut(device)
            .is_some_and(|connection| connection.tell(DisconnectReasonCode::AdministrativeAction, why))
    }

    /// Gives a device's topics to a new connection; the older one, if any, is told to go.
    pub(crate) fn enter(&self, device: &DeviceId, transport: Transport) -> (Place, Leave) {
        let number = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let (sender, messages) = mpsc::channel(QUEUE);
        let (go, leave) = oneshot::channel();
        let connection = Connection { number, transport, messages: sender, go: Some(go) };
        let older = self.devices().insert(device.clone(), connection);
        let took_over = older.is_some();
        if let Some(mut older) = older {
            older.tell(DisconnectReasonCode::SessionTakenOver, "another connection with this client id took over");
        }
        (Place { number, messages, took_over }, Leave(leave))
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
