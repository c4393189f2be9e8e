//! From bytes on a line to messages: whatever came before, the byte after a zero begins a frame.

use serde::Deserialize;

use super::{BLOB_PART, Down, DownV1, MAX_FRAME, RAW_SAMPLES, Record, Up, UpV1};
use crate::frame::{CRC, DecodeError, decode};

/// Why what lay between two zeros is not a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// More bytes without a zero than the longest frame has.
    #[error("no end of frame within {MAX_FRAME} bytes")]
    TooLong,
    /// The stuffing points past the frame's end, or the frame is too short for a checksum.
    #[error("a broken frame of {length} bytes")]
    Broken {
        /// Its length.
        length: usize,
    },
    /// Not what was sent, or not a message.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

/// Gathers bytes until a frame is complete. What does not fit is thrown away up to the next zero.
#[derive(Debug, Clone)]
pub struct Deframer {
    bytes: [u8; MAX_FRAME],
    length: usize,
}

impl Default for Deframer {
    fn default() -> Self {
        Self { bytes: [0; MAX_FRAME], length: 0 }
    }
}

impl Deframer {
    /// Takes a byte; the checked message when a frame ends with it. Read it with [`Up::decode`] or [`Down::decode`].
    pub fn push(&mut self, byte: u8) -> Option<Result<&[u8], LinkError>> {
        if byte != 0 {
            if let Some(place) = self.bytes.get_mut(self.length) {
                *place = byte;
            }
            self.length = (self.length + 1).min(MAX_FRAME);
            return None;
        }
        let length = core::mem::take(&mut self.length);
        match length {
            // Zeros between frames are silence.
            0 => None,
            MAX_FRAME => Some(Err(LinkError::TooLong)),
            _ => Some(checked(&mut self.bytes[..length])),
        }
    }

    /// Forgets a frame that has begun: after a break of the line.
    pub fn clear(&mut self) {
        self.length = 0;
    }
}

fn checked(frame: &mut [u8]) -> Result<&[u8], LinkError> {
    let length = frame.len();
    let broken = LinkError::Broken { length };
    let mut zero = 0;
    while zero < length {
        // Never zero: those end frames.
        let distance = usize::from(frame[zero]);
        frame[zero] = 0;
        zero += distance;
    }
    if zero != length {
        return Err(broken);
    }
    let (message, checksum) = frame[1..].split_last_chunk::<4>().ok_or(broken)?;
    let (expected, found) = (u32::from_le_bytes(*checksum), CRC.checksum(message));
    if expected != found {
        return Err(DecodeError::Checksum { what: "frame", expected, found }.into());
    }
    Ok(message)
}

fn read<'a, T: Deserialize<'a>>(what: &'static str, message: &'a [u8]) -> Result<T, LinkError> {
    Ok(decode(what, message)?)
}

fn within(what: &'static str, found: usize, limit: usize) -> Result<(), LinkError> {
    if found <= limit { Ok(()) } else { Err(DecodeError::TooLong { what, found, limit }.into()) }
}

impl<'a> Up<'a> {
    /// Reads a checked message of a node.
    pub fn decode(message: &'a [u8]) -> Result<Self, LinkError> {
        let up = read("node's message", message)?;
        if let Self::V1(UpV1::Record { record: Record::Raw(raw), .. }) = &up {
            within("raw part", raw.samples.len(), 2 * RAW_SAMPLES)?;
        }
        Ok(up)
    }
}

impl<'a> Down<'a> {
    /// Reads a checked message of an agent.
    pub fn decode(message: &'a [u8]) -> Result<Self, LinkError> {
        let down = read("agent's message", message)?;
        if let Self::V1(DownV1::Part { bytes, .. }) = &down {
            within("blob part", bytes.len(), BLOB_PART)?;
        }
        Ok(down)
    }
}
