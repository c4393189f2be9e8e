//! Sums over a file's bytes, so that what an old drive changes is noticed when it is read: Parquet's writer makes none.
//!
//! They lie between the pages and Parquet's own end, where readers of Parquet do not look:
//! `pages · sums of their blocks · sum of the end · number of blocks · sum of the sums · "TRIBSUMS" · Parquet's end`.

use std::io;
use std::path::Path;
use std::sync::Arc;

use crc::{CRC_32_ISCSI, Crc, Table};
use tributary_process::disk::ReadAt;

use crate::LakeError;

static SUM: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISCSI);

/// Bytes that have a sum of their own: what has to be read to believe one of them.
const BLOCK: usize = 8192;
const MARK: &[u8; 8] = b"TRIBSUMS";
/// After the sums of the blocks: that of the end, how many there are, that of all this, and the mark.
const TAIL: usize = 4 + 4 + 4 + MARK.len();
/// Parquet's last bytes: how long its metadata is, and its own mark.
const PARQUET_TAIL: usize = 8;
const PARQUET_MARK: &[u8; 4] = b"PAR1";

fn number(bytes: &[u8]) -> u32 {
    bytes.try_into().map_or(0, u32::from_le_bytes)
}

/// Where Parquet's end begins: its metadata, the length of that, and its mark.
fn end_of(last: &[u8], size: u64) -> Option<u64> {
    let (length, mark) = last.split_at_checked(4)?;
    let end = u64::from(number(length)) + PARQUET_TAIL as u64;
    if mark == PARQUET_MARK { size.checked_sub(end) } else { None }
}

/// Puts sums into a whole Parquet file.
pub(crate) fn put_into(file: &mut Vec<u8>) {
    let last = file.len().saturating_sub(PARQUET_TAIL);
    let Some(end) = end_of(&file[last..], file.len() as u64) else { return };
    let end = file.split_off(end as usize);
    let mut sums: Vec<u8> = file.chunks(BLOCK).flat_map(|block| SUM.checksum(block).to_le_bytes()).collect();
    let blocks = (sums.len() / 4) as u32;
    sums.extend(SUM.checksum(&end).to_le_bytes());
    sums.extend(blocks.to_le_bytes());
    sums.extend(SUM.checksum(&sums).to_le_bytes());
    sums.extend(MARK);
    file.extend(sums);
    file.extend(end);
}

/// A file whose bytes are compared with their sums as they are read. `None`: it has no sums.
pub(crate) fn check(path: &Path, file: &Arc<dyn ReadAt>) -> Result<Option<Arc<dyn ReadAt>>, LakeError> {
    let failed = |source| LakeError::Storage { verb: "read", path: path.to_owned(), source };
    let damaged = |problem: &str| LakeError::Damaged { path: path.to_owned(), problem: problem.to_owned() };
    let read = |at: u64, length: usize| {
        let mut bytes = vec![0; length];
        file.read_at(at, &mut bytes).map(|()| bytes).map_err(failed)
    };
    let size = file.size();
    let Some(last) = size.checked_sub(PARQUET_TAIL as u64) else { return Ok(None) };
    let Some(end) = end_of(&read(last, PARQUET_TAIL)?, size) else { return Ok(None) };
    let Some(tail_at) = end.checked_sub(TAIL as u64) else { return Ok(None) };
    let tail = read(tail_at, TAIL)?;
    if !tail.ends_with(MARK) {
        return Ok(None);
    }
    let blocks = u64::from(number(&tail[4..8]));
    let pages = tail_at.checked_sub(blocks * 4).filter(|pages| pages.div_ceil(BLOCK as u64) == blocks);
    let pages = pages.ok_or_else(|| damaged("its sums are not as many as its pages need"))?;
    let sums = read(pages, (end - pages) as usize - MARK.len() - 4)?;
    if SUM.checksum(&sums) != number(&tail[8..12]) {
        return Err(damaged("its sums are not what was written"));
    }
    if SUM.checksum(&read(end, (size - end) as usize)?) != number(&tail[..4]) {
        return Err(damaged("its end is not what was written"));
    }
    let sums = sums[..blocks as usize * 4].chunks(4).map(number).collect();
    Ok(Some(Arc::new(Checked { file: file.clone(), sums, pages })))
}

#[derive(Debug)]
struct Checked {
    file: Arc<dyn ReadAt>,
    /// Of each block.
    sums: Vec<u32>,
    /// Where the pages end.
    pages: u64,
}

impl ReadAt for Checked {
    fn size(&self) -> u64 {
        self.file.size()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let end = offset + buffer.len() as u64;
        // Behind the pages everything was compared when the file was opened.
        if end > self.pages {
            return self.file.read_at(offset, buffer);
        }
        let first = offset / BLOCK as u64 * BLOCK as u64;
        let last = end.next_multiple_of(BLOCK as u64).min(self.pages);
        let mut bytes = vec![0; (last - first) as usize];
        self.file.read_at(first, &mut bytes)?;
        for (block, number) in bytes.chunks(BLOCK).zip(first / BLOCK as u64..) {
            if self.sums.get(number as usize) != Some(&SUM.checksum(block)) {
                let at = number * BLOCK as u64;
                let problem = format!("the bytes from {at} to {} are not what was written", at + block.len() as u64);
                return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
            }
        }
        buffer.copy_from_slice(&bytes[(offset - first) as usize..][..buffer.len()]);
        Ok(())
    }
}
