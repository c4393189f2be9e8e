//! Datasets from a small fleet that serves for real: its own windows, its own snapshots.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Float32Type, TimestampMicrosecondType};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tributary_features::{DeviceWindows, EntityKey, EventId, FleetTable, FleetWindows, Marks, Row, View};
use tributary_process::disk::{RealDisk, SimDisk};
use tributary_wire::{
    Column, DeviceId, FeatureSnapshotV1, Field, Incarnation, Micros, Sensitivity, SequenceNumber, Sha256,
    SnapshotNumber, StreamName,
};

use super::{Dataset, DatasetError, DatasetSpec};
use crate::columns::to_records;
use crate::{BatchKey, FileEntry, Lake, Portion, StreamSchema};

mod sampled;

const VIEW: &str = r#"
name = "small"
version = 1
lateness = "2h"
label_delay = "6h"
[fleet]
cadence = "12h"
lifetime = "2d"
[[entity]]
name = "customer"
kind = "int"
[[entity]]
name = "place"
kind = "text"
[[value]]
name = "amount"
kind = "double"
required = true
[[value]]
name = "online"
kind = "bool"
[[feature]]
name = "amount"
kind = "value"
value = "amount"
[[feature]]
name = "online"
kind = "value"
value = "online"
default = -1.0
[[feature]]
name = "customer_mean_1d"
kind = "mean"
scope = "device"
entity = "customer"
value = "amount"
window = "1d"
[[feature]]
name = "place_count_1d"
kind = "count"
scope = "fleet"
entity = "place"
window = "1d"
delay = "6h"
default = 3.0
[[feature]]
name = "place_share_1d"
kind = "label_share"
scope = "fleet"
entity = "place"
window = "1d"
delay = "6h"
"#;

const HOUR: i64 = Micros::HOUR;
const EVENTS: usize = 600;

/// What a device stored for one event.
#[derive(Clone)]
struct Served {
    event: usize,
    device: &'static str,
    incarnation: u32,
    accepted: i64,
    row: Row,
    snapshot: Option<SnapshotNumber>,
    features: Vec<f32>,
    marks: Marks,
}

/// A fleet of two devices over five days. Events run an hour late at times; `edge-2` loses its state in the middle.
struct Fleet {
    view: View,
    served: Vec<Served>,
    labels: Vec<(usize, bool, Micros)>,
    snapshots: HashMap<SnapshotNumber, Vec<FeatureSnapshotV1>>,
}

fn id(event: usize) -> EventId {
    EventId::new(&format!("e{event}")).unwrap()
}

impl Fleet {
    fn run() -> Self {
        let view = View::from_toml(VIEW).unwrap();
        let mut fleet = Self { view, served: Vec::new(), labels: Vec::new(), snapshots: HashMap::new() };
        let view = fleet.view.clone();
        let mut hub = FleetWindows::new(&view);
        let mut table = FleetTable::new(&view);
        let mut windows = [DeviceWindows::new(&view), DeviceWindows::new(&view)];
        let mut next_snapshot = 12 * HOUR;
        for event in 0..EVENTS {
            // Scattered without a generator: squares modulo a prime.
            let chance = (event * event * 31 + event * 7) % 1009;
            let time = event as i64 * HOUR / 5 - if chance % 7 == 0 { HOUR } else { 0 };
            if time >= next_snapshot {
                let number = SnapshotNumber((next_snapshot / (12 * HOUR)) as u64);
                let parts = hub.values_at(Micros(next_snapshot)).into_parts(&view, number, 200);
                parts.iter().for_each(|part| assert!(table.offer(part.clone()).is_ok()));
                fleet.snapshots.insert(number, parts);
                next_snapshot += 12 * HOUR;
            }
            let at = chance % 2;
            if event == EVENTS / 2 {
                windows[1] = DeviceWindows::new(&view);
            }
            let place = EntityKey::Text(["north", "south", "west"][chance % 3].to_owned());
            let online = [None, Some(0.0), Some(1.0)][event % 3];
            let values = vec![Some(chance as f64 / 10.0), online];
            let row = Row { time: Micros(time), entities: vec![EntityKey::Int((chance % 10) as i64), place], values };
            let mut features = vec![0.0; view.features().len()];
            let marks = windows[at].observe(&row, &mut features) | table.fill(&row, &mut features);
            hub.observe(&id(event), &row);
            if event % 4 != 0 {
                let known_at = Micros(time + 6 * HOUR + chance as i64);
                let label = chance % 5 == 0;
                hub.label(&id(event), known_at, label);
                fleet.labels.push((event, label, known_at));
            }
            fleet.served.push(Served {
                event,
                device: ["edge-1", "edge-2"][at],
                incarnation: if at == 1 && event >= EVENTS / 2 { 2 } else { 1 },
                accepted: event as i64,
                row,
                snapshot: table.number(),
                features,
                marks,
            });
        }
        fleet
    }

