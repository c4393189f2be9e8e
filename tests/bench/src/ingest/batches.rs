//! Observations as devices encode them, and as JSON for the peer.

use anyhow::Context;
use serde_json::{Value, json};
use tributary_features::{Replay, View};
use tributary_fraud::{Generator, GeneratorConfig, VIEW_TOML};
use tributary_wire::{
    Batch, BatchBody, BatchHeaderV1, BodyEncoding, ClockState, Column, DeviceId, Field, FieldType, Incarnation, Micros,
    Sensitivity, SequenceNumber, Stamp, StreamName,
};

use crate::programs::LINE;

/// Observations in a batch: as many as an agent puts into one.
pub const ROWS: usize = 512;
/// All in one day: devices that are connected send what happens now.
const DAY: Micros = Micros(1_767_571_200_000_000);

/// One device and its batches, in their byte form.
#[derive(Debug, Clone)]
pub struct DeviceBatches {
    /// Which device.
    pub device: DeviceId,
    /// In the order of their numbers, from 1.
    pub batches: Vec<hyper::body::Bytes>,
}

struct Observation {
    number: i64,
    id: String,
    time: Micros,
    features: Vec<f32>,
    output: f32,
}

/// The stream that observations travel in.
pub fn stream() -> anyhow::Result<StreamName> {
    Ok(StreamName::new("observations")?)
}

/// About `rows` observations, in whole batches, over `devices`.
pub fn encode(rows: usize, devices: usize) -> anyhow::Result<Vec<DeviceBatches>> {
    let mut made = Vec::new();
    for number in 0..devices {
        let device = DeviceId::new(&format!("edge-{}", number + 1))?;
        made.push(DeviceBatches { device, batches: Vec::new() });
    }
    let mut turn = 0;
    each(rows, |group| {
        let batches = &mut made[turn % devices].batches;
        batches.push(batch(group, batches.len() as u64 + 1)?.into());
        turn += 1;
        Ok(())
    })?;
    Ok(made)
}

/// The same as messages of JSON: device, sequence, columns.
pub fn as_json(rows: usize, mut write: impl FnMut(Value) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let mut sequence = 0;
    each(rows, |group| {
        sequence += 1;
        let columns: serde_json::Map<String, Value> =
            columns(group).into_iter().map(|(field, column)| (field.name, to_json(column))).collect();
        write(json!({ "device": "edge-1", "sequence": sequence, "columns": columns }))
    })
}

/// Payments through the view, in groups of [`ROWS`].
fn each(rows: usize, mut take: impl FnMut(&[Observation]) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let view = View::from_toml(VIEW_TOML).context("the card-risk view")?;
    let groups = rows.div_ceil(ROWS).max(1);
    // About two payments a day of each customer.
    let config = GeneratorConfig { customers: 5_000, terminals: 10_000, days: u32::MAX, ..GeneratorConfig::default() };
    let mut payments = Generator::new(config);
    let mut replay = Replay::new(&view);
    let apart = Micros::DAY / (groups * ROWS) as i64;
    let mut group = Vec::with_capacity(ROWS);
    for number in 0..(groups * ROWS) as i64 {
        let payment = payments.next().context("the generator ended")?;
        let mut features = vec![0.0; view.features().len()];
        replay.observe(&payment.to_row(), payment.fraud, &mut features);
        let output = (payment.amount as f32 / 500.0).min(1.0);
        let (id, time) = (payment.event_id().as_str().to_owned(), Micros(DAY.0 + number * apart));
        group.push(Observation { number, id, time, features, output });
        if group.len() == ROWS {
            take(&group)?;
            group.clear();
        }
    }
    Ok(())
}

