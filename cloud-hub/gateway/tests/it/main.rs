//! The acceptor in front of a stock MQTT 5 client and of peers that do not keep to the protocol.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use cloud_hub_gateway::{
    Admission, Connections, Event, FollowsHub, Gateway, Limits, Listeners, Peer, Refusal, Refused, Rights, SendError,
    Transport, Upward,
};
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v5::{Packet, PubAckReason, SubscribeReasonCode};
use rumqttc::{AsyncClient, EventLoop, MqttOptions, PublishOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tributary_process::shutdown::Shutdown;
use tributary_wire::DeviceId;
use tributary_wire::topic::Channel;

const PATIENCE: Duration = Duration::from_secs(20);

struct Hub {
    address: std::net::SocketAddr,
    connections: Connections,
    up: mpsc::Receiver<Upward>,
    events: mpsc::Receiver<Event>,
    shutdown: Shutdown,
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.shutdown.give();
    }
}

/// Lets everybody in but `stranger`.
struct Door;

impl Admission for Door {
    fn admit<'a>(&'a self, peer: Peer<'a>) -> Pin<Box<dyn Future<Output = Result<Rights, Refused>> + Send + 'a>> {
        let refused = |refusal, reason: String| Err(Refused { refusal, reason });
        let answer = match DeviceId::new(peer.client_id) {
            _ if peer.client_id.starts_with("app-") => Ok(Rights::Client(Arc::new(FollowsHub))),
            Ok(device) if device.as_str() == "stranger" => {
                refused(Refusal::NotAdmitted, "device stranger is not known".into())
            }
            Ok(device) => Ok(Rights::Device(device)),
            Err(error) => refused(Refusal::ClientId, error.to_string()),
        };
        Box::pin(std::future::ready(answer))
    }
}

fn plain(address: &str) -> Listeners {
    Listeners { insecure_plain_on_loopback: Some(address.parse().unwrap()), ..Listeners::default() }
}

async fn hub(limits: Limits) -> Hub {
    let gateway = Gateway::bind(&plain("127.0.0.1:0"), limits, None).await.unwrap();
    let (address, connections) = (gateway.addresses().plain.unwrap(), gateway.connections());
    let (up_sender, up) = mpsc::channel(8);
    let (event_sender, events) = mpsc::channel(8);
    let shutdown = Shutdown::new();
    tokio::spawn(gateway.run(Arc::new(Door), up_sender, event_sender, shutdown.clone()));
    Hub { address, connections, up, events, shutdown }
}

fn client(hub: &Hub, id: &str) -> (AsyncClient, EventLoop) {
    let mut options = MqttOptions::new(id, ("127.0.0.1", hub.address.port()));
    options.set_keep_alive(30);
    AsyncClient::builder(options).capacity(16).build()
}

/// Polls until a packet fits.
async fn until<T>(events: &mut EventLoop, fits: impl Fn(&Packet) -> Option<T>) -> T {
    let wait = async {
        loop {
            if let Ok(rumqttc::Event::Incoming(packet)) = events.poll().await
                && let Some(found) = fits(&packet)
            {
                return found;
            }
        }
    };
    timeout(PATIENCE, wait).await.expect("the packet came")
}

async fn pub_ack(events: &mut EventLoop) -> PubAckReason {
    until(events, |packet| match packet {
        Packet::PubAck(ack) => Some(ack.reason),
        _ => None,
    })
    .await
}

async fn sub_ack(events: &mut EventLoop) -> Vec<SubscribeReasonCode> {
    until(events, |packet| match packet {
        Packet::SubAck(ack) => Some(ack.return_codes.clone()),
        _ => None,
    })
    .await
}

fn once() -> PublishOptions {
    PublishOptions::new(QoS::AtLeastOnce)
}

#[tokio::test]
async fn a_device_speaks_on_its_own_topics_only() {
    let mut hub = hub(Limits::default()).await;
    let (client, mut events) = client(&hub, "edge-1");
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
    assert_eq!(hub.connections.tally().of(Refusal::Topic), 4);
}

