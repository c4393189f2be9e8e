//! From a message to the bytes of a frame.

use serde::Serialize;

use super::{MAX_FRAME, MAX_MESSAGE, Record};
use crate::frame::{CRC, decode, encode_to};

/// A message over [`MAX_MESSAGE`]: a list in it is longer than its doc allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a message over the limit of {MAX_MESSAGE} bytes")]
pub struct TooLong;

/// Writes a message ([`super::Up`] or [`super::Down`]) as a frame; returns its length.
///
/// The frame is the message in postcard, its CRC-32C in little-endian, both stuffed (S. Cheshire and M. Baker,
/// *Consistent Overhead Byte Stuffing*, 1999) so that they hold no zero, and a zero.
pub fn encode<T: Serialize>(message: &T, frame: &mut [u8; MAX_FRAME]) -> Result<usize, TooLong> {
    let length = encode_to(message, &mut frame[1..=MAX_MESSAGE]).ok_or(TooLong)?;
    let checksum = CRC.checksum(&frame[1..=length]).to_le_bytes();
    let end = length + checksum.len() + 1;
    frame[length + 1..end].copy_from_slice(&checksum);
    // Each zero becomes the distance to the next one; the byte before all stands for a zero before the first.
    let mut zero = 0;
    for at in 1..end {
        if frame[at] == 0 {
            frame[zero] = (at - zero) as u8;
            zero = at;
        }
    }
    frame[zero] = (end - zero) as u8;
    frame[end] = 0;
    Ok(end + 1)
}

/// Writes a record with its uptime as a node keeps it until it is acknowledged: postcard, without frame; its length.
pub fn pack(uptime: u64, record: &Record<'_>, out: &mut [u8]) -> Result<usize, TooLong> {
    encode_to(&(uptime, record), out).ok_or(TooLong)
}

/// Reads what [`pack`] wrote; `None` when the memory in between was damaged.
pub fn unpack(bytes: &[u8]) -> Option<(u64, Record<'_>)> {
    decode("kept record", bytes).ok()
}
