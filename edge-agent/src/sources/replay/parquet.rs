//! Parquet.

use std::fs::File;
use std::path::PathBuf;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimeUnit, TimestampMicrosecondType};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use tributary_features::{EntityKey, EntityKind, Event, Value, ValueKind, View};
use tributary_wire::{EventId, Micros};

use super::ReplayConfig;
use super::reader::{ReplayError, Rows, column};

pub(super) struct ParquetRows {
    file: PathBuf,
    reader: ParquetRecordBatchReader,
    total: u64,
    row: u64,
    id: String,
    time: String,
    entities: Vec<(String, EntityKind)>,
    values: Vec<(String, ValueKind)>,
    batch: Option<(Columns, usize, usize)>,
}

/// The columns of one batch, as the types that events have.
struct Columns {
    id: Cast,
    time: Cast,
    entities: Vec<Cast>,
    values: Vec<Cast>,
}

/// A column as the type that is needed, and as it was: a cast makes null of what does not fit.
struct Cast {
    column: ArrayRef,
    before: ArrayRef,
}

impl Cast {
    /// Whether there is a value in a row; an error when there is one of another type.
    fn has(&self, name: &str, at: usize) -> Result<bool, String> {
        if !self.column.is_null(at) {
            return Ok(true);
        }
        if self.before.is_null(at) {
            return Ok(false);
        }
        let found = arrow::util::display::array_value_to_string(&self.before, at).unwrap_or_default();
        let found: String = found.chars().take(80).collect();
        Err(format!("`{name}` should be {}, found {found:?}", self.column.data_type()))
    }
}

impl ParquetRows {
    pub(super) fn open(config: &ReplayConfig, view: &View, begin: u64) -> Result<Self, ReplayError> {
        let path = &config.file;
        let unreadable = |problem: String| ReplayError::Unreadable { file: path.clone(), problem };
        let opened = File::open(path).map_err(|source| ReplayError::Io { file: path.clone(), source })?;
        let builder =
            ParquetRecordBatchReaderBuilder::try_new(opened).map_err(|error| unreadable(error.to_string()))?;
        let total = builder.metadata().file_metadata().num_rows() as u64;
        if begin > total {
            return Err(unreadable(format!("it has only {total} rows, {begin} were read before")));
        }
        let names: Vec<String> = builder.schema().fields().iter().map(|field| field.name().clone()).collect();
        let mut wanted = vec![column(path, &names, &config.id)?, column(path, &names, &config.time_column)?];
        let mut entities = Vec::new();
        for entity in view.entities() {
            wanted.push(column(path, &names, &entity.name)?);
            entities.push((entity.name.clone(), entity.kind));
        }
        let mut values = Vec::new();
        for value in view.values() {
            if !value.required && !names.contains(&value.name) {
                continue;
            }
            wanted.push(column(path, &names, &value.name)?);
            values.push((value.name.clone(), value.kind));
        }
        let mask = ProjectionMask::roots(builder.parquet_schema(), wanted);
        let reader = builder.with_projection(mask).with_batch_size(1024).with_offset(begin as usize).build();
        let reader = reader.map_err(|error| unreadable(error.to_string()))?;
        let (id, time) = (config.id.clone(), config.time_column.clone());
        Ok(Self { file: path.clone(), reader, total, row: begin, id, time, entities, values, batch: None })
    }

    fn broken(&self, problem: String) -> ReplayError {
        ReplayError::Broken { file: self.file.clone(), row: self.row + 1, problem }
    }

