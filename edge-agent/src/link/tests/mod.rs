//! The link against a hub made of bytes.

mod broker;
mod relay;
mod transports;

use std::sync::Arc;
use std::time::Duration;

use broker::{Broker, Heard};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tributary_process::clock::{Clock, SystemClock};
use tributary_process::config::HumanDuration;
use tributary_process::shutdown::Shutdown;
use tributary_wire::{
    Ack, AckV1, Batch, FeatureSnapshot, FeatureSnapshotV1, Incarnation, Micros, Report, ReportV1, SequenceNumber,
    SnapshotNumber, StreamAck, StreamName,
};

use super::{Condition, Link, LinkConfig, LinkStatus, Way};
use crate::testing::{Rig, Running, event};
use crate::update::Updates;
use crate::update::tests::{device_id, parts};

struct Device {
    running: Running,
    status: Arc<LinkStatus>,
    files: super::FileStreams,
    shutdown: Shutdown,
    tasks: Vec<JoinHandle<()>>,
    _rig: Rig,
}

impl Device {
    /// A device with some accepted events and a link to `hub`.
    fn start(runtime: &Runtime, hub: &str, events: u64) -> Self {
        Self::with(runtime, Way::Plain(hub.to_owned()), events, LinkConfig::default())
    }

    /// A device that reaches its hub so.
    fn with(runtime: &Runtime, way: Way, events: u64, config: LinkConfig) -> Self {
        let rig = Rig::new();
        let running = rig.start();
        running.submit((0..events).map(event).collect()).unwrap();
        let (status, shutdown) = (Arc::new(LinkStatus::default()), Shutdown::new());
        let nowhere = "http://127.0.0.1:9".parse().unwrap();
        let (updates, handle) = runtime.block_on(Updates::build(parts(&rig, &running, nowhere))).unwrap();
        let quick = |millis| HumanDuration(Duration::from_millis(millis));
        let files = super::FileStreams::default();
        let link = Link {
            files: files.clone(),
            orders: crate::orders::Handle::nobody(),
            device: device_id(),
            way,
            config: LinkConfig { reconnect: quick(5), reconnect_cap: quick(50), resend_after: quick(200), ..config },
            store: running.store.clone(),
            serving: running.serving.clone(),
            updates: handle,
            condition: Arc::new(Condition::default),
            status: status.clone(),
            clock: Arc::new(SystemClock::start()) as Arc<dyn Clock>,
            seed: 1,
        };
        let tasks =
            vec![runtime.spawn(super::run(link, shutdown.clone())), runtime.spawn(updates.run(shutdown.clone()))];
        Self { running, status, files, shutdown, tasks, _rig: rig }
    }

    fn outbox(&self) -> u64 {
        self.running.store.outbox_size().0
    }

