//! QUIC and TLS, with real handshakes, through a network that can be told what to let through.

use std::path::Path;

use tempfile::TempDir;
use tributary_identity::tls::{ALPN_MQTT, Clients, hub_server};
use tributary_identity::{Authority, DeviceClock, Ports};

use super::relay::Relay;
use super::*;
use crate::identity::tests::hub::{self as web, authority, shown};
use crate::identity::{Folder, Identity, Renewal, Time, renew};
use crate::link::quic::Quic;

/// A hub that speaks MQTT over both, and its firewall.
struct Secure {
    broker: Broker,
    relay: Relay,
    ports: Ports,
}

impl Secure {
    async fn start(authority: &Authority) -> Self {
        let believed = [authority.certificate().clone()];
        let shown = shown(authority, &["127.0.0.1"]);
        let server = |clients| hub_server(shown.clone(), &believed, clients, ALPN_MQTT).unwrap();
        let optional = Clients::Optional { grace: Duration::ZERO };
        let (broker, tcp, udp) = Broker::secure(server(optional), server(Clients::Required)).await;
        let relay = Relay::to(udp).await;
        let ports = Ports { host: None, https: 1, tls: Some(tcp.port()), quic: Some(relay.address.port()) };
        Self { broker, relay, ports }
    }

    fn identity(&self, state: &TempDir, authority: &Authority) -> Arc<Identity> {
        crate::identity::tests::identity(state.path(), authority, &device_id(), self.ports.clone())
    }
}

fn millis(millis: u64) -> HumanDuration {
    HumanDuration(Duration::from_millis(millis))
}

/// Where a handshake is expected to work it may take long, where not it is given up soon.
fn patient() -> LinkConfig {
    LinkConfig { quic_timeout: millis(20_000), quic_idle: millis(20_000), ..LinkConfig::default() }
}

/// Failing is quick; a probe that a slow machine fails is repeated soon.
fn quick() -> LinkConfig {
    LinkConfig {
        quic_timeout: millis(1000),
        quic_idle: millis(2000),
        quic_holds: millis(600_000),
        probe: millis(100),
        probe_cap: millis(1000),
        ..LinkConfig::default()
    }
}

#[test]
fn quic_is_preferred_and_carries_batches_and_acknowledgements() {
    let (runtime, authority, state) = (runtime(), authority(), tempfile::tempdir().unwrap());
    let mut hub = runtime.block_on(Secure::start(&authority));
    let identity = hub.identity(&state, &authority);
    let device = Device::with(&runtime, Way::Secure(identity.clone()), 64, patient());
    runtime.block_on(async {
        let serial = identity.current().serial().to_string();
        assert_eq!(hub.broker.connected().await, ("quic", Some(serial)));
        drain(&mut hub.broker, &device).await;
    });
    let view = device.status.view();
    assert_eq!((view.transport, view.failures.len(), view.next_probe), (Some("quic"), 0, None));
    assert!(view.since.is_some());
    // Files may come beside it for as long as it stands.
    assert!(device.files.are_open());
    hub.broker.cut();
    runtime.block_on(device.until("no connection", |device| !device.files.are_open()));
    device.stop(&runtime);
}

/// Acknowledges every batch until nothing waits.
async fn drain(broker: &mut Broker, device: &Device) {
    loop {
        tokio::select! {
            batch = broker.published("up/batch") => broker.send("v1/d/edge-1/down/ack", &ack(&[names(&batch)])),
            () = device.until("all freed", |device| device.outbox() == 0) => return,
        }
    }
}

