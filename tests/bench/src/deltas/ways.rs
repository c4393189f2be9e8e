//! Every way to write a new package that was considered. Those that ship are [`tributary_release::delta`]'s.

use std::fs::{self, File};
use std::io::{BufWriter, Cursor, Read, Write};
use std::path::Path;

use anyhow::Context;
use qbsdiff::{Bsdiff, Bspatch};
use tributary_release::delta::{self, Format, Outcome};

use super::weights::{Apart, Difference};

const LEVEL: i32 = 19;

/// How a package is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// The whole package compressed, as it ships.
    Whole(Format),
    /// A patch, as it ships.
    Patch,
    /// zstd with the old package in front.
    Prefix,
    /// bsdiff 4.
    Bsdiff,
    /// The bytes of f32 weights in four planes, then zstd with the old package, treated alike, in front.
    PlanesPrefix,
    /// The same, then bsdiff.
    PlanesBsdiff,
    /// The difference of f32 weights, in planes, then zstd with the rest of the old package in front.
    Differences(Difference),
    /// The difference byte by byte from the start, then zstd: what planes are to f32, for weights of one byte.
    Bytes,
}

impl Way {
    /// All that are for packages.
    pub const ALL: [Self; 9] = [
        Self::Whole(Format::Zstd),
        Self::Whole(Format::Aligned),
        Self::Prefix,
        Self::Bsdiff,
        Self::PlanesPrefix,
        Self::PlanesBsdiff,
        Self::Differences(Difference::Xor),
        Self::Differences(Difference::Subtract),
        Self::Patch,
    ];

    /// All that are for the int8 graph by itself: it has no f32 weights to take apart.
    pub const OF_GRAPH: [Self; 6] =
        [Self::Whole(Format::Zstd), Self::Whole(Format::Aligned), Self::Prefix, Self::Bsdiff, Self::Bytes, Self::Patch];

    /// The one of this name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().chain(Self::OF_GRAPH).find(|way| way.name() == name)
    }

    /// In a few words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Whole(Format::Zstd) => "ships: whole, zst (zstd -19)",
            Self::Whole(Format::Aligned) => "ships: whole, aligned",
            Self::Patch => "ships: patch, aligned",
            Self::Prefix => "zstd -19, old as prefix",
            Self::Bsdiff => "bsdiff",
            Self::PlanesPrefix => "planes, zstd, old as prefix",
            Self::PlanesBsdiff => "planes, bsdiff",
            Self::Differences(Difference::Xor) => "xor, planes, zstd",
            Self::Differences(Difference::Subtract) => "subtract, planes, zstd",
            Self::Bytes => "subtract byte by byte, zstd",
        }
    }

    /// Writes the patch.
    pub fn make(self, old: &[u8], new: &[u8]) -> anyhow::Result<Vec<u8>> {
        Ok(match self {
            Self::Whole(format) => delta::make(format, None, new)?,
            Self::Patch => delta::make(Format::Aligned, Some(old), new)?,
            Self::Prefix => pack(old, new)?,
            Self::Bsdiff => bsdiff(old, new)?,
            Self::PlanesPrefix | Self::PlanesBsdiff => {
                let (old, new) = (Apart::of(old, None)?, Apart::of(new, None)?);
                let content = match self {
                    Self::PlanesBsdiff => bsdiff(&old.all(), &new.all())?,
                    _ => pack(&old.all(), &new.all())?,
                };
                [new.table(), content].concat()
            }
            Self::Differences(difference) => {
                let (before, new) = (Apart::of(old, None)?, Apart::of(new, Some((old, difference)))?);
                [new.table(), pack(&before.rest, &new.all())?].concat()
            }
            Self::Bytes => pack(&[], &bytewise(new, old, u8::wrapping_sub))?,
        })
    }

    /// Reads `old` and `patch` in the folder and writes `made`.
    pub fn apply(self, folder: &Path) -> anyhow::Result<()> {
        let old = fs::read(folder.join("old"))?;
        let mut out = BufWriter::new(File::create(folder.join("made"))?);
        if let Self::Whole(_) | Self::Patch = self {
            let mut patch = File::open(folder.join("patch"))?;
            // What a device knows from the signed metadata.
            let expected = expected(&mut File::open(folder.join("patch"))?)?;
            delta::apply(Some(&old), &mut patch, &mut out, &expected)?;
            return Ok(out.flush()?);
        }
        let patch = fs::read(folder.join("patch"))?;
        match self {
            Self::Whole(_) | Self::Patch => {}
            Self::Prefix => out.write_all(&unpack(&old, &patch)?)?,
            Self::Bsdiff => out.write_all(&bspatch(&old, &patch)?)?,
            Self::Bytes => out.write_all(&bytewise(&unpack(&[], &patch)?, &old, u8::wrapping_add))?,
            Self::PlanesPrefix | Self::PlanesBsdiff => {
                let (table, content) = Apart::read_table(&patch)?;
                let old = Apart::of(&old, None)?.all();
                let all = if self == Self::PlanesBsdiff { bspatch(&old, content)? } else { unpack(&old, content)? };
                out.write_all(&table.together(&all, None)?)?;
            }
            Self::Differences(difference) => {
                let (table, content) = Apart::read_table(&patch)?;
                let all = unpack(&Apart::of(&old, None)?.rest, content)?;
                out.write_all(&table.together(&all, Some((&old, difference)))?)?;
            }
        }
        Ok(out.flush()?)
    }
}

