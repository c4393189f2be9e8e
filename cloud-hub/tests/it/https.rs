//! The web API's connections: who gets a handshake, and who keeps nobody else from one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::{Router, routing};
use cloud_hub::api::gate::{Gate, Reason};
use cloud_hub::api::{ApiConfig, Listeners, Peer};
use rustls::ServerConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tributary_identity::tls::{self, Clients, Shown};
use tributary_identity::{Authority, Certificate, DeviceClock, Key, KeyFile};
use tributary_process::config::HumanDuration;
use tributary_process::http::{Client, ClientError};
use tributary_process::shutdown::Shutdown;
use tributary_wire::{DeviceId, Micros};

use crate::support::DEADLINE;

const DAY: Duration = Duration::from_secs(86_400);
const GRACE: Duration = Duration::from_secs(30 * 86_400);

fn now() -> Micros {
    DeviceClock::new(Micros(0)).now()
}

fn authority() -> Authority {
    let (certificate, key) = Authority::create("hub", now(), 100 * DAY).unwrap();
    Authority::new(&certificate, &key).unwrap()
}

fn settings(authority: &Authority) -> Arc<ServerConfig> {
    let (own, key) = authority.issue_hub(&["localhost".into(), "127.0.0.1".into()], now(), DAY).unwrap();
    let authorities = [authority.certificate().clone()];
    let shown = Shown::from_pem(&[own, authorities[0].clone()], &key).unwrap();
    let clients = Clients::Optional { grace: GRACE };
    Arc::new(tls::hub_server(Arc::new(shown), &authorities, clients, tls::ALPN_HTTP).unwrap())
}

/// Answers `/` with what the handler knows of the peer.
struct Server {
    authority: Authority,
    https: SocketAddr,
    plain: SocketAddr,
    gate: Arc<Gate>,
    stop: Shutdown,
    running: JoinHandle<()>,
}

impl Server {
    async fn start(change: impl FnOnce(&mut ApiConfig)) -> Self {
        let authority = authority();
        let mut config = ApiConfig { listen: "127.0.0.1:0".parse().unwrap(), ..ApiConfig::default() };
        config.insecure_plain_on_loopback = Some("127.0.0.1:0".parse().unwrap());
        change(&mut config);
        let listeners = Listeners::bind(&config, settings(&authority)).await.unwrap();
        let (https, plain) = (listeners.https_address().unwrap(), listeners.plain_address().unwrap().unwrap());
        let (gate, stop) = (listeners.gate(), Shutdown::new());
        let router = Router::new().route("/", routing::get(peer));
        let stopped = stop.clone();
        let running = tokio::spawn(async move { listeners.serve(router, &config, stopped).await });
        Self { authority, https, plain, gate, stop, running }
    }

    fn client(&self, shown: Option<Arc<Shown>>) -> Client {
        let clock = Arc::new(DeviceClock::new(Micros(0)));
        let config = tls::device_client(&[self.authority.certificate().clone()], shown, tls::ALPN_HTTP, clock).unwrap();
        let endpoint = format!("https://{}", self.https).parse().unwrap();
        Client::new(endpoint).with_timeout(DEADLINE).with_tls(Arc::new(config))
    }

