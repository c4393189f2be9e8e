//! From record batches of the lake to events, observations and labels.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use arrow::array::{Array, AsArray, BooleanArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int64Type, TimestampMicrosecondType};
use tributary_features::{EntityKey, EntityKind, EventId, Marks, Row, Scope, ValueKind, View};
use tributary_wire::{Micros, SnapshotNumber, StreamName};

use super::{DatasetError, DatasetSpec};
use crate::Lake;

/// Everything that a replay needs, in memory.
pub(super) struct Source {
    /// In accept order per device and life of its state, one after the other.
    pub(super) events: Vec<SourceEvent>,
    /// By place in [`Source::events`].
    pub(super) observations: HashMap<usize, Observation>,
    /// All that are known of the events, in the order in which they became known.
    pub(super) labels: Vec<Label>,
    /// Events of the range that do not fit the view.
    pub(super) unfit: u64,
}

pub(super) struct SourceEvent {
    pub(super) id: EventId,
    pub(super) device: String,
    pub(super) incarnation: i64,
    pub(super) accepted: i64,
    pub(super) row: Row,
}

/// What a device served for an event.
pub(super) struct Observation {
    pub(super) snapshot: Option<SnapshotNumber>,
    pub(super) features: Vec<f32>,
    pub(super) marks: Marks,
    is_primary: bool,
}

pub(super) struct Label {
    pub(super) event: EventId,
    pub(super) label: bool,
    pub(super) known_at: Micros,
}

impl Source {
    pub(super) fn read(lake: &Lake, spec: &DatasetSpec) -> Result<Self, DatasetError> {
        let view = &spec.view;
        let reach = view.reach(Scope::Device).max(view.reach(Scope::Fleet));
        // Windows of the first rows look back over `reach`. An event after the range still matters when it was accepted
        // before a row of the range: it decides whether that row came too late.
        let first = Micros(spec.from.0.saturating_sub(reach)).day();
        let last = Micros(spec.to.0.saturating_add(view.lateness())).day();
        let mut source = Self { events: Vec::new(), observations: HashMap::new(), labels: Vec::new(), unfit: 0 };
        for records in scan(lake, "events", first..=last)? {
            source.take_events(&records?, spec)?;
        }
        source
            .events
            .sort_by(|a, b| (&a.device, a.incarnation, a.accepted).cmp(&(&b.device, b.incarnation, b.accepted)));
        let mut places: HashMap<(String, String), usize> = HashMap::new();
        for (place, event) in source.events.iter().enumerate() {
            places.entry((event.device.clone(), event.id.as_str().to_owned())).or_insert(place);
        }
        for records in scan(lake, "observations", spec.from.day()..=spec.to.day())? {
            source.take_observations(&records?, spec, &places)?;
        }
        // A label lies on the day of its event or on the day it became known, and may have come much later.
        for records in scan(lake, "labels", i64::MIN..=i64::MAX)? {
            source.take_labels(&records?, spec.labels_until)?;
        }
        source.labels.sort_by_key(|label| label.known_at);
        Ok(source)
    }

    fn take_events(&mut self, records: &RecordBatch, spec: &DatasetSpec) -> Result<(), DatasetError> {
        let columns = Columns { stream: "events", records };
        let (ids, devices) = (columns.texts("event_id")?, columns.texts("device")?);
        let (times, accepted) = (columns.times("event_time")?, columns.ints("accepted")?);
        let incarnations = columns.ints("incarnation")?;
        let fields = EventFields::of(&columns, &spec.view)?;
        for at in 0..records.num_rows() {
            let time = Micros(times.value(at));
            let id = if ids.is_null(at) { None } else { EventId::new(ids.value(at)).ok() };
            let (Some(id), Some(row)) = (id, fields.row(at, time)) else {
                self.unfit += u64::from(time >= spec.from && time < spec.to);
                continue;
            };
            self.events.push(SourceEvent {
                id,
                device: devices.value(at).to_owned(),
                incarnation: incarnations.value(at),
                accepted: accepted.value(at),
                row,
            });
        }
        Ok(())
    }