/// Length and hash, which stand at the end of the header of a patch of ours.
fn expected(patch: &mut impl Read) -> anyhow::Result<Outcome> {
    let mut header = [0; 78];
    patch.read_exact(&mut header).context("the header of a patch")?;
    let length = u64::from_le_bytes(header[70..].try_into()?);
    Ok(Outcome { length, sha256: tributary_wire::Sha256(header[38..70].try_into()?) })
}

fn reach(old: &[u8], new: usize) -> u32 {
    (old.len() + new).next_power_of_two().ilog2().clamp(20, 30)
}

fn pack(old: &[u8], new: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut encoder = zstd::stream::write::Encoder::with_ref_prefix(Vec::new(), LEVEL, old)?;
    encoder.window_log(reach(old, new.len()))?;
    encoder.long_distance_matching(true)?;
    encoder.set_pledged_src_size(Some(new.len() as u64))?;
    encoder.write_all(new)?;
    Ok(encoder.finish()?)
}

fn unpack(old: &[u8], patch: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut decoder = zstd::stream::read::Decoder::with_ref_prefix(patch, old)?;
    decoder.window_log_max(30)?;
    let mut new = Vec::new();
    decoder.read_to_end(&mut new)?;
    Ok(new)
}

/// Each byte with the old one at its place; where there is none, as it is.
fn bytewise(bytes: &[u8], old: &[u8], combine: fn(u8, u8) -> u8) -> Vec<u8> {
    let like = old.iter().copied().chain(std::iter::repeat(0));
    bytes.iter().zip(like).map(|(byte, old)| combine(*byte, old)).collect()
}

fn bsdiff(old: &[u8], new: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut patch = Vec::new();
    Bsdiff::new(old, new).compare(Cursor::new(&mut patch))?;
    Ok(patch)
}

fn bspatch(old: &[u8], patch: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut new = Vec::new();
    Bspatch::new(patch)?.apply(old, Cursor::new(&mut new))?;
    Ok(new)
}

#[cfg(test)]
mod tests {
    use tributary_release::digest;

    use super::*;

    #[test]
    fn the_header_of_a_patch_says_where_it_leads() {
        let new = b"a package";
        let patch = delta::make(Format::Zstd, None, new).unwrap();
        let found = expected(&mut &patch[..]).unwrap();
        assert_eq!(found, Outcome { length: 9, sha256: digest(new) });
    }
}
