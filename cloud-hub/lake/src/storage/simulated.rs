//! A disk in memory that forgets, at a crash, everything that was not synced.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{ReadAt, Storage};

/// The simulated disk. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct MemoryStorage {
    disk: Arc<Mutex<Disk>>,
    /// The one power cycle in which this handle can change anything; `None`: in all.
    cycle: Option<u64>,
}

#[derive(Debug, Default)]
struct Disk {
    /// What a running program sees.
    files: BTreeMap<PathBuf, Content>,
    folders: BTreeSet<PathBuf>,
    /// What a crash leaves: names that were synced, pointing at content that may not have been.
    durable_files: BTreeMap<PathBuf, Content>,
    durable_folders: BTreeSet<PathBuf>,
    full: bool,
    lying: bool,
    steps_left: Option<u64>,
    crashes: u64,
}

/// Content is shared between names, as an inode is.
#[derive(Debug, Clone, Default)]
struct Content(Arc<Mutex<Inode>>);

#[derive(Debug, Default)]
struct Inode {
    bytes: Arc<Vec<u8>>,
    synced: Arc<Vec<u8>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MemoryStorage {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    /// A handle for a program that dies with the power: after the next [`MemoryStorage::crash`] it changes nothing any
    /// more, whatever of that program still runs.
    pub fn until_crash(&self) -> Self {
        Self { disk: self.disk.clone(), cycle: Some(lock(&self.disk).crashes) }
    }

    /// Power cut: what was not synced is gone, content and names alike.
    pub fn crash(&self) {
        let mut disk = lock(&self.disk);
        let folders = disk.durable_folders.clone();
        let reachable = |path: &Path| path.ancestors().skip(1).all(|a| a.parent().is_none() || folders.contains(a));
        let left: BTreeMap<PathBuf, Content> = disk
            .durable_files
            .iter()
            .filter(|(path, _)| reachable(path))
            .map(|(path, content)| {
                let synced = lock(&content.0).synced.clone();
                (path.clone(), Content(Arc::new(Mutex::new(Inode { bytes: synced.clone(), synced }))))
            })
            .collect();
        disk.files = left.clone();
        disk.durable_files = left;
        disk.folders = folders;
        disk.steps_left = None;
        disk.crashes += 1;
    }

    /// After this many further changing steps every step fails, as if the power were already gone; `None`: never.
    pub fn fail_after(&self, steps: Option<u64>) {
        lock(&self.disk).steps_left = steps;
    }

    /// Makes writes fail as on a full disk.
    pub fn set_full(&self, full: bool) {
        lock(&self.disk).full = full;
    }

    /// Makes syncs succeed without effect, as a bad drive does: what a test calls durable must then be seen to fail.
    pub fn set_lying(&self, lying: bool) {
        lock(&self.disk).lying = lying;
    }

    fn change(&self) -> io::Result<MutexGuard<'_, Disk>> {
        let mut disk = lock(&self.disk);
        if self.cycle.is_some_and(|cycle| cycle != disk.crashes) {
            return Err(io::Error::other("the power was cut"));
        }
        match &mut disk.steps_left {
            Some(0) => return Err(io::Error::other("the power is gone")),
            Some(left) => *left -= 1,
            None => {}
        }
        Ok(disk)
    }
}

fn not_found(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, path.display().to_string())
}

impl ReadAt for Arc<Vec<u8>> {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let start = offset as usize;
        let bytes = self.get(start..start + buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }
}

impl Storage for MemoryStorage {
    fn create_folder(&self, folder: &Path) -> io::Result<()> {
        self.change()?.folders.extend(folder.ancestors().filter(|a| a.parent().is_some()).map(Path::to_owned));
        Ok(())
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut disk = self.change()?;
        if disk.full {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "no space left on the simulated disk"));
        }
        if path.parent().is_some_and(|folder| folder.parent().is_some() && !disk.folders.contains(folder)) {
            return Err(not_found(path));
        }
        let content = disk.files.entry(path.to_owned()).or_default();
        lock(&content.0).bytes = Arc::new(bytes.to_vec());
        Ok(())
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        let disk = self.change()?;
        let content = disk.files.get(path).ok_or_else(|| not_found(path))?;
        if disk.lying {
            return Ok(());
        }
        let mut inode = lock(&content.0);
        inode.synced = inode.bytes.clone();
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = self.change()?;
        let content = disk.files.remove(from).ok_or_else(|| not_found(from))?;
        disk.files.insert(to.to_owned(), content);
        Ok(())
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        let mut guard = self.change()?;
        let disk = &mut *guard;
        if disk.lying {
            return Ok(());
        }
        let inside = |path: &Path| path.parent() == Some(folder);
        disk.durable_files.retain(|path, _| !inside(path));
        let names = disk.files.iter().filter(|(path, _)| inside(path));
        disk.durable_files.extend(names.map(|(path, content)| (path.clone(), content.clone())));
        disk.durable_folders.extend(disk.folders.iter().filter(|path| inside(path)).cloned());
        Ok(())
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn ReadAt>> {
        let disk = lock(&self.disk);
        let content = disk.files.get(path).ok_or_else(|| not_found(path))?;
        let bytes = lock(&content.0).bytes.clone();
        Ok(Arc::new(bytes))
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        Ok(lock(&self.disk).files.keys().filter(|path| path.starts_with(folder)).cloned().collect())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.change()?.files.remove(path).map(drop).ok_or_else(|| not_found(path))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{create_folder_durably, read, write_durably};
    use super::*;

    #[test]
    fn a_durable_write_survives_a_crash_and_each_step_less_does_not() {
        let folder = Path::new("/lake/events");
        let path = folder.join("a");
        let disk = MemoryStorage::new();
        create_folder_durably(&disk, Path::new("/"), folder).unwrap();
        write_durably(&disk, &path, b"whole").unwrap();
        disk.crash();
        assert_eq!(read(&disk, &path).unwrap(), b"whole");

        disk.write(&folder.join("b"), b"not synced").unwrap();
        disk.sync_folder(folder).unwrap();
        disk.write(&folder.join("c"), b"no name").unwrap();
        disk.sync(&folder.join("c")).unwrap();
        disk.crash();
        assert_eq!(read(&disk, &folder.join("b")).unwrap(), b"");
        assert!(disk.open(&folder.join("c")).is_err());
    }

    #[test]
    fn what_still_runs_of_a_dead_program_changes_nothing() {
        let disk = MemoryStorage::new();
        let (dead, path) = (disk.until_crash(), Path::new("/a"));
        write_durably(&dead, path, b"before").unwrap();
        disk.crash();
        assert!(write_durably(&dead, path, b"after").is_err());
        assert_eq!(read(&disk, path).unwrap(), b"before");
        write_durably(&disk.until_crash(), path, b"next life").unwrap();
    }

    #[test]
    fn a_file_in_a_folder_whose_name_was_not_synced_is_lost() {
        let disk = MemoryStorage::new();
        let folder = Path::new("/lake/new");
        disk.create_folder(folder).unwrap();
        write_durably(&disk, &folder.join("a"), b"whole").unwrap();
        disk.crash();
        assert!(disk.open(&folder.join("a")).is_err());
    }
}
