//! Accepted events become columns, and columns a compressed body.

use tributary_features::{EntityKey, EntityKind};
use tributary_features::{Event, Value, ValueKind, View};
use tributary_wire::{BatchBody, Column, Field, FieldType, Micros, Sensitivity, StreamName};

use super::outbox::ClosedBatch;
use super::records::{Accepted, Observation, SketchRecord};

/// When a batch is closed.
#[derive(Debug, Clone, Copy)]
pub struct BatchLimits {
    /// At this many events.
    pub rows: usize,
    /// At about this many bytes before compression.
    pub bytes: usize,
    /// When its first event is this old, in microseconds of monotonic time.
    pub age: u64,
}

/// Accepted events that no batch holds yet.
#[derive(Debug, Default)]
pub struct OpenBatch {
    /// Those of which anything is sent.
    rows: Vec<Accepted>,
    bytes: usize,
    opened: Option<u64>,
    last: Option<u64>,
}

impl OpenBatch {
    /// Adds an event; `now` is monotonic. What is sampled out only moves on the number of the last.
    pub fn push(&mut self, mut row: Accepted, now: u64) {
        self.last = Some(row.number);
        if !row.sampled.kept {
            row.observations = Vec::new();
        }
        if row.sampled.event_kept() {
            self.bytes += event_bytes(&row.event) + row.observations.iter().map(observation_bytes).sum::<usize>();
            self.rows.push(row);
        }
        self.opened.get_or_insert(now);
    }

    /// Whether it should be closed.
    pub fn is_due(&self, limits: BatchLimits, now: u64) -> bool {
        self.rows.len() >= limits.rows
            || self.bytes >= limits.bytes
            || self.opened.is_some_and(|opened| now.saturating_sub(opened) >= limits.age)
    }

    /// When it becomes due by age.
    pub fn due_at(&self, limits: BatchLimits) -> Option<u64> {
        self.opened.map(|opened| opened.saturating_add(limits.age))
    }

    /// Accept number of its last event.
    pub fn last(&self) -> Option<u64> {
        self.last
    }

    /// Takes all events out, as a batch of events and one of observations. Close and rare observations have a batch of
    /// their own, which outlives the other.
    pub fn close(&mut self, view: &View) -> Vec<ClosedBatch> {
        let rows = std::mem::take(self).rows;
        let mut batches = Vec::with_capacity(2);
        if !rows.is_empty() {
            batches.push(events(&rows, view));
        }
        for remarkable in [true, false] {
            let rows = rows.iter().filter(|row| row.sampled.kept && row.sampled.remarkable == remarkable);
            let seen: Vec<_> = rows.flat_map(|row| row.observations.iter().map(move |it| (row, it))).collect();
            if !seen.is_empty() {
                batches.push(observations(&seen).remarkable(remarkable));
            }
        }
        batches
    }
}

/// About how large an event is before compression.
pub(crate) fn event_bytes(event: &Event) -> usize {
    let texts = event.values.iter().map(|(_, value)| text_bytes(value)).sum::<usize>();
    64 + 24 * (event.entities.len() + event.values.len()) + texts
}

/// About how large an observation is before compression.
pub(crate) fn observation_bytes(observation: &Observation) -> usize {
    64 + 4 * observation.features.len()
}

fn text_bytes(value: &Value) -> usize {
    if let Value::Text(text) = value { text.len() } else { 0 }
}

/// Name of a stream of ours.
pub(super) fn stream(name: &str) -> StreamName {
    StreamName::new(name).expect("our stream names are valid")
}

fn field(name: &str, kind: FieldType, unit: &str, nullable: bool) -> Field {
    Field { name: name.to_owned(), kind, unit: unit.to_owned(), nullable, sensitivity: Sensitivity::Keep }
}

