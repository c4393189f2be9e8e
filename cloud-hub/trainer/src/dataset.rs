//! Reads a dataset file, checks it, and divides it by time.

use std::fs::File;
use std::ops::Range;
use std::path::Path;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int64Type, TimeUnit};
use arrow::record_batch::RecordBatch;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tributary_wire::Micros;

use crate::error::DatasetError;
use crate::result::Part;
use crate::spec::Split;
use crate::truth::Truth;

/// The probability with which a row was taken; rows of a file without this column were all taken.
const INCLUSION: &str = "inclusion";

/// Labelled rows in order of event time.
#[derive(Debug, Clone, Default)]
pub struct Dataset {
    /// Features of a row.
    pub width: usize,
    /// Row by row.
    pub features: Vec<f32>,
    /// The truth.
    pub labels: Vec<bool>,
    /// For how many each row stands; empty where each stands for itself.
    pub weights: Vec<f64>,
    /// Event time.
    pub times: Vec<Micros>,
    /// Rows without a label, which were left out.
    pub unlabelled: usize,
}

impl Dataset {
    /// Reads the columns `features`, `label` and `time` of a Parquet file, and [`INCLUSION`] where it has that.
    pub fn read(path: &Path, features: &[String], label: &str, time: &str) -> Result<Self, DatasetError> {
        let unreadable = |reason: String| DatasetError::Unreadable { path: path.to_owned(), reason };
        let file = File::open(path).map_err(|error| unreadable(error.to_string()))?;
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| unreadable(error.to_string()))?;
        let names: Vec<_> = reader.schema().fields().iter().map(|field| field.name().clone()).collect();
        for column in features.iter().map(String::as_str).chain([label, time]) {
            if !names.iter().any(|name| name == column) {
                return Err(DatasetError::MissingColumn { column: column.to_owned(), found: names.join(", ") });
            }
        }
        let reader = reader.with_batch_size(16_384).build().map_err(|error| unreadable(error.to_string()))?;
        let mut dataset = Self { width: features.len(), ..Self::default() };
        let mut first = 0;
        for batch in reader {
            let batch = batch.map_err(|error| unreadable(error.to_string()))?;
            dataset.append(&batch, first, features, label, time)?;
            first += batch.num_rows();
        }
        if dataset.weights.iter().all(|weight| *weight == 1.0) {
            dataset.weights.clear();
        }
        if let Some(row) = dataset.times.windows(2).position(|pair| pair[1] < pair[0]) {
            return Err(DatasetError::OutOfOrder { row: row + 1 });
        }
        if dataset.labels.is_empty() {
            return Err(DatasetError::NoLabels { rows: dataset.unlabelled });
        }
        Ok(dataset)
    }

    fn append(
        &mut self,
        batch: &RecordBatch,
        first: usize,
        features: &[String],
        label: &str,
        time: &str,
    ) -> Result<(), DatasetError> {
        let labels = column(batch, label, &DataType::Boolean, "boolean")?;
        let labels = labels.as_boolean();
        let times = column(batch, time, &DataType::Timestamp(TimeUnit::Microsecond, None), "timestamp")?;
        let times = column_as(&times, time, &DataType::Int64, "timestamp")?;
        let times = times.as_primitive::<Int64Type>();
        let columns = features
            .iter()
            .map(|name| column(batch, name, &DataType::Float32, "number"))
            .collect::<Result<Vec<_>, _>>()?;
        let columns: Vec<_> = columns.iter().map(|column| column.as_primitive::<Float32Type>()).collect();
        let inclusion = batch.column_by_name(INCLUSION);
        let inclusion = inclusion.map(|_| column(batch, INCLUSION, &DataType::Float64, "number")).transpose()?;
        let inclusion = inclusion.as_ref().map(|column| column.as_primitive::<Float64Type>());
        for row in 0..batch.num_rows() {
            let bad = |column: &str, found: String| DatasetError::NotFinite {
                row: first + row,
                column: column.to_owned(),
                found,
            };
            if times.is_null(row) {
                return Err(bad(time, "null".to_owned()));
            }
            if labels.is_null(row) {
                self.unlabelled += 1;
                continue;
            }
            for (name, values) in features.iter().zip(&columns) {
                if values.is_null(row) {
                    return Err(bad(name, "null".to_owned()));
                }
                let value = values.value(row);
                if !value.is_finite() {
                    return Err(bad(name, value.to_string()));
                }
                self.features.push(value);
            }
            let probability = inclusion.filter(|it| it.is_valid(row)).map_or(1.0, |it| it.value(row));
            if !(probability > 0.0 && probability <= 1.0) {
                let (row, found) = (first + row, probability);
                return Err(DatasetError::Inclusion { row, column: INCLUSION, found });
            }
            self.weights.push(1.0 / probability);
            self.labels.push(labels.value(row));
            self.times.push(Micros(times.value(row)));
        }
        Ok(())
    }

    fn len(&self) -> usize {
        self.labels.len()
    }

    /// The features of some rows, row by row.
    pub fn rows(&self, range: Range<usize>) -> &[f32] {
        &self.features[range.start * self.width..range.end * self.width]
    }

    /// What is true of some rows.
    pub fn truth(&self, range: Range<usize>) -> Truth<'_> {
        let weights = if self.weights.is_empty() { &[][..] } else { &self.weights[range.clone()] };
        Truth { labels: &self.labels[range], weights }
    }

    /// How many of some rows are positive.
    pub fn positives(&self, range: Range<usize>) -> usize {
        self.labels[range].iter().filter(|label| **label).count()
    }

    /// Rows, positives and days of a part.
    pub fn part(&self, range: Range<usize>) -> Part {
        let (from, to) = (self.times[range.start], self.times[range.end - 1]);
        Part { rows: range.len(), positives: self.positives(range), from, to }
    }

    /// Divides the rows by UTC day: the latest for the test, those before for validation, the rest for training.
    pub fn split(&self, split: Split) -> Result<Parts, DatasetError> {
        let (first, last) = (self.times[0].day(), self.times[self.len() - 1].day());
        let test_day = last + 1 - i64::from(split.test_days);
        let validation_day = test_day - i64::from(split.validation_days);
        if validation_day <= first {
            let Split { validation_days, test_days } = split;
            return Err(DatasetError::TooFewDays {
                found: last - first + 1,
                validation: validation_days,
                test: test_days,
            });
        }
        let start = |day: i64| self.times.partition_point(|time| time.day() < day);
        let (validation, test) = (start(validation_day), start(test_day));
        let parts = Parts { training: 0..validation, validation: validation..test, test: test..self.len() };
        for (part, range) in [("training", &parts.training), ("validation", &parts.validation), ("test", &parts.test)] {
            let positives = self.positives(range.clone());
            let negatives = range.len() - positives;
            if positives == 0 || negatives == 0 {
                return Err(DatasetError::OneClass { part, positives, negatives });
            }
        }
        Ok(parts)
    }
}