#[test]
fn where_udp_is_blocked_tls_carries_on_and_quic_comes_back_when_it_is_open_again_and_nothing_is_lost() {
    let (runtime, authority, state) = (runtime(), authority(), tempfile::tempdir().unwrap());
    let mut hub = runtime.block_on(Secure::start(&authority));
    hub.relay.lets_through(false);
    let device = Device::with(&runtime, Way::Secure(hub.identity(&state, &authority)), 64, quick());
    let waiting = device.outbox();
    runtime.block_on(async {
        assert_eq!(hub.broker.connected().await.0, "tls");
        device.until("a probe is meant", |device| device.status.view().next_probe.is_some()).await;
        let view = device.status.view();
        assert_eq!(view.transport, Some("tls"));
        assert!(view.failures["quic"].contains("no answer over quic"), "{view:?}");
        // In flight, and without receipt.
        hub.broker.published("up/batch").await;
        hub.relay.lets_through(true);
        let mut left = false;
        loop {
            match hub.broker.next().await {
                Heard::Left => left = true,
                Heard::Connected { over, .. } => {
                    assert_eq!((over, left), ("quic", true), "whoever takes leave is not taken for a copy");
                    break;
                }
                _ => {}
            }
        }
        assert_eq!(device.outbox(), waiting);
        drain(&mut hub.broker, &device).await;
        device.until("quic is well", |device| device.status.view().failures.is_empty()).await;
    });
    device.stop(&runtime);
}

#[test]
fn a_connection_whose_packets_stop_is_given_up_for_tls() {
    let (runtime, authority, state) = (runtime(), authority(), tempfile::tempdir().unwrap());
    let mut hub = runtime.block_on(Secure::start(&authority));
    let device = Device::with(&runtime, Way::Secure(hub.identity(&state, &authority)), 64, quick());
    runtime.block_on(async {
        // On a slow machine the first handshake may fail; then a probe brings it to QUIC.
        while hub.broker.connected().await.0 != "quic" {}
        hub.broker.published("up/report").await;
        hub.relay.lets_through(false);
        assert_eq!(hub.broker.connected().await.0, "tls");
        hub.relay.lets_through(true);
        while hub.broker.connected().await.0 != "quic" {}
        drain(&mut hub.broker, &device).await;
    });
    device.stop(&runtime);
}

#[test]
fn a_hub_that_closes_or_refuses_is_asked_again_over_quic_with_growing_waits() {
    let (runtime, authority, state) = (runtime(), authority(), tempfile::tempdir().unwrap());
    let mut hub = runtime.block_on(Secure::start(&authority));
    let device = Device::with(&runtime, Way::Secure(hub.identity(&state, &authority)), 1, patient());
    runtime.block_on(async {
        assert_eq!(hub.broker.connected().await.0, "quic");
        hub.broker.published("up/report").await;
        hub.broker.cut();
        assert_eq!(hub.broker.connected().await.0, "quic", "closed by the hub: the network is well");
        // Revoked: not authorised, again and again.
        hub.broker.published("up/report").await;
        hub.broker.answer(0x87);
        hub.broker.cut();
        for _ in 0..5 {
            assert_eq!(hub.broker.connected().await.0, "quic");
        }
        let refused = |device: &Device| {
            let error = device.status.view().error.unwrap_or_default();
            error.contains("refused") && error.contains("NotAuthorized")
        };
        device.until("the refusal is shown", refused).await;
        let problem = device.status.view().problem.unwrap();
        assert!(problem.contains("may be revoked") && problem.contains("NotAuthorized"), "{problem}");
        hub.broker.answer(0);
        hub.broker.published("up/report").await;
        device.until("the problem is over", |device| device.status.view().problem.is_none()).await;
    });
    device.stop(&runtime);
}

#[test]
fn a_device_of_another_hub_gets_in_nowhere_and_keeps_trying() {
    let (runtime, authority, state) = (runtime(), authority(), tempfile::tempdir().unwrap());
    let mut hub = runtime.block_on(Secure::start(&authority));
    let (other, ports) = (web::authority(), hub.ports.clone());
    let stranger = crate::identity::tests::identity(state.path(), &other, &device_id(), ports);
    let device = Device::with(&runtime, Way::Secure(stranger), 1, quick());
    runtime.block_on(async {
        let both = |device: &Device| device.status.view().failures.len() == 2;
        device.until("both transports refuse", both).await;
    });
    assert_eq!(device.status.view().connections, 0);
    device.stop(&runtime);
    runtime.block_on(async {
        let none = tokio::time::timeout(Duration::from_millis(1), hub.broker.next()).await;
        assert!(none.is_err(), "{none:?}");
    });
}

