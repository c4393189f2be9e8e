//! Devices that enrol, renew, are revoked and come back, in front of a whole hub.

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
use tributary_identity::tls::{self, HubProblem, Shown};
use tributary_identity::{
    Authority, Certificate, DeviceClock, EnrolRequest, Enrolled, EnrolmentToken, Key, KeyFile, RenewRequest,
};
use tributary_process::http::Client;
use tributary_wire::{DeviceId, Micros};

use crate::support::{DEADLINE, TestHub};

const DAY: Duration = Duration::from_secs(86_400);
const ACCEPTED: u8 = 0;
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
            release_keys: String::new(),
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
    let stream = TcpStream::connect(hub.hub.mqtt_addresses().tls.unwrap()).await?;
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = TlsConnector::from(config).connect(name, stream).await?;
    let id = client_id.as_bytes();
    let mut packet = vec![0x10, 13 + id.len() as u8, 0, 4, b'M', b'Q', b'T', b'T', 5, 2, 0, 60, 0];
    packet.extend((id.len() as u16).to_be_bytes());
    packet.extend(id);
    stream.write_all(&packet).await?;
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

#[tokio::test(flavor = "multi_thread")]
async fn a_device_enrols_with_a_token_connects_and_stands_in_its_group() {
    let hub = TestHub::start().await;
    let token = token(&hub, json!({"group": "canary", "labels": {"site": "lyon"}, "uses": 2})).await;
    let mut device = Device::new("edge-1");
    let (status, answer) = device.try_enrol(&hub, &token).await;
    assert_eq!(status, StatusCode::OK, "{answer:#}");
    let told = device.enrolled.clone().unwrap();
    assert_eq!(device.certificate().common_name(), "edge-1");
    assert_eq!(told.ports.https, hub.hub.https_address().port());
    assert_eq!(told.ports.tls, hub.hub.mqtt_addresses().tls.map(|address| address.port()));
    assert_eq!(told.ports.quic, hub.hub.mqtt_addresses().quic.map(|address| address.port()));
    tributary_release::VerifyingKeys::from_json(&told.release_keys, std::path::Path::new("told")).unwrap();
    let two_thirds = Micros(told.now.0 + 60 * Micros::DAY);
    assert!((told.renew_after.0 - two_thirds.0).abs() < 60_000_000, "{} {two_thirds}", told.renew_after);

    assert_eq!(device.connect(&hub).await.unwrap(), ACCEPTED);
    let known = hub.get("/devices/edge-1").await.1;
    assert_eq!((&known["group"], &known["labels"]["site"]), (&json!("canary"), &json!("lyon")));
    let kept = hub.get("/enrolment-tokens").await.1["items"][0].clone();
    assert_eq!((&kept["uses_made"], &kept["state"]), (&json!(1), &json!("usable")), "{kept:#}");
    assert!(kept.get("token").is_none() && !kept.to_string().contains(token.split('.').nth(2).unwrap()));
    let used = hub.until("/devices/edge-1/certificates", |answer| answer["items"][0]["used"].is_i64()).await;
    assert_eq!((&used["items"][0]["state"], &used["items"][0]["how"]), (&json!("valid"), &json!("enrolled")));
    assert!(metric(&hub, "hub_enrolments_total{outcome=\"enrolled\"} 1").await);
    assert!(metric(&hub, "hub_admissions_total{outcome=\"tls\"} 1").await);

    // After a restart the hub is the same one, and so is the device.
    let hub = TestHub::start_in(hub.stop().await, |_| {}).await;
    assert_eq!(device.connect(&hub).await.unwrap(), ACCEPTED);
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_does_not_count_is_refused_and_each_refusal_says_why() {
    let hub = TestHub::start().await;
    let good: EnrolmentToken = token(&hub, json!({})).await.parse().unwrap();
    // The hub that answers is not the one of the token: the device does not even show it.
    let other = EnrolmentToken::new("k7", [7; 32], tributary_wire::Sha256([1; 32])).unwrap();
    let client = https(&hub, tls::pinned_client(other.hub(), tls::ALPN_HTTP, clock()).unwrap());
    let refused = client.get::<Value>("/api/v1/health").await.unwrap_err();
    assert_eq!(tls::hub_problem(&refused), Some(HubProblem::Other), "{refused:?}");

    let short = token(&hub, json!({"lifetime": "1ms"})).await;
    let taken_back = token(&hub, json!({})).await;
    let id = taken_back.split('.').nth(1).unwrap();
    assert_eq!(hub.ok(Method::DELETE, &format!("/enrolment-tokens/{id}"), Value::Null).await["state"], "revoked");
    let used_up = token(&hub, json!({})).await;
    assert_eq!(Device::new("edge-1").try_enrol(&hub, &used_up).await.0, StatusCode::OK);
    tokio::time::sleep(Duration::from_millis(2)).await;
    let wrong = EnrolmentToken::new(good.id(), [7; 32], good.hub()).unwrap().to_string();
    let unknown = EnrolmentToken::new("none", [7; 32], good.hub()).unwrap().to_string();
    for (token, status, name) in [
        (short, 403, "token-expired"),
        (taken_back, 403, "token-revoked"),
        (used_up, 403, "token-used-up"),
        (wrong, 403, "token-secret"),
        (unknown, 403, "token-unknown"),
        ("nonsense".to_owned(), 400, "token-malformed"),
    ] {
        let (found, answer) = Device::new("edge-9").try_enrol(&hub, &token).await;
        assert_eq!((found.as_u16(), kind(&answer)), (status, &*format!("/problems/enrolment-{name}")), "{answer:#}");
        assert!(metric(&hub, &format!("hub_enrolments_total{{outcome=\"{name}\"}} 1")).await, "{name}");
    }
    let mut hubs_own = Device::new("hub");
    assert_eq!(kind(&hubs_own.try_enrol(&hub, &good.to_string()).await.1), "/problems/enrolment-device-reserved");
    let not_its_own = EnrolRequest {
        request: Device::new("edge-2").request("").request,
        ..Device::new("edge-3").request(&good.to_string())
    };
    let refused = hub.hub.identity.enrol(&not_its_own, None, hub.hub.now()).await.unwrap_err();
    assert_eq!(refused.to_string(), r#"the signing request is for "edge-2", expected "edge-3""#);
    assert_eq!(hub.get("/devices/edge-9").await.0, StatusCode::NOT_FOUND);
    assert_eq!(Device::new("edge-3").try_enrol(&hub, &good.to_string()).await.0, StatusCode::OK, "still unused");
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_guesses_is_shut_out_for_a_while() {
    let hub = TestHub::start_in(tempfile::tempdir().unwrap(), |config| config.identity.refusals_per_minute = 3).await;
    let unknown = EnrolmentToken::new("none", [7; 32], fingerprint(&hub)).unwrap().to_string();
    let mut refused = Vec::new();
    for _ in 0..5 {
        refused.push(Device::new("edge-1").try_enrol(&hub, &unknown).await.0.as_u16());
    }
    assert_eq!(refused, [403, 403, 403, 429, 429]);
    let good = token(&hub, json!({})).await;
    assert_eq!(Device::new("edge-1").try_enrol(&hub, &good).await.0, StatusCode::TOO_MANY_REQUESTS);
    // Another address is not concerned.
    let elsewhere = Some("192.0.2.1".parse().unwrap());
    let request = Device::new("edge-1").request(&good);
    hub.hub.identity.enrol(&request, elsewhere, hub.hub.now()).await.unwrap();
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_devices_that_race_for_the_last_use_one_wins() {
    let hub = TestHub::start().await;
    let token = token(&hub, json!({"uses": 2})).await;
    let racing = (0..8).map(|n| {
        let (hub, token) = (&hub, &token);
        async move { Device::new(&format!("edge-{n}")).try_enrol(hub, token).await.0 }
    });
    let outcomes = futures_util::future::join_all(racing).await;
    assert_eq!(outcomes.iter().filter(|status| **status == StatusCode::OK).count(), 2, "{outcomes:?}");
    assert_eq!(hub.get("/enrolment-tokens").await.1["items"][0]["uses_made"], 2);
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_whose_answer_was_lost_is_answered_again_and_costs_nothing() {
    let hub = TestHub::start().await;
    let token = token(&hub, json!({"uses": 1})).await;
    let mut device = Device::new("edge-1");
    let first = device.try_enrol(&hub, &token).await.1;
    let again = device.try_enrol(&hub, &token).await.1;
    assert_eq!(first["certificate"], again["certificate"]);
    assert_eq!(hub.get("/enrolment-tokens").await.1["items"][0]["uses_made"], 1);
    // Another key is another request.
    let (status, answer) = Device::new("edge-1").try_enrol(&hub, &token).await;
    assert_eq!((status, kind(&answer)), (StatusCode::FORBIDDEN, "/problems/enrolment-token-used-up"));
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_device_comes_back_by_an_operators_word_alone_and_once() {
    let hub = TestHub::start().await;
    let before = Device::enrolled(&hub, "edge-1").await;
    let live = connect(&hub, Arc::new(before.config(tls::ALPN_MQTT)), "edge-1").await.unwrap();
    let token = token(&hub, json!({"uses": 9})).await;
    let mut wiped = Device::new("edge-1");
    let (status, answer) = wiped.try_enrol(&hub, &token).await;
    assert_eq!((status, kind(&answer)), (StatusCode::CONFLICT, "/problems/enrolment-device-enrolled"), "{answer:#}");
    assert!(answer["detail"].as_str().unwrap().contains("device allow-enrolment edge-1"), "{answer:#}");

    hub.ok(Method::POST, "/devices/edge-1/allow-enrolment", json!({"lifetime": "1h"})).await;
    assert_eq!(wiped.try_enrol(&hub, &token).await.0, StatusCode::OK);
    assert_eq!(live.ended().await, ADMINISTRATIVE_ACTION, "whoever has the old key is out");
    assert_eq!(before.connect(&hub).await.unwrap(), NOT_AUTHORISED);
    assert_eq!(wiped.connect(&hub).await.unwrap(), ACCEPTED);
    assert_eq!(Device::new("edge-1").try_enrol(&hub, &token).await.0, StatusCode::CONFLICT, "the word is used up");

    let (status, _) = hub.json(Method::POST, "/devices/edge-9/allow-enrolment", json!({})).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_device_is_out_at_once_and_neither_a_resumed_session_nor_a_restart_lets_it_in() {
    let hub = TestHub::start().await;
    let (device, other) = (Device::enrolled(&hub, "edge-1").await, Device::enrolled(&hub, "edge-2").await);
    let config = Arc::new(device.config(tls::ALPN_MQTT));
    let first = connect(&hub, config.clone(), "edge-1").await.unwrap();
    assert_eq!((first.code, first.resumed), (ACCEPTED, false));
    let live = connect(&hub, config.clone(), "edge-1").await.unwrap();
    assert_eq!((live.code, live.resumed), (ACCEPTED, true), "sessions are resumed");

    let (status, answer) = hub.json(Method::POST, "/devices/edge-1/revoke", json!({"reason": " "})).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{answer:#}");
    let done = hub.ok(Method::POST, "/devices/edge-1/revoke", json!({"reason": "stolen"})).await;
    assert_eq!(done, json!({"revoked": 1, "disconnected": true}));
    assert_eq!(live.ended().await, ADMINISTRATIVE_ACTION);
    let resumed = connect(&hub, config, "edge-1").await.unwrap();
    assert_eq!((resumed.code, resumed.resumed), (NOT_AUTHORISED, true));
    assert_eq!(device.connect(&hub).await.unwrap(), NOT_AUTHORISED, "nor a whole handshake");
    let refused = hub.hub.identity.device(&device.certificate(), hub.hub.now()).unwrap_err();
    assert!(refused.to_string().ends_with("is revoked: stolen"), "{refused}");
    assert!(!device.renew(&hub, &KeyFile::generate().unwrap()).await.unwrap().0.is_success());
    let again = hub.ok(Method::POST, "/devices/edge-1/revoke", json!({"reason": "stolen"})).await;
    assert_eq!(again, json!({"revoked": 0, "disconnected": false}));
    assert_eq!(other.connect(&hub).await.unwrap(), ACCEPTED);
    assert!(hub.hub.connections.tally().of(cloud_hub_gateway::Refusal::Revoked) >= 2);

    let hub = TestHub::start_in(hub.stop().await, |_| {}).await;
    assert_eq!(device.connect(&hub).await.unwrap(), NOT_AUTHORISED);
    assert_eq!(other.connect(&hub).await.unwrap(), ACCEPTED);
    let kept = hub.get("/devices/edge-1/certificates").await.1["items"][0].clone();
    assert_eq!((&kept["state"], &kept["reason"]), (&json!("revoked"), &json!("stolen")));
    // To come back it needs an operator's word, as a wiped one.
    let token = token(&hub, json!({"uses": 2})).await;
    let mut found = Device::new("edge-1");
    assert_eq!(found.try_enrol(&hub, &token).await.0, StatusCode::CONFLICT);
    hub.ok(Method::POST, "/devices/edge-1/allow-enrolment", json!({})).await;
    assert_eq!(found.try_enrol(&hub, &token).await.0, StatusCode::OK);
    assert_eq!(found.connect(&hub).await.unwrap(), ACCEPTED);
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_old_certificate_counts_until_the_device_has_connected_with_the_new_one() {
    let hub = TestHub::start().await;
    let old = Device::enrolled(&hub, "edge-1").await;
    assert_eq!(old.connect(&hub).await.unwrap(), ACCEPTED);
    let key = KeyFile::generate().unwrap();
    let lost = old.renew(&hub, &key).await.unwrap().1;
    let again = old.renew(&hub, &key).await.unwrap().1;
    assert_eq!(lost["certificate"], again["certificate"], "the same key gets the same certificate");
    assert_eq!(old.connect(&hub).await.unwrap(), ACCEPTED, "the answer may have been lost");
    let unused = Device { id: old.id.clone(), key, enrolled: Some(serde_json::from_value(again).unwrap()) };
    let new = old.renewed(&hub).await;
    assert_eq!(unused.connect(&hub).await.unwrap(), NOT_AUTHORISED, "of those never used only the last counts");
    assert_eq!(new.connect(&hub).await.unwrap(), ACCEPTED);
    assert_eq!(old.connect(&hub).await.unwrap(), NOT_AUTHORISED);
    let states = |answer: &Value| {
        let items = answer["items"].as_array().unwrap();
        items.iter().map(|item| item["state"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let path = "/devices/edge-1/certificates";
    hub.until(path, |answer| states(answer) == ["valid", "revoked", "revoked"]).await;

    let hub = TestHub::start_in(hub.stop().await, |_| {}).await;
    assert_eq!(old.connect(&hub).await.unwrap(), NOT_AUTHORISED);
    assert_eq!(new.connect(&hub).await.unwrap(), ACCEPTED);
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_certificate_renews_within_the_grace_and_does_nothing_else() {
    let hub = TestHub::start().await;
    let late = Device::enrolled_ago(&hub, "edge-1", 100 * DAY).await;
    assert!(late.connect(&hub).await.is_err(), "TLS refuses it");
    assert!(hub.hub.identity.device(&late.certificate(), hub.hub.now()).is_err());
    let new = late.renewed(&hub).await;
    assert_eq!(new.connect(&hub).await.unwrap(), ACCEPTED);
    let (status, answer) = late.renew(&hub, &KeyFile::generate().unwrap()).await.unwrap();
    assert!(status.is_client_error(), "superseded: {answer:#}");
    let too_late = Device::enrolled_ago(&hub, "edge-2", 130 * DAY).await;
    let refused = too_late.renew(&hub, &KeyFile::generate().unwrap()).await;
    assert!(refused.is_err() || refused.is_ok_and(|(status, _)| status.is_client_error()));
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_do_not_get_in_whatever_they_show() {
    let hub = TestHub::start().await;
    let device = Device::enrolled(&hub, "edge-1").await;
    let authorities = [hub.hub.identity.authority().certificate().clone()];
    let attempt = async |shown: Option<Arc<Shown>>, client_id: &str| {
        let config = tls::device_client(&authorities, shown, tls::ALPN_MQTT, clock()).unwrap();
        connect(&hub, Arc::new(config), client_id).await.map(|connection| connection.code)
    };
    let issued = |authority: &Authority| {
        let (id, key) = (DeviceId::new("edge-1").unwrap(), KeyFile::generate().unwrap());
        let certificate = authority.issue_device(&key.request(&id).unwrap(), &id, hub.hub.now(), DAY).unwrap();
        Arc::new(Shown::new(&[certificate], &key).unwrap())
    };
    // Another authority with the same name, and one that signed itself.
    let (pem, key) = Authority::create("tributary authority", hub.hub.now(), DAY).unwrap();
    assert!(attempt(Some(issued(&Authority::new(&pem, &key).unwrap())), "edge-1").await.is_err());
    let itself = Certificate::all_from_pem(&pem).unwrap();
    assert!(attempt(Some(Arc::new(Shown::from_pem(&itself, &key).unwrap())), "edge-1").await.is_err());
    // Signed by our authority, but not issued by the hub: somebody has copied the key.
    let folder = hub.hub.data().join("identity");
    let ours = Authority::open(&folder.join("authority.pem"), &folder.join("authority.key")).unwrap();
    assert_eq!(attempt(Some(issued(&ours)), "edge-1").await.unwrap(), NOT_AUTHORISED);
    // A good certificate under another name, and none at all.
    assert_eq!(attempt(Some(device.shown()), "edge-2").await.unwrap(), NOT_AUTHORISED);
    assert_eq!(attempt(None, "edge-1").await.unwrap(), NOT_AUTHORISED);
    let tally = hub.hub.connections.tally();
    assert!(tally.of(cloud_hub_gateway::Refusal::Certificate) >= 3);
    assert!(tally.of(cloud_hub_gateway::Refusal::UnknownAuthority) >= 1);
    assert_eq!(device.connect(&hub).await.unwrap(), ACCEPTED);
    hub.stop().await;
}
