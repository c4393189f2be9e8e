//! The hub's MQTT 5 acceptor: connections in, messages out.
//!
//! [`Gateway::bind`] takes the port, [`Gateway::run`] serves it, [`Connections`] sends down. A device speaks under its
//! own `up/` topics and listens to exactly its own `down/#`; what it says goes straight into one bounded queue and
//! never through a router. Other clients, whose ids begin with `app-`, follow `v1/hub/#` through rumqttd's router.
//!
//! The acceptor works over any stream of bytes ([`Gateway`] feeds it plain TCP on loopback; TLS and QUIC come in
//! through the same door). It knows packets and topics and never looks into a message.

mod acceptor;
mod connections;
mod integrations;
mod packets;
mod session;
mod tally;

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use tributary_wire::topic::Channel;
use tributary_wire::{DeviceId, MAX_MESSAGE_BYTES};

pub use acceptor::{BindError, Gateway};
pub use connections::{Connections, SendError};
pub use tally::{Refusal, Tally};

/// How the acceptor behaves.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where plain TCP is served; a loopback address, port 0 takes a free one.
    pub listen: SocketAddr,
    /// Live connections beyond this are refused.
    pub connections_max: usize,
    /// From the first byte to an accepted CONNECT.
    pub handshake_timeout: Duration,
    /// A peer that does not read for this long is cut off, so that it holds no memory.
    pub write_timeout: Duration,
    /// Longest keep-alive granted. A peer is cut off after one and a half times its keep-alive of silence.
    pub keep_alive_max: Duration,
    /// Largest packet in either direction.
    pub packet_bytes_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 1883)),
            connections_max: 10_000,
            handshake_timeout: Duration::from_secs(5),
            write_timeout: Duration::from_secs(10),
            keep_alive_max: Duration::from_secs(300),
            // Topic, packet id and properties of a PUBLISH stay far below 1 KiB.
            packet_bytes_max: MAX_MESSAGE_BYTES + 1024,
        }
    }
}

/// Decides who may connect. Certificates are looked at here once there are any.
pub trait Admission: Send + Sync + 'static {
    /// `Err` gives the reason that the device reads in its CONNACK.
    fn admit<'a>(&'a self, device: &'a DeviceId) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send + 'a>>;
}

/// A message that a device published.
#[derive(Debug, Clone)]
pub struct Upward {
    /// Who said it.
    pub device: DeviceId,
    /// On which of its topics.
    pub channel: Channel,
    /// What.
    pub payload: Bytes,
}

/// A change in who is connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A device is connected and listens to its topics.
    Connected(DeviceId),
    /// It is gone.
    Disconnected(DeviceId),
    /// A second connection with the same id took over: a cloned key, or a device that lost its link unnoticed.
    TakenOver(DeviceId),
}
