use std::io;

use tokio_rustls::{TlsAcceptor, TlsConnector};
use tributary_wire::{DeviceId, Micros};

use super::*;
use crate::{Authority, DeviceClock, KeyFile};

const DAY: Duration = Duration::from_secs(86_400);

/// One hub and what belongs to it.
struct Hub {
    authority: Authority,
    shown: Arc<Shown>,
}

fn now() -> Micros {
    DeviceClock::new(Micros(0)).now()
}

fn clock() -> Arc<DeviceClock> {
    Arc::new(DeviceClock::new(Micros(0)))
}

impl Hub {
    fn new() -> Self {
        let (certificate, key) = Authority::create("hub", now(), 400 * DAY).unwrap();
        let authority = Authority::new(&certificate, &key).unwrap();
        let (own, key) = authority.issue_hub(&["localhost".into()], now(), DAY).unwrap();
        let shown = Shown::from_pem(&[own, authority.certificate().clone()], &key).unwrap();
        Self { authority, shown: Arc::new(shown) }
    }

    fn authorities(&self) -> Vec<Certificate> {
        vec![self.authority.certificate().clone()]
    }

    fn server(&self, clients: Clients) -> ServerConfig {
        hub_server(self.shown.clone(), &self.authorities(), clients, ALPN_MQTT).unwrap()
    }

    /// A device whose certificate was issued so long ago and lives so long.
    fn device(&self, age: Duration, lifetime: Duration) -> Arc<Shown> {
        let (device, key) = (DeviceId::new("edge-1").unwrap(), KeyFile::generate().unwrap());
        let issued = Micros(now().0 - age.as_micros() as i64);
        let certificate = self.authority.issue_device(&key.request(&device).unwrap(), &device, issued, lifetime);
        Arc::new(Shown::new(&[certificate.unwrap()], &key).unwrap())
    }

    fn client(&self, shown: Option<Arc<Shown>>) -> ClientConfig {
        device_client(&self.authorities(), shown, ALPN_MQTT, clock()).unwrap()
    }
}

/// A handshake; the common name that the hub saw, or why either side refused.
async fn handshake(server: ServerConfig, client: ClientConfig, name: &'static str) -> Result<Option<String>, String> {
    use tokio_rustls::rustls::pki_types::ServerName;
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let hub = async {
        let stream = TlsAcceptor::from(Arc::new(server)).accept(theirs).await.map_err(|error| error.to_string())?;
        let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        Ok(shown.map(|der| Certificate::from_der(der).unwrap().common_name().to_owned()))
    };
    let device = async {
        let name = ServerName::try_from(name).unwrap();
        TlsConnector::from(Arc::new(client)).connect(name, ours).await.map_err(|error| error.to_string())
    };
    let (hub, device) = tokio::join!(hub, device);
    // With TLS 1.3 a client is done before the hub has seen its certificate, so the hub's word counts as well.
    device.and(hub)
}

#[tokio::test]
async fn both_sides_show_certificates() {
    let hub = Hub::new();
    let client = hub.client(Some(hub.device(Duration::ZERO, DAY)));
    let seen = handshake(hub.server(Clients::Required), client, "localhost").await;
    assert_eq!(seen, Ok(Some("edge-1".into())));
    // A key and a certificate that were replaced are shown at the next handshake.
    let (own, key) = hub.authority.issue_hub(&["elsewhere".into()], now(), DAY).unwrap();
    hub.shown.replace(&Shown::from_pem(&[own], &key).unwrap());
    let client = hub.client(Some(hub.device(Duration::ZERO, DAY)));
    handshake(hub.server(Clients::Required), client, "localhost").await.unwrap_err();
}

#[tokio::test]
async fn strangers_and_expired_ones_are_refused() {
    let (hub, other) = (Hub::new(), Hub::new());
    let shown = [None, Some(other.device(Duration::ZERO, DAY)), Some(hub.device(3 * DAY, DAY))];
    for shown in shown {
        handshake(hub.server(Clients::Required), hub.client(shown), "localhost").await.unwrap_err();
    }
    // The hub's own certificate is no device's.
    let client = hub.client(Some(hub.shown.clone()));
    handshake(hub.server(Clients::Required), client, "localhost").await.unwrap_err();
    // A device does not pass for a hub, and another hub not for this one.
    let server = hub_server(hub.device(Duration::ZERO, DAY), &hub.authorities(), Clients::Required, ALPN_MQTT);
    handshake(server.unwrap(), hub.client(Some(hub.device(Duration::ZERO, DAY))), "localhost").await.unwrap_err();
    let client = hub.client(Some(hub.device(Duration::ZERO, DAY)));
    handshake(other.server(Clients::Optional { grace: DAY }), client, "localhost").await.unwrap_err();
}