    fn lake(&self) -> Lake {
        self.lake_of(|_| (Some(1.0), Some(1.0)))
    }

    /// A lake in which an event and its observations have the given probabilities, or were never sent.
    fn lake_of(&self, sent: impl Fn(&Served) -> (Option<f64>, Option<f64>)) -> Lake {
        let lake = Lake::open(Arc::new(SimDisk::new()), "/lake").unwrap();
        let mut number = 0;
        // Batches of fifty records reach the hub in another order than they were made.
        let mut batches: Vec<_> = self.served.chunks(50).enumerate().collect();
        batches.reverse();
        for (batch, served) in batches {
            for device in ["edge-1", "edge-2"] {
                let own: Vec<_> = served.iter().filter(|served| served.device == device).collect();
                for incarnation in 1..=2 {
                    let own: Vec<_> = own.iter().copied().filter(|s| s.incarnation == incarnation).collect();
                    let of = |probability: &dyn Fn(&Served) -> Option<f64>| -> Vec<(&Served, f64)> {
                        own.iter().filter_map(|served| Some((*served, probability(served)?))).collect()
                    };
                    let (events, observations) = (of(&|served| sent(served).0), of(&|served| sent(served).1));
                    if !events.is_empty() {
                        store(&lake, "events", device, incarnation, batch, event_columns(&events), &mut number);
                    }
                    if !observations.is_empty() {
                        let observations = observation_columns(&observations, &self.view);
                        store(&lake, "observations", device, incarnation, batch, observations, &mut number);
                    }
                }
            }
        }
        store(&lake, "labels", "hub", 1, 1, label_columns(&self.labels), &mut number);
        lake
    }

    fn spec(&self) -> DatasetSpec {
        let (from, to) = (Micros(6 * HOUR), Micros(108 * HOUR));
        let (view, label_delay) = (self.view.clone(), self.view.label_delay());
        DatasetSpec { view, from, to, label_delay, labels_until: None, line: None }
    }

    fn build(&self) -> Dataset {
        Dataset::build(&self.lake(), self.spec(), &|number| Ok(self.snapshots.get(&number).cloned())).unwrap()
    }

    fn row(&self, dataset: &Dataset, row: usize) -> &Served {
        let event: usize = dataset.rows()[row].event_id[1..].parse().unwrap();
        &self.served[event]
    }
}

