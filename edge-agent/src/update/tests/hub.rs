//! The hub's two download routes, with accidents on demand.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::stream::{self, StreamExt};
use tokio_rustls::rustls::ServerConfig;
use tributary_identity::Authority;
use tributary_identity::tls::{ALPN_HTTP, Clients, hub_server};
use tributary_process::http::Endpoint;
use tributary_release::{ReleaseV1, sign_release};
use tributary_wire::{Micros, ReleaseRef, VersionNumber};

use super::{key, release};
use crate::identity::tests::hub::{Tls, shown};
use crate::testing;

#[derive(Default)]
struct Shelf {
    releases: HashMap<u32, Vec<u8>>,
    packages: HashMap<String, Vec<u8>>,
    /// Cut the next downloads after so many bytes each.
    cuts: Vec<usize>,
    /// Where downloads began.
    starts: Vec<usize>,
}

/// Serves on a free port, in a thread of its own.
pub(super) struct Hub {
    shelf: Arc<Mutex<Shelf>>,
    address: std::net::SocketAddr,
    _runtime: tokio::runtime::Runtime,
}

impl Hub {
    pub(super) fn start() -> Self {
        Self::serve(None)
    }

    /// Over HTTPS, for devices of this authority alone.
    pub(super) fn start_secure(authority: &Authority) -> Self {
        let (believed, shown) = ([authority.certificate().clone()], shown(authority, &["127.0.0.1"]));
        Self::serve(Some(hub_server(shown, &believed, Clients::Required, ALPN_HTTP).unwrap()))
    }

    fn serve(secure: Option<ServerConfig>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let shelf = Arc::new(Mutex::new(Shelf::default()));
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new()
            .route("/api/v1/releases/{line}/{version}", get(statement))
            .route("/api/v1/packages/{sha256}", get(package))
            .with_state(shelf.clone());
        runtime.spawn(async move {
            match secure {
                Some(settings) => axum::serve(Tls::new(listener, settings), router).await,
                None => axum::serve(listener, router).await,
            }
        });
        Self { shelf, address, _runtime: runtime }
    }

    pub(super) fn port(&self) -> u16 {
        self.address.port()
    }

    pub(super) fn endpoint(&self) -> Endpoint {
        format!("http://{}", self.address).parse().unwrap()
    }

    /// Publishes a package file.
    pub(super) fn publish(&self, version: u32, file: Vec<u8>) -> ReleaseRef {
        let reference = release(version, &file);
        let ReleaseRef { version, length, sha256 } = reference.clone();
        let stated = ReleaseV1 { line: testing::line(), version, length, sha256, published: Micros(0) };
        let mut shelf = self.shelf.lock().unwrap();
        shelf.releases.insert(version.0, sign_release(&key(), stated).encode());
        shelf.packages.insert(sha256.to_string(), file);
        reference
    }

    /// From now on other bytes come under this package's name.
    pub(super) fn spoil(&self, release: &ReleaseRef) {
        let mut shelf = self.shelf.lock().unwrap();
        let file = shelf.packages.get_mut(&release.sha256.to_string()).unwrap();
        let middle = file.len() / 2;
        file[middle] ^= 1;
    }

    /// Replaces the statement of a version.
    pub(super) fn state(&self, version: VersionNumber, signed: Vec<u8>) {
        self.shelf.lock().unwrap().releases.insert(version.0, signed);
    }

    pub(super) fn cut(&self, after: &[usize]) {
        self.shelf.lock().unwrap().cuts = after.to_vec();
    }

    pub(super) fn starts(&self) -> Vec<usize> {
        self.shelf.lock().unwrap().starts.clone()
    }
}

async fn statement(State(shelf): State<Arc<Mutex<Shelf>>>, Path((_, version)): Path<(String, u32)>) -> Response {
    match shelf.lock().unwrap().releases.get(&version) {
        Some(signed) => signed.clone().into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn package(State(shelf): State<Arc<Mutex<Shelf>>>, Path(sha256): Path<String>, headers: HeaderMap) -> Response {
    let mut shelf = shelf.lock().unwrap();
    let Some(file) = shelf.packages.get(&sha256).cloned() else { return StatusCode::NOT_FOUND.into_response() };
    let range = headers.get(header::RANGE).and_then(|range| range.to_str().ok());
    let start = range.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()).unwrap_or(0);
    shelf.starts.push(start);
    let rest = file[start..].to_vec();
    let status = if start > 0 { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
    if shelf.cuts.is_empty() {
        return (status, rest).into_response();
    }
    let sent = rest[..shelf.cuts.remove(0)].to_vec();
    // What was sent leaves while the body has nothing more to give; then the connection breaks.
    let pieces = stream::once(async { Ok(Bytes::from(sent)) }).chain(stream::once(async {
        tokio::task::yield_now().await;
        Err(std::io::Error::other("cut"))
    }));
    (status, Body::from_stream(pieces)).into_response()
}
