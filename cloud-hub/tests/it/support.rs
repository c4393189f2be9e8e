//! A hub that runs in the test's process, and what can be sent to it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cloud_hub::identity::Wanted;
use cloud_hub::publish::{ceremony, store};
use cloud_hub::{Config, Hub};
use hyper::{HeaderMap, Method, StatusCode};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tributary_fraud::{Generator, GeneratorConfig};
use tributary_identity::tls::{self, Shown};
use tributary_identity::{Certificate, DeviceClock, EnrolRequest, Key, KeyFile};
use tributary_process::http::{Client, Response};
use tributary_process::shutdown::Shutdown;
use tributary_wire::{Column, DeviceId, Field, FieldType, LineName, Micros, Sensitivity, StreamName};

pub use crate::package_file::package;

/// What the keys of people follow from in hubs of tests.
pub const CUSTODY: [u8; 32] = [1; 32];
/// Longest wait for anything.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// A device's certificate and key.
pub struct Enrolled {
    pub certificate: Certificate,
    pub key: Arc<KeyFile>,
}

pub struct TestHub {
    pub hub: Arc<Hub>,
    pub folder: TempDir,
    shutdown: Shutdown,
    running: JoinHandle<anyhow::Result<()>>,
}

impl TestHub {
    pub async fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), |_| {}).await
    }

    /// A hub that nobody has made a signed repository for.
    pub async fn without_repository() -> Self {
        Self::start_bare(tempfile::tempdir().unwrap(), |_| {}).await
    }

    /// A hub in this folder, with a repository in which the line `card-fraud` is unattended.
    pub async fn start_in(folder: TempDir, change: impl FnOnce(&mut Config)) -> Self {
        let hub = Self::start_bare(folder, change).await;
        let root = store::newest(hub.hub.catalog.reader(), "root").await.unwrap();
        if root.is_none() {
            let line = LineName::new("card-fraud").unwrap();
            ceremony::simple(&hub.hub, CUSTODY, &[line]).await.unwrap();
        }
        hub
    }

    /// A hub in this folder as it is.
    pub async fn start_bare(folder: TempDir, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config { data_dir: folder.path().join("hub"), ..Config::default() };
        config.api.listen = "127.0.0.1:0".parse().unwrap();
        config.api.insecure_plain_on_loopback = Some("127.0.0.1:0".parse().unwrap());
        config.gateway.tls = Some("127.0.0.1:0".parse().unwrap());
        config.gateway.quic = Some("127.0.0.1:0".parse().unwrap());
        config.gateway.insecure_plain_on_loopback = Some("127.0.0.1:0".parse().unwrap());
        config.training.program = env!("CARGO_BIN_EXE_cloud-hub").into();
        change(&mut config);
        let hub = Hub::build(config).await.unwrap();
        let shutdown = Shutdown::new();
        let running = tokio::spawn(hub.clone().run(shutdown.clone()));
        Self { hub, folder, shutdown, running }
    }

    /// Stops the hub and gives its folder back.
    pub async fn stop(self) -> TempDir {
        self.shutdown.give();
        self.running.await.unwrap().unwrap();
        self.folder
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.hub.http_address().unwrap())
    }

    /// Calls without any token.
    pub fn nobody(&self) -> Client {
        Client::new(self.url().parse().unwrap()).with_timeout(DEADLINE)
    }

    /// Calls with a token.
    pub fn with_token(&self, token: &str) -> Client {
        self.nobody().with_header(hyper::header::AUTHORIZATION, format!("Bearer {token}").parse().unwrap())
    }

    /// The admin's first token.
    pub fn token(&self) -> String {
        std::fs::read_to_string(self.token_file()).unwrap().trim().to_owned()
    }

    pub fn token_file(&self) -> PathBuf {
        self.hub.data().join("keys/admin.token")
    }

    /// A further token.
    pub async fn made(&self, wish: Value) -> String {
        self.ok(Method::POST, "/tokens", wish).await["token"].as_str().unwrap().to_owned()
    }

    /// The same client with a token.
    pub fn bearer(client: Client, token: &str) -> Client {
        client.with_header(hyper::header::AUTHORIZATION, format!("Bearer {token}").parse().unwrap())
    }

    fn tls(&self, enrolled: Option<&Enrolled>) -> Arc<rustls::ClientConfig> {
        let authorities = [self.hub.identity.authority().certificate().clone()];
        let shown = |enrolled: &Enrolled| Shown::new(std::slice::from_ref(&enrolled.certificate), &*enrolled.key);
        let shown = enrolled.map(|enrolled| Arc::new(shown(enrolled).unwrap()));
        let clock = Arc::new(DeviceClock::new(Micros(0)));
        Arc::new(tls::device_client(&authorities, shown, tls::ALPN_HTTP, clock).unwrap())
    }

    /// Calls over HTTPS, with a device's certificate or without.
    pub fn https(&self, enrolled: Option<&Enrolled>) -> Client {
        let endpoint = format!("https://{}", self.hub.https_address()).parse().unwrap();
        Client::new(endpoint).with_timeout(DEADLINE).with_tls(self.tls(enrolled))
    }

    /// A connection of a device that stays open.
    pub async fn tls_stream(&self, enrolled: &Enrolled) -> tokio_rustls::client::TlsStream<TcpStream> {
        let stream = TcpStream::connect(self.hub.https_address()).await.unwrap();
        let name = "localhost".try_into().unwrap();
        tokio_rustls::TlsConnector::from(self.tls(Some(enrolled))).connect(name, stream).await.unwrap()
    }

    /// Gives a device a certificate, as an operator and the device together do.
    pub async fn enrol(&self, device: &str) -> Enrolled {
        let (identity, now) = (&self.hub.identity, self.hub.now());
        let expires = Micros(now.0 + Micros::DAY);
        let wanted = Wanted { group: None, labels: BTreeMap::new(), uses: 1, expires };
        let token = identity.create_token(wanted, now).await.unwrap().1.to_string();
        let (key, device) = (KeyFile::generate().unwrap(), DeviceId::new(device).unwrap());
        let request = EnrolRequest { token, device: device.clone(), request: key.request(&device).unwrap() };
        let issued = identity.enrol(&request, None, now).await.unwrap();
        Enrolled { certificate: issued.certificate, key: Arc::new(key) }
    }

    pub fn client(&self) -> Client {
        self.with_token(&self.token())
    }

    pub async fn send(&self, method: Method, path: &str, content_type: &str, body: impl Into<Bytes>) -> Response {
        self.client().send(method, &format!("/api/v1{path}"), content_type, body.into()).await.unwrap()
    }

    pub async fn json(&self, method: Method, path: &str, body: Value) -> (StatusCode, Value) {
        let response = self.send(method, path, "application/json", body.to_string()).await;
        (response.status, response.json().unwrap())
    }

    pub async fn get(&self, path: &str) -> (StatusCode, Value) {
        let response = self.send(Method::GET, path, "", Bytes::new()).await;
        (response.status, response.json().unwrap())
    }

    /// POST or PUT that must succeed.
    pub async fn ok(&self, method: Method, path: &str, body: Value) -> Value {
        let (status, answer) = self.json(method, path, body).await;
        assert!(status.is_success(), "{path}: {status} {answer:#}");
        answer
    }

    pub async fn with_headers(
        &self,
        (method, path): (Method, &str),
        headers: &[(&'static str, &str)],
        body: Value,
    ) -> (StatusCode, HeaderMap, Value) {
        let mut client = self.client();
        for (name, value) in headers {
            client = client.with_header(hyper::header::HeaderName::from_static(name), value.parse().unwrap());
        }
        let body: Bytes = if body.is_null() { Bytes::new() } else { body.to_string().into() };
        let response = client.send(method, &format!("/api/v1{path}"), "application/json", body).await.unwrap();
        (response.status, response.headers.clone(), response.json().unwrap_or_default())
    }

    /// The fraud view and a line `card-fraud` with these settings.
    pub async fn line(&self, settings: Value) -> Value {
        let view = self.send(Method::POST, "/views", "application/toml", tributary_fraud::VIEW_TOML).await;
        assert!(view.status.is_success(), "{:?}", view.body);
        let mut body = settings;
        body["view"] = "card-risk".into();
        self.ok(Method::PUT, "/lines/card-fraud", body).await
    }

    /// Looks again and again until `done` holds for the answer.
    pub async fn until(&self, path: &str, done: impl Fn(&Value) -> bool) -> Value {
        let start = Instant::now();
        loop {
            let (status, answer) = self.get(path).await;
            if status.is_success() && done(&answer) {
                return answer;
            }
            assert!(start.elapsed() < DEADLINE, "{path} stays {answer:#}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Puts generated payments and their labels into the lake.
    pub async fn payments(&self, config: GeneratorConfig) -> usize {
        let delay = config.label_delay();
        let payments: Vec<_> = Generator::new(config).collect();
        let field = |name: &str, kind| Field {
            name: name.to_owned(),
            kind,
            unit: String::new(),
            nullable: false,
            sensitivity: Sensitivity::Keep,
        };
        let fields = vec![
            field("accepted", FieldType::Int),
            field("event_id", FieldType::Text),
            field("event_time", FieldType::Time),
            field("source", FieldType::Text),
            field("customer_id", FieldType::Int),
            field("terminal_id", FieldType::Int),
            field("amount", FieldType::Double),
        ];
        let columns = vec![
            Column::Int((1..=payments.len() as i64).map(Some).collect()),
            Column::Text(payments.iter().map(|p| Some(p.event_id().to_string())).collect()),
            Column::Time(payments.iter().map(|p| Some(p.time)).collect()),
            Column::Text(payments.iter().map(|_| Some("test".to_owned())).collect()),
            Column::Int(payments.iter().map(|p| Some(p.customer_id)).collect()),
            Column::Int(payments.iter().map(|p| Some(p.terminal_id)).collect()),
            Column::Double(payments.iter().map(|p| Some(p.amount)).collect()),
        ];
        self.hub.ingest.submit(&StreamName::new("events").unwrap(), fields, columns, None).await.unwrap();
        let mut csv = String::from("event_id,label,event_time,known_at\n");
        for payment in &payments {
            let (time, known) = (payment.time.0, payment.label_known_at(delay).0);
            csv += &format!("{},{},{time},{known}\n", payment.event_id(), payment.fraud);
        }
        let stored = self.send(Method::POST, "/labels", "text/csv", csv).await;
        assert_eq!(stored.json::<Value>().unwrap()["stored"], payments.len());
        payments.len()
    }
}