fn batch(name: &str, fields: Vec<(Field, Column)>, times: impl Iterator<Item = Micros>) -> ClosedBatch {
    let records = fields.first().map_or(0, |(_, column)| column.len()) as u64;
    let (schema, columns) = fields.into_iter().unzip();
    let span = times.fold(None, |span: Option<(Micros, Micros)>, time| match span {
        None => Some((time, time)),
        Some((first, last)) => Some((first.min(time), last.max(time))),
    });
    ClosedBatch::new(stream(name), records, &BatchBody::Records { schema, columns }, span)
}

fn events(rows: &[Accepted], view: &View) -> ClosedBatch {
    let mut fields = vec![
        (
            field("accepted", FieldType::Int, "", false),
            Column::Int(rows.iter().map(|row| Some(row.number as i64)).collect()),
        ),
        (
            field("event_id", FieldType::Text, "", false),
            Column::Text(rows.iter().map(|row| Some(row.event.id.as_str().to_owned())).collect()),
        ),
        (
            field("event_time", FieldType::Time, "", false),
            Column::Time(rows.iter().map(|row| Some(row.event.time)).collect()),
        ),
        (
            field("source", FieldType::Text, "", false),
            Column::Text(rows.iter().map(|row| Some(row.source.clone())).collect()),
        ),
        (
            field("inclusion", FieldType::Double, "", false),
            Column::Double(rows.iter().map(|row| Some(row.sampled.event_probability())).collect()),
        ),
    ];
    let mut entities: Vec<(String, EntityKind)> =
        view.entities().iter().map(|entity| (entity.name.clone(), entity.kind)).collect();
    let mut values: Vec<(String, ValueKind, String)> =
        view.values().iter().map(|value| (value.name.clone(), value.kind, value.unit.clone())).collect();
    // Events that were accepted under an earlier view may have fields that this one lacks; none of them is lost.
    for event in rows.iter().map(|row| &row.event) {
        for (name, key) in &event.entities {
            if !entities.iter().any(|(known, _)| known == name) {
                let kind = if matches!(key, EntityKey::Int(_)) { EntityKind::Int } else { EntityKind::Text };
                entities.push((name.clone(), kind));
            }
        }
        for (name, value) in &event.values {
            if !values.iter().any(|(known, ..)| known == name) {
                values.push((name.clone(), kind_of(value), String::new()));
            }
        }
    }
    for (name, kind) in entities {
        fields.push(entity_column(rows, &name, kind));
    }
    for (name, kind, unit) in values {
        fields.push(value_column(rows, &name, kind, &unit));
    }
    batch("events", fields, rows.iter().map(|row| row.event.time))
}

fn kind_of(value: &Value) -> ValueKind {
    match value {
        Value::Bool(_) => ValueKind::Bool,
        Value::Int(_) => ValueKind::Int,
        Value::Double(_) => ValueKind::Double,
        Value::Text(_) => ValueKind::Text,
    }
}

fn entity_column(rows: &[Accepted], name: &str, kind: EntityKind) -> (Field, Column) {
    let keys = rows.iter().map(|row| row.event.entities.iter().find(|(key, _)| key == name).map(|(_, key)| key));
    match kind {
        EntityKind::Int => {
            let column = keys.map(|key| if let Some(EntityKey::Int(key)) = key { Some(*key) } else { None });
            (field(name, FieldType::Int, "", true), Column::Int(column.collect()))
        }
        EntityKind::Text => {
            let column = keys.map(|key| key.map(ToString::to_string));
            (field(name, FieldType::Text, "", true), Column::Text(column.collect()))
        }
    }
}

fn find<'a>(event: &'a Event, name: &str) -> Option<&'a Value> {
    event.values.iter().find(|(key, _)| key == name).map(|(_, value)| value)
}

