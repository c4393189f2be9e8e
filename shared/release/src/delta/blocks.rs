//! The blocks of a patch in format `aligned`, one after the other until the package is whole.
//!
//! ```text
//! mode (1 byte), length (4), place of its old piece (8), length of that (4), pieces
//! ```

use std::io::{self, Read, Write};

use super::error::of_content;
use super::transform::{Mode, join, split};
use super::{DeltaError, Limited, piece};

/// The longest block: what a reader holds of the new package.
pub(super) const MAX_BLOCK: usize = 512 << 10;
/// The longest old piece beside a block.
pub(super) const MAX_OLD: usize = 2 * MAX_BLOCK;

/// Appends a block.
pub(super) fn write(mode: Mode, new: &[u8], old: &[u8], place: usize, out: &mut Vec<u8>) -> io::Result<()> {
    out.push(mode.code());
    out.extend((new.len() as u32).to_le_bytes());
    out.extend((place as u64).to_le_bytes());
    out.extend((old.len() as u32).to_le_bytes());
    let prefix = if mode == Mode::Near { old } else { &[] };
    split(mode, new, old).iter().try_for_each(|bytes| piece::write(bytes, prefix, out))
}

/// Reads blocks until the package is whole.
pub(super) fn read(old: &[u8], patch: &mut impl Read, out: &mut Limited<impl Write>) -> Result<(), DeltaError> {
    while out.left() > 0 {
        let block = block(old, patch).map_err(|error| of_content(error, out.written))?;
        out.take(&block)?;
    }
    Ok(())
}

fn block(old: &[u8], patch: &mut impl Read) -> io::Result<Vec<u8>> {
    let wrong = |problem: String| io::Error::new(io::ErrorKind::InvalidData, problem);
    let mut header = [0; 17];
    patch.read_exact(&mut header)?;
    let number = |range: std::ops::Range<usize>| {
        header[range].iter().rev().fold(0u64, |number, byte| number << 8 | u64::from(*byte))
    };
    let mode =
        Mode::from_code(header[0]).ok_or_else(|| wrong(format!("a block has the unknown mode {}", header[0])))?;
    let (length, place, old_length) = (number(1..5) as usize, number(5..13), number(13..17) as usize);
    if length == 0 || length > MAX_BLOCK {
        return Err(wrong(format!("a block has {length} bytes, expected 1 to {MAX_BLOCK}")));
    }
    let expected = match mode {
        Mode::Fresh | Mode::Apart(_) => 0..=0,
        Mode::Near => 1..=MAX_OLD,
        Mode::Bytes | Mode::Words(_) => length..=length,
    };
    let end = usize::try_from(place).ok().and_then(|place| place.checked_add(old_length));
    let piece_of_old = end.and_then(|end| old.get(end - old_length..end)).filter(|_| expected.contains(&old_length));
    let old = piece_of_old.ok_or_else(|| {
        wrong(format!("a block takes {old_length} bytes from byte {place} of the old package, which has {}", old.len()))
    })?;
    let prefix = if mode == Mode::Near { old } else { &[] };
    let pieces = mode.pieces(length).into_iter().map(|length| piece::read(patch, length, prefix));
    Ok(join(mode, pieces.collect::<io::Result<_>>()?, old))
}
