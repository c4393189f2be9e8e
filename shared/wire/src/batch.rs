//! Records on their way up: a header that can be read alone, and a body of columns.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::frame::{self, CRC, DecodeError, MAX_BODY_BYTES, MAX_HEADER_BYTES};
use crate::{Incarnation, Micros, SequenceNumber, StreamName};

/// A numbered group of records of one stream: header and body as they travel.
///
/// ```text
/// u16 le: header length │ header (postcard) │ u32 le: CRC-32C of the header │ body
/// ```
///
/// The header stands alone so that a body that does not decode can still be named, kept and acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// What it is and what its body should look like.
    pub header: BatchHeader,
    /// [`BatchBody`] in postcard, compressed as the header says. Compression happens outside this crate.
    pub body: Vec<u8>,
}

/// Versions of the header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum BatchHeader {
    /// The first.
    V1(BatchHeaderV1),
}

/// Names a batch and describes its body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchHeaderV1 {
    /// Which life of the device's state numbered this batch.
    pub incarnation: Incarnation,
    /// Which kind of records.
    pub stream: StreamName,
    /// Its place in the stream.
    pub sequence: SequenceNumber,
    /// How many records the body holds; 0 for a gap.
    pub rows: u32,
    /// How the body is compressed.
    pub encoding: BodyEncoding,
    /// Length of the body after decompression, so that a reader can refuse it before it spends memory.
    pub body_bytes: u32,
    /// CRC-32C of the body as it travels.
    pub body_crc: u32,
    /// When and by which clock the batch was closed.
    pub stamp: Stamp,
}

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum BodyEncoding {
    /// Not at all.
    Plain,
    /// One zstd frame.
    Zstd,
}

/// When something happened, by the clocks a device has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// Random number of this start of the machine or process: monotonic times of one boot compare, others do not.
    pub boot: u64,
    /// Microseconds since that boot.
    pub monotonic: u64,
    /// Wall time as the device believes it.
    pub wall: Micros,
    /// Whether the device has reason to believe it.
    pub clock: ClockState,
}

/// How far wall time can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClockState {
    /// It agreed with the hub's to a few seconds when they were last compared.
    Synchronised,
    /// Only known not to run behind the persisted floor.
    Unsynchronised,
}

/// What a batch holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum BatchBody {
    /// Records, column by column; all columns have as many values as the header has rows.
    Records {
        /// One per column.
        schema: Vec<Field>,
        /// In the order of the schema.
        columns: Vec<Column>,
    },
    /// The device dropped records rather than keep them: sequences up to and including `to` will not come.
    Gap {
        /// Last sequence that will not come; the header's sequence is the first.
        to: SequenceNumber,
        /// What was in them.
        dropped: Vec<Dropped>,
    },
    /// The same, with the event times of what is lost. Sent only to a hub that has sent an
    /// [`AssignmentV3`](crate::AssignmentV3): an older one could not read it.
    GapV2 {
        /// Last sequence that will not come; the header's sequence is the first.
        to: SequenceNumber,
        /// What was in them.
        lost: Vec<Lost>,
    },
}

/// A number of records that a device gave up, why, and from which time they were.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// Why.
    pub reason: LossReason,
    /// How many records.
    pub records: u64,
    /// Event times of the earliest and of the latest of them, where they are known.
    pub span: Option<(Micros, Micros)>,
}

impl From<Dropped> for Lost {
    fn from(dropped: Dropped) -> Self {
        let reason = match dropped.reason {
            DropReason::DiskBudget => LossReason::DiskBudget,
            DropReason::Corrupt => LossReason::Corrupt,
        };
        Self { reason, records: dropped.records, span: None }
    }
}

/// Why a device gave records up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum LossReason {
    /// The outbox reached its disk budget.
    DiskBudget,
    /// The records were found damaged on the device's disk.
    Corrupt,
    /// They grew older than raw observations are kept.
    Age,
}

impl LossReason {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::DiskBudget, Self::Corrupt, Self::Age];

    /// Its name in tables, metrics and pages.
    pub fn name(self) -> &'static str {
        match self {
            Self::DiskBudget => "disk-budget",
            Self::Corrupt => "corrupt",
            Self::Age => "age",
        }
    }
}

