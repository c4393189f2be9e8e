//! The same sessions over every transport, and what belongs to one of them alone.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cloud_hub_gateway::{BindError, Event, Gateway, Limits, Listeners, Refusal, TlsSettings, Transport};
use quinn::crypto::rustls::QuicClientConfig;
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v5::{Packet, PubAckReason};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tributary_identity::DeviceClock;
use tributary_identity::tls::{ALPN_MQTT, device_client};
use tributary_process::shutdown::Shutdown;
use tributary_wire::topic::Channel;
use tributary_wire::{DeviceId, Micros};

use crate::support::{
    Door, PATIENCE, Stream, WAYS, authority, connect, ending, hub, issued, once, packet, pub_ack, quic, rest, settings,
    sub_ack, text, until,
};

const DAY: Duration = Duration::from_secs(86_400);

#[tokio::test]
async fn a_device_speaks_and_listens_over_every_transport() {
    for way in WAYS {
        let mut hub = hub(Limits::default()).await;
        let device = DeviceId::new("edge-1").unwrap();
        let (client, mut events) = hub.client(way, "edge-1");
        client.subscribe("v1/d/edge-1/down/#", QoS::AtLeastOnce).await.unwrap();
        sub_ack(&mut events).await;
        assert_eq!(timeout(PATIENCE, hub.events.recv()).await.unwrap(), Some(Event::Connected(device.clone(), way)));
        assert_eq!(hub.connections.transport(&device), Some(way));
        client.publish("v1/d/edge-1/up/batch", vec![7; 100_000], once()).await.unwrap();
        assert_eq!(pub_ack(&mut events).await, PubAckReason::Success, "{way:?}");
        assert_eq!(timeout(PATIENCE, hub.up.recv()).await.unwrap().unwrap().payload.len(), 100_000);
        hub.connections.send(&device, Channel::Ack, vec![9; 1000]).unwrap();
        let payload = until(&mut events, |packet| match packet {
            Packet::Publish(publish) => Some(publish.payload.clone()),
            _ => None,
        });
        assert_eq!(payload.await.len(), 1000);
        assert!(hub.door.seen.lock().unwrap().iter().all(|seen| seen.1 == way));
    }
}

#[tokio::test]
async fn a_connection_that_is_closed_ends_at_once_and_is_told_why() {
    for way in WAYS {
        let mut hub = hub(Limits::default()).await;
        let device = DeviceId::new("edge-1").unwrap();
        assert!(!hub.connections.close(&device, "revoked"), "nobody is there");
        let (client, mut events) = hub.client(way, "edge-1");
        client.subscribe("v1/d/edge-1/down/#", QoS::AtLeastOnce).await.unwrap();
        sub_ack(&mut events).await;
        assert!(hub.connections.close(&device, "the certificate is revoked"));
        let ended = ending(&mut events).await;
        assert!(ended.contains("AdministrativeAction") && ended.contains("is revoked"), "{way:?}: {ended}");
        timeout(PATIENCE, hub.events.recv()).await.unwrap();
        assert_eq!(timeout(PATIENCE, hub.events.recv()).await.unwrap(), Some(Event::Disconnected(device.clone())));
        assert!(!hub.connections.close(&device, "again") && hub.connections.transport(&device).is_none());
    }
}

/// One that does not read and whose messages nobody takes is closed as fast as any other.
#[tokio::test]
async fn a_connection_that_waits_is_closed_as_well() {
    let mut hub = hub(Limits::default()).await;
    let mut stream = hub.open_as(Transport::Tls, "edge-1").await;
    stream.write_all(&connect("edge-1")).await.unwrap();
    let publish = packet(0x32, &[&text("v1/d/edge-1/up/batch")[..], &[0, 1, 0], &[0; 1000]].concat());
    for _ in 0..20 {
        stream.write_all(&publish).await.unwrap();
    }
    stream.flush().await.unwrap();
    let device = DeviceId::new("edge-1").unwrap();
    let wait = async {
        // The queue of eight is full, so the session waits.
        while hub.up.len() < 8 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, wait).await.unwrap();
    assert!(hub.connections.close(&device, "revoked"));
    let answer = rest(&mut stream).await;
    assert!(answer.windows(7).any(|bytes| bytes == b"revoked"), "{answer:?}");
    hub.up.close();
}

#[tokio::test]
async fn certificates_that_do_not_hold_are_refused_and_counted_by_reason() {
    let hub = hub(Limits::default()).await;
    let day_old = |age, lifetime| issued(&hub.authority, "edge-1", age, lifetime).0;
    let foreign = issued(&authority(), "edge-1", Duration::ZERO, DAY).0;
    for (round, way) in [Transport::Tls, Transport::Quic].into_iter().enumerate() {
        let cases = [
            (Some(day_old(3 * DAY, DAY)), Refusal::Expired),
            (Some(foreign.clone()), Refusal::UnknownAuthority),
            // QUIC asks for a certificate in the handshake, over TLS admission does.
            (None, Refusal::Certificate),
            (Some(issued(&hub.authority, "edge-2", Duration::ZERO, DAY).0), Refusal::Certificate),
        ];
        for (shown, refusal) in cases {
            let before = hub.counted(refusal);
            // A client of TLS 1.3 is done before the hub has seen its certificate: it learns when it reads.
            if let Ok(mut stream) = hub.open(way, hub.tls_config(shown)).await {
                let _ = stream.write_all(&connect("edge-1")).await;
                let _ = stream.flush().await;
                let answer = rest(&mut stream).await;
                assert!(answer.is_empty() || answer[3] == 0x87, "{way:?} {refusal:?}: {answer:?}");
            }
            hub.until_counted(refusal, before + 1).await;
        }
        assert_eq!(hub.counted(Refusal::Certificate), 2 * (round as u64 + 1));
        assert!(hub.connections.connected().is_empty());
    }
}