/// The rows of each part, in time order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parts {
    /// Earliest.
    pub training: Range<usize>,
    /// Later.
    pub validation: Range<usize>,
    /// Latest.
    pub test: Range<usize>,
}

fn column(
    batch: &RecordBatch,
    name: &str,
    target: &DataType,
    expected: &'static str,
) -> Result<ArrayRef, DatasetError> {
    let array = batch.column_by_name(name).expect("the schema was checked");
    let fits = match target {
        DataType::Timestamp(..) => matches!(array.data_type(), DataType::Timestamp(..)),
        DataType::Boolean => array.data_type() == &DataType::Boolean || array.data_type().is_integer(),
        _ => array.data_type().is_numeric() || array.data_type() == &DataType::Boolean,
    };
    if fits { column_as(array, name, target, expected) } else { Err(wrong_type(array, name, expected)) }
}

fn column_as(
    array: &ArrayRef,
    name: &str,
    target: &DataType,
    expected: &'static str,
) -> Result<ArrayRef, DatasetError> {
    cast(array, target).map_err(|_| wrong_type(array, name, expected))
}

fn wrong_type(array: &ArrayRef, name: &str, expected: &'static str) -> DatasetError {
    DatasetError::ColumnType { column: name.to_owned(), found: array.data_type().to_string(), expected }
}