type Columns = Vec<(&'static str, Column)>;

fn store(lake: &Lake, stream: &str, device: &str, incarnation: u32, batch: usize, columns: Columns, number: &mut i64) {
    let stream = StreamName::new(stream).unwrap();
    let field = |(name, column): &(&str, Column)| Field {
        name: (*name).into(),
        kind: column.kind(),
        unit: String::new(),
        nullable: true,
        sensitivity: Sensitivity::Keep,
    };
    let fields: Vec<_> = columns.iter().map(field).collect();
    let schema = StreamSchema { columns: StreamSchema::default().additions(&fields).unwrap() };
    lake.set_schema(&stream, schema.clone());
    let key = BatchKey {
        device: DeviceId::new(device).unwrap(),
        incarnation: Incarnation(incarnation),
        stream: stream.clone(),
        sequence: SequenceNumber(batch as u64 + 1),
    };
    let columns = columns.into_iter().map(|(_, column)| column).collect();
    let records = to_records(&key, Micros(0), &fields, columns).unwrap();
    let portion = Portion { key, hash: Sha256([0; 32]), ingest_time: Micros(0), records };
    for written in lake.write(&stream, &schema, &[portion], Vec::new()).unwrap() {
        *number += 1;
        lake.register([FileEntry { number: *number, ..written.entry }]);
    }
}

fn event_columns(sent: &[(&Served, f64)]) -> Columns {
    let served: &[&Served] = &sent.iter().map(|(served, _)| *served).collect::<Vec<_>>();
    fn all<T>(served: &[&Served], value: impl Fn(&Served) -> T) -> Vec<T> {
        served.iter().map(|served| value(served)).collect()
    }
    let key = |at: usize| move |served: &Served| served.row.entities[at].clone();
    let customer = |key| if let EntityKey::Int(number) = key { Some(number) } else { None };
    let place = |key| if let EntityKey::Text(text) = key { Some(text) } else { None };
    vec![
        ("accepted", Column::Int(all(served, |served| Some(served.accepted)))),
        ("event_id", Column::Text(all(served, |served| Some(id(served.event).as_str().to_owned())))),
        ("event_time", Column::Time(all(served, |served| Some(served.row.time)))),
        ("customer", Column::Int(all(served, |served| customer(key(0)(served))))),
        ("place", Column::Text(all(served, |served| place(key(1)(served))))),
        ("amount", Column::Double(all(served, |served| served.row.values[0]))),
        ("online", Column::Bool(all(served, |served| served.row.values[1].map(|value| value == 1.0)))),
        ("inclusion", Column::Double(sent.iter().map(|(_, inclusion)| Some(*inclusion)).collect())),
    ]
}

fn observation_columns(sent: &[(&Served, f64)], view: &View) -> Columns {
    // A shadow with other features stands before the primary: it must not be taken for what was served.
    let rows: Vec<_> = sent.iter().flat_map(|(served, _)| [("shadow", *served), ("primary", *served)]).collect();
    let text = |value: &dyn Fn(&(&str, &Served)) -> String| Column::Text(rows.iter().map(|r| Some(value(r))).collect());
    let features = |(role, served): &(&str, &Served)| match *role {
        "primary" => Some(served.features.clone()),
        _ => Some(vec![0.5; view.features().len()]),
    };
    vec![
        ("event_id", text(&|(_, served)| id(served.event).as_str().to_owned())),
        ("event_time", Column::Time(rows.iter().map(|(_, served)| Some(served.row.time)).collect())),
        ("line", text(&|_| "risk".to_owned())),
        ("role", text(&|(role, _)| (*role).to_owned())),
        ("snapshot", Column::Int(rows.iter().map(|(_, s)| s.snapshot.map(|number| number.0 as i64)).collect())),
        ("marks", Column::Int(rows.iter().map(|(_, s)| Some(s.marks.bits().into())).collect())),
        ("features", Column::FloatList(rows.iter().map(features).collect())),
    ]
}

fn label_columns(labels: &[(usize, bool, Micros)]) -> Columns {
    vec![
        ("event_id", Column::Text(labels.iter().map(|(event, ..)| Some(id(*event).as_str().to_owned())).collect())),
        ("label", Column::Bool(labels.iter().map(|(_, label, _)| Some(*label)).collect())),
        ("event_time", Column::Time(labels.iter().map(|_| None).collect())),
        ("known_at", Column::Time(labels.iter().map(|(.., known_at)| Some(*known_at)).collect())),
    ]
}

#[test]
fn training_sees_what_serving_saw_bit_for_bit() {
    let fleet = Fleet::run();
    let dataset = fleet.build();
    let summary = dataset.summary();
    let spec = fleet.spec();
    let expected = fleet.served.iter().filter(|s| s.row.time >= spec.from && s.row.time < spec.to).count();
    assert_eq!(summary.rows as usize, expected, "every row is kept, labelled or not");
    assert_eq!((summary.compared, summary.mismatches), (summary.rows, 0), "{:?}", summary.examples);
    assert!(summary.labelled < summary.rows && summary.positives > 20 && summary.positives < summary.labelled);
    assert!(summary.from_snapshots > 300 && summary.computed > 20);
    assert!(dataset.rows().is_sorted_by_key(|row| row.event_time));
    for row in 0..dataset.rows().len() {
        let served = fleet.row(&dataset, row);
        assert_eq!(dataset.rows()[row].device, served.device);
        let label = fleet.labels.iter().find(|(event, ..)| *event == served.event).map(|(_, label, _)| *label);
        assert_eq!(dataset.rows()[row].label, label);
        if served.snapshot.is_some() {
            assert_eq!(dataset.features(row), served.features);
        }
    }
}

#[test]
fn rows_served_without_a_snapshot_get_what_was_known_at_their_time_and_no_more() {
    let mut fleet = Fleet::run();
    // Nobody ever got a snapshot; and one place's labels became known only at the very end.
    for served in &mut fleet.served {
        served.snapshot = None;
    }
    let late = |event: &usize, fleet: &Fleet| fleet.served[*event].row.entities[1] == EntityKey::Text("north".into());
    for at in 0..fleet.labels.len() {
        if late(&fleet.labels[at].0, &fleet) {
            fleet.labels[at].2 = Micros(500 * HOUR);
        }
    }
    let dataset = fleet.build();
    assert_eq!(dataset.summary().computed, dataset.summary().rows);
    let (mut shares, mut counts) = (0, 0);
    for row in 0..dataset.rows().len() {
        let now = fleet.row(&dataset, row);
        let inside = |other: &&Served| {
            let (time, end) = (other.row.time.0, now.row.time.0 - 6 * HOUR);
            other.row.entities[1] == now.row.entities[1] && time > end - 24 * HOUR && time <= end
        };
        let events: Vec<_> = fleet.served.iter().filter(inside).collect();
        let known = |other: &&&Served| {
            let label = fleet.labels.iter().find(|(event, ..)| *event == other.event);
            label.is_some_and(|(_, label, known_at)| *label && *known_at <= now.row.time)
        };
        let frauds = events.iter().filter(known).count();
        assert_eq!(dataset.features(row)[3], events.len() as f32);
        let share = if events.is_empty() { 0.0 } else { (frauds as f64 / events.len() as f64) as f32 };
        assert_eq!(dataset.features(row)[4], share, "{}", dataset.rows()[row].event_id);
        if now.row.entities[1] == EntityKey::Text("north".into()) {
            assert_eq!(share, 0.0, "labels from the future");
        }
        shares += usize::from(share > 0.0);
        counts += usize::from(!events.is_empty());
    }
    assert!(shares > 100 && counts > 300, "{shares} {counts}");
}

#[test]
fn a_single_bit_that_was_served_otherwise_is_found_and_named() {
    let mut fleet = Fleet::run();
    let cold = fleet.served.iter().position(|served| served.row.time.0 > 40 * HOUR).unwrap();
    let changed = cold + 50;
    fleet.served[cold].marks |= Marks::COLD;
    fleet.served[cold].features[2] = 1.0;
    let feature = &mut fleet.served[changed].features[2];
    *feature = f32::from_bits(feature.to_bits() ^ 1);
    let dataset = fleet.build();
    let summary = dataset.summary();
    assert_eq!((summary.mismatches, summary.cold, summary.compared), (1, 1, summary.rows - 1));
    let example = &summary.examples[0];
    assert_eq!((example.event_id.as_str(), example.feature.as_str()), (id(changed).as_str(), "customer_mean_1d"));
    assert_eq!(example.served.to_bits() ^ 1, example.replayed.to_bits());
}

#[test]
fn a_snapshot_whose_history_is_gone_is_named_and_its_rows_are_computed() {
    let mut fleet = Fleet::run();
    fleet.snapshots.remove(&SnapshotNumber(4));
    let dataset = fleet.build();
    assert_eq!(dataset.summary().lost_snapshots, [SnapshotNumber(4)]);
    assert_eq!(dataset.summary().mismatches, 0, "what cannot be compared is no mismatch");
    let refused = Dataset::build(&fleet.lake(), fleet.spec(), &|_| Err("disk is gone".into()));
    assert!(matches!(refused, Err(DatasetError::Lookup { .. })));
}

#[test]
fn the_same_rows_give_the_same_hash_and_the_file_holds_them() {
    let fleet = Fleet::run();
    let dataset = fleet.build();
    assert_eq!(dataset.content_hash(), fleet.build().content_hash());
    let shorter = DatasetSpec { to: Micros(60 * HOUR), ..fleet.spec() };
    let shorter = Dataset::build(&fleet.lake(), shorter, &|_| Ok(None)).unwrap();
    assert_ne!(dataset.content_hash(), shorter.content_hash());

    let folder = tempfile::tempdir().unwrap();
    let stored = dataset.write(&RealDisk, &folder.path().join("datasets")).unwrap();
    assert_eq!(stored, dataset.write(&RealDisk, &folder.path().join("datasets")).unwrap());
    assert_eq!(stored.path.file_name().unwrap().to_str().unwrap(), format!("{}.parquet", stored.sha256));
    let file = std::fs::File::open(&stored.path).unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().with_batch_size(100_000).build().unwrap();
    let records = reader.into_iter().next().unwrap().unwrap();
    let names: Vec<_> = records.schema().fields().iter().map(|field| field.name().clone()).collect();
    let expected = ["event_id", "event_time", "device", "amount", "online", "customer_mean_1d", "place_count_1d"];
    assert_eq!(names[..7], expected);
    assert_eq!(names[7..], ["place_share_1d", "label", "inclusion"]);
    for (row, expected) in dataset.rows().iter().enumerate() {
        assert_eq!(records.column(0).as_string::<i32>().value(row), expected.event_id);
        assert_eq!(records.column(1).as_primitive::<TimestampMicrosecondType>().value(row), expected.event_time.0);
        let label = records.column(8).as_boolean();
        assert_eq!((!label.is_null(row)).then(|| label.value(row)), expected.label);
        for (at, value) in dataset.features(row).iter().enumerate() {
            let column = records.column(3 + at).as_primitive::<Float32Type>();
            assert_eq!(column.value(row).to_bits(), value.to_bits());
        }
    }
}

#[test]
fn a_lake_that_does_not_fit_the_view_is_refused_by_column() {
    let fleet = Fleet::run();
    let lake = fleet.lake();
    let build = |from: &str, to: &str| {
        let view = View::from_toml(&VIEW.replace(from, to)).unwrap();
        Dataset::build(&lake, DatasetSpec { view, ..fleet.spec() }, &|_| Ok(None)).unwrap_err().to_string()
    };
    assert_eq!(
        build("name = \"amount\"\nkind = \"double\"", "name = \"amount\"\nkind = \"int\""),
        r#"stream events has column "amount" of type Float64; the replay needs int"#
    );
    assert_eq!(
        build("\"customer\"", "\"client\""),
        r#"stream events has column "client" of type nothing; the replay needs int"#
    );
    let empty = DatasetSpec { to: fleet.spec().from, ..fleet.spec() };
    assert!(matches!(Dataset::build(&lake, empty, &|_| Ok(None)), Err(DatasetError::Range { .. })));
    let empty = Lake::open(Arc::new(SimDisk::new()), "/empty").unwrap();
    let dataset = Dataset::build(&empty, fleet.spec(), &|_| Ok(None)).unwrap();
    assert_eq!(dataset.summary().rows, 0);
}

/// A run that was queued and a caller of the API ask for the same at the same moment.
#[test]
fn the_same_dataset_may_be_made_twice_at_once() {
    let dataset = Fleet::run().build();
    let folder = tempfile::tempdir().unwrap();
    let (at_once, datasets) = (std::sync::Barrier::new(4), folder.path().join("datasets"));
    let twenty = || -> Vec<_> {
        let make = |_| {
            at_once.wait();
            dataset.write(&RealDisk, &datasets)
        };
        (0..20).map(make).collect()
    };
    let made = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(twenty)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    for stored in made {
        let stored = stored.unwrap();
        assert_eq!(std::fs::metadata(stored.path).unwrap().len(), stored.bytes);
    }
}
