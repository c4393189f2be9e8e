//! A piece of a block in as few bytes as it takes.
//!
//! A 32-bit number stands before it: 0 = all zeros; with the highest bit, so many bytes as they are; else so many bytes
//! of zstd. It is never longer than the piece.

use std::io::{self, Read, Write};

use super::{LEVEL, WINDOW_LOG};

const AS_IT_IS: u32 = 1 << 31;

/// Appends a piece, with `prefix` as its dictionary.
pub(super) fn write(piece: &[u8], prefix: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    if piece.iter().all(|byte| *byte == 0) {
        out.extend(0u32.to_le_bytes());
        return Ok(());
    }
    let mut encoder = match prefix {
        [] => zstd::stream::write::Encoder::new(Vec::new(), LEVEL)?,
        prefix => zstd::stream::write::Encoder::with_ref_prefix(Vec::new(), LEVEL, prefix)?,
    };
    // So wide that all of the prefix is within reach.
    let reach = (prefix.len() + piece.len()).next_power_of_two().ilog2();
    encoder.window_log(reach.clamp(10, WINDOW_LOG))?;
    encoder.include_contentsize(false)?;
    encoder.set_pledged_src_size(Some(piece.len() as u64))?;
    encoder.write_all(piece)?;
    let packed = encoder.finish()?;
    let (mark, bytes) = if packed.len() < piece.len() { (0, &packed[..]) } else { (AS_IT_IS, piece) };
    out.extend((mark | bytes.len() as u32).to_le_bytes());
    out.extend(bytes);
    Ok(())
}

/// Reads a piece of `length` bytes. Wrong content is [`io::ErrorKind::InvalidData`].
pub(super) fn read(patch: &mut impl Read, length: usize, prefix: &[u8]) -> io::Result<Vec<u8>> {
    let mut mark = [0; 4];
    patch.read_exact(&mut mark)?;
    let mark = u32::from_le_bytes(mark);
    let size = (mark & !AS_IT_IS) as usize;
    let wrong = |problem: String| io::Error::new(io::ErrorKind::InvalidData, problem);
    if mark == 0 {
        return Ok(vec![0; length]);
    }
    if size > length || (mark & AS_IT_IS != 0 && size != length) {
        return Err(wrong(format!("a piece of {length} bytes stands there as {size}")));
    }
    let mut bytes = vec![0; size];
    patch.read_exact(&mut bytes)?;
    if mark & AS_IT_IS != 0 {
        return Ok(bytes);
    }
    let mut decoder = match prefix {
        [] => zstd::stream::read::Decoder::with_buffer(&bytes[..])?,
        prefix => zstd::stream::read::Decoder::with_ref_prefix(&bytes[..], prefix)?,
    }
    .single_frame();
    decoder.window_log_max(WINDOW_LOG)?;
    let mut piece = Vec::with_capacity(length);
    // One byte above the limit is enough to see that there is more.
    let all = (&mut decoder).take(length as u64 + 1).read_to_end(&mut piece);
    all.map_err(|error| wrong(format!("a piece cannot be unpacked: {error}")))?;
    match piece.len() {
        found if found != length => Err(wrong(format!("a piece gives {found} bytes or more, expected {length}"))),
        _ if !decoder.finish().is_empty() => Err(wrong("a piece goes on behind its end".to_owned())),
        _ => Ok(piece),
    }
}
