//! Columns as they travelled → Arrow, with the lake's own columns beside them.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanArray, Float32Array, Float64Array, Int64Array, ListArray, RecordBatch, StringArray,
    StringBuilder, TimestampMicrosecondArray, new_null_array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field as ArrowField, Fields, Schema, SchemaRef};
use tributary_wire::{Column, Field, FieldType, Micros};

use crate::LakeError;
use crate::file::BatchKey;
use crate::schema::{data_type, system_fields};

/// The columns of one batch and who sent it, as Arrow.
pub fn to_records(
    key: &BatchKey,
    ingest_time: Micros,
    fields: &[Field],
    columns: Vec<Column>,
) -> Result<RecordBatch, LakeError> {
    let rows = columns.first().map_or(0, Column::len);
    let own = fields.iter().map(|field| ArrowField::new(&field.name, data_type(field.kind), true));
    let schema = Schema::new(own.chain(system_fields()).collect::<Fields>());
    let mut arrays: Vec<ArrayRef> = columns.into_iter().map(to_array).collect();
    arrays.push(repeated_text(key.device.as_str(), rows));
    arrays.push(Arc::new(Int64Array::from(vec![i64::from(key.incarnation.0); rows])));
    arrays.push(Arc::new(Int64Array::from(vec![key.sequence.0 as i64; rows])));
    arrays.push(Arc::new(TimestampMicrosecondArray::from(vec![ingest_time.0; rows]).with_timezone("UTC")));
    Ok(RecordBatch::try_new(Arc::new(schema), arrays)?)
}

fn repeated_text(text: &str, rows: usize) -> ArrayRef {
    let mut builder = StringBuilder::with_capacity(rows, rows * text.len());
    (0..rows).for_each(|_| builder.append_value(text));
    Arc::new(builder.finish())
}

fn to_array(column: Column) -> ArrayRef {
    match column {
        Column::Bool(values) => Arc::new(BooleanArray::from(values)),
        Column::Int(values) => {
            let (values, nulls) = split(values, |value| value);
            Arc::new(Int64Array::new(values.into(), nulls))
        }
        Column::Double(values) => {
            let (values, nulls) = split(values, |value| value);
            Arc::new(Float64Array::new(values.into(), nulls))
        }
        Column::Float(values) => {
            let (values, nulls) = split(values, |value| value);
            Arc::new(Float32Array::new(values.into(), nulls))
        }
        Column::Time(values) => {
            let (values, nulls) = split(values, |value: Micros| value.0);
            Arc::new(TimestampMicrosecondArray::new(values.into(), nulls).with_timezone("UTC"))
        }
        Column::Text(values) => Arc::new(StringArray::from_iter(values)),
        Column::Bytes(values) => {
            let mut builder = BinaryBuilder::new();
            values.iter().for_each(|value| builder.append_option(value.as_ref()));
            Arc::new(builder.finish())
        }
        Column::FloatList(values) => Arc::new(float_lists(&values)),
    }
}

/// Values and validity apart; no validity at all when nothing is missing, which is the common case.
fn split<T, N: Default>(values: Vec<Option<T>>, convert: impl Fn(T) -> N) -> (Vec<N>, Option<NullBuffer>) {
    let nulls = values.iter().any(Option::is_none);
    let nulls = nulls.then(|| NullBuffer::from_iter(values.iter().map(Option::is_some)));
    (values.into_iter().map(|value| value.map(&convert).unwrap_or_default()).collect(), nulls)
}

fn float_lists(values: &[Option<Vec<f32>>]) -> ListArray {
    let lengths = values.iter().map(|value| value.as_ref().map_or(0, Vec::len));
    let offsets = OffsetBuffer::from_lengths(lengths);
    let mut flat = Vec::with_capacity(offsets.last().map_or(0, |last| *last as usize));
    values.iter().flatten().for_each(|value| flat.extend_from_slice(value));
    let missing = values.iter().any(Option::is_none);
    let nulls = missing.then(|| NullBuffer::from_iter(values.iter().map(Option::is_some)));
    let element = Arc::new(ArrowField::new("element", DataType::Float32, false));
    ListArray::new(element, offsets, Arc::new(Float32Array::new(ScalarBuffer::from(flat), None)), nulls)
}

/// The same records under another schema: columns by name, those it lacks empty.
pub(crate) fn fit(records: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, LakeError> {
    let column = |field: &Arc<ArrowField>| match records.column_by_name(field.name()) {
        Some(column) => column.clone(),
        None => new_null_array(field.data_type(), records.num_rows()),
    };
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(records.num_rows()));
    let columns = schema.fields().iter().map(column).collect();
    Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?)
}

/// The instants that place rows on a day: `event_time`, else when the window began, else when it became known.
/// A row without any lies on the day it was taken in.
pub(crate) fn event_times(records: &RecordBatch, ingest_time: Micros) -> Vec<i64> {
    let time = data_type(FieldType::Time);
    let columns: Vec<&TimestampMicrosecondArray> = ["event_time", "window_start", "known_at"]
        .iter()
        .filter_map(|name| records.column_by_name(name))
        .filter(|column| *column.data_type() == time)
        .filter_map(|column| column.as_any().downcast_ref())
        .collect();
    let at = |row: usize| columns.iter().find_map(|c| arrow::array::Array::is_valid(*c, row).then(|| c.value(row)));
    (0..records.num_rows()).map(|row| at(row).unwrap_or(ingest_time.0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Array, AsArray};
    use tributary_wire::{DeviceId, Incarnation, Sensitivity, SequenceNumber, StreamName};

    #[test]
    fn every_wire_type_keeps_its_values_and_its_gaps() {
        let field = |name: &str, kind| Field {
            name: name.into(),
            kind,
            unit: String::new(),
            nullable: true,
            sensitivity: Sensitivity::Keep,
        };
        let columns = vec![
            Column::Bool(vec![Some(true), None]),
            Column::Int(vec![None, Some(-3)]),
            Column::Double(vec![Some(0.5), None]),
            Column::Float(vec![Some(1.5), Some(2.5)]),
            Column::Text(vec![Some("a".into()), None]),
            Column::Bytes(vec![Some(vec![1, 2]), None]),
            Column::Time(vec![Some(Micros(7)), None]),
            Column::FloatList(vec![Some(vec![1.0, 2.0]), None]),
        ];
        let fields: Vec<_> = columns.iter().enumerate().map(|(i, c)| field(&format!("c{i}"), c.kind())).collect();
        let key = BatchKey {
            device: DeviceId::new("edge-1").unwrap(),
            incarnation: Incarnation(2),
            stream: StreamName::new("events").unwrap(),
            sequence: SequenceNumber(9),
        };
        let records = to_records(&key, Micros(99), &fields, columns).unwrap();
        assert_eq!(records.num_rows(), 2);
        assert!(records.column(0).as_boolean().value(0) && records.column(0).is_null(1));
        assert!(records.column(1).is_null(0));
        assert_eq!(records.column(3).null_count(), 0);
        assert_eq!(records.column(4).as_string::<i32>().value(0), "a");
        assert_eq!(records.column(7).as_list::<i32>().value(0).len(), 2);
        assert_eq!(records.column_by_name("device").unwrap().as_string::<i32>().value(1), "edge-1");
        assert_eq!(event_times(&records, Micros(99)), [99, 99]);
    }
}