    fn take_observations(
        &mut self,
        records: &RecordBatch,
        spec: &DatasetSpec,
        places: &HashMap<(String, String), usize>,
    ) -> Result<(), DatasetError> {
        let columns = Columns { stream: "observations", records };
        let (ids, devices) = (columns.texts("event_id")?, columns.texts("device")?);
        let (lines, roles) = (columns.texts("line")?, columns.texts("role")?);
        let (snapshots, marks) = (columns.ints("snapshot")?, columns.ints("marks")?);
        let found = columns.column("features", "a list of floats")?;
        let Some(features) = found.as_list_opt::<i32>() else {
            return Err(columns.wrong("features", "a list of floats", found.data_type()));
        };
        for at in 0..records.num_rows() {
            let is_primary = roles.value(at) == "primary";
            if features.is_null(at) || spec.line.as_ref().is_some_and(|line| line.as_str() != lines.value(at)) {
                continue;
            }
            let Some(place) = places.get(&(devices.value(at).to_owned(), ids.value(at).to_owned())) else { continue };
            // Every role was given the same features; the primary's are those that decided.
            if self.observations.get(place).is_some_and(|other| other.is_primary || !is_primary) {
                continue;
            }
            let list = features.value(at);
            let Some(values) = list.as_primitive_opt::<Float32Type>() else {
                return Err(columns.wrong("features", "a list of floats", list.data_type()));
            };
            let snapshot = (!snapshots.is_null(at)).then(|| SnapshotNumber(snapshots.value(at) as u64));
            let marks = if marks.is_null(at) { Marks::NONE } else { Marks::from_bits(marks.value(at) as u32) };
            let features = values.values().to_vec();
            self.observations.insert(*place, Observation { snapshot, features, marks, is_primary });
        }
        Ok(())
    }

    fn take_labels(&mut self, records: &RecordBatch, until: Option<Micros>) -> Result<(), DatasetError> {
        let columns = Columns { stream: "labels", records };
        let (ids, known) = (columns.texts("event_id")?, columns.times("known_at")?);
        let labels = columns.bools("label")?;
        for at in 0..records.num_rows() {
            let known_at = Micros(known.value(at));
            if ids.is_null(at) || labels.is_null(at) || until.is_some_and(|until| known_at > until) {
                continue;
            }
            if let Ok(event) = EventId::new(ids.value(at)) {
                self.labels.push(Label { event, label: labels.value(at), known_at });
            }
        }
        Ok(())
    }
}

/// Records of a stream; none when nobody sent any.
fn scan(
    lake: &Lake,
    stream: &'static str,
    days: RangeInclusive<i64>,
) -> Result<impl Iterator<Item = Result<RecordBatch, crate::LakeError>>, DatasetError> {
    let name = StreamName::new(stream).expect("a name without capitals or spaces");
    let scan = if lake.schema(&name).columns.is_empty() { None } else { Some(lake.scan(&name, days, None)?) };
    Ok(scan.into_iter().flatten())
}

/// Columns of one record batch, by name and type.
struct Columns<'a> {
    stream: &'static str,
    records: &'a RecordBatch,
}

impl<'a> Columns<'a> {
    fn wrong(&self, column: &str, expected: &'static str, found: &DataType) -> DatasetError {
        let (stream, column, found) = (self.stream, column.to_owned(), found.to_string());
        DatasetError::Column { stream, column, expected, found }
    }

