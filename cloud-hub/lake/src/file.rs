//! One Parquet file of the lake. Its footer lists the batches inside, so that a lost catalog can be rebuilt.

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::reader::{ChunkReader, Length};
use parquet::schema::types::ColumnPath;
use serde::{Deserialize, Serialize};
use tributary_process::disk::ReadAt;
use tributary_wire::{DeviceId, Incarnation, Lost, Micros, SequenceNumber, Sha256, StreamName};

use crate::columns::fit;
use crate::schema::{SYSTEM_COLUMNS, StreamColumn, StreamSchema, kind_of};
use crate::{LakeError, sums};

/// Names a batch for ever: no two bodies may share it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchKey {
    /// Who sent it.
    pub device: DeviceId,
    /// In which life of its state.
    pub incarnation: Incarnation,
    /// Which kind of records.
    pub stream: StreamName,
    /// Its place in the stream.
    pub sequence: SequenceNumber,
}

/// What a file's footer says about the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Footer {
    /// The stream that all rows belong to.
    pub stream: StreamName,
    /// UTC day of all rows, since 1970-01-01.
    pub day: i64,
    /// Earliest event time, UTC microseconds.
    pub min_time: i64,
    /// Latest event time.
    pub max_time: i64,
    /// The batches whose rows are here, wholly or in part.
    pub batches: Vec<FooterBatch>,
    /// Numbers that were answered for in the same step and have no rows anywhere in the stream.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rowless: Vec<Rowless>,
}

/// Numbers of a stream that hold no rows: a gap, an empty batch, or one whose rows went to another stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rowless {
    /// Whose.
    pub device: DeviceId,
    /// In which life of its state.
    pub incarnation: Incarnation,
    /// The first number.
    pub sequence: SequenceNumber,
    /// The last number; the same, except for a gap.
    pub last: SequenceNumber,
    /// Hash of the body as it travelled.
    pub hash: Sha256,
    /// Whether the device gave up what it had for these numbers.
    pub gap: bool,
    /// What it gave up.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lost: Vec<Lost>,
    /// When the hub took it in.
    pub received: Micros,
}

/// A batch in a footer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FooterBatch {
    /// Who sent it.
    pub device: DeviceId,
    /// In which life of its state.
    pub incarnation: Incarnation,
    /// Its place in the stream.
    pub sequence: SequenceNumber,
    /// Hash of its body as it travelled.
    pub hash: Sha256,
    /// How many of its rows are in this file.
    pub rows: u64,
    /// How many rows it has over all days. A batch is whole when the rows of its files add up to this.
    pub of: u64,
}

const FOOTER_KEY: &str = "tributary";
/// In every file with sums, so that sums whose mark is damaged are missed.
const SUMS_KEY: &str = "tributary.sums";

/// Rows per row group: large enough to compress, small enough to read one column of it at once.
const ROW_GROUP: usize = 128 * 1024;

/// Columns with few different values; a dictionary for the others costs time and gives nothing.
const FEW_VALUES: [&str; 6] = ["device", "source", "line", "role", "degraded", "ingest_time"];

/// Encodes records of one stream and day as a Parquet file.
pub fn encode(schema: &SchemaRef, records: &[RecordBatch], footer: &Footer) -> Result<Vec<u8>, LakeError> {
    let problem = |error: ParquetError| LakeError::Arrow(arrow::error::ArrowError::ParquetError(error.to_string()));
    let footer = serde_json::to_string(footer).map_err(|error| problem(ParquetError::General(error.to_string())))?;
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1).map_err(problem)?))
        .set_dictionary_enabled(false)
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_max_row_group_row_count(Some(ROW_GROUP))
        .set_key_value_metadata(Some(vec![
            KeyValue::new(FOOTER_KEY.to_owned(), footer),
            KeyValue::new(SUMS_KEY.to_owned(), "crc32c".to_owned()),
        ]));
    for column in FEW_VALUES {
        properties = properties.set_column_dictionary_enabled(ColumnPath::from(column), true);
    }
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, schema.clone(), Some(properties.build())).map_err(problem)?;
    for records in records {
        writer.write(&fit(records, schema)?).map_err(problem)?;
    }
    writer.close().map_err(problem)?;
    sums::put_into(&mut bytes);
    Ok(bytes)
}

