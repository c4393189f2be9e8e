//! Reads the columns that the monitor needs out of the lake's record batches, whatever width of text they use.

use arrow::array::{Array, AsArray, BooleanArray, Float32Array, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int64Type, TimeUnit};
use tributary_stats::Sketch;

/// A column that is not there or not of its type. The lake checks types on arrival, so this is a mistake of ours.
#[derive(Debug, thiserror::Error)]
#[error("column {column} of stream {stream}: {problem}")]
pub struct RecordError {
    stream: &'static str,
    column: &'static str,
    problem: String,
}

/// The columns of one batch of one stream.
struct Columns<'a> {
    stream: &'static str,
    batch: &'a RecordBatch,
}

impl Columns<'_> {
    fn cast(&self, column: &'static str, to: &DataType) -> Result<arrow::array::ArrayRef, RecordError> {
        let wrong = |problem: String| RecordError { stream: self.stream, column, problem };
        let found = self.batch.column_by_name(column).ok_or_else(|| wrong("it is missing".to_owned()))?;
        cast(found, to).map_err(|error| wrong(error.to_string()))
    }

    fn text(&self, column: &'static str) -> Result<StringArray, RecordError> {
        Ok(self.cast(column, &DataType::Utf8)?.as_string::<i32>().clone())
    }

    fn int(&self, column: &'static str) -> Result<arrow::array::Int64Array, RecordError> {
        Ok(self.cast(column, &DataType::Int64)?.as_primitive::<Int64Type>().clone())
    }

    fn float(&self, column: &'static str) -> Result<Float32Array, RecordError> {
        Ok(self.cast(column, &DataType::Float32)?.as_primitive::<Float32Type>().clone())
    }

    fn bool(&self, column: &'static str) -> Result<BooleanArray, RecordError> {
        Ok(self.cast(column, &DataType::Boolean)?.as_boolean().clone())
    }

    /// UTC microseconds; a missing column counts as a column of nulls where `optional`.
    fn time(&self, column: &'static str) -> Result<arrow::array::Int64Array, RecordError> {
        let micros = self.cast(column, &DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())))?;
        let micros = cast(&micros, &DataType::Int64).map_err(|error| RecordError {
            stream: self.stream,
            column,
            problem: error.to_string(),
        })?;
        Ok(micros.as_primitive::<Int64Type>().clone())
    }
}

/// A served prediction, as far as quality cares.
#[derive(Debug, Clone, PartialEq)]
pub struct Observed {
    /// The caller's event id.
    pub event_id: String,
    /// UTC microseconds of event time.
    pub time: i64,
    /// Model line.
    pub line: String,
    /// Version that served.
    pub version: i64,
    /// Role of the package.
    pub role: String,
    /// Output of the model.
    pub output: Option<f32>,
    /// The decision.
    pub decision: bool,
    /// The probability with which the device sent it; 1 where nothing was sampled out.
    pub inclusion: f64,
}

/// Reads batches of the stream `observations`.
pub fn observations(batch: &RecordBatch) -> Result<Vec<Observed>, RecordError> {
    let columns = Columns { stream: "observations", batch };
    let (event_id, time) = (columns.text("event_id")?, columns.time("event_time")?);
    let (line, version, role) = (columns.text("line")?, columns.int("version")?, columns.text("role")?);
    let (output, decision) = (columns.float("output")?, columns.bool("decision")?);
    // Nobody who samples may have sent any yet.
    let inclusion = match batch.column_by_name("inclusion") {
        Some(_) => Some(columns.cast("inclusion", &DataType::Float64)?),
        None => None,
    };
    let inclusion = inclusion.as_ref().map(|column| column.as_primitive::<Float64Type>());
    let certain = |given: f64| if given > 0.0 && given <= 1.0 { given } else { 1.0 };
    let row = |i: usize| Observed {
        event_id: event_id.value(i).to_owned(),
        time: time.value(i),
        line: line.value(i).to_owned(),
        version: version.value(i),
        role: role.value(i).to_owned(),
        output: output.is_valid(i).then(|| output.value(i)).filter(|output| output.is_finite()),
        decision: decision.is_valid(i) && decision.value(i),
        inclusion: inclusion.filter(|it| it.is_valid(i)).map_or(1.0, |it| certain(it.value(i))),
    };
    Ok((0..batch.num_rows()).map(row).collect())
}