#[tokio::test]
async fn a_device_listens_to_its_own_topics_only_and_gets_what_is_sent_down() {
    let mut hub = hub(Limits::default()).await;
    let device = DeviceId::new("edge-1").unwrap();
    assert_eq!(hub.connections.send(&device, Channel::Ack, "early"), Err(SendError::NotConnected));
    let (client, mut events) = client(&hub, "edge-1");
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
    let (first, mut first_events) = client(&hub, "edge-1");
    first.publish("v1/d/edge-1/up/report", "1", once()).await.unwrap();
    pub_ack(&mut first_events).await;
    let (second, mut second_events) = client(&hub, "edge-1");
    second.publish("v1/d/edge-1/up/report", "2", once()).await.unwrap();
    pub_ack(&mut second_events).await;
    let device = DeviceId::new("edge-1").unwrap();
    assert_eq!(timeout(PATIENCE, hub.events.recv()).await.unwrap(), Some(Event::TakenOver(device.clone())));
    let ending = async {
        loop {
            if let Err(error) = first_events.poll().await {
                return format!("{error:?}");
            }
        }
    };
    let ended = timeout(PATIENCE, ending).await.expect("the first connection is ended");
    assert!(ended.contains("SessionTakenOver") && ended.contains("took over"), "the client reads why: {ended}");
    assert!(hub.connections.is_connected(&device));
}

#[tokio::test]
async fn integrations_follow_the_hub_and_may_not_speak() {
    let hub = hub(Limits::default()).await;
    let (app, mut events) = client(&hub, "app-pager");
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

/// Sends raw bytes and reads until the hub closes the connection.
async fn raw(hub: &Hub, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(hub.address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the hub closed the connection");
    answer
}

fn connect(id: &str) -> Vec<u8> {
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 5, 2, 0, 60, 0, 0, id.len() as u8];
    body.extend_from_slice(id.as_bytes());
    [vec![0x10, body.len() as u8], body].concat()
}

#[tokio::test]
async fn peers_that_break_the_protocol_are_cut_off_and_counted() {
    let hub = hub(Limits { handshake: Duration::from_millis(200), packet_bytes: 1000, ..Limits::default() }).await;
    let counted = |refusal| hub.connections.tally().of(refusal);
    raw(&hub, b"GET / HTTP/1.1\r\n\r\n").await;
    raw(&hub, &[0x20, 3, 0, 0, 0]).await;
    raw(&hub, &[connect("edge-1"), vec![0x20, 3, 0, 0, 0]].concat()).await;
    assert_eq!(counted(Refusal::Protocol), 3);
    raw(&hub, &[connect("edge-1"), vec![0x30, 0xff, 0xff, 0x7f]].concat()).await;
    assert_eq!(counted(Refusal::TooLarge), 1);
    raw(&hub, b"").await;
    raw(&hub, &connect("edge-1")[..5]).await;
    assert_eq!(counted(Refusal::HandshakeTimeout), 2);
}

#[tokio::test]
async fn refused_devices_are_told_why() {
    let hub = hub(Limits::default()).await;
    let answer = raw(&hub, &connect("stranger")).await;
    assert_eq!((answer[0], answer[3]), (0x20, 0x87), "CONNACK, not authorised");
    assert!(String::from_utf8_lossy(&answer).contains("device stranger is not known"));
    let answer = raw(&hub, &connect("No Device")).await;
    assert_eq!((answer[0], answer[3]), (0x20, 0x85), "CONNACK, client identifier not valid");
    assert!(String::from_utf8_lossy(&answer).contains("does not match"));
}

#[tokio::test]
async fn plain_mqtt_is_refused_beyond_loopback() {
    let error = Gateway::bind(&plain("0.0.0.0:0"), Limits::default(), None).await.unwrap_err();
    assert!(error.to_string().contains("loopback only"), "{error}");
}