fn columns(rows: &[Observation]) -> Vec<(Field, Column)> {
    let field = |name: &str, kind, unit: &str, nullable| Field {
        name: name.to_owned(),
        kind,
        unit: unit.to_owned(),
        nullable,
        sensitivity: Sensitivity::Keep,
    };
    let ints = |value: fn(&Observation) -> Option<i64>| Column::Int(rows.iter().map(value).collect());
    let texts = |value: fn(&Observation) -> Option<String>| Column::Text(rows.iter().map(value).collect());
    let floats = |value: fn(&Observation) -> Option<f32>| Column::Float(rows.iter().map(value).collect());
    vec![
        (field("accepted", FieldType::Int, "", false), ints(|row| Some(row.number + 1))),
        (field("event_id", FieldType::Text, "", false), texts(|row| Some(row.id.clone()))),
        (
            field("event_time", FieldType::Time, "", false),
            Column::Time(rows.iter().map(|row| Some(row.time)).collect()),
        ),
        (field("line", FieldType::Text, "", false), texts(|_| Some(LINE.to_owned()))),
        (field("version", FieldType::Int, "", false), ints(|_| Some(1))),
        (field("role", FieldType::Text, "", false), texts(|_| Some("primary".to_owned()))),
        (field("snapshot", FieldType::Int, "", true), ints(|row| Some(1 + row.number / 10_000))),
        (
            field("features", FieldType::FloatList, "", false),
            Column::FloatList(rows.iter().map(|row| Some(row.features.clone())).collect()),
        ),
        (field("output", FieldType::Float, "", false), floats(|row| Some(row.output))),
        (
            field("decision", FieldType::Bool, "", false),
            Column::Bool(rows.iter().map(|row| Some(row.output > 0.5)).collect()),
        ),
        (field("threshold", FieldType::Float, "", false), floats(|_| Some(0.5))),
        (field("latency_us", FieldType::Int, "us", false), ints(|row| Some(20 + row.number % 37))),
        (field("marks", FieldType::Int, "", false), ints(|_| Some(0))),
        (field("degraded", FieldType::Text, "", true), texts(|_| None)),
    ]
}

fn batch(rows: &[Observation], sequence: u64) -> anyhow::Result<Vec<u8>> {
    let (schema, columns) = columns(rows).into_iter().unzip();
    let plain = BatchBody::Records { schema, columns }.encode();
    let body = zstd::bulk::compress(&plain, 3).context("compress a batch")?;
    let header = BatchHeaderV1 {
        incarnation: Incarnation(1),
        stream: stream()?,
        sequence: SequenceNumber(sequence),
        rows: rows.len() as u32,
        encoding: BodyEncoding::Zstd,
        body_bytes: plain.len() as u32,
        body_crc: 0,
        stamp: Stamp { boot: 1, monotonic: sequence, wall: DAY, clock: ClockState::Synchronised },
    };
    Ok(Batch::new(header, body).encode())
}

fn to_json(column: Column) -> Value {
    match column {
        Column::Bool(values) => json!(values),
        Column::Int(values) => json!(values),
        Column::Double(values) => json!(values),
        Column::Float(values) => json!(values),
        Column::Text(values) => json!(values),
        Column::Bytes(values) => json!(values),
        Column::Time(values) => json!(values),
        Column::FloatList(values) => json!(values),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_whole_numbered_from_one_and_spread_over_the_devices() {
        let devices = encode(3 * ROWS - 1, 2).unwrap();
        assert_eq!(devices.iter().map(|device| device.batches.len()).collect::<Vec<_>>(), [2, 1]);
        let (header, body) = Batch::decode(&devices[0].batches[1]).unwrap();
        assert_eq!((header.sequence.0, header.rows as usize), (2, ROWS));
        Batch::check_body(&header, body).unwrap();
        let plain = zstd::bulk::decompress(body, header.body_bytes as usize).unwrap();
        let BatchBody::Records { columns, .. } = BatchBody::decode(&plain, header.rows).unwrap() else {
            panic!("a gap")
        };
        assert!(columns.iter().all(|column| column.len() == ROWS));
    }

    #[test]
    fn the_peer_gets_the_same_columns() {
        let mut messages = Vec::new();
        let mut keep = |message| {
            messages.push(message);
            Ok(())
        };
        as_json(ROWS, &mut keep).unwrap();
        assert_eq!(messages.len(), 1);
        assert_eq!(messages[0]["columns"]["features"].as_array().map(Vec::len), Some(ROWS));
        assert_eq!(messages[0]["columns"].as_object().map(serde_json::Map::len), Some(14));
    }
}