/// A number of records that a device gave up, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// Why.
    pub reason: DropReason,
    /// How many records.
    pub records: u64,
}

/// Why a device gave records up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DropReason {
    /// The outbox reached its disk budget.
    DiskBudget,
    /// The records were found damaged on the device's disk.
    Corrupt,
}

/// Name and type of a column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Field {
    /// Column name in the lake.
    pub name: String,
    /// Type of its values.
    pub kind: FieldType,
    /// Unit in words (`EUR`, `us`), empty when it has none.
    pub unit: String,
    /// Whether a value may be missing.
    pub nullable: bool,
    /// What was done to it before it left the device.
    pub sensitivity: Sensitivity,
}

/// Type of the values of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FieldType {
    /// True or false.
    Bool,
    /// Signed 64-bit.
    Int,
    /// 64-bit floating point.
    Double,
    /// 32-bit floating point.
    Float,
    /// UTF-8 text.
    Text,
    /// Anything.
    Bytes,
    /// UTC microseconds.
    Time,
    /// A vector of 32-bit floats (features as served, sketch counts).
    FloatList,
}

/// What the device did to a column before it stored it for sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sensitivity {
    /// Sent as it is.
    Keep,
    /// Sent as a keyed hash.
    Hash,
    /// Not sent.
    Drop,
}

/// The values of a column.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Column {
    /// See [`FieldType::Bool`].
    Bool(Vec<Option<bool>>),
    /// See [`FieldType::Int`].
    Int(Vec<Option<i64>>),
    /// See [`FieldType::Double`].
    Double(Vec<Option<f64>>),
    /// See [`FieldType::Float`].
    Float(Vec<Option<f32>>),
    /// See [`FieldType::Text`].
    Text(Vec<Option<String>>),
    /// See [`FieldType::Bytes`].
    Bytes(Vec<Option<Vec<u8>>>),
    /// See [`FieldType::Time`].
    Time(Vec<Option<Micros>>),
    /// See [`FieldType::FloatList`].
    FloatList(Vec<Option<Vec<f32>>>),
}

/// Calls one expression with the vector inside a [`Column`], whatever its type.
macro_rules! each_column {
    ($column:expr, $values:ident => $body:expr) => {
        match $column {
            Column::Bool($values) => $body,
            Column::Int($values) => $body,
            Column::Double($values) => $body,
            Column::Float($values) => $body,
            Column::Text($values) => $body,
            Column::Bytes($values) => $body,
            Column::Time($values) => $body,
            Column::FloatList($values) => $body,
        }
    };
}

impl Column {
    /// An empty column of a type.
    pub fn empty(kind: FieldType) -> Self {
        match kind {
            FieldType::Bool => Self::Bool(Vec::new()),
            FieldType::Int => Self::Int(Vec::new()),
            FieldType::Double => Self::Double(Vec::new()),
            FieldType::Float => Self::Float(Vec::new()),
            FieldType::Text => Self::Text(Vec::new()),
            FieldType::Bytes => Self::Bytes(Vec::new()),
            FieldType::Time => Self::Time(Vec::new()),
            FieldType::FloatList => Self::FloatList(Vec::new()),
        }
    }

    /// The type of the values.
    pub fn kind(&self) -> FieldType {
        match self {
            Self::Bool(_) => FieldType::Bool,
            Self::Int(_) => FieldType::Int,
            Self::Double(_) => FieldType::Double,
            Self::Float(_) => FieldType::Float,
            Self::Text(_) => FieldType::Text,
            Self::Bytes(_) => FieldType::Bytes,
            Self::Time(_) => FieldType::Time,
            Self::FloatList(_) => FieldType::FloatList,
        }
    }

    /// How many values.
    pub fn len(&self) -> usize {
        each_column!(self, values => values.len())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn has_missing(&self) -> bool {
        each_column!(self, values => values.iter().any(Option::is_none))
    }
}

impl BatchBody {
    /// The last number that will not come and what was lost, when this is a gap of either form.
    pub fn gap(&self) -> Option<(SequenceNumber, Vec<Lost>)> {
        match self {
            Self::Records { .. } => None,
            Self::Gap { to, dropped } => Some((*to, dropped.iter().cloned().map(Lost::from).collect())),
            Self::GapV2 { to, lost } => Some((*to, lost.clone())),
        }
    }

