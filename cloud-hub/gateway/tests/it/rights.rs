//! What a device and an integration may do, and that everything else is refused.

use cloud_hub_gateway::{Event, Gateway, Limits, Refusal, SendError, Transport};
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v5::{Packet, PubAckReason, SubscribeReasonCode};
use tokio::time::timeout;
use tributary_wire::DeviceId;
use tributary_wire::topic::Channel;

use crate::support::{PATIENCE, connect, ending, hub, once, plain, pub_ack, sub_ack, until};

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
