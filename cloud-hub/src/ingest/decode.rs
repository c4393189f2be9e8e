//! A message as it came → what it holds, or why it cannot be read. Pure, and run beside the commit of the group before.

use arrow::array::RecordBatch;
use bytes::Bytes;
use cloud_hub_lake::{BatchKey, LakeError, SchemaConflict, columns, days};
use sha2::{Digest, Sha256 as Hasher};
use tributary_wire::{
    Batch, BatchBody, BatchHeaderV1, BodyEncoding, ClockState, Column, DecodeError, DeviceId, Field, LossReason, Lost,
    Micros, SequenceNumber, Sha256, Stamp,
};

use crate::catalog::batches::Numbering;

/// A gap in a device's numbers as it would declare it itself, had it lost the records and not the hub.
pub(super) fn gap(of: &Numbering, first: SequenceNumber, last: SequenceNumber) -> Bytes {
    let body = BatchBody::GapV2 { to: last, lost: Vec::new() }.encode();
    let header = BatchHeaderV1 {
        incarnation: of.incarnation,
        stream: of.stream.clone(),
        sequence: first,
        rows: 0,
        encoding: BodyEncoding::Plain,
        body_bytes: body.len() as u32,
        body_crc: 0,
        stamp: Stamp { boot: 0, monotonic: 0, wall: Micros(0), clock: ClockState::Unsynchronised },
    };
    Batch::new(header, body).encode().into()
}

/// SHA-256 of bytes.
pub(super) fn digest(bytes: &[u8]) -> Sha256 {
    Sha256(Hasher::digest(bytes).into())
}

/// What a message is.
#[derive(Debug)]
pub(super) enum Content {
    /// Records that can go into the lake if the stream's columns allow.
    Records { of: Numbering, sequence: SequenceNumber, hash: Sha256, fields: Vec<Field>, records: RecordBatch },
    /// Numbers that will not come.
    Gap { of: Numbering, sequence: SequenceNumber, hash: Sha256, last: SequenceNumber, lost: Vec<Lost> },
    /// A batch with a name and a body that cannot be used.
    Broken { of: Numbering, sequence: SequenceNumber, hash: Sha256, problem: BodyError },
    /// Not even the header can be read, so there is no number to answer for.
    Unreadable { problem: String },
}

impl Content {
    /// Whether a device gives up one batch that its disk did not keep. It may have sent it before.
    pub(super) fn is_damaged_batch(&self) -> bool {
        let Self::Gap { sequence, last, lost, .. } = self else { return false };
        sequence == last && !lost.is_empty() && lost.iter().all(|lost| lost.reason == LossReason::Corrupt)
    }
}

/// Why a body cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error("the body does not decompress: {problem}")]
    Decompress { problem: String },
    #[error("the body has {found} bytes after decompression, its header says {expected}")]
    Length { expected: u32, found: usize },
    #[error("the gap ends at {last}, before its first number {first} or beyond all numbers")]
    Gap { first: u64, last: u64 },
    #[error(transparent)]
    Schema(#[from] SchemaConflict),
    #[error(transparent)]
    Lake(#[from] LakeError),
}

impl BodyError {
    /// The reason for programs.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Schema(SchemaConflict::Future { .. }) => "future",
            Self::Schema(_) => "schema",
            _ => "undecodable-body",
        }
    }
}

/// Reads a message of a device.
pub(super) fn decode(device: &DeviceId, message: &Bytes, now: Micros) -> Content {
    let (header, body) = match Batch::decode(message) {
        Ok(parts) => parts,
        Err(error) => return Content::Unreadable { problem: error.to_string() },
    };
    let sequence = header.sequence;
    // The catalog's numbers are signed.
    if sequence.0 == 0 || sequence.0 > i64::MAX as u64 {
        return Content::Unreadable { problem: format!("{sequence} is not a batch number; the first is 1") };
    }
    let hash = digest(body);
    let of = Numbering { device: device.clone(), incarnation: header.incarnation, stream: header.stream.clone() };
    match read_body(&header, body) {
        Ok(BatchBody::Records { schema, columns }) => match to_records(&of, sequence, now, &schema, columns) {
            Ok(records) => Content::Records { of, sequence, hash, fields: schema, records },
            Err(problem) => Content::Broken { of, sequence, hash, problem },
        },
        Ok(body) => match body.gap() {
            Some((to, lost)) if to >= sequence && to.0 <= i64::MAX as u64 => {
                Content::Gap { of, sequence, hash, last: to, lost }
            }
            found => {
                let last = found.map_or(0, |(to, _)| to.0);
                Content::Broken { of, sequence, hash, problem: BodyError::Gap { first: sequence.0, last } }
            }
        },
        Err(problem) => Content::Broken { of, sequence, hash, problem },
    }
}

fn read_body(header: &BatchHeaderV1, body: &[u8]) -> Result<BatchBody, BodyError> {
    Batch::check_body(header, body)?;
    let decompressed;
    let body = match header.encoding {
        BodyEncoding::Plain => body,
        BodyEncoding::Zstd => {
            // The header's length, already checked against the limit, is all the memory that a body gets.
            decompressed = zstd::bulk::decompress(body, header.body_bytes as usize)
                .map_err(|error| BodyError::Decompress { problem: error.to_string() })?;
            &decompressed
        }
    };
    if body.len() != header.body_bytes as usize {
        return Err(BodyError::Length { expected: header.body_bytes, found: body.len() });
    }
    Ok(BatchBody::decode(body, header.rows)?)
}

/// Columns as they travelled → records of the lake, checked for the number of days they touch.
pub(super) fn to_records(
    of: &Numbering,
    sequence: SequenceNumber,
    now: Micros,
    fields: &[Field],
    values: Vec<Column>,
) -> Result<RecordBatch, BodyError> {
    let key = key(of, sequence);
    let records = columns::to_records(&key, now, fields, values)?;
    days::check_days(&records, now)?;
    Ok(records)
}

/// The lake's form of a batch's name.
pub(super) fn key(of: &Numbering, sequence: SequenceNumber) -> BatchKey {
    BatchKey { device: of.device.clone(), incarnation: of.incarnation, stream: of.stream.clone(), sequence }
}