    /// The byte form, before compression.
    pub fn encode(&self) -> Vec<u8> {
        frame::encode(self)
    }

    /// Reads the byte form after decompression and checks it against the number of rows in the header.
    pub fn decode(bytes: &[u8], rows: u32) -> Result<Self, DecodeError> {
        let body: Self = frame::decode("batch body", bytes)?;
        if let Self::Records { schema, columns } = &body {
            check_columns(schema, columns, rows as usize)?;
        }
        Ok(body)
    }
}

fn check_columns(schema: &[Field], columns: &[Column], rows: usize) -> Result<(), DecodeError> {
    if schema.len() != columns.len() {
        return Err(DecodeError::Column { column: schema.len(), problem: "as many columns as fields are needed" });
    }
    for (column, (field, values)) in schema.iter().zip(columns).enumerate() {
        let problem = if values.kind() != field.kind {
            "its values are not of the type that the schema says"
        } else if values.len() != rows {
            "it has another number of values than the header has rows"
        } else if !field.nullable && values.has_missing() {
            "a value is missing though the schema forbids it"
        } else {
            continue;
        };
        return Err(DecodeError::Column { column, problem });
    }
    Ok(())
}

impl Batch {
    /// Builds a batch around a body that is already encoded (and compressed, if `encoding` says so).
    pub fn new(header: BatchHeaderV1, body: Vec<u8>) -> Self {
        let header = BatchHeaderV1 { body_crc: CRC.checksum(&body), ..header };
        Self { header: BatchHeader::V1(header), body }
    }

    /// The byte form.
    pub fn encode(&self) -> Vec<u8> {
        let header = frame::encode(&self.header);
        let mut bytes = Vec::with_capacity(2 + header.len() + 4 + self.body.len());
        bytes.extend_from_slice(&(header.len() as u16).to_le_bytes());
        bytes.extend_from_slice(&header);
        bytes.extend_from_slice(&CRC.checksum(&header).to_le_bytes());
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// Reads the header, checks its CRC and the announced lengths, and returns it with the body's bytes.
    /// The body's own checksum is [`Batch::check_body`]'s, so that a damaged body still has a name.
    pub fn decode(bytes: &[u8]) -> Result<(BatchHeaderV1, &[u8]), DecodeError> {
        let cut = |needed: usize| DecodeError::Cut { needed, found: bytes.len() };
        let length = bytes.first_chunk::<2>().ok_or_else(|| cut(2))?;
        let length = u16::from_le_bytes(*length) as usize;
        if length > MAX_HEADER_BYTES {
            return Err(DecodeError::TooLong { what: "batch header", found: length, limit: MAX_HEADER_BYTES });
        }
        let needed = 2 + length + 4;
        if bytes.len() < needed {
            return Err(cut(needed));
        }
        let (header, rest) = bytes[2..].split_at(length);
        let (expected, body) = rest.split_at(4);
        let expected = u32::from_le_bytes([expected[0], expected[1], expected[2], expected[3]]);
        let found = CRC.checksum(header);
        if found != expected {
            return Err(DecodeError::Checksum { what: "batch header", expected, found });
        }
        let BatchHeader::V1(header) = frame::decode("batch header", header)?;
        if header.body_bytes as usize > MAX_BODY_BYTES {
            let found = header.body_bytes as usize;
            return Err(DecodeError::TooLong { what: "batch body", found, limit: MAX_BODY_BYTES });
        }
        Ok((header, body))
    }

    /// Compares the body's bytes, as they travelled, with the checksum in the header.
    pub fn check_body(header: &BatchHeaderV1, body: &[u8]) -> Result<(), DecodeError> {
        match CRC.checksum(body) {
            found if found == header.body_crc => Ok(()),
            found => Err(DecodeError::Checksum { what: "batch body", expected: header.body_crc, found }),
        }
    }
}
