//! Bytes that are not what they should be.

use std::time::Duration;

use cloud_hub_gateway::{Limits, Refusal, Transport};
use rumqttc::mqttbytes::v5::PubAckReason;
use tokio::io::AsyncWriteExt;

use crate::support::{Hub, WAYS, connect, hub, once, packet, pub_ack, text};

/// A device that keeps to the protocol is served as before.
async fn others_are_served(hub: &mut Hub, way: Transport) {
    let (client, mut events) = hub.client(way, "edge-2");
    client.publish("v1/d/edge-2/up/batch", "good", once()).await.unwrap();
    assert_eq!(pub_ack(&mut events).await, PubAckReason::Success);
    assert_eq!(&hub.up.recv().await.unwrap().payload[..], b"good");
}

/// The reason in the DISCONNECT that ends an answer.
fn told(answer: &[u8]) -> Option<u8> {
    // The CONNACK of a device is the only packet before it, where there is one.
    let rest = match answer {
        [0x20, length, ..] => &answer[2 + usize::from(*length)..],
        _ => answer,
    };
    match rest {
        [0xe0, _, reason, ..] => Some(*reason),
        _ => None,
    }
}

#[tokio::test]
async fn peers_that_break_the_protocol_are_cut_off_and_counted() {
    let hub = hub(Limits { handshake: Duration::from_millis(200), packet_bytes: 1000, ..Limits::default() }).await;
    hub.raw(Transport::Plain, b"GET / HTTP/1.1\r\n\r\n").await;
    hub.raw(Transport::Plain, &[0x20, 3, 0, 0, 0]).await;
    hub.raw(Transport::Plain, &[connect("edge-1"), vec![0x20, 3, 0, 0, 0]].concat()).await;
    assert_eq!(hub.counted(Refusal::Protocol), 3);
    let answer = hub.raw(Transport::Plain, &[connect("edge-1"), vec![0x30, 0xff, 0xff, 0x7f]].concat()).await;
    assert_eq!((told(&answer), hub.counted(Refusal::TooLarge)), (Some(0x95), 1));
    assert!(String::from_utf8_lossy(&answer).contains("too_large: a packet larger"), "{answer:x?}");
    hub.raw(Transport::Plain, b"").await;
    hub.raw(Transport::Plain, &connect("edge-1")[..5]).await;
    assert_eq!(hub.counted(Refusal::HandshakeTimeout), 2);
}

