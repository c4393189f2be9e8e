//! Crowds and floods: what they ask for, and what is left for others.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cloud_hub_gateway::{AddressLimits, Limits, Refusal, Transport};
use rumqttc::mqttbytes::v5::PubAckReason;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::{PATIENCE, WAYS, connect, hub, once, packet, pub_ack, rest, text};

/// Silent connections, from the same address as everybody else, take nobody's place.
#[tokio::test]
async fn a_crowd_at_the_door_keeps_nobody_out() {
    let per_address = AddressLimits { half_open: 20, ..AddressLimits::default() };
    let limits = Limits { half_open: 30, per_address, connections: 10, ..Limits::default() };
    let mut hub = hub(limits).await;
    let (before, mut before_events) = hub.client(Transport::Tls, "edge-1");
    before.publish("v1/d/edge-1/up/report", "1", once()).await.unwrap();
    assert_eq!(pub_ack(&mut before_events).await, PubAckReason::Success);
    let mut crowd = Vec::new();
    for _ in 0..100 {
        for address in [hub.addresses.plain, hub.addresses.tls] {
            crowd.push(TcpStream::connect(address.unwrap()).await.unwrap());
        }
    }
    hub.until_counted(Refusal::HalfOpen, 180).await;
    for (number, way) in WAYS.into_iter().enumerate() {
        let id = format!("edge-new-{number}");
        let (client, mut events) = hub.client(way, &id);
        client.publish(format!("v1/d/{id}/up/report"), "1", once()).await.unwrap();
        assert_eq!(pub_ack(&mut events).await, PubAckReason::Success, "{way:?}");
        hub.up.recv().await.unwrap();
    }
    before.publish("v1/d/edge-1/up/report", "2", once()).await.unwrap();
    assert_eq!(pub_ack(&mut before_events).await, PubAckReason::Success);
    assert_eq!(hub.counted(Refusal::Full), 0);
}

#[tokio::test]
async fn places_are_limited_and_a_device_may_take_its_own_again() {
    let hub = hub(Limits { connections: 1, ..Limits::default() }).await;
    let mut first = hub.open_as(Transport::Plain, "edge-1").await;
    first.write_all(&connect("edge-1")).await.unwrap();
    let mut head = [0; 4];
    timeout(PATIENCE, first.read_exact(&mut head)).await.unwrap().unwrap();
    assert_eq!((head[0], head[3]), (0x20, 0));
    let mut second = hub.open_as(Transport::Tls, "edge-2").await;
    second.write_all(&connect("edge-2")).await.unwrap();
    let answer = rest(&mut second).await;
    assert_eq!((answer[0], answer[3]), (0x20, 0x89), "server busy");
    assert_eq!(hub.counted(Refusal::Full), 1);
    let answer = hub.raw(Transport::Tls, &[&connect("edge-1")[..], &[0xe0, 0]].concat()).await;
    assert_eq!((answer[0], answer[3]), (0x20, 0));
    let told = rest(&mut first).await;
    assert!(told.windows(9).any(|bytes| bytes == b"took over"), "{told:?}");
}

#[tokio::test]
async fn new_connections_from_one_address_come_at_a_pace() {
    let per_address = AddressLimits { per_second: 3, ..AddressLimits::default() };
    let hub = hub(Limits { per_address, ..Limits::default() }).await;
    let mut streams = Vec::new();
    for _ in 0..10 {
        streams.push(TcpStream::connect(hub.addresses.plain.unwrap()).await.unwrap());
    }
    hub.until_counted(Refusal::AddressRate, 1).await;
    let mut last = streams.pop().unwrap();
    let ended = timeout(PATIENCE, last.read(&mut [0; 1])).await.expect("the hub closed it");
    assert!(matches!(ended, Ok(0) | Err(_)));
}

#[tokio::test]
async fn a_flood_from_one_device_starves_nobody() {
    let mut hub = hub(Limits { messages_per_second: 20, ..Limits::default() }).await;
    let start = std::time::Instant::now();
    let mut flood = hub.open_as(Transport::Tls, "edge-1").await;
    flood.write_all(&connect("edge-1")).await.unwrap();
    let publish = packet(0x32, &[&text("v1/d/edge-1/up/batch")[..], &[0, 1, 0], b"flood"].concat());
    let flooding = tokio::spawn(async move { while flood.write_all(&publish).await.is_ok() {} });
    let (client, mut events) = hub.client(Transport::Quic, "edge-2");
    let mut up = std::mem::replace(&mut hub.up, tokio::sync::mpsc::channel(1).1);
    let flooded = Arc::new(AtomicUsize::new(0));
    let counting = flooded.clone();
    tokio::spawn(async move {
        while let Some(message) = up.recv().await {
            counting.fetch_add(usize::from(message.device.as_str() == "edge-1"), Ordering::Relaxed);
        }
    });
    for _ in 0..10 {
        client.publish("v1/d/edge-2/up/batch", "served", once()).await.unwrap();
        assert_eq!(pub_ack(&mut events).await, PubAckReason::Success);
    }
    let allowed = 20.0 * (2.0 + start.elapsed().as_secs_f64());
    assert!((flooded.load(Ordering::Relaxed) as f64) < allowed, "{flooded:?} of {allowed}");
    flooding.abort();
}

#[tokio::test]
async fn a_client_that_is_silent_for_longer_than_it_said_is_let_go() {
    let hub = hub(Limits { keep_alive: Duration::from_millis(300), ..Limits::default() }).await;
    let mut stream = hub.open_as(Transport::Quic, "edge-1").await;
    stream.write_all(&connect("edge-1")).await.unwrap();
    let answer = rest(&mut stream).await;
    assert!(answer.windows(10).any(|bytes| bytes == b"keep_alive"), "{answer:?}");
    assert_eq!(hub.counted(Refusal::KeepAlive), 1);
}
