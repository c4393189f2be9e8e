//! What a device and an integration may do, and that everything else is refused.

use cloud_hub_gateway::{Event, Gateway, Limits, Refusal, SendError, Transport};
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v5::{Packet, PubAckReason, SubscribeReasonCode};
use tokio::time::timeout;
use tributary_wire::DeviceId;
use tributary_wire::topic::Channel;

use crate::support::{PATIENCE, WAYS, connect, ending, hub, once, packet, plain, pub_ack, sub_ack, text, until};

#[tokio::test]
async fn a_device_speaks_on_its_own_topics_only() {
    let mut hub = hub(Limits::default()).await;
    let (client, mut events) = hub.client(Transport::Plain, "edge-1");
    client.publish("v1/d/edge-2/up/batch", "not mine", once()).await.unwrap();
    assert_eq!(pub_ack(&mut events).await, PubAckReason::NotAuthorized);
    for topic in ["v1/d/edge-1/down/ack", "v1/d/edge-1/up/else", "v1/hub/alerts"] {
        client.publish(topic, "not allowed", once()).await.unwrap();
        assert_eq!(pub_ack(&mut events).await, PubAckReason::NotAuthorized, "{topic}");
    }
    client.publish("v1/d/edge-1/up/batch", "mine", once()).await.unwrap();
    assert_eq!(pub_ack(&mut events).await, PubAckReason::Success);
    let message = timeout(PATIENCE, hub.up.recv()).await.unwrap().unwrap();
    assert_eq!((message.device.as_str(), message.channel), ("edge-1", Channel::Batch));
    assert_eq!(&message.payload[..], b"mine");
    assert_eq!(hub.counted(Refusal::Topic), 4);
}

#[tokio::test]
async fn a_device_listens_to_its_own_topics_only_and_gets_what_is_sent_down() {
    let mut hub = hub(Limits::default()).await;
    let device = DeviceId::new("edge-1").unwrap();
    assert_eq!(hub.connections.send(&device, Channel::Ack, "early"), Err(SendError::NotConnected));
    let (client, mut events) = hub.client(Transport::Plain, "edge-1");
    for filter in ["v1/d/edge-2/down/#", "v1/d/#", "#", "v1/d/edge-1/down/ack"] {
        client.subscribe(filter, QoS::AtLeastOnce).await.unwrap();
        assert_eq!(sub_ack(&mut events).await, [SubscribeReasonCode::NotAuthorized], "{filter}");
    }
    client.subscribe("v1/d/edge-1/down/#", QoS::AtLeastOnce).await.unwrap();
    assert!(matches!(sub_ack(&mut events).await[..], [SubscribeReasonCode::Success(QoS::AtLeastOnce)]));
    assert_eq!(
        timeout(PATIENCE, hub.events.recv()).await.unwrap(),
        Some(Event::Connected(device.clone(), Transport::Plain))
    );
    assert_eq!(hub.connections.connected(), std::slice::from_ref(&device));
    for number in 0..300_u16 {
        // More than a queue holds, so some wait for the device to take the earlier ones.
        while hub.connections.send(&device, Channel::Ack, number.to_be_bytes().to_vec()) == Err(SendError::Full) {
            until(&mut events, |packet| matches!(packet, Packet::Publish(_)).then_some(())).await;
        }
    }
    let last = 299_u16.to_be_bytes();
    until(&mut events, |packet| match packet {
        Packet::Publish(publish) if publish.payload[..] == last => Some(()),
        _ => None,
    })
    .await;
}

#[tokio::test]
async fn a_second_connection_with_the_same_id_takes_over_and_is_told_of() {
    let mut hub = hub(Limits::default()).await;
    let (first, mut first_events) = hub.client(Transport::Plain, "edge-1");
    first.publish("v1/d/edge-1/up/report", "1", once()).await.unwrap();
    pub_ack(&mut first_events).await;
    let (second, mut second_events) = hub.client(Transport::Plain, "edge-1");
    second.publish("v1/d/edge-1/up/report", "2", once()).await.unwrap();
    pub_ack(&mut second_events).await;
    let device = DeviceId::new("edge-1").unwrap();
    assert_eq!(timeout(PATIENCE, hub.events.recv()).await.unwrap(), Some(Event::TakenOver(device.clone())));
    let ended = ending(&mut first_events).await;
    assert!(ended.contains("SessionTakenOver") && ended.contains("took over"), "the client reads why: {ended}");
    assert!(hub.connections.is_connected(&device));
}

#[tokio::test]
async fn integrations_follow_the_hub_and_may_not_speak() {
    let hub = hub(Limits::default()).await;
    let (app, mut events) = hub.client(Transport::Plain, "app-pager");
    app.subscribe("v1/d/edge-1/down/#", QoS::AtLeastOnce).await.unwrap();
    assert_eq!(sub_ack(&mut events).await, [SubscribeReasonCode::NotAuthorized]);
    app.publish("v1/hub/alerts", "forged", once()).await.unwrap();
    assert_eq!(pub_ack(&mut events).await, PubAckReason::NotAuthorized);
    app.subscribe("v1/hub/#", QoS::AtLeastOnce).await.unwrap();
    sub_ack(&mut events).await;
    hub.connections.publish_hub("alerts", "drift");
    let payload = until(&mut events, |packet| match packet {
        Packet::Publish(publish) if publish.topic == "v1/hub/alerts" => Some(publish.payload.clone()),
        _ => None,
    })
    .await;
    assert_eq!(&payload[..], b"drift");
}

