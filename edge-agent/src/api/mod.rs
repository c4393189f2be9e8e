//! The local API: events in, decisions out, and what a person or Prometheus wants to know.
//!
//! A Unix socket by default, loopback TCP if configured. On TCP the `Host` header must be a loopback name, so that no
//! web page can reach the agent through a name of its own that resolves to this machine.

mod events;
mod nodes;
mod problem;
mod status;

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio::net::{TcpListener, UnixListener};
use tributary_process::shutdown::Shutdown;

use crate::config::Limits;
use crate::metrics::Metrics;
use crate::serve::Serving;
use crate::sources::TimeRules;
use problem::Problem;

pub use status::{Report, StatusSource};

/// Connections that are still busy get so long when the agent stops.
const DRAIN: Duration = Duration::from_secs(5);

/// What the handlers use.
pub struct Api {
    /// The pipeline.
    pub serving: Arc<Serving>,
    /// Time rules of events that come this way.
    pub rules: TimeRules,
    /// How much is taken at once.
    pub limits: Limits,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// What there is to say about the agent.
    pub status: Arc<StatusSource>,
}

type State = axum::extract::State<Arc<Api>>;

/// Bound sockets.
pub struct Sockets {
    tcp: Option<TcpListener>,
    unix: Option<(UnixListener, PathBuf)>,
}

/// Why a socket could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// An address.
    #[error("cannot listen on {address}")]
    Tcp {
        /// Which.
        address: std::net::SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// A path.
    #[error("cannot listen on {}", .path.display())]
    Unix {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Sockets {
    /// Binds what is configured.
    pub async fn bind(tcp: Option<std::net::SocketAddr>, unix: Option<PathBuf>) -> Result<Self, BindError> {
        let tcp = match tcp {
            Some(address) => {
                Some(TcpListener::bind(address).await.map_err(|source| BindError::Tcp { address, source })?)
            }
            None => None,
        };
        let unix = match unix {
            Some(path) => {
                let listener = bind_unix(&path).map_err(|source| BindError::Unix { path: path.clone(), source })?;
                Some((listener, path))
            }
            None => None,
        };
        Ok(Self { tcp, unix })
    }

    /// The address that was bound.
    pub fn tcp_address(&self) -> Option<std::net::SocketAddr> {
        self.tcp.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    /// The path that was bound.
    pub fn unix_path(&self) -> Option<&Path> {
        self.unix.as_ref().map(|(_, path)| path.as_path())
    }
}

fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    // A socket that nobody answers on was left by a process that died; one that is answered belongs to another agent.
    if path.exists() && std::os::unix::net::UnixStream::connect(path).is_err() {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

/// Serves until the signal, then lets busy connections finish.
pub async fn serve(sockets: Sockets, api: Arc<Api>, shutdown: Shutdown) -> io::Result<()> {
    let router = routes(api);
    let mut servers = tokio::task::JoinSet::new();
    if let Some(listener) = sockets.tcp {
        let (router, signal) = (router.clone().layer(middleware::from_fn(check_host)), shutdown.clone());
        servers.spawn(async move {
            axum::serve(listener, router).with_graceful_shutdown(async move { signal.given().await }).await
        });
    }
    let mut path = None;
    if let Some((listener, bound)) = sockets.unix {
        path = Some(bound);
        let signal = shutdown.clone();
        servers.spawn(async move {
            axum::serve(listener, router).with_graceful_shutdown(async move { signal.given().await }).await
        });
    }
    let mut result = Ok(());
    let finished = async {
        while let Some(ended) = servers.join_next().await {
            if let Ok(Err(error)) = ended {
                result = Err(error);
            }
        }
    };
    tokio::select! {
        () = finished => {}
        _ = shutdown.then_drain(DRAIN, std::future::pending()) => {}
    }
    if let Some(path) = path {
        // It may be gone already; a leftover does no harm.
        let _ = std::fs::remove_file(path);
    }
    result
}

fn routes(api: Arc<Api>) -> Router {
    Router::new()
        .route("/v1/events", post(events::accept))
        .route("/v1/predict", post(events::predict))
        .route("/v1/accepted", get(status::accepted))
        .route("/v1/nodes/{node}/orders", post(nodes::order))
        .route("/v1/nodes/{node}/update", post(nodes::update))
        .route(
            "/v1/nodes/{node}/image",
            post(nodes::image).layer(DefaultBodyLimit::max(tributary_release::MAX_NODE_IMAGE_BYTES)),
        )
        .route("/v1/flags", get(status::flags))
        .route("/v1/status", get(status::status))
        .route("/v1/health", get(status::health))
        .route("/metrics", get(status::metrics))
        .fallback(|| async { Problem::new(StatusCode::NOT_FOUND, "not-found", "there is nothing here") })
        .method_not_allowed_fallback(|| async {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method", "the path does not take this method")
        })
        .with_state(api)
}

async fn check_host(request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    if is_loopback(host) {
        return next.run(request).await;
    }
    let detail = format!("host {host:?} is not this machine's loopback name");
    Problem::new(StatusCode::FORBIDDEN, "host", detail).into_response()
}

fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_hosts_are_let_in() {
        for host in ["localhost", "LOCALHOST:80", "127.0.0.1", "127.0.0.1:8080", "[::1]:80", "[::1]"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["", "example.org", "example.org:80", "localhost.example.org", "10.0.0.1", "[::2]:80"] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