/// A file of the lake, open.
pub struct LakeFile {
    builder: ParquetRecordBatchReaderBuilder<Chunks>,
}

impl LakeFile {
    /// Reads the file's end; a file that is cut short or damaged there is refused by name. Damage elsewhere is found
    /// when it is read.
    pub fn open(path: &Path, file: Arc<dyn ReadAt>) -> Result<Self, LakeError> {
        let damaged = |error: ParquetError| LakeError::Damaged { path: path.into(), problem: error.to_string() };
        let checked = sums::check(path, &file)?;
        let has_sums = checked.is_some();
        let builder = ParquetRecordBatchReaderBuilder::try_new(Chunks(checked.unwrap_or(file))).map_err(damaged)?;
        let pairs = builder.metadata().file_metadata().key_value_metadata();
        if !has_sums && pairs.into_iter().flatten().any(|pair| pair.key == SUMS_KEY) {
            return Err(damaged(ParquetError::General("its sums are not there".to_owned())));
        }
        Ok(Self { builder })
    }

    /// How many rows the file says it has.
    pub fn rows(&self) -> u64 {
        self.builder.metadata().file_metadata().num_rows().max(0) as u64
    }

    /// The stream's columns that the file has. Units are not in files.
    pub fn stream_schema(&self) -> StreamSchema {
        let fields = self.builder.schema().fields().iter();
        let own = fields.filter(|field| !SYSTEM_COLUMNS.contains(&field.name().as_str()));
        let column = |field: &arrow::datatypes::FieldRef| {
            let kind = kind_of(field.data_type())?;
            Some(StreamColumn { name: field.name().clone(), kind, unit: String::new(), nullable: true })
        };
        StreamSchema { columns: own.filter_map(column).collect() }
    }

    /// What the footer says.
    pub fn footer(&self, path: &Path) -> Result<Footer, LakeError> {
        let pairs = self.builder.metadata().file_metadata().key_value_metadata();
        let text = pairs.into_iter().flatten().find(|pair| pair.key == FOOTER_KEY).and_then(|pair| pair.value.as_ref());
        let footer = text.and_then(|text| serde_json::from_str(text).ok());
        footer.ok_or_else(|| LakeError::Foreign { path: path.into() })
    }

    /// Reads the columns of `schema` that the file has.
    pub fn read(self, path: &Path, schema: &SchemaRef) -> Result<ParquetRecordBatchReader, LakeError> {
        let wanted = schema.fields().iter().map(|field| field.name().as_str());
        let known = self.builder.schema();
        let roots = wanted.filter_map(|name| known.index_of(name).ok());
        let mask = ProjectionMask::roots(self.builder.parquet_schema(), roots.collect::<Vec<_>>());
        self.builder
            .with_projection(mask)
            .with_batch_size(16 * 1024)
            .build()
            .map_err(|error| LakeError::Damaged { path: path.into(), problem: error.to_string() })
    }
}

/// Lets the Parquet reader read from any [`ReadAt`].
struct Chunks(Arc<dyn ReadAt>);

impl Length for Chunks {
    fn len(&self) -> u64 {
        self.0.size()
    }
}

impl ChunkReader for Chunks {
    type T = From;

    fn get_read(&self, start: u64) -> Result<From, ParquetError> {
        Ok(From { file: self.0.clone(), position: start })
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        // A damaged footer may name any place; do not reserve memory for what cannot be there.
        if start.checked_add(length as u64).is_none_or(|end| end > self.0.size()) {
            return Err(ParquetError::EOF(format!("{length} bytes at {start} are beyond the end of the file")));
        }
        let mut bytes = vec![0; length];
        self.0.read_at(start, &mut bytes).map_err(|error| ParquetError::External(Box::new(error)))?;
        Ok(bytes.into())
    }
}

/// Reads on from a position.
struct From {
    file: Arc<dyn ReadAt>,
    position: u64,
}

impl Read for From {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.file.size().saturating_sub(self.position);
        let length = buffer.len().min(left.min(usize::MAX as u64) as usize);
        self.file.read_at(self.position, &mut buffer[..length])?;
        self.position += length as u64;
        Ok(length)
    }
}