#[tokio::test]
async fn refused_devices_are_told_why() {
    let hub = hub(Limits::default()).await;
    let answer = hub.raw(Transport::Plain, &connect("stranger")).await;
    assert_eq!((answer[0], answer[3]), (0x20, 0x87), "CONNACK, not authorised");
    assert!(String::from_utf8_lossy(&answer).contains("device stranger is not known"));
    let answer = hub.raw(Transport::Plain, &connect("No Device")).await;
    assert_eq!((answer[0], answer[3]), (0x20, 0x85), "CONNACK, client identifier not valid");
    assert!(String::from_utf8_lossy(&answer).contains("does not match"));
}

#[tokio::test]
async fn plain_mqtt_is_refused_beyond_loopback() {
    let error = Gateway::bind(&plain("0.0.0.0:0"), Limits::default(), None).await.unwrap_err();
    assert!(error.to_string().contains("loopback only"), "{error}");
}

/// One device in every way at another's topics: it is told, and nothing arrives.
#[tokio::test]
async fn a_device_gets_nowhere_on_others_topics() {
    for way in WAYS {
        let mut hub = hub(Limits::default()).await;
        let victim = DeviceId::new("edge-2").unwrap();
        let (listener, mut listening) = hub.client(way, "edge-2");
        listener.subscribe("v1/d/edge-2/down/#", QoS::AtLeastOnce).await.unwrap();
        sub_ack(&mut listening).await;
        let up = text("v1/d/edge-2/up/batch");
        let down = text("v1/d/edge-2/down/command");
        let mut bytes = connect("edge-1");
        let mut refused = 0;
        for topic in [&up, &down, &text("v1/hub/alerts"), &text("$SYS/x")] {
            bytes.extend(packet(0x30, &[topic, &[0][..], b"forged"].concat()));
            bytes.extend(packet(0x32, &[topic, &[0, 1, 0][..], b"forged"].concat()));
            // Again, as a duplicate.
            bytes.extend(packet(0x3a, &[topic, &[0, 1, 0][..], b"forged"].concat()));
            refused += 3;
        }
        let filters = ["v1/d/edge-2/down/#", "v1/d/+/down/#", "#", "+/#", "$share/g/v1/d/edge-2/down/#", "v1/hub/#"];
        for filter in filters {
            bytes.extend(packet(0x82, &[&[0, 2, 0][..], &text(filter), &[1]].concat()));
            bytes.extend(packet(0xa2, &[&[0, 3, 0][..], &text(filter)].concat()));
            refused += 2;
        }
        bytes.extend([0xc0, 0]);
        bytes.extend([0xe0, 0]);
        let answer = hub.raw(way, &bytes).await;
        let count = |wanted: &[u8]| answer.windows(wanted.len()).filter(|bytes| *bytes == wanted).count();
        assert_eq!(count(&[0x40, 4, 0, 1, 0x87, 0]), 8, "PUBACK: {answer:x?}");
        assert_eq!(count(&[0x90, 4, 0, 2, 0, 0x87]), 6, "SUBACK");
        assert_eq!(count(&[0xb0, 4, 0, 3, 0, 0x87]), 6, "UNSUBACK");
        assert_eq!(count(&[0xd0, 0]), 1, "and it may go on");
        assert_eq!(hub.counted(Refusal::Topic), refused);
        let will = [&[0, 4, b'M', b'Q', b'T', b'T', 5, 6, 0, 60, 0][..], &text("edge-1"), &[0], &down, &text("forged")];
        let answer = hub.raw(way, &packet(0x10, &will.concat())).await;
        assert_eq!((answer[0], answer[3]), (0x20, 0x87), "CONNACK of a will");
        // An alias for a topic, and quality 2, were not offered: they end the connection.
        for (reason, bytes) in [
            (0x94, packet(0x32, &[&up[..], &[0, 1, 3, 35, 0, 1]].concat())),
            (0x9b, packet(0x34, &[&up[..], &[0, 1, 0]].concat())),
        ] {
            let answer = hub.raw(way, &[connect("edge-1"), bytes].concat()).await;
            let end = answer[2 + usize::from(answer[1])..].to_vec();
            assert_eq!((end[0], end[2]), (0xe0, reason));
        }
        assert!(hub.up.try_recv().is_err(), "nothing went up");
        hub.connections.send(&victim, Channel::Ack, "true").unwrap();
        let first = until(&mut listening, |packet| match packet {
            Packet::Publish(publish) => Some(publish.payload.clone()),
            _ => None,
        });
        assert_eq!(&first.await[..], b"true", "nothing came down before");
        assert!(hub.connections.is_connected(&victim));
    }
}

/// A revocation between the admission and the place in the table finds no connection to close; the door is asked again.
#[tokio::test]
async fn what_is_revoked_while_it_comes_in_does_not_come_in() {
    let mut hub = hub(Limits::default()).await;
    let device = DeviceId::new("edge-1").unwrap();
    hub.door.late.lock().unwrap().insert(device.clone());
    for (count, way) in (1..).zip(WAYS) {
        let report = packet(0x32, &[&text("v1/d/edge-1/up/report")[..], &[0, 1, 0]].concat());
        let answer = hub.raw(way, &[connect("edge-1"), report].concat()).await;
        assert_eq!((answer[0], answer[3]), (0x20, 0x87), "CONNACK, not authorised, and nothing else: {answer:x?}");
        let whose = if way == Transport::Plain { "None" } else { "Some(\"edge-1\")" };
        assert!(String::from_utf8_lossy(&answer).contains(whose), "{answer:x?}");
        assert_eq!(hub.counted(Refusal::Revoked), count);
        assert!(!hub.connections.is_connected(&device));
    }
    assert!(hub.up.try_recv().is_err());
    hub.door.late.lock().unwrap().clear();
    let (client, mut events) = hub.client(Transport::Tls, "edge-1");
    client.publish("v1/d/edge-1/up/report", "1", once()).await.unwrap();
    assert_eq!(pub_ack(&mut events).await, PubAckReason::Success);
}
