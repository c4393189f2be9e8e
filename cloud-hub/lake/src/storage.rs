//! The disk as the lake sees it: few steps, each of which may fail or, until synced, be forgotten.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes at a place, without a position that readers would share.
pub trait ReadAt: Send + Sync {
    /// How many bytes there are.
    fn size(&self) -> u64;
    /// Fills the buffer from `offset`.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
}

/// What the lake needs of a disk. A file is durable after `sync` of it and `sync_folder` of every folder above it.
pub trait Storage: Send + Sync + 'static {
    /// Makes a folder and those above it.
    fn create_folder(&self, folder: &Path) -> io::Result<()>;
    /// Makes or replaces a file.
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;
    /// Makes a file's content durable.
    fn sync(&self, path: &Path) -> io::Result<()>;
    /// Gives a file another name, replacing what had it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Makes the names in a folder durable.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;
    /// Opens a file for reading.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn ReadAt>>;
    /// All files below a folder; none when the folder is not there.
    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
}

/// Writes a file so that after any crash it is there whole or not at all: beside, synced, renamed, folder synced.
pub fn write_durably(storage: &dyn Storage, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = folder.join(format!(".{name}.tmp"));
    let result = storage
        .write(&temporary, bytes)
        .and_then(|()| storage.sync(&temporary))
        .and_then(|()| storage.rename(&temporary, path))
        .and_then(|()| storage.sync_folder(folder));
    if result.is_err() {
        // On a full disk the half-written file must not hold the space that others wait for.
        let _ = storage.remove(&temporary);
    }
    result
}

/// Makes a folder below `root` whose name survives a crash.
pub fn create_folder_durably(storage: &dyn Storage, root: &Path, folder: &Path) -> io::Result<()> {
    storage.create_folder(folder)?;
    for above in folder.ancestors().skip(1).take_while(|above| above.starts_with(root)) {
        storage.sync_folder(above)?;
    }
    Ok(())
}

/// Reads a whole file.
pub fn read(storage: &dyn Storage, path: &Path) -> io::Result<Vec<u8>> {
    let file = storage.open(path)?;
    let mut bytes = vec![0; file.size() as usize];
    file.read_at(0, &mut bytes)?;
    Ok(bytes)
}

/// The real file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct FileStorage;

struct OpenFile {
    file: File,
    size: u64,
}

impl ReadAt for OpenFile {
    fn size(&self) -> u64 {
        self.size
    }

    #[cfg(unix)]
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(&self.file, buffer, offset)
    }

    #[cfg(not(unix))]
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        use io::{Read, Seek};
        let mut file = self.file.try_clone()?;
        file.seek(io::SeekFrom::Start(offset))?;
        file.read_exact(buffer)
    }
}

impl Storage for FileStorage {
    fn create_folder(&self, folder: &Path) -> io::Result<()> {
        fs::create_dir_all(folder)
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        fs::write(path, bytes)
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        File::open(folder)?.sync_all()
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn ReadAt>> {
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        Ok(Arc::new(OpenFile { file, size }))
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            let entries = match fs::read_dir(&folder) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                entries => entries?,
            };
            for entry in entries {
                let entry = entry?;
                match entry.file_type()? {
                    kind if kind.is_dir() => folders.push(entry.path()),
                    kind if kind.is_file() => files.push(entry.path()),
                    _ => {}
                }
            }
        }
        files.sort();
        Ok(files)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }
}

#[cfg(any(test, feature = "simulation"))]
mod simulated;
#[cfg(any(test, feature = "simulation"))]
pub use simulated::MemoryStorage;
