//! From a lake to snapshots, over a restart.

use std::path::Path;

use cloud_hub_lake::columns::to_records;
use cloud_hub_lake::{BatchKey, Portion, StreamSchema};
use tributary_features::{EntityKey, FleetTable, FleetWindows, Marks, Row};
use tributary_fraud::{Generator, GeneratorConfig, Transaction, VIEW_TOML};
use tributary_process::disk::RealDisk;
use tributary_wire::{Column, Field, Incarnation, Sensitivity, SequenceNumber, Sha256};

use super::*;

const KEEP: Duration = Duration::from_secs(400 * 86_400);

struct World {
    lake: Lake,
    view: View,
    snapshots: Snapshots,
    number: i64,
}

impl World {
    fn new(folder: &Path) -> Self {
        let lake = Lake::open(Arc::new(RealDisk), folder.join("lake")).unwrap();
        let snapshots = Snapshots::new(folder.join("snapshots"));
        Self { lake, view: View::from_toml(VIEW_TOML).unwrap(), snapshots, number: 0 }
    }

    fn start(&self) -> Following {
        Following::start(self.view.clone(), &self.lake, &self.snapshots).unwrap()
    }

    fn store(&mut self, stream: &'static str, columns: Vec<(&str, Column)>) {
        let field = |(name, column): &(&str, Column)| Field {
            name: (*name).into(),
            kind: column.kind(),
            unit: String::new(),
            nullable: true,
            sensitivity: Sensitivity::Keep,
        };
        let fields: Vec<_> = columns.iter().map(field).collect();
        let schema = StreamSchema { columns: StreamSchema::default().additions(&fields).unwrap() };
        let stream = stream_name(stream);
        self.lake.set_schema(&stream, schema.clone());
        let key = BatchKey {
            device: DeviceId::new("edge-1").unwrap(),
            incarnation: Incarnation(1),
            stream: stream.clone(),
            sequence: SequenceNumber(1),
        };
        let columns = columns.into_iter().map(|(_, column)| column).collect();
        let records = to_records(&key, Micros(0), &fields, columns).unwrap();
        let portion = Portion { key, hash: Sha256([0; 32]), ingest_time: Micros(0), records };
        for written in self.lake.write(&stream, &schema, &[portion], Vec::new()).unwrap() {
            self.number += 1;
            self.lake.register([FileEntry { number: self.number, ..written.entry }]);
        }
    }

    fn payments(&mut self, payments: &[Transaction]) {
        fn all<T>(payments: &[Transaction], value: impl Fn(&Transaction) -> T) -> Vec<Option<T>> {
            payments.iter().map(|payment| Some(value(payment))).collect()
        }
        let id = |payment: &Transaction| payment.event_id().as_str().to_owned();
        let columns = vec![
            ("accepted", Column::Int(all(payments, |payment| payment.id))),
            ("event_id", Column::Text(all(payments, id))),
            ("event_time", Column::Time(all(payments, |payment| payment.time))),
            ("customer_id", Column::Int(all(payments, |payment| payment.customer_id))),
            ("terminal_id", Column::Int(all(payments, |payment| payment.terminal_id))),
            ("amount", Column::Double(all(payments, |payment| payment.amount))),
        ];
        self.store("events", columns);
        let columns = vec![
            ("event_id", Column::Text(all(payments, id))),
            ("label", Column::Bool(all(payments, |payment| payment.fraud))),
            ("known_at", Column::Time(all(payments, |payment| payment.label_known_at(7 * Micros::DAY)))),
        ];
        self.store("labels", columns);
    }

    /// What windows over all of `payments` give for a terminal at an instant.
    fn expected(&self, payments: &[Transaction], row: &Row) -> Vec<f32> {
        let mut windows = FleetWindows::new(&self.view);
        for payment in payments {
            windows.observe(&payment.event_id(), &payment.to_row());
            windows.label(&payment.event_id(), payment.label_known_at(7 * Micros::DAY), payment.fraud);
        }
        let mut out = vec![0.0; 15];
        windows.fill_at(row, &mut out);
        out
    }
}

#[test]
fn snapshots_hold_the_lake_s_events_and_labels_and_go_on_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let mut world = World::new(folder.path());
    let config = GeneratorConfig { customers: 30, terminals: 6, days: 55, ..GeneratorConfig::default() };
    let payments: Vec<_> = Generator::new(config).collect();
    let mut following = world.start();
    assert!(
        !following.step(&world.lake, &world.snapshots, KEEP, Floor::default()).unwrap(),
        "an empty lake gives no snapshot"
    );
    let (early, late) = payments.split_at(payments.len() * 4 / 5);
    for part in early.chunks(early.len() / 4 + 1) {
        world.payments(part);
        assert!(following.step(&world.lake, &world.snapshots, KEEP, Floor::default()).unwrap());
        assert!(!following.step(&world.lake, &world.snapshots, KEEP, Floor::default()).unwrap(), "nothing new");
    }
    // The hub stops here; a new one reads only files that still matter.
    let mut following = world.start();
    let (number, sent) = following.newest.clone().unwrap();
    assert_eq!((number, sent.len()), (SnapshotNumber(4), 1));
    assert!(following.events > 0, "files out of reach are not read again");
    world.payments(late);
    assert!(following.step(&world.lake, &world.snapshots, KEEP, Floor::default()).unwrap());
    let (number, sent) = following.newest.clone().unwrap();
    assert_eq!(number, SnapshotNumber(5));

    let FeatureSnapshot::V1(part) = FeatureSnapshot::decode(&sent[0]).unwrap();
    assert_eq!(Some(vec![part.clone()]), world.snapshots.parts(&world.view, number).unwrap());
    let taken = part.taken;
    assert!(payments.last().unwrap().time.since(taken) < 12 * Micros::HOUR);
    let mut table = FleetTable::new(&world.view);
    table.offer(part).unwrap();
    let mut shares = 0;
    for terminal in 0..6 {
        let row =
            Row { time: taken, entities: vec![EntityKey::Int(0), EntityKey::Int(terminal)], values: vec![Some(0.0)] };
        let mut out = vec![0.0; 15];
        assert_eq!(table.fill(&row, &mut out), Marks::NONE);
        assert_eq!(out, world.expected(&payments, &row), "terminal {terminal}");
        shares += out.iter().filter(|value| **value > 0.0 && **value < 1.0).count();
    }
    assert!(shares > 0, "some terminal had a fraud");
}

#[test]
fn events_of_another_view_in_the_stream_do_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    let mut world = World::new(folder.path());
    let times = vec![Some(Micros(Micros::DAY))];
    let columns = vec![
        ("accepted", Column::Int(vec![Some(1)])),
        ("event_id", Column::Text(vec![Some("other".into())])),
        ("event_time", Column::Time(times)),
        ("machine", Column::Text(vec![Some("m1".into())])),
    ];
    world.store("events", columns);
    let mut following = world.start();
    assert!(!following.step(&world.lake, &world.snapshots, KEEP, Floor::default()).unwrap());
    assert_eq!(following.events, 1, "the file was passed over");
}
