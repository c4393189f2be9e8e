//! Files of the lake that a drive gives back otherwise than they were written.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use arrow::array::RecordBatch;
use cloud_hub_lake::{FileEntry, LakeError};
use rand::Rng;
use tributary_process::disk::Disk;

use super::{Breakage, Hub, LAKE};

/// A flipped bit.
#[derive(Debug)]
pub(super) struct Rot {
    file: FileEntry,
    path: PathBuf,
    whole: Vec<u8>,
    records: RecordBatch,
}

impl Hub {
    /// A bit of some file of the lake flips. Whoever reads the file is told, or gets what was written. Which file; none
    /// while there is none, or another is rotten.
    pub fn rot(&mut self) -> Result<Option<String>> {
        if self.rot.is_some() || !self.is_up() {
            return Ok(None);
        }
        let lake = self.lake()?;
        let files: Vec<FileEntry> =
            lake.streams().iter().flat_map(|stream| lake.files(stream, i64::MIN..=i64::MAX)).collect();
        if files.is_empty() {
            return Ok(None);
        }
        let file = files[self.chance.random_range(0..files.len())].clone();
        let path = Path::new(LAKE).join(&file.path);
        let (whole, records) = (self.disk.read(&path, u64::MAX)?, self.lake()?.read(&file)?);
        let other = files.iter().find(|other| other.stream == file.stream && other.path != file.path);
        match other.filter(|_| self.breakage == Some(Breakage::FilesSwapped)) {
            Some(other) => self.disk.put(&path, &self.disk.read(&Path::new(LAKE).join(&other.path), u64::MAX)?)?,
            None => self.disk.rot(&path, self.chance.random_range(0..whole.len()))?,
        }
        let name = file.path.clone();
        self.rot = Some(Rot { file, path, whole, records });
        self.check_rot()?;
        Ok(Some(name))
    }

    /// A rotten file is found out when it is read, or does no harm.
    fn check_rot(&self) -> Result<()> {
        let Some(Rot { file, records, .. }) = &self.rot else { return Ok(()) };
        match self.lake()?.read(file) {
            Ok(found) => ensure!(found == *records, "{}: not what was written is read, and nobody is told", file.path),
            Err(error) => self.check_told(&error)?,
        }
        Ok(())
    }

    fn check_told(&self, error: &LakeError) -> Result<()> {
        let (words, rotten) = (format!("{error:?}"), self.rot.as_ref().map(|rot| rot.file.path.as_str()));
        ensure!(rotten.is_some_and(|path| words.contains(path)), "{words}; {rotten:?} is rotten");
        Ok(())
    }

    /// Event ids in a stream; `None`: a file is rotten, and whoever reads it is told which.
    pub fn readable_ids(&self, stream: &str) -> Result<Option<BTreeSet<String>>> {
        self.check_rot()?;
        match self.ids(stream) {
            Ok(ids) => Ok(Some(ids)),
            Err(error) => match error.downcast_ref::<LakeError>() {
                Some(found) => self.check_told(found).map(|()| None),
                None => Err(error),
            },
        }
    }

    /// The drive's copy of a rotten file is put back.
    pub fn mend_rot(&mut self) -> Result<()> {
        if self.is_up() {
            self.check_rot()?;
        }
        self.put_back()
    }

    pub(super) fn put_back(&mut self) -> Result<()> {
        match self.rot.take() {
            Some(rot) => Ok(self.disk.put(&rot.path, &rot.whole)?),
            None => Ok(()),
        }
    }
}
