//! An open file of the simulated disk.

use std::io::{self, Write};

use rand::Rng;

use super::super::{Growing, ReadAt};
use super::SimDisk;
use super::journal::Operation;

/// An open file; it fails for ever after the next [`SimDisk::crash`] or [`SimDisk::kill`]. Clones are the same file.
#[derive(Debug, Clone)]
pub struct SimFile {
    disk: SimDisk,
    id: u64,
}

impl SimFile {
    pub(super) fn new(disk: SimDisk, id: u64) -> Self {
        Self { disk, id }
    }

    /// Fills the buffer from `offset`.
    pub fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut inner = self.disk.reader()?;
        let offset = offset as usize;
        let bytes = inner.content(self.id).bytes().get(offset..offset + out.len());
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    /// Writes all of `data` at `offset`, or nothing when there is no room.
    pub fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut inner = self.disk.change()?;
        let room = inner.room();
        let content = inner.content(self.id);
        let grows = (offset + data.len() as u64).saturating_sub(content.length());
        if grows > room {
            return Err(inner.full());
        }
        inner.perform(Operation::Write(self.id, offset as usize, data.to_vec()))
    }

    /// Cuts the file off, or lengthens it with zeros.
    pub fn set_length(&self, length: u64) -> io::Result<()> {
        let mut inner = self.disk.change()?;
        let room = inner.room();
        let content = inner.content(self.id);
        if length.saturating_sub(content.length()) > room {
            return Err(inner.full());
        }
        inner.perform(Operation::Length(self.id, length as usize))
    }

    /// Makes the content durable.
    pub fn sync(&self) -> io::Result<()> {
        let mut inner = match self.disk.change() {
            Ok(inner) => inner,
            Err(error) => {
                if let Ok(mut inner) = self.disk.reader() {
                    inner.content(self.id).sync_failed();
                }
                return Err(error);
            }
        };
        inner.perform(Operation::Sync(self.id))
    }

    /// How long it is.
    pub fn length(&self) -> io::Result<u64> {
        Ok(self.disk.reader()?.content(self.id).length())
    }
}

impl Write for SimFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let mut inner = self.disk.change()?;
        let fits = inner.room().min(bytes.len() as u64) as usize;
        if fits == 0 {
            return Err(inner.full());
        }
        let taken = inner.short_writes.as_mut().map_or(fits, |coin| coin.random_range(1..=fits));
        let end = inner.content(self.id).length() as usize;
        inner.harm.short += u64::from(taken < fits);
        inner.perform(Operation::Write(self.id, end, bytes[..taken].to_vec()))?;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl ReadAt for SimFile {
    fn size(&self) -> u64 {
        // A program that lost its power reads nothing in any case.
        self.length().unwrap_or(0)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        Self::read_at(self, offset, buffer)
    }
}

impl Growing for SimFile {
    fn sync(&mut self) -> io::Result<()> {
        Self::sync(self)
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.set_length(length)
    }

    fn length(&self) -> io::Result<u64> {
        Self::length(self)
    }
}
