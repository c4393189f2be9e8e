//! Clients that are not devices, through the router.

use std::time::Duration;

use cloud_hub_gateway::{Limits, Refusal, Transport};
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v5::{Packet, PubAckReason, Publish, SubscribeFilter, SubscribeReasonCode};
use rumqttc::{AsyncClient, EventLoop, PublishOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::support::{Hub, PATIENCE, Stream, hub, once, packet, pub_ack, rest, sub_ack, text, until};

async fn follows(hub: &Hub, id: &str, filter: &str, quality: QoS) -> (AsyncClient, EventLoop) {
    let (client, mut events) = hub.client(Transport::Plain, id);
    client.subscribe(filter, quality).await.unwrap();
    assert!(matches!(sub_ack(&mut events).await[..], [SubscribeReasonCode::Success(granted)] if granted == quality));
    (client, events)
}

async fn message(events: &mut EventLoop) -> Publish {
    until(events, |packet| match packet {
        Packet::Publish(publish) => Some(publish.clone()),
        _ => None,
    })
    .await
}

#[tokio::test]
async fn messages_of_each_quality_reach_every_follower_in_the_quality_that_both_want() {
    let hub = hub(Limits::default()).await;
    let (_two, mut twos) = follows(&hub, "any-two", "é/#", QoS::ExactlyOnce).await;
    let (_one, mut ones) = follows(&hub, "any-one", "é/+", QoS::AtLeastOnce).await;
    let (client, mut events) = hub.client(Transport::Plain, "any-speaker");
    for quality in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        client.publish("é/x", format!("{quality:?}"), PublishOptions::new(quality)).await.unwrap();
    }
    until(&mut events, |packet| matches!(packet, Packet::PubComp(_)).then_some(())).await;
    for quality in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let (two, one) = (message(&mut twos).await, message(&mut ones).await);
        let expected = format!("{quality:?}");
        assert_eq!((&two.payload[..], &one.payload[..]), (expected.as_bytes(), expected.as_bytes()));
        assert_eq!((two.qos, one.qos), (quality, quality.min_of(QoS::AtLeastOnce)));
        assert_eq!(two.topic, "é/x");
    }
}

trait Least {
    fn min_of(self, other: Self) -> Self;
}

impl Least for QoS {
    fn min_of(self, other: Self) -> Self {
        if (self as u8) < other as u8 { self } else { other }
    }
}

#[tokio::test]
async fn rights_hold_for_every_packet_and_answers_are_mixed() {
    let hub = hub(Limits::default()).await;
    let (client, mut events) = follows(&hub, "any-one", "ok/#", QoS::AtLeastOnce).await;
    let filters = ["no/#", "ok/2", "$share/g/no/x", "$share/g/ok/x"];
    let filters = filters.map(|path| SubscribeFilter::new(path, QoS::AtMostOnce));
    client.subscribe_many(filters).await.unwrap();
    let granted = SubscribeReasonCode::Success(QoS::AtMostOnce);
    let refused = SubscribeReasonCode::NotAuthorized;
    let expected = [refused, granted, refused, granted];
    assert_eq!(sub_ack(&mut events).await, expected);
    client.publish("no/x", "1", once()).await.unwrap();
    assert_eq!(pub_ack(&mut events).await, PubAckReason::NotAuthorized);
    client.publish("no/x", "2", PublishOptions::new(QoS::ExactlyOnce)).await.unwrap();
    let refused = until(&mut events, |packet| match packet {
        Packet::PubRec(received) => Some(format!("{:?}", received.reason)),
        _ => None,
    });
    assert_eq!(refused.await, "NotAuthorized");
    client.publish("ok/x", "3", once()).await.unwrap();
    assert_eq!(&message(&mut events).await.payload[..], b"3", "nothing of what was refused came first");
}

#[tokio::test]
async fn a_retained_message_waits_for_followers_and_an_empty_one_removes_it() {
    let hub = hub(Limits::default()).await;
    let (client, mut events) = hub.client(Transport::Plain, "any-speaker");
    let retained = || PublishOptions::new(QoS::AtLeastOnce).retain(true);
    client.publish("state/a", "on", retained()).await.unwrap();
    pub_ack(&mut events).await;
    let (_late, mut lates) = follows(&hub, "any-late", "state/#", QoS::AtLeastOnce).await;
    let kept = message(&mut lates).await;
    assert!(kept.retain && kept.payload[..] == *b"on");
    client.publish("state/a", "off", retained()).await.unwrap();
    pub_ack(&mut events).await;
    let live = message(&mut lates).await;
    assert!(!live.retain && live.payload[..] == *b"off");
    client.publish("state/a", "", retained()).await.unwrap();
    client.publish("state/b", "marker", retained()).await.unwrap();
    pub_ack(&mut events).await;
    pub_ack(&mut events).await;
    let (_later, mut laters) = follows(&hub, "any-later", "state/#", QoS::AtLeastOnce).await;
    assert_eq!(&message(&mut laters).await.payload[..], b"marker");
}

