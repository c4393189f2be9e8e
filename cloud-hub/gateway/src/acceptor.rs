//! The port and the loop that takes connections from it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tributary_process::shutdown::Shutdown;

use crate::connections::Connections;
use crate::integrations::Integrations;
use crate::session::{self, Rim};
use crate::tally::Refusal;
use crate::{Admission, Event, Limits, Transport, Upward};

/// Where to listen; port 0 takes a free one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Listeners {
    /// MQTT on QUIC streams, over UDP.
    pub quic: Option<SocketAddr>,
    /// MQTT over TLS 1.3.
    pub tls: Option<SocketAddr>,
    /// MQTT over TCP: nothing is encrypted and nobody proves who they are.
    pub insecure_plain_on_loopback: Option<SocketAddr>,
}

/// Where it listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Addresses {
    /// MQTT on QUIC streams, over UDP.
    pub quic: Option<SocketAddr>,
    /// MQTT over TLS 1.3.
    pub tls: Option<SocketAddr>,
    /// MQTT over TCP, on loopback.
    pub plain: Option<SocketAddr>,
}

/// How the hub shows itself and what it asks of peers. Both must offer the ALPN `mqtt`.
#[derive(Debug, Clone)]
pub struct TlsSettings {
    /// For TLS: a certificate of the client is optional, because integrations have none.
    pub tls: Arc<rustls::ServerConfig>,
    /// For QUIC: only devices come this way, so a certificate is required.
    pub quic: Arc<rustls::ServerConfig>,
}

/// Why the acceptor could not take its ports.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Nothing to listen on.
    #[error("no MQTT listener is set: none of QUIC, TLS, and plain on loopback")]
    Nowhere,
    /// TLS and QUIC need a certificate.
    #[error("a listener for TLS or QUIC needs TLS settings")]
    NoTls,
    /// Plain TCP has no authentication, so it stays on this machine.
    #[error("{found} is not a loopback address; plain MQTT is served on loopback only")]
    NotLoopback {
        /// The address that was asked for.
        found: SocketAddr,
    },
    /// The system refused.
    #[error("could not listen on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The router for integrations did not start.
    #[error("the router for integrations did not start")]
    Router(#[from] Box<rumqttd::local::LinkError>),
}

/// An acceptor that has its ports but serves nobody yet.
#[derive(Debug)]
pub struct Gateway {
    limits: Limits,
    plain: Option<TcpListener>,
    addresses: Addresses,
    connections: Connections,
}

impl Gateway {
    /// Takes the ports.
    pub async fn bind(listeners: &Listeners, limits: Limits, tls: Option<TlsSettings>) -> Result<Self, BindError> {
        if *listeners == Listeners::default() {
            return Err(BindError::Nowhere);
        }
        if tls.is_none() && (listeners.quic.is_some() || listeners.tls.is_some()) {
            return Err(BindError::NoTls);
        }
        let mut addresses = Addresses::default();
        let mut plain = None;
        if let Some(address) = listeners.insecure_plain_on_loopback {
            if !address.ip().is_loopback() {
                return Err(BindError::NotLoopback { found: address });
            }
            let (listener, address) = listen(address).await?;
            (plain, addresses.plain) = (Some(listener), Some(address));
        }
        Ok(Self { limits, plain, addresses, connections: Connections::new(Integrations::start()?) })
    }

    /// Where it listens.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// The table of connections, to send down and to ask who is there.
    pub fn connections(&self) -> Connections {
        self.connections.clone()
    }

    /// Serves until `shutdown` is given; then every peer is told and gets a moment to go.
    pub async fn run(
        self,
        admission: Arc<dyn Admission>,
        up: mpsc::Sender<Upward>,
        events: mpsc::Sender<Event>,
        shutdown: Shutdown,
    ) {
        let places = Arc::new(Semaphore::new(self.limits.connections));
        let connections = self.connections;
        let queue = Arc::new(Semaphore::new(self.limits.queue_bytes));
        let rim = Rim { limits: self.limits, queue, connections, admission, up, events, shutdown };
        let rim = Arc::new(rim);
        let mut sessions = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                () = rim.shutdown.given() => break,
                Some(_) = sessions.join_next(), if !sessions.is_empty() => continue,
                accepted = accept(self.plain.as_ref()) => accepted,
            };
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, most likely: accepting again at once would only burn time.
                    tracing::warn!(%error, "could not accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let Ok(place) = places.clone().try_acquire_owned() else {
                rim.connections.tally().count(Refusal::Full);
                continue;
            };
            let _ = stream.set_nodelay(true);
            let rim = rim.clone();
            sessions.spawn(async move {
                session::serve(stream, address, Transport::Plain, &rim).await;
                drop(place);
            });
        }
        let drained = async { while sessions.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(Duration::from_secs(2), drained).await;
    }
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), BindError> {
    let failed = |source| BindError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

async fn accept(listener: Option<&TcpListener>) -> std::io::Result<(TcpStream, SocketAddr)> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}