#[tokio::test]
async fn an_expired_certificate_is_taken_within_the_grace_only() {
    let hub = Hub::new();
    let clients = Clients::Optional { grace: 5 * DAY };
    let client = |age: u32| hub.client(Some(hub.device(age * DAY, DAY)));
    assert_eq!(handshake(hub.server(clients), client(3), "localhost").await, Ok(Some("edge-1".into())));
    handshake(hub.server(clients), client(9), "localhost").await.unwrap_err();
    assert_eq!(handshake(hub.server(clients), hub.client(None), "localhost").await, Ok(None));
}

#[tokio::test]
async fn the_first_connection_goes_to_the_hub_of_the_token_and_to_no_other() {
    let (hub, other) = (Hub::new(), Hub::new());
    let clients = Clients::Optional { grace: DAY };
    let pinned = |hub: &Hub| pinned_client(hub.authority.certificate().fingerprint(), ALPN_MQTT, clock()).unwrap();
    assert_eq!(handshake(hub.server(clients), pinned(&hub), "localhost").await, Ok(None));
    let refused = handshake(other.server(clients), pinned(&hub), "localhost").await.unwrap_err();
    assert!(refused.contains("not the one that the token was made by"), "{refused}");
    // The right authority's certificate beside a leaf that it did not issue proves nothing.
    let (leaf, key) = other.authority.issue_hub(&["localhost".into()], now(), DAY).unwrap();
    other.shown.replace(&Shown::from_pem(&[leaf, hub.authority.certificate().clone()], &key).unwrap());
    handshake(other.server(clients), pinned(&hub), "localhost").await.unwrap_err();
    // Nor is a right certificate good for another name.
    handshake(hub.server(clients), pinned(&hub), "elsewhere").await.unwrap_err();
}

#[tokio::test]
async fn a_device_that_does_not_know_the_time_gets_in_and_then_knows_more() {
    let hub = Hub::new();
    let clients = Clients::Optional { grace: DAY };
    let unset = || Arc::new(DeviceClock::with_system(Micros(0), || Micros(0)));
    let authority = hub.authority.certificate();
    let clock = unset();
    let pinned = pinned_client(authority.fingerprint(), ALPN_MQTT, clock.clone()).unwrap();
    assert_eq!(handshake(hub.server(clients), pinned, "localhost").await, Ok(None));
    assert!(clock.floor() > crate::BUILT, "the hub's certificate was signed after this source was written");
    let shown = Some(hub.device(Duration::ZERO, DAY));
    let client = device_client(&hub.authorities(), shown, ALPN_MQTT, unset()).unwrap();
    assert_eq!(handshake(hub.server(clients), client, "localhost").await, Ok(Some("edge-1".into())));

    // With a clock that may be right, the future stays the future; and what has expired, has expired.
    let (own, key) = hub.authority.issue_hub(&["localhost".into()], Micros(now().0 + 3_600_000_000 * 48), DAY).unwrap();
    hub.shown.replace(&Shown::from_pem(&[own, authority.clone()], &key).unwrap());
    handshake(hub.server(clients), hub.client(None), "localhost").await.unwrap_err();
    let late = Arc::new(DeviceClock::with_system(Micros(i64::MAX / 4), || Micros(0)));
    let client = device_client(&hub.authorities(), None, ALPN_MQTT, late).unwrap();
    handshake(hub.server(clients), client, "localhost").await.unwrap_err();
}

