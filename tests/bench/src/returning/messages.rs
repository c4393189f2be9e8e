//! What light devices say: batches of a week's backlog, and reports.

use tributary_wire::{
    Batch, BatchBody, BatchHeaderV1, BodyEncoding, ClockState, Column, DeviceId, Field, FieldType, Generation, Health,
    Incarnation, Micros, Report, ReportV1, Resources, Sensitivity, SequenceNumber, Stamp, StreamName,
};

use super::device::Plan;

/// The streams of a backlog.
pub const STREAMS: [&str; 2] = ["events", "observations"];
/// The first day of the week that the hub was away.
const WEEK: Micros = Micros(1_767_571_200_000_000);
const DAYS: u64 = 7;

/// The id of a record.
pub fn event_id(device: &DeviceId, number: u64, row: u64) -> String {
    format!("{device}/{number}/{row}")
}

/// A batch of a device, the same whenever it is asked for.
pub fn batch(plan: &Plan, device: &DeviceId, stream: &StreamName, number: u64) -> Vec<u8> {
    let field = |name: &str, kind| Field {
        name: name.to_owned(),
        kind,
        unit: String::new(),
        nullable: false,
        sensitivity: Sensitivity::Keep,
    };
    let rows = 0..plan.rows;
    let day = (number - 1) * DAYS / plan.batches.max(1) % DAYS;
    let time = |row: u64| Micros(WEEK.0 + day as i64 * Micros::DAY + (number * plan.rows + row) as i64);
    let value = |row: u64| (number * 7_919 + row * 104_729) as f64 / 1000.0;
    let schema = vec![
        field("event_id", FieldType::Text),
        field("event_time", FieldType::Time),
        field("value", FieldType::Double),
    ];
    let columns = vec![
        Column::Text(rows.clone().map(|row| Some(event_id(device, number, row))).collect()),
        Column::Time(rows.clone().map(|row| Some(time(row))).collect()),
        Column::Double(rows.map(|row| Some(value(row))).collect()),
    ];
    let body = BatchBody::Records { schema, columns }.encode();
    let header = BatchHeaderV1 {
        incarnation: Incarnation(1),
        stream: stream.clone(),
        sequence: SequenceNumber(number),
        rows: plan.rows as u32,
        encoding: BodyEncoding::Plain,
        body_bytes: body.len() as u32,
        body_crc: 0,
        stamp: Stamp { boot: 1, monotonic: number, wall: time(0), clock: ClockState::Synchronised },
    };
    Batch::new(header, body).encode()
}

/// What a device says of itself when it comes back.
pub fn report(number: u64) -> Vec<u8> {
    let stamp = Stamp { boot: 1, monotonic: number, wall: WEEK, clock: ClockState::Synchronised };
    Report::V1(ReportV1 {
        number,
        incarnation: Incarnation(1),
        stamp,
        reads: 1,
        agent: "light".to_owned(),
        labels: Vec::new(),
        generation: Generation(0),
        asks: false,
        lines: Vec::new(),
        snapshot: None,
        health: Health { ok: true, problems: Vec::new(), refused: Vec::new(), dropped: 0 },
        resources: Resources { memory_bytes: 0, outbox_batches: 0, outbox_bytes: 0, events: 0 },
    })
    .encode()
}