/// CONNECT with a keep-alive of a minute, these flags, properties, and what follows the client id.
fn connect(id: &str, flags: u8, properties: &[u8], rest: &[u8]) -> Vec<u8> {
    let head = [0, 4, b'M', b'Q', b'T', b'T', 5, flags, 0, 60, properties.len() as u8];
    packet(0x10, &[&head[..], properties, &text(id), rest].concat())
}

async fn connected(hub: &Hub, connect: Vec<u8>) -> (Stream, Vec<u8>) {
    let mut stream = hub.open_as(Transport::Plain, "other").await;
    stream.write_all(&connect).await.unwrap();
    let answer = one(&mut stream).await;
    (stream, answer)
}

/// The next packet.
async fn one(stream: &mut Stream) -> Vec<u8> {
    let read = async {
        let mut packet = vec![0; 2];
        stream.read_exact(&mut packet).await.unwrap();
        assert!(packet[1] < 0x80, "a short packet");
        packet.resize(2 + usize::from(packet[1]), 0);
        stream.read_exact(&mut packet[2..]).await.unwrap();
        packet
    };
    timeout(PATIENCE, read).await.expect("a packet came")
}

const HOUR: [u8; 5] = [17, 0, 0, 14, 16];

#[tokio::test]
async fn a_session_outlives_its_connection_and_what_was_not_acknowledged_comes_again() {
    let hub = hub(Limits::default()).await;
    let (mut away, answer) = connected(&hub, connect("any-away", 2, &HOUR, b"")).await;
    assert_eq!(answer[2..4], [0, 0], "no session before");
    away.write_all(&packet(0x82, &[&[0, 1, 0][..], &text("a/#"), &[1]].concat())).await.unwrap();
    assert_eq!(one(&mut away).await[0], 0x90);
    let (client, mut events) = hub.client(Transport::Plain, "any-speaker");
    client.publish("a/1", "first", once()).await.unwrap();
    pub_ack(&mut events).await;
    let first = one(&mut away).await;
    assert_eq!(first[0], 0x32);
    drop(away);
    client.publish("a/2", "second", once()).await.unwrap();
    pub_ack(&mut events).await;
    let (mut back, answer) = connected(&hub, connect("any-away", 0, &HOUR, b"")).await;
    assert_eq!(answer[2..4], [1, 0], "the session is there");
    let again = one(&mut back).await;
    assert_eq!((again[0], &again[1..]), (0x3a, &first[1..]), "the same packet, marked as a duplicate");
    let second = one(&mut back).await;
    assert!(second[0] == 0x32 && second.ends_with(b"second"));
    // Another connection with a clean start ends it.
    let (mut clean, answer) = connected(&hub, connect("any-away", 2, &[], b"")).await;
    assert_eq!(answer[2..4], [0, 0]);
    let told = rest(&mut back).await;
    assert_eq!((told[0], told[2]), (0xe0, 0x8e), "session taken over");
    client.publish("a/3", "third", once()).await.unwrap();
    pub_ack(&mut events).await;
    clean.write_all(&[0xc0, 0]).await.unwrap();
    assert_eq!(one(&mut clean).await, [0xd0, 0], "and it follows nothing");
}

#[tokio::test]
async fn a_client_whose_rights_end_is_cut_off_and_leaves_nothing() {
    let hub = hub(Limits::default()).await;
    let (_heir, mut heirs) = follows(&hub, "any-heir", "will/#", QoS::AtLeastOnce).await;
    let will = [&[0][..], &text("will/x"), &text("gone")].concat();
    let (mut stream, _) = connected(&hub, connect("any-one", 0b110, &HOUR, &will)).await;
    hub.door.withdrawn.cancel();
    let told = rest(&mut stream).await;
    assert_eq!((told[0], told[2]), (0xe0, 0x98), "administrative action");
    assert!(String::from_utf8_lossy(&told).contains("the token is revoked"));
    let ended = crate::support::ending(&mut heirs).await;
    assert!(ended.contains("AdministrativeAction"), "without the will: {ended}");
}

