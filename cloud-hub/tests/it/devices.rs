//! Devices with a stock MQTT client in front of a whole hub.

use cloud_hub::{Config, Hub};
use hyper::Method;
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v5::Packet;
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, PublishOptions};
use tokio::time::timeout;
use tributary_wire::{
    Ack, Batch, BatchBody, BatchHeaderV1, BodyEncoding, ClockState, Column, Field, FieldType, Generation, Health,
    Incarnation, Micros, Report, ReportV1, Resources, Sensitivity, SequenceNumber, Stamp, StreamAck, StreamName,
};

use crate::support::{DEADLINE, TestHub};

pub struct Device {
    id: String,
    client: AsyncClient,
    events: EventLoop,
}

impl Device {
    pub fn new(hub: &TestHub, id: &str) -> Self {
        let options = MqttOptions::new(id, ("127.0.0.1", hub.hub.mqtt_addresses().plain.unwrap().port()));
        let (client, events) = AsyncClient::builder(options).capacity(64).build();
        Self { id: id.to_owned(), client, events }
    }

    /// Connects, listens to its topics, and waits until the hub has said yes.
    pub async fn connected(hub: &TestHub, id: &str) -> Self {
        let mut device = Self::new(hub, id);
        device.client.subscribe(format!("v1/d/{id}/down/#"), QoS::AtLeastOnce).await.unwrap();
        device.until(|packet| matches!(packet, Packet::SubAck(_)).then_some(())).await;
        device
    }

    pub async fn until<T>(&mut self, fits: impl Fn(&Packet) -> Option<T>) -> T {
        let wait = async {
            loop {
                if let Ok(Event::Incoming(packet)) = self.events.poll().await
                    && let Some(found) = fits(&packet)
                {
                    return found;
                }
            }
        };
        timeout(DEADLINE, wait).await.expect("the packet came")
    }