    async fn until(&self, reason: Reason, times: u64) {
        let start = std::time::Instant::now();
        while self.gate.of(reason) < times {
            assert!(start.elapsed() < DEADLINE, "{}: {} of {times}", reason.name(), self.gate.of(reason));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

async fn peer(request: Request) -> String {
    let peer = request.extensions().get::<Peer>().unwrap();
    let name = peer.certificate.as_ref().map_or("nobody", |certificate| certificate.common_name());
    format!("{name:?} over {}", if peer.secure { "TLS" } else { "plain" }).replace('"', "'")
}

async fn said(client: &Client) -> Result<String, ClientError> {
    let answer = client.send(hyper::Method::GET, "/", "", bytes::Bytes::new()).await?;
    Ok(String::from_utf8(answer.body.to_vec()).unwrap())
}

fn certificate(authority: &Authority, name: &str, made: Micros) -> Arc<Shown> {
    let (key, device) = (KeyFile::generate().unwrap(), DeviceId::new(name).unwrap());
    let issued = authority.issue_device(&key.request(&device).unwrap(), &device, made, DAY).unwrap();
    Arc::new(Shown::new(&[issued], &key).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_know_the_certificate_of_their_connection_if_our_authority_signed_it() {
    let server = Server::start(|_| {}).await;
    assert_eq!(said(&server.client(None)).await.unwrap(), "'nobody' over TLS");
    let client = server.client(Some(certificate(&server.authority, "edge-1", now())));
    assert_eq!(said(&client).await.unwrap(), "'edge-1' over TLS");
    // The second handshake resumes the first one's session.
    assert_eq!(said(&client).await.unwrap(), "'edge-1' over TLS");
    let ago = |time: Duration| Micros(now().0 - time.as_micros() as i64);
    let lately = certificate(&server.authority, "edge-2", ago(2 * DAY));
    assert_eq!(said(&server.client(Some(lately))).await.unwrap(), "'edge-2' over TLS");
    let refused = [certificate(&server.authority, "edge-3", ago(40 * DAY)), certificate(&authority(), "edge-4", now())];
    for (index, shown) in refused.into_iter().enumerate() {
        let error = said(&server.client(Some(shown))).await.unwrap_err();
        assert!(matches!(error, ClientError::Unreachable { .. }), "{error:?}");
        server.until(Reason::Handshake, index as u64 + 1).await;
    }
    let plain = Client::new(format!("http://{}", server.plain).parse().unwrap());
    assert_eq!(said(&plain).await.unwrap(), "'nobody' over plain");
    // Somebody who forgot the s of https gets no answer, and nobody else is disturbed.
    let wrong = Client::new(format!("http://{}", server.https).parse().unwrap());
    assert!(matches!(said(&wrong).await.unwrap_err(), ClientError::Unreachable { .. }));
    server.until(Reason::Handshake, 3).await;
    server.stop.give();
    server.running.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_open_connections_and_say_nothing_keep_nobody_out() {
    let server = Server::start(|config| {
        config.half_open = 20;
        config.handshake = HumanDuration(Duration::from_secs(3_600));
    })
    .await;
    let mut silent = Vec::new();
    for _ in 0..60 {
        silent.push(TcpStream::connect(server.https).await.unwrap());
    }
    server.until(Reason::MadeWay, 40).await;
    let client = server.client(None);
    for _ in 0..5 {
        assert_eq!(said(&client).await.unwrap(), "'nobody' over TLS");
    }
    // The oldest was told to go.
    assert_eq!(silent[0].read(&mut [0; 8]).await.unwrap(), 0);
    server.stop.give();
    server.running.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_handshakes_slow_heads_and_too_many_connections_are_ended() {
    let server = Server::start(|config| {
        config.connections_per_address = 5;
        config.handshake = HumanDuration(Duration::from_millis(200));
        config.head_timeout = HumanDuration(Duration::from_millis(200));
    })
    .await;
    let mut silent = TcpStream::connect(server.https).await.unwrap();
    assert_eq!(silent.read(&mut [0; 8]).await.unwrap(), 0);
    server.until(Reason::Slow, 1).await;
    // A head that never ends.
    let mut dripping = TcpStream::connect(server.plain).await.unwrap();
    dripping.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\nx-slow: ").await.unwrap();
    let mut answer = Vec::new();
    dripping.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
    server.stop.give();
    server.running.await.unwrap();

    let server = Server::start(|config| config.connections_per_address = 5).await;
    let mut open = Vec::new();
    for _ in 0..5 {
        let mut stream = TcpStream::connect(server.plain).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        assert!(stream.read(&mut [0; 512]).await.unwrap() > 0);
        open.push(stream);
    }
    assert!(said(&server.client(None)).await.is_err());
    server.until(Reason::Address, 1).await;
    drop(open);
    let start = std::time::Instant::now();
    while said(&server.client(None)).await.is_err() {
        assert!(start.elapsed() < DEADLINE);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    server.stop.give();
    server.running.await.unwrap();
}

#[tokio::test]
async fn plain_connections_are_refused_on_addresses_that_others_can_reach() {
    let authority = authority();
    for address in ["0.0.0.0:0", "192.0.2.1:8080", "[::]:0"] {
        let mut config = ApiConfig { listen: "127.0.0.1:0".parse().unwrap(), ..ApiConfig::default() };
        config.insecure_plain_on_loopback = Some(address.parse().unwrap());
        let refused = Listeners::bind(&config, settings(&authority)).await.unwrap_err().to_string();
        assert!(refused.contains("insecure_plain_on_loopback") && refused.contains(address), "{refused}");
    }
    let without = ApiConfig { listen: "127.0.0.1:0".parse().unwrap(), ..ApiConfig::default() };
    assert_eq!(Listeners::bind(&without, settings(&authority)).await.unwrap().plain_address().unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_without_a_device_is_no_reason_to_trust_it() {
    // The hub's own certificate is not for clients: whoever steals it cannot play a device.
    let server = Server::start(|_| {}).await;
    let (own, key) = server.authority.issue_hub(&["localhost".into()], now(), DAY).unwrap();
    let shown: Vec<Certificate> = vec![own];
    let client = server.client(Some(Arc::new(Shown::from_pem(&shown, &key).unwrap())));
    assert!(said(&client).await.is_err());
    server.until(Reason::Handshake, 1).await;
    server.stop.give();
    server.running.await.unwrap();
}