    fn columns(&self, batch: &RecordBatch) -> Result<Columns, String> {
        let find = |name: &str| batch.column_by_name(name).ok_or_else(|| format!("column {name:?} is missing"));
        let as_type = |name: &str, kind: &DataType| -> Result<Cast, String> {
            let column = find(name)?;
            // A fraction must not be cut off silently on its way to a whole number.
            let loses = *kind == DataType::Int64 && !column.data_type().is_integer();
            if loses {
                return Err(format!("column {name:?} is {}, expected a whole number", column.data_type()));
            }
            let cast = cast(column, kind).map_err(|error| format!("column {name:?}: {error}"))?;
            Ok(Cast { column: cast, before: column.clone() })
        };
        let time = find(&self.time)?;
        let micros = DataType::Timestamp(TimeUnit::Microsecond, None);
        let time = if time.data_type().is_integer() {
            let whole = cast(time, &DataType::Int64).and_then(|time| cast(&time, &micros));
            Cast { column: whole.map_err(|error| error.to_string())?, before: time.clone() }
        } else {
            as_type(&self.time, &micros)?
        };
        let entity = |kind: EntityKind| match kind {
            EntityKind::Int => DataType::Int64,
            EntityKind::Text => DataType::Utf8,
        };
        let value = |kind: ValueKind| match kind {
            ValueKind::Bool => DataType::Boolean,
            ValueKind::Int => DataType::Int64,
            ValueKind::Double => DataType::Float64,
            ValueKind::Text => DataType::Utf8,
        };
        Ok(Columns {
            id: as_type(&self.id, &DataType::Utf8)?,
            time,
            entities: self
                .entities
                .iter()
                .map(|(name, kind)| as_type(name, &entity(*kind)))
                .collect::<Result<_, _>>()?,
            values: self.values.iter().map(|(name, kind)| as_type(name, &value(*kind))).collect::<Result<_, _>>()?,
        })
    }

    fn event(&self, columns: &Columns, at: usize) -> Result<Event, String> {
        let missing = |name: &str| format!("`{name}` is null");
        if !columns.id.has(&self.id, at)? {
            return Err(missing(&self.id));
        }
        let id = EventId::new(columns.id.column.as_string::<i32>().value(at)).map_err(|error| error.to_string())?;
        if !columns.time.has(&self.time, at)? {
            return Err(missing(&self.time));
        }
        let time = Micros(columns.time.column.as_primitive::<TimestampMicrosecondType>().value(at));
        let mut entities = Vec::with_capacity(self.entities.len());
        for ((name, kind), cast) in self.entities.iter().zip(&columns.entities) {
            if !cast.has(name, at)? {
                return Err(missing(name));
            }
            let column = &cast.column;
            let key = match kind {
                EntityKind::Int => EntityKey::Int(column.as_primitive::<Int64Type>().value(at)),
                EntityKind::Text => EntityKey::Text(column.as_string::<i32>().value(at).to_owned()),
            };
            entities.push((name.clone(), key));
        }
        let mut values = Vec::with_capacity(self.values.len());
        for ((name, kind), cast) in self.values.iter().zip(&columns.values) {
            if !cast.has(name, at)? {
                continue;
            }
            let column = &cast.column;
            let value = match kind {
                ValueKind::Bool => Value::Bool(column.as_boolean().value(at)),
                ValueKind::Int => Value::Int(column.as_primitive::<Int64Type>().value(at)),
                ValueKind::Double => Value::Double(column.as_primitive::<Float64Type>().value(at)),
                ValueKind::Text => Value::Text(column.as_string::<i32>().value(at).to_owned()),
            };
            values.push((name.clone(), value));
        }
        Ok(Event { id, time, entities, values })
    }
}

impl Rows for ParquetRows {
    fn next(&mut self) -> Result<Option<Result<Event, String>>, ReplayError> {
        if self.batch.as_ref().is_none_or(|(_, at, rows)| at == rows) {
            self.batch = match self.reader.next() {
                None if self.row < self.total => {
                    return Err(self.broken(format!("the file ends here, it promised {} rows", self.total)));
                }
                None => return Ok(None),
                Some(batch) => {
                    let batch = batch.map_err(|error| self.broken(error.to_string()))?;
                    let columns = self.columns(&batch).map_err(|problem| self.broken(problem))?;
                    Some((columns, 0, batch.num_rows()))
                }
            };
        }
        let Some((columns, at, _)) = &self.batch else { return Ok(None) };
        let event = self.event(columns, *at);
        self.row += 1;
        if let Some((_, at, _)) = &mut self.batch {
            *at += 1;
        }
        Ok(Some(event))
    }

    fn total(&self) -> Option<u64> {
        Some(self.total)
    }
}