#[test]
fn a_new_certificate_is_shown_at_once() {
    let (runtime, state) = (runtime(), tempfile::tempdir().unwrap());
    let root = authority();
    let (mut hub, web) = runtime.block_on(async {
        let hub = Secure::start(&root).await;
        (hub, web::Hub::of(root, &["127.0.0.1"]).await)
    });
    let ports = Ports { https: web.address.port(), ..hub.ports.clone() };
    web.shelf().ports = ports.clone();
    let identity = crate::identity::tests::identity(state.path(), &web.shelf().authority, &device_id(), ports);
    let device = Device::with(&runtime, Way::Secure(identity.clone()), 1, patient());
    let (renewal, requests) = Renewal::channel();
    let task = runtime.spawn(renew(identity, requests, device.shutdown.clone()));
    runtime.block_on(async {
        let (over, first) = hub.broker.connected().await;
        hub.broker.published("up/report").await;
        let second = renewal.rotate().await.unwrap().to_string();
        assert_eq!(hub.broker.connected().await, (over, Some(second.clone())));
        assert_ne!(first, Some(second));
    });
    device.stop(&runtime);
    runtime.block_on(task).unwrap();
}

#[test]
fn a_device_that_wakes_up_in_1970_connects() {
    let (runtime, authority, state) = (runtime(), authority(), tempfile::tempdir().unwrap());
    let mut hub = runtime.block_on(Secure::start(&authority));
    hub.identity(&state, &authority);
    let identity = woken(state.path());
    let device = Device::with(&runtime, Way::Secure(identity.clone()), 1, patient());
    assert_eq!(runtime.block_on(hub.broker.connected()).0, "quic");
    assert!(identity.time().floor() > tributary_identity::BUILT);
    device.stop(&runtime);
}

fn woken(state_dir: &Path) -> Arc<Identity> {
    let time = Time::of(DeviceClock::with_system(Micros(0), || Micros(0)));
    Identity::open(Folder::of(state_dir), &Default::default(), time).unwrap().unwrap()
}

#[test]
fn a_quic_connection_follows_its_device_to_another_address() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (runtime, authority, state) = (runtime(), authority(), tempfile::tempdir().unwrap());
    runtime.block_on(async {
        let believed = [authority.certificate().clone()];
        let shown = shown(&authority, &["127.0.0.1"]);
        let server = hub_server(shown, &believed, Clients::Required, ALPN_MQTT).unwrap();
        let crypto = quinn::crypto::rustls::QuicServerConfig::try_from(server).unwrap();
        let config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
        let endpoint = quinn::Endpoint::server(config, "127.0.0.1:0".parse().unwrap()).unwrap();
        let address = endpoint.local_addr().unwrap();
        let echo = tokio::spawn(async move {
            let connection = endpoint.accept().await.unwrap().await.unwrap();
            let (mut send, mut receive) = connection.accept_bi().await.unwrap();
            let mut seen = Vec::new();
            let mut word = [0; 4];
            while receive.read_exact(&mut word).await.is_ok() {
                seen.push(connection.remote_address().port());
                // The last one goes to somebody who has left.
                let _ = send.write_all(&word).await;
            }
            seen
        });
        let ports = Ports { host: None, https: 1, tls: None, quic: Some(address.port()) };
        let identity = crate::identity::tests::identity(state.path(), &authority, &device_id(), ports);
        let quic = Quic::new(Duration::from_secs(20));
        let mut stream = quic.connect(identity.current().mqtt.clone(), address, "127.0.0.1").await.unwrap();
        let mut word = [0; 4];
        for round in 0..2 {
            stream.write_all(b"ping").await.unwrap();
            stream.read_exact(&mut word).await.unwrap();
            assert_eq!(&word, b"ping");
            if round == 0 {
                quic.rebind();
            }
        }
        // What was written last arrives although the stream is let go at once.
        stream.write_all(b"over").await.unwrap();
        drop(stream);
        let seen = echo.await.unwrap();
        assert_eq!(seen.len(), 3);
        assert_ne!(seen[0], seen[1], "another port, the same connection");
    });
}
