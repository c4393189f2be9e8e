//! Devices that enrol, renew, are revoked and come back, in front of a whole hub.

mod enrolment;
mod certificates;
mod hub;

use std::sync::Arc;
use std::time::Duration;

use hyper::{Method, StatusCode};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, HandshakeKind};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tributary_identity::tls::{self, Shown};
use tributary_identity::{
    Certificate, DeviceClock, EnrolRequest, Enrolled, EnrolmentToken, Key, KeyFile, RenewRequest,
};
use tributary_process::http::Client;
use tributary_wire::{DeviceId, Micros};

use crate::support::{DEADLINE, TestHub};

const DAY: Duration = Duration::from_secs(86_400);
const ACCEPTED: u8 = 0;
const BAD_PASSWORD: u8 = 0x86;
const NOT_AUTHORISED: u8 = 0x87;
const ADMINISTRATIVE_ACTION: u8 = 0x98;

fn clock() -> Arc<DeviceClock> {
    Arc::new(DeviceClock::new(Micros(0)))
}

fn https(hub: &TestHub, config: ClientConfig) -> Client {
    let endpoint = format!("https://{}", hub.hub.https_address()).parse().unwrap();
    Client::new(endpoint).with_timeout(DEADLINE).with_tls(Arc::new(config))
}

/// A device as far as it concerns who it is.
struct Device {
    id: DeviceId,
    key: KeyFile,
    enrolled: Option<Enrolled>,
}

impl Device {
    fn new(id: &str) -> Self {
        Self { id: DeviceId::new(id).unwrap(), key: KeyFile::generate().unwrap(), enrolled: None }
    }

    fn request(&self, token: &str) -> EnrolRequest {
        EnrolRequest { token: token.to_owned(), device: self.id.clone(), request: self.key.request(&self.id).unwrap() }
    }

    /// Enrols over HTTPS with the hub that the token names; the status and the answer.
    async fn try_enrol(&mut self, hub: &TestHub, token: &str) -> (StatusCode, Value) {
        let pinned = token.parse().map_or_else(|_| fingerprint(hub), |token: EnrolmentToken| token.hub());
        let client = https(hub, tls::pinned_client(pinned, tls::ALPN_HTTP, clock()).unwrap());
        let body = serde_json::to_vec(&self.request(token)).unwrap();
        let answer = client.send(Method::POST, "/api/v1/enrolments", "application/json", body.into()).await.unwrap();
        if answer.status == StatusCode::OK {
            self.enrolled = Some(answer.json().unwrap());
        }
        (answer.status, answer.json().unwrap())
    }

    async fn enrolled(hub: &TestHub, id: &str) -> Self {
        let mut device = Self::new(id);
        let (status, answer) = device.try_enrol(hub, &token(hub, json!({})).await).await;
        assert_eq!(status, StatusCode::OK, "{answer:#}");
        device
    }

    /// One that was issued its certificate so long ago.
    async fn enrolled_ago(hub: &TestHub, id: &str, ago: Duration) -> Self {
        let mut device = Self::new(id);
        let then = Micros(hub.hub.now().0 - ago.as_micros() as i64);
        let request = device.request(&token(hub, json!({})).await);
        let issued = hub.hub.identity.enrol(&request, None, then).await.unwrap();
        device.enrolled = Some(Enrolled {
            device: issued.device,
            certificate: issued.certificate.to_pem(),
            authorities: hub.hub.identity.authorities_pem(),
            renew_after: issued.renew_after,
            now: then,
            ports: Default::default(),
            root: None,
        });
        device
    }

    fn certificate(&self) -> Certificate {
        Certificate::all_from_pem(&self.enrolled.as_ref().unwrap().certificate).unwrap().remove(0)
    }

    fn shown(&self) -> Arc<Shown> {
        Arc::new(Shown::new(&[self.certificate()], &self.key).unwrap())
    }

    fn config(&self, alpn: &[u8]) -> ClientConfig {
        let authorities = Certificate::all_from_pem(&self.enrolled.as_ref().unwrap().authorities).unwrap();
        tls::device_client(&authorities, Some(self.shown()), alpn, clock()).unwrap()
    }