#[tokio::test]
async fn a_resumed_session_is_asked_again() {
    for way in [Transport::Tls, Transport::Quic] {
        let hub = hub(Limits::default()).await;
        let (shown, serial) = issued(&hub.authority, "edge-1", Duration::ZERO, DAY);
        // One configuration: its tickets are shared by the connections.
        let config = hub.tls_config(Some(shown));
        for revoked in [false, false, true] {
            if revoked {
                hub.door.revoked.lock().unwrap().insert(serial.clone());
            }
            let asked = hub.door.asked.load(Ordering::Relaxed);
            let mut stream = hub.open(way, config.clone()).await.unwrap();
            stream.write_all(&connect("edge-1")).await.unwrap();
            stream.flush().await.unwrap();
            let mut head = [0; 4];
            timeout(PATIENCE, stream.read_exact(&mut head)).await.unwrap().unwrap();
            assert_eq!((head[0], head[3]), (0x20, if revoked { 0x87 } else { 0 }), "{way:?}");
            assert_eq!(hub.door.asked.load(Ordering::Relaxed), asked + 1);
        }
        assert_eq!(hub.counted(Refusal::Revoked), 1);
    }
}

async fn ping(stream: &mut Stream) {
    stream.write_all(&[0xc0, 0]).await.unwrap();
    stream.flush().await.unwrap();
    let mut answer = [0; 2];
    timeout(PATIENCE, stream.read_exact(&mut answer)).await.expect("an answer").unwrap();
    assert_eq!(answer, [0xd0, 0]);
}

#[tokio::test]
async fn a_changed_address_keeps_the_session() {
    let hub = hub(Limits::default()).await;
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let config = hub.tls_config(Some(hub.device("edge-1")));
    let (connection, mut stream) = quic(&endpoint, hub.addresses, config).await.unwrap();
    stream.write_all(&connect("edge-1")).await.unwrap();
    let mut head = [0; 2];
    timeout(PATIENCE, stream.read_exact(&mut head)).await.unwrap().unwrap();
    let mut properties = vec![0; head[1].into()];
    timeout(PATIENCE, stream.read_exact(&mut properties)).await.unwrap().unwrap();
    ping(&mut stream).await;
    let before = endpoint.local_addr().unwrap();
    endpoint.rebind(std::net::UdpSocket::bind("127.0.0.1:0").unwrap()).unwrap();
    assert_ne!(endpoint.local_addr().unwrap(), before);
    ping(&mut stream).await;
    ping(&mut stream).await;
    assert!(connection.close_reason().is_none());
    assert_eq!(hub.door.asked.load(Ordering::Relaxed), 1, "no second CONNECT");
}

#[tokio::test]
async fn a_quic_connection_without_a_stream_is_let_go() {
    let hub = hub(Limits { handshake: Duration::from_millis(300), ..Limits::default() }).await;
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let config = quinn::crypto::rustls::QuicClientConfig::try_from(hub.tls_config(Some(hub.device("edge-1"))));
    let config = quinn::ClientConfig::new(std::sync::Arc::new(config.unwrap()));
    let connecting = endpoint.connect_with(config, hub.addresses.quic.unwrap(), "localhost").unwrap();
    let connection = connecting.await.unwrap();
    timeout(PATIENCE, connection.closed()).await.expect("the hub closed it");
    assert_eq!(hub.counted(Refusal::HandshakeTimeout), 1);
    assert!(connection.max_datagram_size().is_none());
}

/// A hub that was killed says no goodbye; the next one answers what comes for it with a reset.
#[tokio::test]
async fn a_connection_of_a_hub_that_was_killed_is_over_as_soon_as_the_next_one_is_there() {
    let (authority, free) = (authority(), "127.0.0.1:0".parse().unwrap());
    let settings = settings(&authority);
    let start = |address, settings: TlsSettings| async move {
        let listeners = Listeners { quic: Some(address), ..Listeners::default() };
        let gateway = Gateway::bind(&listeners, Limits::default(), Some(settings)).await?;
        let addresses = gateway.addresses();
        let (up, events) = (mpsc::channel(8).0, mpsc::channel(8).0);
        tokio::spawn(gateway.run(Arc::new(Door::default()), up, events, Shutdown::new()));
        Ok::<_, BindError>(addresses)
    };
    let other = tokio::runtime::Runtime::new().unwrap();
    let addresses = other.spawn(start(free, settings.clone())).await.unwrap().unwrap();
    let endpoint = quinn::Endpoint::client(free).unwrap();
    let clock = Arc::new(DeviceClock::new(Micros(0)));
    let shown = Some(issued(&authority, "edge-1", Duration::ZERO, DAY).0);
    let tls = device_client(&[authority.certificate().clone()], shown, ALPN_MQTT, clock).unwrap();
    let mut client = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    let mut transport = quinn::TransportConfig::default();
    transport.keep_alive_interval(Some(Duration::from_millis(100))).max_idle_timeout(None);
    client.transport_config(Arc::new(transport));
    let connecting = endpoint.connect_with(client, addresses.quic.unwrap(), "localhost").unwrap();
    let connection = connecting.await.unwrap();
    // None of its tasks runs again: nothing is closed, nothing is sent.
    other.shutdown_background();
    let again = async {
        while let Err(error) = start(addresses.quic.unwrap(), settings.clone()).await {
            assert!(matches!(error, BindError::Listen { .. }), "{error}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, again).await.expect("the port is free again");
    let ended = timeout(PATIENCE, connection.closed()).await.expect("the device learns of it");
    assert!(matches!(ended, quinn::ConnectionError::Reset), "{ended}");
}
