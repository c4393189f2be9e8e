//! Byte form shared by all messages: postcard for the body; batches add a header with its own CRC.

#[cfg(feature = "fleet")]
use alloc::vec::Vec;

use crc::{CRC_32_ISCSI, Crc};
use serde::{Deserialize, Serialize};

/// CRC-32C, the one with hardware support on most processors.
pub(crate) static CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

/// That CRC over bytes that come in parts.
pub(crate) type Digest = crc::Digest<'static, u32>;

/// A batch header is a few dozen bytes; this leaves room for two more versions of it.
pub const MAX_HEADER_BYTES: usize = 1024;
/// The largest body after decompression: what one device may make the hub hold at once for one batch.
pub const MAX_BODY_BYTES: usize = 8 * 1024 * 1024;
/// The largest MQTT payload either side accepts: a body that did not compress, plus its header.
pub const MAX_MESSAGE_BYTES: usize = MAX_BODY_BYTES + MAX_HEADER_BYTES + 64;

/// Why bytes are not a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end before the message does.
    #[error("cut off: {needed} bytes needed, {found} found")]
    Cut {
        /// How many were needed.
        needed: usize,
        /// How many there were.
        found: usize,
    },
    /// A length is over its limit.
    #[error("{what} of {found} bytes is over the limit of {limit}")]
    TooLong {
        /// Which part.
        what: &'static str,
        /// Its length.
        found: usize,
        /// The limit.
        limit: usize,
    },
    /// A checksum does not match.
    #[error("{what} checksum is {found:08x}, expected {expected:08x}")]
    Checksum {
        /// Which part.
        what: &'static str,
        /// As written in the message.
        expected: u32,
        /// As computed.
        found: u32,
    },
    /// Postcard could not read the bytes: an unknown version, a broken length, an id that is not one.
    #[error("not a {what}: {reason}")]
    Malformed {
        /// Which message was expected.
        what: &'static str,
        /// What postcard said.
        reason: postcard::Error,
    },
    /// Bytes were left after the message.
    #[error("{left} bytes left after the {what}")]
    Trailing {
        /// Which message was read.
        what: &'static str,
        /// How many bytes were left.
        left: usize,
    },
    /// The columns of a batch disagree with its schema or with each other.
    #[error("column {column}: {problem}")]
    Column {
        /// Its place in the schema.
        column: usize,
        /// What is wrong with it.
        problem: &'static str,
    },
}

#[cfg(feature = "fleet")]
pub(crate) fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    // Serialising owned plain data into a growing vector has no way to fail.
    postcard::to_allocvec(message).expect("plain data always serialises")
}

/// Writes a message to the beginning of `out`; how many bytes it took, `None` when it does not fit.
pub(crate) fn encode_to<T: Serialize>(message: &T, out: &mut [u8]) -> Option<usize> {
    // Plain data with lengths known before has no other way to fail.
    postcard::to_slice(message, out).ok().map(|written| written.len())
}

pub(crate) fn decode<'a, T: Deserialize<'a>>(what: &'static str, bytes: &'a [u8]) -> Result<T, DecodeError> {
    let (message, rest) = postcard::take_from_bytes(bytes).map_err(|reason| DecodeError::Malformed { what, reason })?;
    match rest.len() {
        0 => Ok(message),
        left => Err(DecodeError::Trailing { what, left }),
    }
}

/// Gives a message type its `encode` and `decode`.
#[cfg(feature = "fleet")]
macro_rules! message {
    ($name:ident, $what:literal) => {
        impl $name {
            /// The byte form.
            pub fn encode(&self) -> alloc::vec::Vec<u8> {
                crate::frame::encode(self)
            }

            /// Reads the byte form; every byte must belong to the message.
            pub fn decode(bytes: &[u8]) -> Result<Self, crate::DecodeError> {
                crate::frame::decode($what, bytes)
            }
        }
    };
}
#[cfg(feature = "fleet")]
pub(crate) use message;