    /// Goes on with what the client has to do, for ever.
    pub async fn idle(&mut self) {
        loop {
            if self.events.poll().await.is_err() {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        }
    }

    pub async fn publish(&self, channel: &str, payload: Vec<u8>) {
        let topic = format!("v1/d/{}/up/{channel}", self.id);
        self.client.publish(topic, payload, PublishOptions::new(QoS::AtLeastOnce)).await.unwrap();
    }

    pub async fn acknowledged(&mut self, through: u64) -> StreamAck {
        self.until(|packet| {
            let Packet::Publish(publish) = packet else { return None };
            let Ok(Ack::V1(ack)) = Ack::decode(&publish.payload) else { return None };
            ack.streams.into_iter().find(|ack| ack.through.0 >= through)
        })
        .await
    }
}

fn stamp() -> Stamp {
    Stamp { boot: 1, monotonic: 1, wall: Micros(1), clock: ClockState::Synchronised }
}

pub fn batch(sequence: u64, ids: &[i64]) -> Vec<u8> {
    let field = |name: &str, kind| Field {
        name: name.into(),
        kind,
        unit: String::new(),
        nullable: false,
        sensitivity: Sensitivity::Keep,
    };
    let body = BatchBody::Records {
        schema: vec![field("accepted", FieldType::Int), field("event_time", FieldType::Time)],
        columns: vec![
            Column::Int(ids.iter().map(|id| Some(*id)).collect()),
            Column::Time(ids.iter().map(|id| Some(Micros(*id))).collect()),
        ],
    }
    .encode();
    let header = BatchHeaderV1 {
        incarnation: Incarnation(1),
        stream: StreamName::new("events").unwrap(),
        sequence: SequenceNumber(sequence),
        rows: ids.len() as u32,
        encoding: BodyEncoding::Plain,
        body_bytes: body.len() as u32,
        body_crc: 0,
        stamp: stamp(),
    };
    Batch::new(header, body).encode()
}

pub fn report(number: u64) -> Vec<u8> {
    report_of(1, number)
}

fn report_of(life: u32, number: u64) -> Vec<u8> {
    Report::V1(ReportV1 {
        number,
        incarnation: Incarnation(life),
        stamp: stamp(),
        reads: 1,
        agent: "0.1.0".into(),
        labels: vec![("site".into(), "lyon".into())],
        generation: Generation(0),
        asks: false,
        lines: Vec::new(),
        snapshot: None,
        health: Health { ok: true, ..Health::default() },
        resources: Resources { events: number, ..Resources::default() },
    })
    .encode()
}

fn rows(hub: &TestHub) -> usize {
    let stream = StreamName::new("events").unwrap();
    hub.hub.scan(&stream, 0..=0, None).unwrap().map(|records| records.unwrap().num_rows()).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_device_sends_is_acknowledged_stored_and_there_after_a_restart() {
    let hub = TestHub::start().await;
    let mut device = Device::connected(&hub, "edge-1").await;
    device.publish("report", report(2)).await;
    device.publish("report", report(1)).await;
    device.publish("batch", b"nonsense".to_vec()).await;
    for sequence in 1..=20 {
        device.publish("batch", batch(sequence, &[sequence as i64 * 2, sequence as i64 * 2 + 1])).await;
    }
    let ack = device.acknowledged(20).await;
    assert!(ack.window > 0 && ack.quarantined.is_empty());
    assert_eq!(rows(&hub), 40);
    let known = hub.until("/devices/edge-1", |device| device["report"]["number"] == 2).await;
    assert_eq!(known["connected"], true, "{known:#}");
    let kept = hub.until("/quarantine", |page| page["items"].as_array().is_some_and(|items| !items.is_empty())).await;
    assert_eq!(kept["items"][0]["reason"], "undecodable-header", "{kept:#}");
    let metrics = hub.send(Method::GET, "/metrics", "", "").await;
    assert!(String::from_utf8_lossy(&metrics.body).contains("hub_ingest_rows_total 40"), "{:?}", metrics.body);

    let folder = hub.stop().await;
    let hub = TestHub::start_in(folder, |_| {}).await;
    assert_eq!(rows(&hub), 40);
    let mut device = Device::connected(&hub, "edge-1").await;
    device.publish("batch", batch(20, &[40, 41])).await;
    device.acknowledged(20).await;
    assert_eq!((rows(&hub), hub.hub.ingest.status().duplicates), (40, 1));
    hub.stop().await;
}

/// A wiped device with a clock that is behind begins a life with a lower number; its former life, from a copy of the old
/// state, has the higher one and must not come in its place.
#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_device_whose_clock_is_behind_is_heard_and_its_former_life_is_not() {
    let hub = TestHub::start().await;
    let mut device = Device::connected(&hub, "edge-1").await;
    let runs =
        |device: &serde_json::Value| (device["report"]["incarnation"].as_u64(), device["report"]["number"].as_u64());
    device.publish("report", report_of(9, 5)).await;
    device.publish("report", report_of(3, 1)).await;
    tokio::select! {
        () = device.idle() => {}
        _ = hub.until("/devices/edge-1", |device| runs(device) == (Some(3), Some(1))) => {}
    }
    device.publish("report", report_of(9, 6)).await;
    let alert = tokio::select! {
        () = device.idle() => unreachable!(),
        page = hub.until("/alerts", |page| page["items"][0]["kind"] == "cloned-state") => page["items"][0].clone(),
    };
    assert_eq!((&alert["subject"], &alert["detail"]["incarnation"]), (&"edge-1".into(), &9.into()), "{alert:#}");
    hub.until("/devices/edge-1", |device| runs(device) == (Some(3), Some(1))).await;

    // What was over is over for a hub that starts anew, too.
    let hub = TestHub::start_in(hub.stop().await, |_| {}).await;
    let mut device = Device::connected(&hub, "edge-1").await;
    device.publish("report", report_of(9, 7)).await;
    device.publish("report", report_of(3, 2)).await;
    tokio::select! {
        () = device.idle() => {}
        _ = hub.until("/devices/edge-1", |device| runs(device) == (Some(3), Some(2))) => {}
    }
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_hub_in_the_same_folder_is_refused_until_the_first_has_ended() {
    let hub = TestHub::start().await;
    let mut config = Config { data_dir: hub.folder.path().join("hub"), ..Config::default() };
    config.api.listen = "127.0.0.1:0".parse().unwrap();
    (config.gateway.tls, config.gateway.quic) = (None, None);
    config.gateway.insecure_plain_on_loopback = Some("127.0.0.1:0".parse().unwrap());
    let refused = Hub::build(config).await.unwrap_err().to_string();
    assert!(refused.contains("another hub works in"), "{refused}");
    TestHub::start_in(hub.stop().await, |_| {}).await;
}
