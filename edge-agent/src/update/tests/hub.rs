//! The hub's signed repository and its packages, with accidents on demand.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::stream::{self, StreamExt};
use serde_json::json;
use tokio_rustls::rustls::ServerConfig;
use tributary_identity::Authority;
use tributary_identity::tls::{ALPN_HTTP, Clients, hub_server};
use tributary_process::http::Endpoint;
use tributary_release::chain::forge::{Forge, MemoryRepository};
use tributary_release::delta::{self, Format, PatchEntry, PatchIndex, index_path};
use tributary_release::{
    ASSIGNMENT_KEYS, CUSTOM, PackageCustom, Requirements, SigningKey, VerifyingKeys, ViewRef, digest, line_role,
    package_path,
};
use tributary_wire::{Micros, ReleaseRef};

use super::{key, release};
use crate::identity::tests::hub::{Tls, shown};
use crate::testing;

struct Shelf {
    forge: Forge,
    repository: MemoryRepository,
    packages: HashMap<String, Vec<u8>>,
    /// Cut the next downloads after so many bytes each.
    cuts: Vec<usize>,
    /// Where downloads began.
    starts: Vec<usize>,
    /// It answers, and gives nothing.
    busy: bool,
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
        let mut forge = Forge::with_line(testing::line().as_str(), 20);
        announce(&mut forge, &key());
        let repository = MemoryRepository::default();
        forge.publish(&repository);
        let shelf =
            Shelf { forge, repository, packages: HashMap::new(), cuts: Vec::new(), starts: Vec::new(), busy: false };
        let shelf = Arc::new(Mutex::new(shelf));
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new()
            .route("/api/v1/repository/{*path}", get(file))
            .route("/api/v1/repository/targets/models/{line}/{file}", get(package))
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
        self.publish_needing(version, file, Requirements::default())
    }

    /// Publishes a package file that says that it needs something.
    pub(super) fn publish_needing(&self, version: u32, file: Vec<u8>, requires: Requirements) -> ReleaseRef {
        let reference = release(version, &file);
        let custom = PackageCustom {
            line: testing::line(),
            version: reference.version,
            published: Micros(0),
            view: ViewRef { name: "view".into(), version: 1 },
            requires,
        };
        let mut shelf = self.shelf.lock().unwrap();
        shelf.packages.insert(reference.sha256.to_string(), file.clone());
        let role = shelf.forge.delegated.get_mut(&line_role(&testing::line())).unwrap();
        let path = package_path(&testing::line(), reference.version);
        role.files.insert(path, (file, Some(json!({ CUSTOM: custom }))));
        shelf.sign();
        reference
    }

    /// Takes a release out of its line's role.
    pub(super) fn withdraw(&self, release: &ReleaseRef) {
        let mut shelf = self.shelf.lock().unwrap();
        let role = shelf.forge.delegated.get_mut(&line_role(&testing::line())).unwrap();
        role.files.remove(&package_path(&testing::line(), release.version)).unwrap();
        shelf.sign();
    }

    /// Offers a patch from one package to another beside them; its length.
    pub(super) fn offer_patch(&self, from: &[u8], to: &[u8]) -> u64 {
        let patch = delta::make(Format::Aligned, Some(from), to).unwrap();
        let entry = PatchEntry {
            from: Some(digest(from)),
            format: Format::Aligned.name().to_owned(),
            length: patch.len() as u64,
            sha256: digest(&patch),
        };
        let (path, length, to) = (entry.path(&digest(to)), entry.length, digest(to));
        let shelf = self.shelf.lock().unwrap();
        shelf.repository.put(&index_path(&to), PatchIndex { patches: vec![entry] }.encode());
        shelf.repository.put(&path, patch);
        length
    }

    /// From now on other bytes come under this package's name.
    pub(super) fn spoil(&self, release: &ReleaseRef) {
        let mut shelf = self.shelf.lock().unwrap();
        let file = shelf.packages.get_mut(&release.sha256.to_string()).unwrap();
        let middle = file.len() / 2;
        file[middle] ^= 1;
    }

    /// From now on the line's role is signed by these keys, though it is not theirs; none: by its own again.
    pub(super) fn sign_line_with(&self, keys: Option<Vec<SigningKey>>) {
        let mut shelf = self.shelf.lock().unwrap();
        shelf.forge.impostors = keys.map(|keys| (line_role(&testing::line()), keys)).into_iter().collect();
        shelf.sign();
    }

    /// From now on this is the key of assignments, and no other.
    pub(super) fn announce(&self, key: &SigningKey) {
        let mut shelf = self.shelf.lock().unwrap();
        announce(&mut shelf.forge, key);
        shelf.sign();
    }

    /// The root of trust.
    pub(super) fn root(&self) -> Vec<u8> {
        let shelf = self.shelf.lock().unwrap();
        shelf.forge.root_file(&shelf.forge.root.keys)
    }

    pub(super) fn cut(&self, after: &[usize]) {
        self.shelf.lock().unwrap().cuts = after.to_vec();
    }

    /// Whether it gives nothing for now: neither packages nor patches.
    pub(super) fn busy(&self, busy: bool) {
        self.shelf.lock().unwrap().busy = busy;
    }

    pub(super) fn starts(&self) -> Vec<usize> {
        self.shelf.lock().unwrap().starts.clone()
    }
}