#[tokio::test]
async fn a_session_with_more_than_the_new_rights_is_not_gone_on_with() {
    let hub = hub(Limits::default()).await;
    for (filter, present) in [("small/#", 1), ("wide/#", 0)] {
        let (mut away, _) = connected(&hub, connect("any-away", 2, &HOUR, b"")).await;
        away.write_all(&packet(0x82, &[&[0, 1, 0][..], &text(filter), &[1]].concat())).await.unwrap();
        one(&mut away).await;
        drop(away);
        let (_, answer) = connected(&hub, connect("any-away", 0b1000_0000, &HOUR, &text("narrow"))).await;
        assert_eq!(answer[2..4], [present, 0], "{filter}");
    }
}

#[tokio::test]
async fn a_will_is_said_when_a_client_is_lost_and_only_where_it_may() {
    let hub = hub(Limits::default()).await;
    let (_heir, mut heirs) = follows(&hub, "any-heir", "will/#", QoS::AtLeastOnce).await;
    let will = |topic: &str| [&[0][..], &text(topic), &text("gone")].concat();
    let (lost, _) = connected(&hub, connect("any-lost", 0b110, &[], &will("will/x"))).await;
    drop(lost);
    assert_eq!(&message(&mut heirs).await.payload[..], b"gone");
    let (mut polite, _) = connected(&hub, connect("any-polite", 0b110, &[], &will("will/polite"))).await;
    polite.write_all(&[0xe0, 0]).await.unwrap();
    rest(&mut polite).await;
    let (mut impolite, _) = connected(&hub, connect("any-impolite", 0b110, &[], &will("will/impolite"))).await;
    // With only a reason: disconnect with will message.
    impolite.write_all(&[0xe0, 1, 4]).await.unwrap();
    rest(&mut impolite).await;
    assert_eq!(message(&mut heirs).await.topic, "will/impolite");
    let (_, answer) = connected(&hub, connect("any-thief", 0b110, &[], &will("no/x"))).await;
    assert_eq!((answer[0], answer[3]), (0x20, 0x87));
    let (_, answer) = connected(&hub, connect("edge-1", 0b110, &[], &will("v1/d/edge-1/up/batch"))).await;
    assert_eq!((answer[0], answer[3]), (0x20, 0x87), "a device has no will at all");
    assert_eq!(hub.counted(Refusal::Topic), 2);
}

#[tokio::test]
async fn a_small_window_and_a_small_packet_are_kept_to() {
    let hub = hub(Limits::default()).await;
    // Receive maximum 1, maximum packet size 40.
    let (mut small, _) = connected(&hub, connect("any-small", 2, &[33, 0, 1, 39, 0, 0, 0, 40], b"")).await;
    small.write_all(&packet(0x82, &[&[0, 1, 0][..], &text("a/#"), &[2]].concat())).await.unwrap();
    one(&mut small).await;
    let (client, mut events) = hub.client(Transport::Plain, "any-speaker");
    for payload in ["1", &"large".repeat(10), "2"] {
        client.publish("a/1", payload.to_owned(), once()).await.unwrap();
        pub_ack(&mut events).await;
    }
    let first = one(&mut small).await;
    assert!(first.ends_with(b"1"));
    small.write_all(&[0xc0, 0]).await.unwrap();
    assert_eq!(one(&mut small).await, [0xd0, 0], "the window is full");
    small.write_all(&[0x40, 2, first[7], first[8]]).await.unwrap();
    assert!(one(&mut small).await.ends_with(b"2"), "and the large one was left out");
}

#[tokio::test]
async fn a_client_without_a_name_gets_one() {
    let hub = hub(Limits::default()).await;
    let (_, answer) = connected(&hub, connect("", 2, &[], b"")).await;
    let name = answer.windows(7).any(|bytes| bytes == b"client-");
    assert!(answer[3] == 0 && name, "{answer:?}");
}

#[tokio::test]
async fn a_shared_subscription_gets_each_message_once() {
    let hub = hub(Limits::default()).await;
    let (_one, mut ones) = follows(&hub, "any-one", "$share/g/job/#", QoS::AtLeastOnce).await;
    let (_two, mut twos) = follows(&hub, "any-two", "$share/g/job/#", QoS::AtLeastOnce).await;
    let (client, mut events) = hub.client(Transport::Plain, "any-speaker");
    let mut got = Vec::new();
    for number in 0..10_u8 {
        client.publish("job/x", vec![number], once()).await.unwrap();
        pub_ack(&mut events).await;
    }
    while got.len() < 10 {
        let either = async {
            tokio::select! {
                one = message(&mut ones) => one,
                two = message(&mut twos) => two,
            }
        };
        got.push(timeout(PATIENCE, either).await.unwrap().payload[0]);
    }
    got.sort_unstable();
    assert_eq!(got, (0..10).collect::<Vec<u8>>());
    let more = timeout(Duration::from_millis(50), message(&mut ones)).await;
    assert!(more.is_err(), "{more:?}");
}
