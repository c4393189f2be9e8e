//! Cheaper ways to a package: compressed, or as the difference from one that the reader holds already.
//!
//! [`make`] writes a patch, [`apply`] reads one, [`choose`] says which way is the cheapest. A patch is never trusted:
//! what comes out must have the length and the hash that the caller knows from elsewhere, and nothing beyond that length
//! is ever written. Applying takes the old package in memory (as the caller gave it) and below 12 MiB besides, whatever
//! the patch says.
//!
//! ```text
//! "TPKD", version 1, format, hash of the old package (zeros: none), hash and length of the new one, content
//! ```

mod error;
mod header;
mod index;
mod layout;
mod piece;
mod transform;
mod blocks;
mod plan;
#[cfg(test)]
mod tests;

pub use error::DeltaError;
pub use index::{IndexError, MAX_INDEX_BYTES, PatchEntry, PatchIndex, Way, choose, index_path};

use std::io::{BufReader, Read, Write};

use tributary_wire::Sha256;

use crate::{Hasher, digest};
use header::Header;

/// Window of the whole package compressed: what a reader must hold of it.
const WINDOW_LOG: u32 = 23;
/// Hub time is cheap beside the air time of every device.
const LEVEL: i32 = 19;
/// Bytes handed on at once.
const STEP: usize = 64 << 10;

/// How a patch is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Format {
    /// The whole package, compressed with zstd. Needs no old one.
    Zstd,
    /// Differences from the old package, member by member, the bytes of numbers taken apart by their weight. Without an
    /// old one, only taken apart.
    Aligned,
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Zstd, Self::Aligned];

    /// As in the index and at the end of a file's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zst",
            Self::Aligned => "aligned",
        }
    }

    /// The format of that name, if this build knows it.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }
}

/// What must come out of a patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Length of the package.
    pub length: u64,
    /// Its hash.
    pub sha256: Sha256,
}

/// Writes the way to `new`. [`Format::Zstd`] makes no use of an old package.
///
/// Takes about a second of one core for a megabyte, and memory for both packages, the patch and below 64 MiB besides.
pub fn make(format: Format, old: Option<&[u8]>, new: &[u8]) -> Result<Vec<u8>, DeltaError> {
    make_while(format, old, new, &mut || true)
}

/// As [`make`]; `go_on` is asked after every half megabyte or less, where the maker may also rest.
pub fn make_while(
    format: Format,
    old: Option<&[u8]>,
    new: &[u8],
    go_on: &mut dyn FnMut() -> bool,
) -> Result<Vec<u8>, DeltaError> {
    let header = |from| Header { format, from, to: digest(new), length: new.len() as u64 }.encode();
    match (format, old) {
        (Format::Zstd, _) => {
            let mut encoder = zstd::stream::write::Encoder::new(header(None), LEVEL).map_err(DeltaError::Make)?;
            encoder.window_log(WINDOW_LOG).map_err(DeltaError::Make)?;
            encoder.set_pledged_src_size(Some(new.len() as u64)).map_err(DeltaError::Make)?;
            for piece in new.chunks(blocks::MAX_BLOCK) {
                encoder.write_all(piece).map_err(DeltaError::Make)?;
                if !go_on() {
                    return Err(DeltaError::Stopped);
                }
            }
            encoder.finish().map_err(DeltaError::Make)
        }
        (Format::Aligned, old) => {
            let mut patch = header(old.map(digest));
            plan::write(old.unwrap_or_default(), new, &mut patch, go_on)?;
            Ok(patch)
        }
    }
}

/// Reads a patch and writes the new package, piece by piece. On an error `out` holds a beginning that is worth nothing.
pub fn apply(old: Option<&[u8]>, patch: impl Read, out: impl Write, expected: &Outcome) -> Result<(), DeltaError> {
    let mut patch = BufReader::with_capacity(STEP, patch);
    let header = Header::read(&mut patch)?;
    if (header.to, header.length) != (expected.sha256, expected.length) {
        let (expected, found) = (expected.sha256, header.to);
        return Err(DeltaError::OtherPackage { expected, found, length: header.length });
    }
    let mut out = Limited { out, hasher: Hasher::new(), written: 0, limit: expected.length };
    match header.format {
        Format::Zstd => unpack(&mut patch, &mut out)?,
        Format::Aligned => {
            let old = match header.from {
                None => &[],
                Some(expected) => {
                    let old = old.ok_or(DeltaError::NoBase { expected })?;
                    match digest(old) {
                        found if found == expected => old,
                        found => return Err(DeltaError::OtherBase { expected, found }),
                    }
                }
            };
            blocks::read(old, &mut patch, &mut out)?;
        }
    }
    if patch.read(&mut [0]).map_err(DeltaError::Read)? > 0 {
        return Err(DeltaError::LeftOver);
    }
    out.finish(expected)
}

/// The whole package from its compressed form.
fn unpack(patch: &mut BufReader<impl Read>, out: &mut Limited<impl Write>) -> Result<(), DeltaError> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(patch).map_err(DeltaError::Read)?.single_frame();
    decoder.window_log_max(WINDOW_LOG).map_err(DeltaError::Read)?;
    let mut buffer = vec![0; STEP];
    loop {
        let read = decoder.read(&mut buffer).map_err(|error| error::of_content(error, out.written))?;
        if read == 0 {
            return Ok(());
        }
        out.take(&buffer[..read])?;
    }
}

/// Writes no more than was promised, and knows the hash of what it wrote.
struct Limited<W> {
    out: W,
    hasher: Hasher,
    written: u64,
    limit: u64,
}

impl<W: Write> Limited<W> {
    fn left(&self) -> u64 {
        self.limit - self.written
    }

    fn take(&mut self, piece: &[u8]) -> Result<(), DeltaError> {
        if piece.len() as u64 > self.left() {
            return Err(DeltaError::TooLong { expected: self.limit });
        }
        self.out.write_all(piece).map_err(DeltaError::Write)?;
        self.hasher.update(piece);
        self.written += piece.len() as u64;
        Ok(())
    }

    fn finish(mut self, expected: &Outcome) -> Result<(), DeltaError> {
        if self.left() > 0 {
            return Err(DeltaError::TooShort { expected: self.limit, found: self.written });
        }
        self.out.flush().map_err(DeltaError::Write)?;
        match self.hasher.finish() {
            found if found == expected.sha256 => Ok(()),
            found => Err(DeltaError::Hash { expected: expected.sha256, found }),
        }
    }
}
