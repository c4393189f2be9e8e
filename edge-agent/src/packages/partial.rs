//! A package file on its way.

use std::io::{self, Write};

use tributary_process::disk::Growing;
use tributary_wire::ReleaseRef;

use super::files::{FileError, MARK, PART, PackageFiles};

/// How much may be written before it is made durable: what a power cut can cost.
const MARK_EVERY: u64 = 1 << 20;
/// A mark: the length, and its complement, so that a torn one is known.
const MARK_BYTES: usize = 16;
/// The marks of the largest package.
const MAX_MARKS_BYTES: u64 = 1 << 20;

/// A file on its way. What is durable of it is found again by the next process.
///
/// After a power cut a file may be long and hollow, so its length proves nothing. What was synced is written down in a
/// second file, each mark after the sync that it speaks of.
#[derive(Debug)]
pub struct Partial {
    files: PackageFiles,
    release: ReleaseRef,
    file: Box<dyn Growing>,
    marks: Box<dyn Growing>,
    written: u64,
    marked: u64,
}

impl Partial {
    pub(super) fn open(files: PackageFiles, release: ReleaseRef) -> io::Result<Self> {
        let disk = files.disk();
        let (part, mark) = (files.named(&release.sha256, PART), files.named(&release.sha256, MARK));
        let is_new = disk.length(&part).is_err() || disk.length(&mark).is_err();
        let mut file = disk.append(&part)?;
        let marks = disk.append(&mark)?;
        if is_new {
            disk.sync_folder(files.folder())?;
        }
        let length = file.length()?;
        let stored = disk.read(&mark, MAX_MARKS_BYTES)?;
        let marked = stored.chunks_exact(MARK_BYTES).filter_map(read_mark).filter(|mark| *mark <= length).max();
        let marked = marked.unwrap_or(0);
        if length > marked {
            file.truncate(marked)?;
        }
        let mut partial = Self { files, release, file, marks, written: marked, marked };
        if partial.written > partial.release.length || !stored.len().is_multiple_of(MARK_BYTES) {
            partial.restart()?;
        }
        Ok(partial)
    }

    /// How many bytes are there: where the download goes on.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Appends a piece; refuses to grow beyond the release's length.
    pub fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        let found = self.written + piece.len() as u64;
        if found > self.release.length {
            let expected = self.release.length;
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("more than the {expected} bytes released"),
            ));
        }
        self.file.write_all(piece)?;
        self.written = found;
        if self.written - self.marked >= MARK_EVERY {
            self.mark()?;
        }
        Ok(())
    }

    /// Makes what was written durable, and says so.
    fn mark(&mut self) -> io::Result<()> {
        if self.written == self.marked {
            return Ok(());
        }
        if let Err(error) = self.file.sync() {
            // What was to be synced is in doubt for ever, and stands in the file all the same.
            let _ = self.files.remove(&self.release.sha256);
            return Err(error);
        }
        let mut mark = self.written.to_le_bytes().to_vec();
        mark.extend((!self.written).to_le_bytes());
        self.marks.write_all(&mark)?;
        self.marks.sync()?;
        self.marked = self.written;
        Ok(())
    }

    /// Begins again from nothing.
    pub fn restart(&mut self) -> io::Result<()> {
        // Durably without a mark before the bytes change that it speaks of.
        self.marks.truncate(0)?;
        self.marks.sync()?;
        self.marked = 0;
        self.file.truncate(0)?;
        self.written = 0;
        Ok(())
    }

    /// Checks length and hash of the whole, and puts it in its place durably. Wrong bytes are removed.
    pub fn finish(mut self) -> Result<(), FileError> {
        let (files, release) = (self.files.clone(), self.release.clone());
        let part = files.named(&release.sha256, PART);
        let failed = |source| FileError::Disk { path: part.clone(), source };
        if let Err(error) = self.file.sync() {
            self.forget();
            return Err(failed(error));
        }
        if let Err(error) = files.check(&part, &release) {
            if error.is_damage() {
                self.forget();
            }
            return Err(error);
        }
        // Nothing is left to mark.
        self.marked = self.written;
        drop(self);
        let disk = files.disk();
        disk.rename(&part, &files.path(&release.sha256)).map_err(failed)?;
        disk.sync_folder(files.folder()).map_err(failed)?;
        // One that stays costs nothing and goes with the package.
        let _ = disk.remove(&files.named(&release.sha256, MARK));
        Ok(())
    }

    fn forget(mut self) {
        self.marked = self.written;
        if let Err(error) = self.files.remove(&self.release.sha256) {
            tracing::warn!(%error, "damaged package file not removed");
        }
    }
}

impl Drop for Partial {
    /// A download that breaks off keeps all that came.
    fn drop(&mut self) {
        if let Err(error) = self.mark() {
            tracing::debug!(%error, "what came of a download is not durable");
        }
    }
}

fn read_mark(bytes: &[u8]) -> Option<u64> {
    let (length, complement) = bytes.split_first_chunk::<8>()?;
    let length = u64::from_le_bytes(*length);
    (complement == (!length).to_le_bytes()).then_some(length)
}
