//! The hub's MQTT 5 acceptor: connections in, messages out.
//!
//! [`Gateway::bind`] takes the port, [`Gateway::run`] serves it, [`Connections`] sends down. A device speaks under its
//! own `up/` topics and listens to exactly its own `down/#`; what it says goes straight into one bounded queue and
//! never through a router. Other clients publish and follow through rumqttd's router what their rights allow: integrations
//! follow `v1/hub/#`.
//!
//! The acceptor works over any stream of bytes: plain TCP on loopback, TLS 1.3 and QUIC come in through the same door.
//! It knows packets and topics and never looks into a message. Who may connect, and on which topics, [`Admission`]
//! decides after every handshake.

mod acceptor;
mod admission;
mod clients;
mod connections;
mod device;
mod door;
mod files;
mod frame;
#[cfg(test)]
mod fuzz;
mod packets;
mod pace;
pub mod probe;
mod quic;
mod reset;
mod session;
mod tally;
mod tcp;
mod topics;

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;
use tributary_wire::topic::Channel;
use tributary_wire::{DeviceId, MAX_MESSAGE_BYTES};

pub use acceptor::{Addresses, BindError, Gateway, Listeners, TlsSettings};
pub use admission::{Admission, FollowsHub, Peer, Refused, Rights, Topics, Transport};
pub use connections::{Connections, SendError};
pub use files::{Files, OpenFile, Opened};
pub use reset::ResetKey;
pub use tally::{Refusal, Tally};

/// What one peer, and all of them together, may ask for.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Live connections beyond this are refused.
    pub connections: usize,
    /// Connections that have not been let in yet; beyond this the oldest of them goes.
    pub half_open: usize,
    /// What one address may have of these. IPv6 addresses with the same first half are one.
    pub per_address: AddressLimits,
    /// TLS greetings that are computed at once.
    pub handshakes: usize,
    /// From the first packet to an accepted CONNECT.
    pub handshake: Duration,
    /// A peer that does not read for this long is cut off, so that it holds no memory.
    pub write_timeout: Duration,
    /// Longest keep-alive granted. A peer is cut off after one and a half times its keep-alive of silence.
    pub keep_alive: Duration,
    /// Largest packet in either direction.
    pub packet_bytes: usize,
    /// Messages that a device may publish per second, averaged over a second; faster ones wait.
    pub messages_per_second: u32,
    /// Bytes that a device may publish per second; faster ones wait.
    pub bytes_per_second: u64,
    /// Messages that a device may have published and not yet seen acknowledged.
    pub receive_maximum: u16,
    /// Memory for messages that nobody has taken from the queue yet, over all devices.
    pub queue_bytes: usize,
    /// What a device may ask for beside its messages.
    pub files: FileLimits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            half_open: 4096,
            per_address: AddressLimits::default(),
            // One thread of the runtime stays free for those who are in.
            handshakes: std::thread::available_parallelism().map_or(1, |cores| cores.get().saturating_sub(1).max(1)),
            handshake: Duration::from_secs(5),
            write_timeout: Duration::from_secs(10),
            keep_alive: Duration::from_secs(300),
            // Topic, packet id and properties of a PUBLISH stay far below 1 KiB.
            packet_bytes: MAX_MESSAGE_BYTES + 1024,
            // An outbox closes a few batches a second; only a device that catches up comes near.
            messages_per_second: 1000,
            bytes_per_second: 32 << 20,
            receive_maximum: 256,
            // Several of the largest messages at once.
            queue_bytes: 64 << 20,
            files: FileLimits::default(),
        }
    }
}

/// What a device may ask for on further streams of its QUIC connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileLimits {
    /// Files at once; a device that wants more waits until one has ended.
    pub at_once: u8,
    /// Bytes of files per second, over all that one device reads, averaged over a second.
    pub bytes_per_second: u64,
    /// A device that takes nothing of a file for this long loses its stream; it may ask again from where it was.
    pub stall: Duration,
}

impl Default for FileLimits {
    fn default() -> Self {
        // A device that keeps to a small budget takes a piece only now and then.
        Self { at_once: 4, bytes_per_second: 32 << 20, stall: Duration::from_secs(60) }
    }
}

/// What one address may ask for. Whole sites and mobile networks stand behind one address, so these are for floods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressLimits {
    /// Live connections.
    pub connections: usize,
    /// Connections that have not been let in yet; beyond this the oldest of them goes.
    pub half_open: usize,
    /// New connections per second, averaged over a second.
    pub per_second: u32,
}

impl Default for AddressLimits {
    fn default() -> Self {
        Self { connections: 5_000, half_open: 1024, per_second: 1000 }
    }
}

/// A message that a device published.
#[derive(Debug)]
pub struct Upward {
    /// Who said it.
    pub device: DeviceId,
    /// On which of its topics.
    pub channel: Channel,
    /// What.
    pub payload: Bytes,
    /// Its share of [`Limits::queue_bytes`], given back when this is dropped.
    pub room: Room,
}

/// A share of the memory for waiting messages.
#[derive(Debug)]
pub struct Room(#[expect(dead_code, reason = "held, not read: dropping it gives the share back")] OwnedSemaphorePermit);

impl Room {
    /// A share that is held until this is dropped.
    pub fn new(permit: OwnedSemaphorePermit) -> Self {
        Self(permit)
    }
}

/// A change in who is connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A device is connected this way and listens to its topics.
    Connected(DeviceId, Transport),
    /// It is gone.
    Disconnected(DeviceId),
    /// A second connection with the same id took over: a cloned key, or a device that lost its link unnoticed.
    TakenOver(DeviceId),
}
