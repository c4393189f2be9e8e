//! The ports, and what runs behind them.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::Endpoint;
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tributary_process::shutdown::Shutdown;

use crate::clients::Clients;
use crate::connections::Connections;
use crate::door::Door;
use crate::files::{Files, NoFiles};
use crate::session::Rim;
use crate::{Admission, Event, Limits, ResetKey, Upward, quic, tcp};

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
    pub tls: Arc<ServerConfig>,
    /// For QUIC: only devices come this way, so a certificate is required.
    pub quic: Arc<ServerConfig>,
    /// The same at every start: with it the hub tells devices that a connection of its former life is over.
    pub reset: ResetKey,
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
    /// The router for clients did not start.
    #[error("the router for clients did not start")]
    Router(#[from] Box<rumqttd::local::LinkError>),
}

/// An acceptor that has its ports but serves nobody yet.
pub struct Gateway {
    limits: Limits,
    quic: Option<Endpoint>,
    tls: Option<(TcpListener, Arc<ServerConfig>)>,
    plain: Option<TcpListener>,
    addresses: Addresses,
    connections: Connections,
    files: Arc<dyn Files>,
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

impl Gateway {
    /// Takes the ports.
    pub async fn bind(listeners: &Listeners, limits: Limits, tls: Option<TlsSettings>) -> Result<Self, BindError> {
        if *listeners == Listeners::default() {
            return Err(BindError::Nowhere);
        }
        let connections = Connections::new(Clients::start()?, limits.queue_bytes);
        let (addresses, files): (_, Arc<dyn Files>) = (Addresses::default(), Arc::new(NoFiles));
        let mut gateway = Self { limits, quic: None, tls: None, plain: None, addresses, connections, files };
        if let Some(address) = listeners.insecure_plain_on_loopback {
            if !address.ip().is_loopback() {
                return Err(BindError::NotLoopback { found: address });
            }
            let (listener, address) = listen(address).await?;
            (gateway.plain, gateway.addresses.plain) = (Some(listener), Some(address));
        }
        if let Some(address) = listeners.tls {
            let settings = tls.as_ref().ok_or(BindError::NoTls)?;
            let (listener, address) = listen(address).await?;
            gateway.tls = Some((listener, settings.tls.clone()));
            gateway.addresses.tls = Some(address);
        }
        if let Some(address) = listeners.quic {
            let settings = tls.as_ref().ok_or(BindError::NoTls)?;
            let failed = |source| BindError::Listen { address, source };
            let endpoint =
                quic::bind(address, settings.quic.clone(), &settings.reset, &gateway.limits).map_err(failed)?;
            gateway.addresses.quic = Some(endpoint.local_addr().map_err(failed)?);
            gateway.quic = Some(endpoint);
        }
        Ok(gateway)
    }

    /// Where it listens.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// The table of connections, to send down and to ask who is there.
    pub fn connections(&self) -> Connections {
        self.connections.clone()
    }

    /// Lets devices that come over QUIC read these files; without this there are none for them.
    #[must_use]
    pub fn with_files(mut self, files: Arc<dyn Files>) -> Self {
        self.files = files;
        self
    }

    /// Serves until `shutdown` is given; then every peer is told and gets a moment to go.
    pub async fn run(
        self,
        admission: Arc<dyn Admission>,
        up: mpsc::Sender<Upward>,
        events: mpsc::Sender<Event>,
        shutdown: Shutdown,
    ) {
        let rim = Arc::new(Rim {
            door: Door::new(self.limits.clone()),
            handshakes: Semaphore::new(self.limits.handshakes.max(1)),
            queue: self.connections.room(),
            limits: self.limits,
            connections: self.connections,
            admission,
            files: self.files,
            up,
            events,
            shutdown,
        });
        let plain = self.plain.map(|listener| tcp::serve(listener, None, &rim));
        let tls = self.tls.map(|(listener, settings)| tcp::serve(listener, Some(settings), &rim));
        let quic = self.quic.map(|endpoint| quic::serve(endpoint, &rim));
        tokio::join!(run(plain), run(tls), run(quic));
    }
}

async fn run(listener: Option<impl Future<Output = ()>>) {
    if let Some(listener) = listener {
        listener.await;
    }
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), BindError> {
    let failed = |source| BindError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

/// Waits a moment for sessions that were told to go.
pub(crate) async fn drain(mut sessions: JoinSet<()>) {
    let drained = async { while sessions.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(Duration::from_secs(2), drained).await;
}
