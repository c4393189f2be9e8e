//! Payments from and to Parquet files.
//!
//! Columns: `transaction_id`, `event_time` (timestamp, UTC), `customer_id`, `terminal_id`, `amount`, `fraud` (number or
//! truth value) and, if there is one, `fraud_scenario`. Number columns may have any width.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, Int8Array, Int64Array, RecordBatch, TimestampMicrosecondArray,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int8Type, Int64Type, TimeUnit, TimestampMicrosecondType};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tributary_features::Micros;

use crate::transaction::Transaction;

/// Why a file of payments cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be opened or made.
    #[error("cannot open {path}")]
    Open {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not Parquet, or broken.
    #[error("cannot read {path} as Parquet")]
    Parquet {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: parquet::errors::ParquetError,
    },
    /// A part of it cannot be decoded.
    #[error("cannot read the rows of {path}")]
    Rows {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: arrow::error::ArrowError,
    },
    /// A column is not there, or holds something else.
    #[error("column {column:?} of {path}: {problem}")]
    Column {
        /// Which file.
        path: PathBuf,
        /// Which column.
        column: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// A payment is earlier than the one before it: replays need time order.
    #[error("{path}: transaction {id} is earlier than the one before it")]
    Order {
        /// Which file.
        path: PathBuf,
        /// Which payment.
        id: i64,
    },
}

/// Reads payments in time order.
pub fn load_parquet(path: &Path) -> Result<Vec<Transaction>, LoadError> {
    let mut payments = Vec::new();
    each_transaction(path, |payment| payments.push(payment))?;
    Ok(payments)
}

/// Calls `visit` with every payment in time order; holds a few thousand rows at a time.
pub fn each_transaction(path: &Path, mut visit: impl FnMut(Transaction)) -> Result<(), LoadError> {
    let own = || path.to_owned();
    let file = File::open(path).map_err(|source| LoadError::Open { path: own(), source })?;
    let reader =
        ParquetRecordBatchReaderBuilder::try_new(file).and_then(|builder| builder.with_batch_size(8192).build());
    let reader = reader.map_err(|source| LoadError::Parquet { path: own(), source })?;
    let mut newest = Micros(i64::MIN);
    for rows in reader {
        let rows = rows.map_err(|source| LoadError::Rows { path: own(), source })?;
        let columns =
            Columns::of(&rows).map_err(|(column, problem)| LoadError::Column { path: own(), column, problem })?;
        for row in 0..rows.num_rows() {
            let payment = columns.payment(row);
            if payment.time < newest {
                return Err(LoadError::Order { path: own(), id: payment.id });
            }
            newest = payment.time;
            visit(payment);
        }
    }
    Ok(())
}

struct Columns {
    id: Int64Array,
    time: TimestampMicrosecondArray,
    customer: Int64Array,
    terminal: Int64Array,
    amount: Float64Array,
    fraud: Int8Array,
    scenario: Option<Int8Array>,
}

impl Columns {
    fn of(rows: &RecordBatch) -> Result<Self, (&'static str, String)> {
        let column = |name: &'static str, kind: DataType| -> Result<ArrayRef, (&'static str, String)> {
            let found = rows.column_by_name(name).ok_or((name, "missing".to_owned()))?;
            let is_number = found.data_type().is_numeric() || matches!(found.data_type(), DataType::Boolean);
            let is_time = matches!(found.data_type(), DataType::Timestamp(..));
            if is_time != matches!(kind, DataType::Timestamp(..)) || !(is_number || is_time) {
                return Err((name, format!("its type is {}; {kind} is expected", found.data_type())));
            }
            let values = cast(found, &kind).map_err(|error| (name, error.to_string()))?;
            match values.null_count() {
                0 => Ok(values),
                count => Err((name, format!("{count} values are missing or out of range"))),
            }
        };
        let time = column("event_time", DataType::Timestamp(TimeUnit::Microsecond, None))?;
        let scenario = match rows.column_by_name("fraud_scenario") {
            Some(_) => Some(column("fraud_scenario", DataType::Int8)?.as_primitive::<Int8Type>().clone()),
            None => None,
        };
        let amount = column("amount", DataType::Float64)?.as_primitive::<Float64Type>().clone();
        if let Some(wrong) = amount.values().iter().find(|amount| !amount.is_finite()) {
            return Err(("amount", format!("{wrong} is not a finite number")));
        }
        Ok(Self {
            id: column("transaction_id", DataType::Int64)?.as_primitive::<Int64Type>().clone(),
            time: time.as_primitive::<TimestampMicrosecondType>().clone(),
            customer: column("customer_id", DataType::Int64)?.as_primitive::<Int64Type>().clone(),
            terminal: column("terminal_id", DataType::Int64)?.as_primitive::<Int64Type>().clone(),
            amount,
            fraud: column("fraud", DataType::Int8)?.as_primitive::<Int8Type>().clone(),
            scenario,
        })
    }

    fn payment(&self, row: usize) -> Transaction {
        Transaction {
            id: self.id.value(row),
            time: Micros(self.time.value(row)),
            customer_id: self.customer.value(row),
            terminal_id: self.terminal.value(row),
            amount: self.amount.value(row),
            fraud: self.fraud.value(row) != 0,
            scenario: self.scenario.as_ref().map_or(0, |scenario| scenario.value(row) as u8),
        }
    }
}