    fn column(&self, name: &str, expected: &'static str) -> Result<&'a dyn Array, DatasetError> {
        let missing = || DatasetError::Column {
            stream: self.stream,
            column: name.to_owned(),
            expected,
            found: "nothing".to_owned(),
        };
        self.records.column_by_name(name).map(AsRef::as_ref).ok_or_else(missing)
    }

    fn typed<T>(
        &self,
        name: &str,
        expected: &'static str,
        cast: impl Fn(&'a dyn Array) -> Option<&'a T>,
    ) -> Result<&'a T, DatasetError> {
        let column = self.column(name, expected)?;
        cast(column).ok_or_else(|| self.wrong(name, expected, column.data_type()))
    }

    fn texts(&self, name: &str) -> Result<&'a StringArray, DatasetError> {
        self.typed(name, "text", |column| column.as_string_opt::<i32>())
    }

    fn ints(&self, name: &str) -> Result<&'a Int64Array, DatasetError> {
        self.typed(name, "int", |column| column.as_primitive_opt::<Int64Type>())
    }

    fn bools(&self, name: &str) -> Result<&'a BooleanArray, DatasetError> {
        self.typed(name, "bool", |column| column.as_boolean_opt())
    }

    fn times(&self, name: &str) -> Result<&'a TimestampMicrosecondArray, DatasetError> {
        self.typed(name, "time", |column| column.as_primitive_opt::<TimestampMicrosecondType>())
    }
}

/// The columns of a view's entities and values.
struct EventFields<'a> {
    entities: Vec<&'a dyn Array>,
    /// `None` for a text, and for an optional value that no device has sent yet.
    values: Vec<Option<&'a dyn Array>>,
    required: Vec<bool>,
}

impl<'a> EventFields<'a> {
    fn of(columns: &Columns<'a>, view: &View) -> Result<Self, DatasetError> {
        let mut fields = Self { entities: Vec::new(), values: Vec::new(), required: Vec::new() };
        for entity in view.entities() {
            let (name, kind) = (&entity.name, entity.kind);
            fields.entities.push(match kind {
                EntityKind::Int => columns.ints(name)? as &dyn Array,
                EntityKind::Text => columns.texts(name)?,
            });
        }
        for value in view.values() {
            let (name, kind) = (&value.name, value.kind);
            let is_there = columns.records.column_by_name(name).is_some();
            fields.values.push(match kind {
                ValueKind::Text => None,
                _ if !is_there && !value.required => None,
                ValueKind::Bool => Some(columns.bools(name)? as &dyn Array),
                ValueKind::Int => Some(columns.ints(name)?),
                ValueKind::Double => {
                    let double = |column: &'a dyn Array| column.as_primitive_opt::<Float64Type>();
                    Some(columns.typed(name, "double", double)?)
                }
            });
            fields.required.push(value.required && kind != ValueKind::Text);
        }
        Ok(fields)
    }

    /// `None` when a field that the view needs is empty: the event was accepted under an older view.
    fn row(&self, at: usize, time: Micros) -> Option<Row> {
        let entity = |column: &&dyn Array| {
            if column.is_null(at) {
                return None;
            }
            match column.as_primitive_opt::<Int64Type>() {
                Some(numbers) => Some(EntityKey::Int(numbers.value(at))),
                None => column.as_string_opt::<i32>().map(|texts| EntityKey::Text(texts.value(at).to_owned())),
            }
        };
        let entities = self.entities.iter().map(entity).collect::<Option<Vec<_>>>()?;
        let values: Vec<_> = self.values.iter().map(|column| column.and_then(|column| number(column, at))).collect();
        let fits = values.iter().zip(&self.required).all(|(value, required)| value.is_some() || !required);
        fits.then_some(Row { time, entities, values })
    }
}

/// The same conversions as [`View::row`] makes.
fn number(column: &dyn Array, at: usize) -> Option<f64> {
    if column.is_null(at) {
        return None;
    }
    if let Some(doubles) = column.as_primitive_opt::<Float64Type>() {
        return Some(doubles.value(at));
    }
    if let Some(ints) = column.as_primitive_opt::<Int64Type>() {
        return Some(ints.value(at) as f64);
    }
    column.as_boolean_opt().map(|bools| f64::from(u8::from(bools.value(at))))
}