fn value_column(rows: &[Accepted], name: &str, kind: ValueKind, unit: &str) -> (Field, Column) {
    let values = rows.iter().map(|row| find(&row.event, name));
    let (kind, column) = match kind {
        ValueKind::Bool => (
            FieldType::Bool,
            Column::Bool(values.map(|v| if let Some(Value::Bool(v)) = v { Some(*v) } else { None }).collect()),
        ),
        ValueKind::Int => (
            FieldType::Int,
            Column::Int(values.map(|v| if let Some(Value::Int(v)) = v { Some(*v) } else { None }).collect()),
        ),
        ValueKind::Double => {
            let number = |value: &Value| match value {
                Value::Double(value) => Some(*value),
                Value::Int(value) => Some(*value as f64),
                _ => None,
            };
            (FieldType::Double, Column::Double(values.map(|value| value.and_then(number)).collect()))
        }
        ValueKind::Text => (
            FieldType::Text,
            Column::Text(values.map(|v| if let Some(Value::Text(v)) = v { Some(v.clone()) } else { None }).collect()),
        ),
    };
    (field(name, kind, unit, true), column)
}

fn observations(pairs: &[(&Accepted, &Observation)]) -> ClosedBatch {
    macro_rules! column {
        ($name:literal, $kind:ident, $unit:literal, $nullable:literal, |$row:ident, $seen:ident| $value:expr) => {
            (
                field($name, FieldType::$kind, $unit, $nullable),
                Column::$kind(
                    pairs
                        .iter()
                        .map(|pair| {
                            #[allow(unused_variables)]
                            let ($row, $seen) = *pair;
                            $value
                        })
                        .collect(),
                ),
            )
        };
    }
    let fields = vec![
        column!("accepted", Int, "", false, |row, seen| Some(row.number as i64)),
        column!("event_id", Text, "", false, |row, seen| Some(row.event.id.as_str().to_owned())),
        column!("event_time", Time, "", false, |row, seen| Some(row.event.time)),
        column!("line", Text, "", false, |row, seen| Some(seen.line.clone())),
        column!("version", Int, "", false, |row, seen| Some(i64::from(seen.version))),
        column!("role", Text, "", false, |row, seen| Some(seen.role.clone())),
        column!("snapshot", Int, "", true, |row, seen| seen.snapshot.map(|number| number as i64)),
        column!("features", FloatList, "", false, |row, seen| Some(seen.features.clone())),
        column!("output", Float, "", false, |row, seen| Some(seen.output)),
        column!("decision", Bool, "", false, |row, seen| Some(seen.decision)),
        column!("threshold", Float, "", false, |row, seen| Some(seen.threshold)),
        column!("latency_us", Int, "us", false, |row, seen| Some(seen.latency_us as i64)),
        column!("marks", Int, "", false, |row, seen| Some(i64::from(seen.marks))),
        column!("degraded", Text, "", true, |row, seen| seen.degraded.clone()),
        column!("inclusion", Double, "", false, |row, seen| Some(row.sampled.probability)),
    ];
    batch("observations", fields, pairs.iter().map(|(row, _)| row.event.time))
}

/// Finished sketches as one batch.
pub(super) fn sketches(records: &[SketchRecord]) -> ClosedBatch {
    let times = |time: fn(&SketchRecord) -> Micros| Column::Time(records.iter().map(|r| Some(time(r))).collect());
    let fields = vec![
        (
            field("line", FieldType::Text, "", false),
            Column::Text(records.iter().map(|record| Some(record.line.clone())).collect()),
        ),
        (
            field("version", FieldType::Int, "", false),
            Column::Int(records.iter().map(|record| Some(i64::from(record.version))).collect()),
        ),
        (field("window_start", FieldType::Time, "", false), times(|record| record.window_start)),
        (field("window_end", FieldType::Time, "", false), times(|record| record.window_end)),
        (
            field("sketch", FieldType::Bytes, "", false),
            Column::Bytes(records.iter().map(|record| Some(record.sketch.clone())).collect()),
        ),
    ];
    batch("sketches", fields, records.iter().flat_map(|record| [record.window_start, record.window_end]))
}