#[tokio::test]
async fn errors_tell_what_is_wrong_with_the_hub() {
    let (hub, other) = (Hub::new(), Hub::new());
    let problem = async |client: ClientConfig, name: &'static str| {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let server = Arc::new(hub.server(Clients::Optional { grace: DAY }));
        let device = TlsConnector::from(Arc::new(client)).connect(name.try_into().unwrap(), ours);
        let (_, device) = tokio::join!(TlsAcceptor::from(server).accept(theirs), device);
        hub_problem(&device.unwrap_err())
    };
    let pinned = |hub: &Hub| pinned_client(hub.authority.certificate().fingerprint(), ALPN_MQTT, clock()).unwrap();
    assert_eq!(problem(pinned(&other), "localhost").await, Some(HubProblem::Other));
    assert_eq!(problem(pinned(&hub), "elsewhere").await, Some(HubProblem::Name));
    assert_eq!(problem(other.client(None), "localhost").await, Some(HubProblem::Untrusted));
    assert_eq!(hub_problem(&io::Error::other("cut")), None);
}

/// Of a QUIC handshake only the alert is known.
#[test]
fn an_alert_tells_as_much_as_the_error_behind_it() {
    use rustls::{AlertDescription, CertificateError, Error};
    let (time, at) = (UnixTime::since_unix_epoch(Duration::ZERO), UnixTime::since_unix_epoch(DAY));
    for (error, expected) in [
        (CertificateError::NotValidForName, HubProblem::Name),
        (CertificateError::BadSignature, HubProblem::Untrusted),
        (CertificateError::UnknownIssuer, HubProblem::Untrusted),
        (CertificateError::ExpiredContext { time: at, not_after: time }, HubProblem::Expired),
        (CertificateError::NotValidYetContext { time, not_before: at }, HubProblem::Future),
    ] {
        let (alert, words) = (AlertDescription::from(error.clone()), error.to_string());
        assert_eq!(hub_problem_of_alert(alert.into(), false, &words), Some(expected), "{words}");
        assert_eq!(hub_problem(&Error::InvalidCertificate(error)), Some(expected), "{words}");
    }
    let refused = u8::from(AlertDescription::CertificateRevoked);
    assert_eq!(hub_problem_of_alert(refused, true, ""), Some(HubProblem::Refuses));
    assert_eq!(hub_problem_of_alert(u8::from(AlertDescription::InternalError), true, ""), None);
}

#[test]
fn a_certificate_knows_its_key() {
    let (hub, key, device) = (Hub::new(), KeyFile::generate().unwrap(), DeviceId::new("edge-1").unwrap());
    let issued = hub.authority.issue_device(&key.request(&device).unwrap(), &device, now(), DAY).unwrap();
    assert!(issued.belongs_to(&key).unwrap());
    assert!(!issued.belongs_to(&KeyFile::generate().unwrap()).unwrap());
}

#[test]
fn a_certificate_is_shown_with_its_own_key_only() {
    let hub = Hub::new();
    let (own, _) = hub.authority.issue_hub(&["localhost".into()], now(), DAY).unwrap();
    Shown::from_pem(&[own], &KeyFile::generate().unwrap().to_pem()).unwrap_err();
}

#[tokio::test]
async fn only_the_hub_sets_an_unset_clock_and_not_past_the_end_of_its_authority() {
    let hub = Hub::new();
    let clients = Clients::Optional { grace: DAY };
    let unset = || Arc::new(DeviceClock::with_system(Micros(0), || Micros(0)));
    let shows_from = |begins: Micros| {
        let (own, key) = hub.authority.issue_hub(&["localhost".into()], begins, DAY).unwrap();
        hub.shown.replace(&Shown::from_pem(&[own, hub.authority.certificate().clone()], &key).unwrap());
    };
    shows_from(Micros(now().0 + 300 * Micros::DAY));
    // A mirror is let in, and leaves the time as it was.
    let clock = unset();
    let mirror = stranger_client(&hub.authorities(), None, ALPN_MQTT, clock.clone()).unwrap();
    assert_eq!(handshake(hub.server(clients), mirror, "localhost").await, Ok(None));
    assert_eq!(clock.floor(), crate::BUILT);
    let client = device_client(&hub.authorities(), None, ALPN_MQTT, clock.clone()).unwrap();
    assert_eq!(handshake(hub.server(clients), client, "localhost").await, Ok(None));
    assert!(clock.floor() > Micros(now().0 + 200 * Micros::DAY));
    // What an authority signs for a time after its own end proves nothing.
    let clock = unset();
    let end = Some(Micros(now().0 + 100 * Micros::DAY));
    let client = super::client(&hub.authorities(), None, ALPN_MQTT, clock.clone(), end).unwrap();
    handshake(hub.server(clients), client, "localhost").await.unwrap_err();
    assert_eq!(clock.floor(), crate::BUILT);
}
