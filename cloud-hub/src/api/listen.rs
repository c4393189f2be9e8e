//! The web API's connections: over TLS anywhere, plain only on loopback. Each has deadlines from its first byte on.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::body::Body;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;
use tributary_identity::Certificate;
use tributary_process::shutdown::Shutdown;

use super::ApiConfig;
use super::gate::{Entered, Gate, Limits, Reason};
use super::stall::Stall;

/// How long connections may finish what they were doing when the hub stops.
const DRAIN: Duration = Duration::from_secs(5);
/// After accepting failed, as it does when there are no more file descriptors.
const RETRY: Duration = Duration::from_millis(200);
/// Largest head of a request, headers included.
const HEAD_BYTES: usize = 64 << 10;

/// The other end of a connection; every request carries it.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// Whether the connection is encrypted.
    pub secure: bool,
    /// What it showed in the handshake: signed by our authority, but perhaps expired (within the grace) or revoked.
    pub certificate: Option<Arc<Certificate>>,
}

/// The sockets.
pub struct Listeners {
    https: TcpListener,
    tls: TlsAcceptor,
    plain: Option<TcpListener>,
    gate: Arc<Gate>,
}

impl std::fmt::Debug for Listeners {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listeners").field("https", &self.https).field("plain", &self.plain).finish_non_exhaustive()
    }
}

impl Listeners {
    /// Takes the addresses. Nothing is answered yet.
    pub async fn bind(config: &ApiConfig, tls: Arc<ServerConfig>) -> anyhow::Result<Self> {
        let plain = match config.insecure_plain_on_loopback {
            Some(address) if !address.ip().is_loopback() => anyhow::bail!(
                "api.insecure_plain_on_loopback is {address}, which others can reach; only loopback addresses such as \
                 127.0.0.1:8080 are allowed there (over the network: api.listen, which is HTTPS)"
            ),
            Some(address) => {
                tracing::warn!(%address, "the web API is also served without encryption, for development on this machine");
                Some(bind(address).await?)
            }
            None => None,
        };
        let limits = Limits {
            connections: config.connections,
            connections_per_address: config.connections_per_address,
            half_open: config.half_open,
        };
        Ok(Self { https: bind(config.listen).await?, tls: TlsAcceptor::from(tls), plain, gate: Gate::new(limits) })
    }

    /// Where HTTPS listens.
    pub fn https_address(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.https.local_addr()?)
    }

    /// Where the plain listener of a development machine listens.
    pub fn plain_address(&self) -> anyhow::Result<Option<SocketAddr>> {
        Ok(self.plain.as_ref().map(TcpListener::local_addr).transpose()?)
    }

    /// Counts who was not served.
    pub fn gate(&self) -> Arc<Gate> {
        self.gate.clone()
    }

    /// Answers until the signal is given, then lets connections finish their request.
    pub async fn serve(self, router: Router, config: &ApiConfig, stop: Shutdown) {
        let serving = Arc::new(Serving {
            router,
            gate: self.gate,
            handshake: config.handshake.0,
            head: config.head_timeout.0,
            write: config.write_timeout.0,
            stop,
            tasks: TaskTracker::new(),
        });
        let plain = async {
            match self.plain {
                Some(plain) => serving.accept(plain, None).await,
                None => serving.stop.given().await,
            }
        };
        tokio::join!(serving.accept(self.https, Some(self.tls)), plain);
        serving.tasks.close();
        // A client that reads slowly must not hold up the end.
        let _ = tokio::time::timeout(DRAIN, serving.tasks.wait()).await;
    }
}

async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("could not listen on {address}"))
}

struct Serving {
    router: Router,
    gate: Arc<Gate>,
    handshake: Duration,
    head: Duration,
    write: Duration,
    stop: Shutdown,
    tasks: TaskTracker,
}

impl Serving {
    async fn accept(self: &Arc<Self>, listener: TcpListener, tls: Option<TlsAcceptor>) {
        while let Some(accepted) = self.stop.unless_given(listener.accept()).await {
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
            };
            match self.gate.enter(address.ip()) {
                Ok(entered) => {
                    let (serving, tls) = (self.clone(), tls.clone());
                    self.tasks.spawn(async move { serving.connection(stream, address, tls, entered).await });
                }
                Err(reason) => self.refused(reason, address, ""),
            }
        }
    }

    fn refused(&self, reason: Reason, address: SocketAddr, problem: &str) {
        if let Some(times) = self.gate.count(reason, crate::catalog::now()) {
            let reason = reason.name();
            tracing::warn!(%address, reason, problem, times, "a connection to the web API was not served");
        }
    }

    async fn connection(&self, stream: TcpStream, address: SocketAddr, tls: Option<TlsAcceptor>, entered: Entered) {
        // Answers are written whole: waiting for more to send only delays them.
        let _ = stream.set_nodelay(true);
        let Some(tls) = tls else {
            if entered.opened() {
                self.answer(stream, Peer { address, secure: false, certificate: None }).await;
            }
            return;
        };
        let handshake = tokio::time::timeout(self.handshake, tls.accept(stream));
        let stream = tokio::select! {
            () = entered.made_way() => return self.refused(Reason::MadeWay, address, ""),
            () = self.stop.given() => return,
            done = handshake => match done {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => return self.refused(Reason::Handshake, address, &error.to_string()),
                Err(_) => return self.refused(Reason::Slow, address, ""),
            },
        };
        if !entered.opened() {
            return self.refused(Reason::MadeWay, address, "");
        }
        // The verifier has checked it, now or when the resumed session began.
        let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let certificate = match shown.map(|der| Certificate::from_der(der)).transpose() {
            Ok(certificate) => certificate.map(Arc::new),
            Err(error) => return self.refused(Reason::Handshake, address, &error.to_string()),
        };
        self.answer(stream, Peer { address, secure: true, certificate }).await;
    }

    async fn answer(&self, stream: impl AsyncRead + AsyncWrite + Unpin, peer: Peer) {
        let service = TowerToHyperService::new(self.router.clone());
        let service = service_fn(|mut request| {
            request.extensions_mut().insert(peer.clone());
            service.call(request.map(Body::new))
        });
        let mut http = http1::Builder::new();
        // The time for a head also ends connections that are kept alive and idle.
        http.timer(TokioTimer::new()).header_read_timeout(self.head).max_buf_size(HEAD_BYTES);
        let connection = http.serve_connection(TokioIo::new(Stall::new(stream, self.write)), service);
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.stop.given() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            let error = super::chain(&error);
            tracing::debug!(address = %peer.address, error, "a connection to the web API ended early");
        }
    }
}