#[tokio::test]
async fn silent_peers_are_let_go_over_every_transport() {
    let hub = hub(Limits { handshake: Duration::from_millis(400), ..Limits::default() }).await;
    for (count, way) in (1..).zip(WAYS) {
        // A QUIC stream exists for the other side with its first byte.
        hub.raw(way, &connect("edge-1")[..1]).await;
        hub.until_counted(Refusal::HandshakeTimeout, count).await;
    }
    // Neither does a TLS greeting that comes byte by byte.
    let mut slow = tokio::net::TcpStream::connect(hub.addresses.tls.unwrap()).await.unwrap();
    let dripping = async {
        for byte in [0x16, 3, 1, 0, 200].into_iter().chain(std::iter::repeat(0)) {
            if slow.write_all(&[byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(crate::support::PATIENCE, dripping).await.expect("the hub closed the connection");
    hub.until_counted(Refusal::HandshakeTimeout, 4).await;
}

#[tokio::test]
async fn every_first_byte_with_any_body_ends_well_before_and_after_the_connect() {
    let limits = Limits { handshake: Duration::from_secs(2), ..Limits::default() };
    let mut hub = hub(limits).await;
    let bodies: [&[u8]; 4] = [&[], &[0], &[0xff; 12], &[0, 1, 0, 0, 1, b'a', 0, 0, 0]];
    for first in 0..=255 {
        for body in bodies {
            // What may be sent there is followed by what may not.
            let end = [0xf0, 0];
            hub.raw(Transport::Plain, &[&packet(first, body)[..], &end].concat()).await;
            hub.raw(Transport::Plain, &[&connect("edge-1")[..], &packet(first, body), &end].concat()).await;
        }
    }
    for way in [Transport::Tls, Transport::Quic] {
        for nibble in 0..16 {
            hub.raw(way, &[&connect("edge-1")[..], &packet(nibble << 4, &[0xff; 12]), &[0xf0, 0]].concat()).await;
        }
    }
    assert!(hub.counted(Refusal::Protocol) > 1000);
    for way in WAYS {
        others_are_served(&mut hub, way).await;
    }
}

/// What follows an accepted CONNECT, and the reason code it is answered with.
#[tokio::test]
async fn each_fault_has_its_reason() {
    let mut hub = hub(Limits::default()).await;
    let publish = |topic: &[u8], rest: &[u8]| [&(topic.len() as u16).to_be_bytes()[..], topic, rest].concat();
    let faults: [(&str, u8, Vec<u8>); 12] = [
        ("a second CONNECT", 0x82, connect("edge-1")),
        ("quality 3", 0x81, packet(0x36, &publish(b"a", &[0, 1, 0]))),
        ("quality 2, which was not offered", 0x9b, packet(0x34, &publish(b"a", &[0, 1, 0]))),
        ("a duplicate of quality 0", 0x81, packet(0x38, &publish(b"a", &[0]))),
        ("packet number 0", 0x81, packet(0x32, &publish(b"a", &[0, 0, 0]))),
        ("a topic alias, which was not offered", 0x94, packet(0x30, &publish(b"", &[3, 35, 0, 1]))),
        ("retain, which was not offered", 0x9a, packet(0x31, &publish(b"v1/d/edge-1/up/batch", &[0]))),
        ("a property that goes on past the end", 0x81, packet(0x30, &publish(b"a", &[0x80]))),
        ("a length of five bytes", 0x81, vec![0x30, 0xff, 0xff, 0xff, 0xff, 1]),
        ("flags that SUBSCRIBE does not have", 0x81, packet(0x80, &[0, 1, 0, 0, 1, b'a', 0])),
        ("a SUBSCRIBE without a filter", 0x81, packet(0x82, &[0, 1, 0])),
        ("a subscription identifier, which was not offered", 0xa1, packet(0x82, &[0, 1, 2, 11, 5, 0, 1, b'a', 0])),
    ];
    for (fault, reason, bytes) in faults {
        let answer = hub.raw(Transport::Plain, &[connect("edge-1"), bytes].concat()).await;
        assert_eq!(told(&answer), Some(reason), "{fault}: {answer:x?}");
    }
    others_are_served(&mut hub, Transport::Plain).await;
}

#[tokio::test]
async fn topics_that_are_none_are_refused_and_harm_nobody() {
    let mut hub = hub(Limits::default()).await;
    let long = "x".repeat(65_535);
    let topics: [&[u8]; 7] =
        [b"", b"v1/d/+/up/batch", b"v1/d/#", b"v1/d/edge-1\0/up/batch", b"\xff\xfe", b"\xc3\xa9/x", long.as_bytes()];
    for topic in topics {
        let body = [&(topic.len() as u16).to_be_bytes()[..], topic, &[0, 7, 0]].concat();
        let bytes = [&connect("edge-1")[..], &packet(0x32, &body), &[0xe0, 0]].concat();
        let answer = hub.raw(Transport::Plain, &bytes).await;
        assert!(answer.windows(5).any(|ack| ack == [0x40, 4, 0, 7, 0x87]), "not authorised: {topic:?} {answer:x?}");
        // One who may publish everything may not publish there either.
        let bytes = [&connect("any-one")[..], &packet(0x32, &body), &[0xe0, 0]].concat();
        let answer = hub.raw(Transport::Plain, &bytes).await;
        let valid = std::str::from_utf8(topic).is_ok_and(|topic| topic.starts_with(['é', 'x']));
        let taken = answer.windows(4).any(|ack| ack == [0x40, 2, 0, 7]);
        assert_eq!(valid, taken, "{topic:?}");
        assert!(valid || told(&answer) == Some(0x90), "{answer:x?}");
    }
    assert_eq!(hub.counted(Refusal::Topic), 7 + 5);
    for filter in ["", "a#", "#/a", "+a", "\0", "$share/g", "$share//a"] {
        let bytes = [&connect("any-one")[..], &packet(0x82, &[&[0, 9, 0][..], &text(filter), &[1]].concat())].concat();
        let answer = hub.raw(Transport::Plain, &[&bytes[..], &[0xe0, 0]].concat()).await;
        let refused = answer.windows(5).any(|ack| ack[0] == 0x90 && ack[2..] == [0, 9, 0]) && answer.contains(&0x8f);
        assert!(refused, "{filter:?}: {answer:x?}");
    }
    others_are_served(&mut hub, Transport::Plain).await;
}

#[tokio::test]
async fn older_versions_are_told_so_in_their_own_words() {
    let hub = hub(Limits::default()).await;
    let version_4 = packet(0x10, &[&[0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 60][..], &text("edge-1")].concat());
    assert_eq!(hub.raw(Transport::Plain, &version_4).await, [0x20, 2, 0, 1]);
    assert_eq!(hub.counted(Refusal::Version), 1);
    let method = [21, 0, 5, b'S', b'C', b'R', b'A', b'M'];
    let body = [&[0, 4, b'M', b'Q', b'T', b'T', 5, 2, 0, 60, 8][..], &method, &text("edge-1")].concat();
    let answer = hub.raw(Transport::Plain, &packet(0x10, &body)).await;
    assert_eq!((answer[0], answer[3]), (0x20, 0x8c), "bad authentication method");
}

/// Large packets cost memory and time before anybody knows who sends them, and small parts of them many times that.
#[tokio::test]
async fn packets_are_not_larger_and_name_no_more_than_their_kind_needs() {
    let mut hub = hub(Limits::default()).await;
    let greeting =
        |id: &str| [&[0, 4, b'M', b'Q', b'T', b'T', 5, 2, 0, 60, 0][..], &text(id), &vec![0; 20_000]].concat();
    for (count, way) in (1..).zip(WAYS) {
        // Only what announces its length is here: the rest is not waited for.
        let bytes = packet(0x10, &greeting("edge-1"))[..40].to_vec();
        assert_eq!(told(&hub.raw(way, &bytes).await), Some(0x95));
        hub.until_counted(Refusal::TooLarge, count).await;
    }
    let filters = |count: usize| vec![[0, 1, b'#', 1]; count].concat();
    for who in ["edge-1", "any-one"] {
        let before = hub.counted(Refusal::TooLarge);
        let many = packet(0x82, &[&[0, 9, 0][..], &filters(300)].concat());
        assert_eq!(told(&hub.raw(Transport::Plain, &[connect(who), many].concat()).await), Some(0x97), "{who}");
        let huge = packet(0x82, &[&[0, 9, 0][..], &filters(30_000)].concat());
        let answer = hub.raw(Transport::Plain, &[connect(who), huge[..40].to_vec()].concat()).await;
        assert_eq!(told(&answer), Some(0x95), "{who}: {answer:x?}");
        assert_eq!(hub.counted(Refusal::TooLarge), before + 2);
    }
    assert_eq!(hub.counted(Refusal::Topic), 0, "none of them was looked at");
    // The longest filter there is can be asked for, and is refused for what it is.
    let long = packet(0x82, &[&[0, 9, 0][..], &text(&"x".repeat(65_535)), &[1]].concat());
    let answer = hub.raw(Transport::Plain, &[connect("edge-1"), long, vec![0xe0, 0]].concat()).await;
    assert!(answer.ends_with(&[0x90, 4, 0, 9, 0, 0x87]), "{answer:x?}");
    others_are_served(&mut hub, Transport::Plain).await;
}

/// What a device may not publish, and acknowledgements of nothing, come no faster than what it may.
#[tokio::test]
async fn what_comes_to_nothing_counts_all_the_same() {
    let mut hub = hub(Limits { messages_per_second: 40, ..Limits::default() }).await;
    let started = std::time::Instant::now();
    let acks = packet(0x40, &[0, 7]).repeat(80);
    hub.raw(Transport::Plain, &[&connect("edge-1")[..], &acks, &[0xe0, 0]].concat()).await;
    assert!(started.elapsed() >= Duration::from_millis(900), "80 at 40 per second, of which 40 at once");
    let filters = [0, 1, b'#', 1].repeat(80);
    let started = std::time::Instant::now();
    let asks = packet(0x82, &[&[0, 9, 0][..], &filters].concat());
    hub.raw(Transport::Plain, &[&connect("edge-1")[..], &asks, &[0xe0, 0]].concat()).await;
    assert!(started.elapsed() >= Duration::from_millis(900));
    others_are_served(&mut hub, Transport::Plain).await;
}
