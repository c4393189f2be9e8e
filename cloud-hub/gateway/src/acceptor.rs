//! The port and the loop that takes connections from it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tributary_process::shutdown::Shutdown;

use crate::connections::Connections;
use crate::integrations::Integrations;
use crate::session::{self, Rim};
use crate::tally::Refusal;
use crate::{Admission, Event, Limits, Upward};

/// Why the acceptor could not take its port.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
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

/// An acceptor that has its port but serves nobody yet.
#[derive(Debug)]
pub struct Gateway {
    limits: Limits,
    listener: TcpListener,
    address: SocketAddr,
    connections: Connections,
}

impl Gateway {
    /// Takes a port of a loopback address; port 0 takes a free one.
    pub async fn bind(address: SocketAddr, limits: Limits) -> Result<Self, BindError> {
        if !address.ip().is_loopback() {
            return Err(BindError::NotLoopback { found: address });
        }
        let failed = |source| BindError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { limits, listener, address, connections: Connections::new(Integrations::start()?) })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
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
                accepted = self.listener.accept() => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
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
                session::serve(stream, &rim).await;
                drop(place);
            });
        }
        let drained = async { while sessions.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(Duration::from_secs(2), drained).await;
    }
}