    /// Connects over TLS; the code of the hub's answer. An error: TLS itself refused.
    async fn connect(&self, hub: &TestHub) -> std::io::Result<u8> {
        let connection = connect(hub, Arc::new(self.config(tls::ALPN_MQTT)), self.id.as_str()).await?;
        Ok(connection.code)
    }

    async fn renew(&self, hub: &TestHub, key: &KeyFile) -> Result<(StatusCode, Value), String> {
        let body = RenewRequest { request: key.request(&self.id).unwrap() };
        let body = serde_json::to_vec(&body).unwrap();
        let client = https(hub, self.config(tls::ALPN_HTTP));
        let answer = client.send(Method::POST, "/api/v1/certificates/renew", "application/json", body.into()).await;
        answer.map(|answer| (answer.status, answer.json().unwrap())).map_err(|error| format!("{error:?}"))
    }

    /// The same device with its next certificate.
    async fn renewed(&self, hub: &TestHub) -> Self {
        let key = KeyFile::generate().unwrap();
        let (status, answer) = self.renew(hub, &key).await.unwrap();
        assert_eq!(status, StatusCode::OK, "{answer:#}");
        Self { id: self.id.clone(), key, enrolled: Some(serde_json::from_value(answer).unwrap()) }
    }
}

struct Connection {
    stream: TlsStream<TcpStream>,
    resumed: bool,
    code: u8,
}

/// An MQTT connection over TLS, to the answer to its CONNECT.
async fn connect(hub: &TestHub, config: Arc<ClientConfig>, client_id: &str) -> std::io::Result<Connection> {
    connect_with(hub, config, client_id, None).await
}

async fn connect_with(
    hub: &TestHub,
    config: Arc<ClientConfig>,
    client_id: &str,
    password: Option<&str>,
) -> std::io::Result<Connection> {
    let stream = TcpStream::connect(hub.hub.mqtt_addresses().tls.unwrap()).await?;
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = TlsConnector::from(config).connect(name, stream).await?;
    // A clean start, and a password without a user name.
    let flags = 2 | if password.is_some() { 0x40 } else { 0 };
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 5, flags, 0, 60, 0];
    for text in [Some(client_id), password].into_iter().flatten() {
        body.extend((text.len() as u16).to_be_bytes());
        body.extend(text.bytes());
    }
    assert!(body.len() < 128, "one byte holds the length");
    stream.write_all(&[&[0x10, body.len() as u8], &body[..]].concat()).await?;
    stream.flush().await?;
    let answer = timeout(DEADLINE, packet_of(&mut stream)).await.expect("the hub answers")?;
    assert_eq!(answer[0], 0x20, "a CONNACK");
    let resumed = stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
    Ok(Connection { stream, resumed, code: answer[2] })
}

/// The next packet: its first byte, and all behind its length.
async fn packet_of(stream: &mut TlsStream<TcpStream>) -> std::io::Result<Vec<u8>> {
    let mut packet = vec![stream.read_u8().await?];
    let (mut length, mut shift) = (0, 0);
    loop {
        let byte = stream.read_u8().await?;
        length |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            break;
        }
    }
    packet.resize(1 + length, 0);
    stream.read_exact(&mut packet[1..]).await?;
    Ok(packet)
}

impl Connection {
    /// Waits for the hub to end it; the code of its DISCONNECT.
    async fn ended(mut self) -> u8 {
        let told = timeout(DEADLINE, packet_of(&mut self.stream)).await.expect("the hub ends it").unwrap();
        assert_eq!(told[0], 0xe0, "a DISCONNECT");
        told[1]
    }
}

fn fingerprint(hub: &TestHub) -> tributary_wire::Sha256 {
    hub.hub.identity.authority().certificate().fingerprint()
}

/// The text of a new enrolment token.
async fn token(hub: &TestHub, wanted: Value) -> String {
    let made = hub.ok(Method::POST, "/enrolment-tokens", wanted).await;
    made["token"].as_str().unwrap().to_owned()
}

fn kind(answer: &Value) -> &str {
    answer["type"].as_str().unwrap()
}

async fn metric(hub: &TestHub, line: &str) -> bool {
    hub.hub.metrics_text().await.unwrap().lines().any(|found| found == line)
}
