//! From record batches of the lake to checked rows of a view.

use arrow::array::{
    Array, AsArray, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimestampMicrosecondType};
use tributary_features::{EntityKey, EntityKind, EventId, Row, ValueKind, View};
use tributary_wire::Micros;

use super::DatasetError;

/// An event of the lake, as a row of a view.
#[derive(Debug, Clone, PartialEq)]
pub struct EventRow {
    /// The caller's id.
    pub id: EventId,
    /// Where it happened.
    pub device: String,
    /// In which life of the device's state.
    pub incarnation: i64,
    /// Its place in the device's accept order.
    pub accepted: i64,
    /// What happened, in the view's order.
    pub row: Row,
    /// The probability with which the device sent it; 1 where nothing was sampled out.
    pub inclusion: f64,
}

/// A label of the lake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelRow {
    /// Of which event.
    pub event: EventId,
    /// The truth.
    pub label: bool,
    /// Since when the hub knows it.
    pub known_at: Micros,
}

/// Reads the events of a record batch. Those that lack what the view requires were accepted under another view: their
/// times are given apart.
pub fn read_events(view: &View, records: &RecordBatch) -> Result<(Vec<EventRow>, Vec<Micros>), DatasetError> {
    let columns = Columns { stream: "events", records };
    let (ids, devices) = (columns.texts("event_id")?, columns.texts("device")?);
    let (times, accepted) = (columns.times("event_time")?, columns.ints("accepted")?);
    let incarnations = columns.ints("incarnation")?;
    let inclusions = columns.inclusions()?;
    let fields = EventFields::of(&columns, view)?;
    let (mut events, mut unfit) = (Vec::with_capacity(records.num_rows()), Vec::new());
    for at in 0..records.num_rows() {
        let time = Micros(times.value(at));
        let id = if ids.is_null(at) { None } else { EventId::new(ids.value(at)).ok() };
        let (Some(id), Some(row)) = (id, fields.row(at, time)) else {
            unfit.push(time);
            continue;
        };
        let (device, incarnation) = (devices.value(at).to_owned(), incarnations.value(at));
        let inclusion = inclusion(inclusions, at);
        events.push(EventRow { id, device, incarnation, accepted: accepted.value(at), row, inclusion });
    }
    Ok((events, unfit))
}

/// Reads the labels of a record batch.
pub fn read_labels(records: &RecordBatch) -> Result<Vec<LabelRow>, DatasetError> {
    let columns = Columns { stream: "labels", records };
    let (ids, known) = (columns.texts("event_id")?, columns.times("known_at")?);
    let labels = columns.bools("label")?;
    let present = (0..records.num_rows()).filter(|at| !ids.is_null(*at) && !labels.is_null(*at));
    let label = |at| {
        let event = EventId::new(ids.value(at)).ok()?;
        Some(LabelRow { event, label: labels.value(at), known_at: Micros(known.value(at)) })
    };
    Ok(present.filter_map(label).collect())
}

/// Columns of one record batch, by name and type.
pub(super) struct Columns<'a> {
    pub(super) stream: &'static str,
    pub(super) records: &'a RecordBatch,
}

impl<'a> Columns<'a> {
    pub(super) fn wrong(&self, column: &str, expected: &'static str, found: &DataType) -> DatasetError {
        let (stream, column, found) = (self.stream, column.to_owned(), found.to_string());
        DatasetError::Column { stream, column, expected, found }
    }

    pub(super) fn column(&self, name: &str, expected: &'static str) -> Result<&'a dyn Array, DatasetError> {
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

    /// The probabilities with which rows were sent; none where no device that samples has sent any.
    fn inclusions(&self) -> Result<Option<&'a Float64Array>, DatasetError> {
        if self.records.column_by_name("inclusion").is_none() {
            return Ok(None);
        }
        let double = |column: &'a dyn Array| column.as_primitive_opt::<Float64Type>();
        self.typed("inclusion", "double", double).map(Some)
    }

    pub(super) fn texts(&self, name: &str) -> Result<&'a StringArray, DatasetError> {
        self.typed(name, "text", |column| column.as_string_opt::<i32>())
    }

    pub(super) fn ints(&self, name: &str) -> Result<&'a Int64Array, DatasetError> {
        self.typed(name, "int", |column| column.as_primitive_opt::<Int64Type>())
    }

    fn bools(&self, name: &str) -> Result<&'a BooleanArray, DatasetError> {
        self.typed(name, "bool", |column| column.as_boolean_opt())
    }

    fn times(&self, name: &str) -> Result<&'a TimestampMicrosecondArray, DatasetError> {
        self.typed(name, "time", |column| column.as_primitive_opt::<TimestampMicrosecondType>())
    }
}

/// A probability that makes no weight counts as certain: a row is never left out for it.
fn inclusion(column: Option<&Float64Array>, at: usize) -> f64 {
    let given = column.filter(|column| column.is_valid(at)).map(|column| column.value(at));
    given.filter(|given| *given > 0.0 && *given <= 1.0).unwrap_or(1.0)
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