/// The truth about an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labelled {
    /// The caller's event id.
    pub event_id: String,
    /// The truth.
    pub label: bool,
    /// UTC microseconds of event time, where the label came with it.
    pub time: Option<i64>,
    /// When the label became known, UTC microseconds.
    pub known_at: i64,
}

/// Reads batches of the stream `labels`.
pub fn labels(batch: &RecordBatch) -> Result<Vec<Labelled>, RecordError> {
    let columns = Columns { stream: "labels", batch };
    let (event_id, label) = (columns.text("event_id")?, columns.bool("label")?);
    let (time, known_at) = (columns.time("event_time")?, columns.time("known_at")?);
    let row = |i: usize| Labelled {
        event_id: event_id.value(i).to_owned(),
        label: label.value(i),
        time: time.is_valid(i).then(|| time.value(i)),
        known_at: known_at.value(i),
    };
    Ok((0..batch.num_rows()).filter(|i| label.is_valid(*i)).map(row).collect())
}

/// Reads event ids and entity keys out of batches of the stream `events`: one number per entity, equal for equal keys.
pub fn events(batch: &RecordBatch, entities: &[String]) -> Result<Vec<(String, Vec<u64>)>, RecordError> {
    let columns = Columns { stream: "events", batch };
    let event_id = columns.text("event_id")?;
    let mut keys = Vec::with_capacity(entities.len());
    for entity in entities {
        let wrong = |problem: String| RecordError { stream: "events", column: "of an entity", problem };
        let found = batch.column_by_name(entity).ok_or_else(|| wrong(format!("{entity} is missing")))?;
        let text = cast(found, &DataType::Utf8).map_err(|error| wrong(format!("{entity}: {error}")))?;
        keys.push(text.as_string::<i32>().clone());
    }
    let row = |i: usize| {
        let numbers = keys.iter().map(|key| number(if key.is_valid(i) { key.value(i) } else { "" }));
        (event_id.value(i).to_owned(), numbers.collect())
    };
    Ok((0..batch.num_rows()).map(row).collect())
}

/// A number for a text; two texts share one only by a chance that does not matter to statistics.
pub fn number(text: &str) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

/// Sketches with the device that sent each, and why others were left out.
pub type SketchesRead = (Vec<(String, Sketch)>, Vec<String>);

/// Reads batches of the stream `sketches`: the device and its sketch. One that does not decode, or contradicts the
/// columns beside it, is left out with the reason: the rest goes on.
pub fn sketches(batch: &RecordBatch) -> Result<SketchesRead, RecordError> {
    let columns = Columns { stream: "sketches", batch };
    let device = columns.text("device")?;
    let (line, version) = (columns.text("line")?, columns.int("version")?);
    let bytes = columns.cast("sketch", &DataType::Binary)?;
    let bytes = bytes.as_binary::<i32>();
    let (mut found, mut refused) = (Vec::new(), Vec::new());
    for i in 0..batch.num_rows() {
        let device = device.value(i);
        match Sketch::decode(bytes.value(i)) {
            Ok(s) if s.window.line == line.value(i) && i64::from(s.window.version) == version.value(i) => {
                found.push((device.to_owned(), s));
            }
            Ok(s) => {
                let (found, beside) = (&s.window.line, line.value(i));
                refused.push(format!("{device}: a sketch of {found} in a row of {beside}, or of another version"));
            }
            Err(error) => refused.push(format!("{device}: {error}")),
        }
    }
    Ok((found, refused))
}