    async fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        for _ in 0..2000 {
            if condition(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{what} never came: {:?}", self.status.view());
    }

    fn stop(self, runtime: &Runtime) {
        self.shutdown.give();
        for task in self.tasks {
            runtime.block_on(task).unwrap();
        }
        self.running.stop();
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

fn names(payload: &[u8]) -> (StreamName, Incarnation, SequenceNumber) {
    let (header, _) = Batch::decode(payload).unwrap();
    (header.stream, header.incarnation, header.sequence)
}

fn ack(batches: &[(StreamName, Incarnation, SequenceNumber)]) -> Vec<u8> {
    let streams = batches.iter().map(|(stream, incarnation, sequence)| StreamAck {
        stream: stream.clone(),
        incarnation: *incarnation,
        through: SequenceNumber(0),
        scattered: vec![*sequence],
        quarantined: Vec::new(),
        window: 8,
    });
    Ack::V1(AckV1 { streams: streams.collect() }).encode()
}

fn report(payload: &[u8]) -> ReportV1 {
    Report::decode(payload).unwrap().base().clone()
}

#[test]
fn a_connection_begins_with_subscription_and_report_and_only_the_hubs_ack_frees_the_outbox() {
    let runtime = runtime();
    let mut hub = runtime.block_on(Broker::bind("127.0.0.1:0"));
    let device = Device::start(&runtime, &hub.address, 64);
    runtime.block_on(async {
        assert_eq!(
            hub.next().await,
            Heard::Connected { client: "edge-1".into(), clean: true, over: "plain", serial: None }
        );
        assert_eq!(hub.next().await, Heard::Subscribed(vec!["v1/d/edge-1/down/#".into()]));
        let Heard::Published { topic, payload } = hub.next().await else { panic!("a report comes first") };
        assert_eq!(topic, "v1/d/edge-1/up/report");
        assert_eq!((report(&payload).number, report(&payload).lines.len()), (1, 1));
    });
    let waiting = device.outbox();
    assert!(waiting >= 8, "64 events in batches of 16, and as many observations: {waiting}");
    let first = runtime.block_on(hub.published("up/batch"));
    runtime.block_on(device.until("some batches", |device| device.status.view().sent >= waiting));
    assert_eq!(device.outbox(), waiting, "the broker has taken them all, and none is forgotten");

    hub.send("v1/d/edge-1/down/ack", &ack(&[names(&first)]));
    runtime.block_on(device.until("one freed", |device| device.outbox() == waiting - 1));
    // Whatever has no receipt comes again, until it has one.
    runtime.block_on(async {
        loop {
            tokio::select! {
                batch = hub.published("up/batch") => hub.send("v1/d/edge-1/down/ack", &ack(&[names(&batch)])),
                () = device.until("all freed", |device| device.outbox() == 0) => break,
            }
        }
    });
    runtime.block_on(device.until("all counted", |device| device.status.view().acknowledged == waiting));
    device.stop(&runtime);
}

#[test]
fn a_cut_connection_comes_back_begins_with_a_new_report_and_sends_again_what_has_no_receipt() {
    let runtime = runtime();
    let mut hub = runtime.block_on(Broker::bind("127.0.0.1:0"));
    let device = Device::start(&runtime, &hub.address, 32);
    let before = device.outbox();
    runtime.block_on(async {
        let number = report(&hub.published("up/report").await).number;
        let lost = names(&hub.published("up/batch").await);
        hub.cut();
        assert!(matches!(until_connected(&mut hub).await, Heard::Connected { .. }));
        let Heard::Subscribed(_) = hub.next().await else { panic!("a subscription comes first") };
        let Heard::Published { topic, payload } = hub.next().await else { panic!("then a report") };
        assert!(topic.ends_with("up/report"));
        assert!(report(&payload).number > number);
        loop {
            if names(&hub.published("up/batch").await) == lost {
                break;
            }
        }
    });
    assert_eq!(device.outbox(), before);
    assert!(device.status.view().connections >= 2);
    device.stop(&runtime);
}

async fn until_connected(hub: &mut Broker) -> Heard {
    loop {
        let heard = hub.next().await;
        if matches!(heard, Heard::Connected { .. }) {
            return heard;
        }
    }
}

#[test]
fn a_hub_that_comes_late_is_found() {
    let runtime = runtime();
    let hub = runtime.block_on(Broker::bind("127.0.0.1:0"));
    let address = hub.address.clone();
    drop(hub);
    let device = Device::start(&runtime, &address, 1);
    runtime.block_on(async {
        device.until("a failure", |device| device.status.view().error.is_some()).await;
        let mut hub = Broker::bind(&address).await;
        assert_eq!(report(&hub.published("up/report").await).generation.0, 0);
        device.until("a connection", |device| device.status.view().connected).await;
    });
    device.stop(&runtime);
}

#[test]
fn messages_that_cannot_be_read_are_counted_and_the_link_goes_on() {
    let runtime = runtime();
    let mut hub = runtime.block_on(Broker::bind("127.0.0.1:0"));
    let device = Device::start(&runtime, &hub.address, 16);
    runtime.block_on(async {
        hub.published("up/report").await;
        for (topic, payload) in [
            ("v1/d/edge-1/down/ack", b"nonsense".as_slice()),
            ("v1/d/edge-1/down/features", &[0xff; 100]),
            ("v1/d/edge-1/down/unheard-of", b""),
            ("v1/d/edge-2/down/ack", b""),
        ] {
            hub.send(topic, payload);
        }
        device.until("four ignored", |device| device.status.view().ignored == 4).await;
        let batch = names(&hub.published("up/batch").await);
        let before = device.outbox();
        hub.send("v1/d/edge-1/down/ack", &ack(&[batch]));
        device.until("one freed", |device| device.outbox() < before).await;
        assert_eq!(device.status.view().connections, 1);
    });
    device.stop(&runtime);
}

#[test]
fn a_feature_snapshot_in_parts_is_stored_and_served() {
    let runtime = runtime();
    let mut hub = runtime.block_on(Broker::bind("127.0.0.1:0"));
    let device = Device::start(&runtime, &hub.address, 1);
    let part = |part| {
        FeatureSnapshot::V1(FeatureSnapshotV1 {
            view: "test".into(),
            view_version: 1,
            number: SnapshotNumber(3),
            taken: Micros(7),
            lifetime: 1,
            part,
            parts: 2,
            entity: "customer_id".into(),
            features: Vec::new(),
            rows: Vec::new(),
        })
    };
    runtime.block_on(async {
        hub.published("up/report").await;
        hub.send("v1/d/edge-1/down/features", &part(1).encode());
        hub.send("v1/d/edge-1/down/features", &part(0).encode());
        let stored = |device: &Device| !device.running.store.blob_keys("fleet/test/").unwrap().is_empty();
        device.until("the snapshot", stored).await;
    });
    device.stop(&runtime);
}