impl Shelf {
    /// The next version of everything below the root.
    fn sign(&mut self) {
        self.forge.next();
        self.forge.publish_below(&self.repository);
    }
}

fn announce(forge: &mut Forge, key: &SigningKey) {
    let keys = VerifyingKeys::new([key.verifying_key()]).to_json().into_bytes();
    forge.files.insert(ASSIGNMENT_KEYS.into(), (keys, None));
}

async fn file(State(shelf): State<Arc<Mutex<Shelf>>>, Path(path): Path<String>, headers: HeaderMap) -> Response {
    // The path comes decoded; names of roles are kept as they are asked for.
    let name = path.strip_prefix("metadata/").map_or(path.clone(), |name| name.replace('/', "%2F"));
    let shelf = shelf.lock().unwrap();
    match shelf.repository.get(&name) {
        _ if shelf.busy => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        Some(bytes) => from(asked_from(&headers), bytes),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// Where in a file a request wants to begin.
fn asked_from(headers: &HeaderMap) -> usize {
    let range = headers.get(header::RANGE).and_then(|range| range.to_str().ok());
    range.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()).unwrap_or(0)
}

/// The rest of a file.
fn from(start: usize, file: Vec<u8>) -> Response {
    let status = if start > 0 { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
    let range = [(header::CONTENT_RANGE, format!("bytes {start}-{}/{}", file.len() - 1, file.len()))];
    (status, range, file[start..].to_vec()).into_response()
}

async fn package(
    State(shelf): State<Arc<Mutex<Shelf>>>,
    Path((_, file)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    let sha256 = file.split('.').next().unwrap().to_owned();
    let mut shelf = shelf.lock().unwrap();
    if shelf.busy {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let Some(file) = shelf.packages.get(&sha256).cloned() else { return StatusCode::NOT_FOUND.into_response() };
    let start = asked_from(&headers);
    shelf.starts.push(start);
    if shelf.cuts.is_empty() {
        return from(start, file);
    }
    let rest = file[start..].to_vec();
    let status = if start > 0 { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
    let range = [(header::CONTENT_RANGE, format!("bytes {start}-{}/{}", file.len() - 1, file.len()))];
    let sent = rest[..shelf.cuts.remove(0)].to_vec();
    // What was sent leaves while the body has nothing more to give; then the connection breaks.
    let pieces = stream::once(async { Ok(Bytes::from(sent)) }).chain(stream::once(async {
        tokio::task::yield_now().await;
        Err(std::io::Error::other("cut"))
    }));
    (status, range, Body::from_stream(pieces)).into_response()
}