/// Writes payments with the columns that [`load_parquet`] reads.
pub fn write_parquet(path: &Path, payments: &[Transaction]) -> Result<(), LoadError> {
    fn column<T: 'static, A: Array + From<Vec<T>> + 'static>(
        payments: &[Transaction],
        value: impl Fn(&Transaction) -> T,
    ) -> ArrayRef {
        Arc::new(A::from(payments.iter().map(value).collect::<Vec<T>>()))
    }
    let times: Vec<_> = payments.iter().map(|payment| payment.time.0).collect();
    let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC"));
    let rows = RecordBatch::try_from_iter([
        ("transaction_id", column::<_, Int64Array>(payments, |payment| payment.id)),
        ("event_time", times),
        ("customer_id", column::<_, Int64Array>(payments, |payment| payment.customer_id)),
        ("terminal_id", column::<_, Int64Array>(payments, |payment| payment.terminal_id)),
        ("amount", column::<_, Float64Array>(payments, |payment| payment.amount)),
        ("fraud", column::<_, Int8Array>(payments, |payment| i8::from(payment.fraud))),
        ("fraud_scenario", column::<_, Int8Array>(payments, |payment| payment.scenario as i8)),
    ]);
    let rows = rows.map_err(|source| LoadError::Rows { path: path.to_owned(), source })?;
    let file = File::create(path).map_err(|source| LoadError::Open { path: path.to_owned(), source })?;
    let write = || {
        let mut writer = ArrowWriter::try_new(file, rows.schema(), None)?;
        writer.write(&rows)?;
        writer.close()
    };
    write().map(|_| ()).map_err(|source| LoadError::Parquet { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Generator, GeneratorConfig};

    #[test]
    fn payments_come_back_as_they_were_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("payments.parquet");
        let payments: Vec<_> = Generator::new(GeneratorConfig { days: 2, ..GeneratorConfig::default() }).collect();
        write_parquet(&path, &payments).unwrap();
        assert_eq!(load_parquet(&path).unwrap(), payments);
        // Cut off, out of order, without a column: each is named.
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        assert!(matches!(load_parquet(&path), Err(LoadError::Parquet { .. })));
        let backwards: Vec<_> = payments.iter().rev().cloned().collect();
        write_parquet(&path, &backwards).unwrap();
        assert!(matches!(load_parquet(&path), Err(LoadError::Order { .. })));
        assert!(matches!(load_parquet(&folder.path().join("none")), Err(LoadError::Open { .. })));
    }

    #[test]
    fn a_column_that_is_missing_or_of_another_type_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("payments.parquet");
        let ids: ArrayRef = Arc::new(Int64Array::from(vec![1]));
        for (times, expected) in [
            (Arc::new(Int64Array::from(vec![1])) as ArrayRef, "column \"event_time\""),
            (Arc::new(TimestampMicrosecondArray::from(vec![1])) as ArrayRef, "column \"amount\""),
        ] {
            let rows = RecordBatch::try_from_iter([("transaction_id", ids.clone()), ("event_time", times)]).unwrap();
            let mut writer = ArrowWriter::try_new(File::create(&path).unwrap(), rows.schema(), None).unwrap();
            writer.write(&rows).unwrap();
            writer.close().unwrap();
            let error = load_parquet(&path).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
