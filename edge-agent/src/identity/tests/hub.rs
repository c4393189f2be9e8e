//! A hub's two routes about certificates over real HTTPS, with accidents on demand.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::{IncomingStream, Listener};
use axum::{Json, body};
use futures_util::stream;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::server::TlsStream;
use tributary_identity::tls::{ALPN_HTTP, Clients, Shown, hub_server};
use tributary_identity::{
    Authority, Certificate, DeviceClock, EnrolRequest, Enrolled, EnrolmentToken, Ports, RenewRequest,
};
use tributary_process::http::Endpoint;
use tributary_wire::{DeviceId, Micros};

pub(crate) const DAY: Duration = Duration::from_secs(86_400);

/// Spoils an answer.
pub(crate) type Spoil = Box<dyn FnOnce(&mut Enrolled) + Send>;

pub(crate) struct Shelf {
    pub(crate) authority: Authority,
    /// How long certificates live, and how long ago they begin.
    pub(crate) lifetime: Duration,
    pub(crate) age: Duration,
    pub(crate) ports: Ports,
    /// The next answers are lost on their way.
    pub(crate) lose: usize,
    /// Refuse with this status and detail.
    pub(crate) refuse: Option<(u16, &'static str)>,
    pub(crate) spoil: Option<Spoil>,
    /// Signing requests, in the order of their coming.
    pub(crate) requests: Vec<String>,
    /// Serials that were shown with them.
    pub(crate) shown: Vec<Option<String>>,
    pub(crate) root: String,
}

/// A running hub.
pub(crate) struct Hub {
    shelf: Arc<Mutex<Shelf>>,
    shown: Arc<Shown>,
    pub(crate) address: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

pub(crate) fn now() -> Micros {
    DeviceClock::new(Micros(0)).now()
}

pub(crate) fn device() -> DeviceId {
    DeviceId::new("edge-1").unwrap()
}

pub(crate) fn authority() -> Authority {
    let (certificate, key) = Authority::create("hub", now(), 4000 * DAY).unwrap();
    Authority::new(&certificate, &key).unwrap()
}

/// What a hub of this authority shows, under these names.
pub(crate) fn shown(authority: &Authority, names: &[&str]) -> Arc<Shown> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let (own, key) = authority.issue_hub(&names, now(), 400 * DAY).unwrap();
    Arc::new(Shown::from_pem(&[own, authority.certificate().clone()], &key).unwrap())
}

impl Hub {
    pub(crate) async fn start() -> Self {
        Self::of(authority(), &["127.0.0.1"]).await
    }

    pub(crate) async fn of(authority: Authority, names: &[&str]) -> Self {
        let shown = shown(&authority, names);
        let believed = [authority.certificate().clone()];
        let clients = Clients::Optional { grace: 30 * DAY };
        let server = hub_server(shown.clone(), &believed, clients, ALPN_HTTP).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shelf = Arc::new(Mutex::new(Shelf {
            authority,
            lifetime: 90 * DAY,
            age: Duration::ZERO,
            ports: Ports { host: None, https: address.port(), tls: Some(8883), quic: Some(14567) },
            lose: 0,
            refuse: None,
            spoil: None,
            requests: Vec::new(),
            shown: Vec::new(),
            root: super::root(1),
        }));
        let router = Router::new()
            .route("/api/v1/enrolments", post(enrol))
            .route("/api/v1/certificates/renew", post(renew))
            .route("/api/v1/who", get(who))
            .with_state(shelf.clone());
        let listener = Tls::new(listener, server);
        let service = router.into_make_service_with_connect_info::<Peer>();
        let task = tokio::spawn(async move { axum::serve(listener, service).await.unwrap() });
        Self { shelf, shown, address, task }
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        Endpoint::Tls(self.address.to_string())
    }

    pub(crate) fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap()
    }

    /// A token of this hub.
    pub(crate) fn token(&self) -> EnrolmentToken {
        EnrolmentToken::new("k1", [7; 32], self.shelf().authority.certificate().fingerprint()).unwrap()
    }

    /// Shows another certificate from now on.
    pub(crate) fn show(&self, other: &Shown) {
        self.shown.replace(other);
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A listener for HTTPS.
pub(crate) struct Tls {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl Tls {
    pub(crate) fn new(listener: TcpListener, settings: ServerConfig) -> Self {
        Self { listener, acceptor: TlsAcceptor::from(Arc::new(settings)) }
    }
}

impl Listener for Tls {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = self.listener.accept().await.unwrap();
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// The certificate that was shown.
#[derive(Clone)]
struct Peer(Option<Certificate>);

impl Connected<IncomingStream<'_, Tls>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Tls>) -> Self {
        let shown = stream.io().get_ref().1.peer_certificates().and_then(|chain| chain.first());
        Self(shown.map(|der| Certificate::from_der(der).unwrap()))
    }
}

type Shared = State<Arc<Mutex<Shelf>>>;

async fn enrol(
    State(shelf): Shared,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Json(asked): Json<EnrolRequest>,
) -> Response {
    asked.token.parse::<EnrolmentToken>().unwrap();
    answer(&mut shelf.lock().unwrap(), &asked.device, asked.request, peer)
}

async fn renew(
    State(shelf): Shared,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Json(asked): Json<RenewRequest>,
) -> Response {
    let Some(own) = &peer.0 else { return StatusCode::UNAUTHORIZED.into_response() };
    let device = DeviceId::new(own.common_name()).unwrap();
    answer(&mut shelf.lock().unwrap(), &device, asked.request, peer)
}

async fn who(ConnectInfo(peer): ConnectInfo<Peer>) -> Json<Option<String>> {
    Json(peer.0.map(|own| own.common_name().to_owned()))
}

fn answer(shelf: &mut Shelf, device: &DeviceId, request: String, peer: Peer) -> Response {
    shelf.shown.push(peer.0.map(|own| own.serial().to_string()));
    if let Some((status, detail)) = shelf.refuse {
        let problem = Json(serde_json::json!({ "title": "refused", "detail": detail }));
        return (StatusCode::from_u16(status).unwrap(), problem).into_response();
    }
    let issued = Micros(now().0 - shelf.age.as_micros() as i64);
    let certificate = shelf.authority.issue_device(&request, device, issued, shelf.lifetime).unwrap();
    shelf.requests.push(request);
    let mut answer = Enrolled {
        device: device.clone(),
        renew_after: Micros(certificate.not_before().0 + shelf.lifetime.as_micros() as i64 / 3 * 2),
        certificate: certificate.to_pem(),
        authorities: shelf.authority.certificate().to_pem(),
        now: now(),
        ports: shelf.ports.clone(),
        root: Some(shelf.root.clone()),
    };
    if let Some(spoil) = shelf.spoil.take() {
        spoil(&mut answer);
    }
    let bytes = serde_json::to_vec(&answer).unwrap();
    if shelf.lose == 0 {
        return bytes.into_response();
    }
    shelf.lose -= 1;
    // Half of it leaves; then the connection breaks.
    let half = body::Bytes::from(bytes[..bytes.len() / 2].to_vec());
    Body::from_stream(stream::iter([Ok(half), Err(std::io::Error::other("cut"))])).into_response()
}
