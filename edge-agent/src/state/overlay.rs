//! A file that is read, and changes to it that stay in memory.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

const PAGE: u64 = 4096;

/// Lets redb open, mend and check a file of which not one byte may change.
#[derive(Debug)]
pub(super) struct Overlay {
    file: File,
    changed: Mutex<Changed>,
}

#[derive(Debug)]
struct Changed {
    length: u64,
    /// How much of the file still shows through: less, once it was cut.
    shown: u64,
    pages: BTreeMap<u64, Box<[u8]>>,
}

impl Overlay {
    pub(super) fn new(file: File) -> io::Result<Self> {
        let length = file.metadata()?.len();
        Ok(Self { file, changed: Mutex::new(Changed { length, shown: length, pages: BTreeMap::new() }) })
    }

    fn changed(&self) -> MutexGuard<'_, Changed> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A page as it would be in the file.
    fn page(&self, changed: &Changed, number: u64) -> io::Result<Box<[u8]>> {
        let mut page = vec![0; PAGE as usize].into_boxed_slice();
        let from = number * PAGE;
        let there = changed.shown.saturating_sub(from).min(PAGE) as usize;
        read_at(&self.file, from, &mut page[..there])?;
        Ok(page)
    }
}

#[cfg(unix)]
fn read_at(file: &File, offset: u64, out: &mut [u8]) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, out, offset)
}

#[cfg(not(unix))]
fn read_at(file: &File, offset: u64, out: &mut [u8]) -> io::Result<()> {
    use io::{Read as _, Seek as _};
    let mut file = file.try_clone()?;
    file.seek(io::SeekFrom::Start(offset))?;
    file.read_exact(out)
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.changed().length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let changed = self.changed();
        if offset.checked_add(out.len() as u64).is_none_or(|end| end > changed.length) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut done = 0;
        while done < out.len() {
            let at = offset + done as u64;
            let within = (at % PAGE) as usize;
            let piece = (PAGE as usize - within).min(out.len() - done);
            let into = &mut out[done..done + piece];
            match changed.pages.get(&(at / PAGE)) {
                Some(page) => into.copy_from_slice(&page[within..within + piece]),
                None => into.copy_from_slice(&self.page(&changed, at / PAGE)?[within..within + piece]),
            }
            done += piece;
        }
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut changed = self.changed();
        if length < changed.length {
            // What is cut off does not come back when it grows again.
            changed.shown = changed.shown.min(length);
            changed.pages.split_off(&length.div_ceil(PAGE));
            if let Some(last) = changed.pages.get_mut(&(length / PAGE)) {
                last[(length % PAGE) as usize..].fill(0);
            }
        }
        changed.length = length;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut changed = self.changed();
        let mut done = 0;
        while done < data.len() {
            let at = offset + done as u64;
            let within = (at % PAGE) as usize;
            let piece = (PAGE as usize - within).min(data.len() - done);
            if !changed.pages.contains_key(&(at / PAGE)) {
                let page = self.page(&changed, at / PAGE)?;
                changed.pages.insert(at / PAGE, page);
            }
            if let Some(page) = changed.pages.get_mut(&(at / PAGE)) {
                page[within..within + piece].copy_from_slice(&data[done..done + piece]);
            }
            done += piece;
        }
        changed.length = changed.length.max(offset + data.len() as u64);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_the_file_keeps_every_byte() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let mut model: Vec<u8> = (0..10_000u32).map(|n| n as u8).collect();
        std::fs::write(&path, &model).unwrap();
        let overlay = Overlay::new(File::open(&path).unwrap()).unwrap();
        let same = |model: &[u8]| {
            let mut read = vec![0; model.len()];
            overlay.read(0, &mut read).unwrap();
            assert!(overlay.len().unwrap() == model.len() as u64 && read == model);
        };
        same(&model);
        overlay.write(4_000, &[7; 5_000]).unwrap();
        model[4_000..9_000].fill(7);
        same(&model);
        overlay.set_len(6_000).unwrap();
        overlay.set_len(20_000).unwrap();
        model.truncate(6_000);
        model.resize(20_000, 0);
        same(&model);
        overlay.write(19_999, &[1, 2]).unwrap();
        model[19_999] = 1;
        model.push(2);
        same(&model);
        assert!(overlay.read(20_000, &mut [0; 2]).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), (0..10_000u32).map(|n| n as u8).collect::<Vec<_>>());
    }
}
