//! A disk, as far as a program may rely on it: small whole files, and files that grow at their end.
//!
//! What a power cut leaves is what POSIX promises and no more: the content of a file up to its last sync, the names of
//! a folder up to the folder's last sync, and of everything since then any part. [`RealDisk`] is the file system;
//! `SimDisk` (feature `simulation`) is one in memory that takes the promise at its word.
//!
//! [`replace`] is how a whole file is written so that it is there, old or new, after any crash.

mod real;
#[cfg(any(test, feature = "simulation"))]
mod simulated;
mod turn;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use real::RealDisk;
#[cfg(any(test, feature = "simulation"))]
pub use simulated::{Harm, Replay, SimDisk, SimFile};
use turn::Turn;

/// Files by path. A file is durable after a sync of it and of every folder whose names lead to it.
pub trait Disk: fmt::Debug + Send + Sync {
    /// Makes a folder and those above it; one that is there is fine.
    fn create_folder(&self, folder: &Path) -> io::Result<()>;

    /// Opens a file for reading, from its beginning.
    fn open(&self, path: &Path) -> io::Result<Box<dyn Read + Send>>;

    /// Opens a file for reading at any place.
    fn open_at(&self, path: &Path) -> io::Result<Arc<dyn ReadAt>>;

    /// Makes an empty file, or empties the one that is there.
    fn create(&self, path: &Path, access: Access) -> io::Result<Box<dyn Growing>>;

    /// Opens a file to go on at its end, or makes an empty one.
    fn append(&self, path: &Path) -> io::Result<Box<dyn Growing>>;

    /// How long a file is.
    fn length(&self, path: &Path) -> io::Result<u64>;

    /// Gives a file another name, replacing what had it: readers see the one or the other, never neither.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Takes a file away.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// The names of the files right in a folder, in order.
    fn list(&self, folder: &Path) -> io::Result<Vec<String>>;

    /// The names of the folders right in a folder, in order.
    fn folders(&self, folder: &Path) -> io::Result<Vec<String>>;

    /// Makes the names in a folder durable: those given, those changed and those taken away.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;

    /// How many more bytes this program could write into a folder.
    fn free(&self, folder: &Path) -> io::Result<u64>;

    /// A whole file, if it has at most `limit` bytes.
    fn read(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.open(path)?.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > limit {
            let found = format!("{} has more than the {limit} bytes expected", path.display());
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, found));
        }
        Ok(bytes)
    }
}

/// Bytes at a place, without a position that readers would share.
pub trait ReadAt: fmt::Debug + Send + Sync {
    /// How many bytes there are.
    fn size(&self) -> u64;

    /// Fills the buffer from `offset`.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
}

/// A file that is written at its end.
pub trait Growing: Write + fmt::Debug + Send {
    /// Makes its content durable; its name is its folder's matter. After an error nobody knows which of what was
    /// written since the last sync will survive, and a later success says nothing about it: write anew.
    fn sync(&mut self) -> io::Result<()>;

    /// Cuts it off behind its first `length` bytes.
    fn truncate(&mut self, length: u64) -> io::Result<()>;

    /// How long it is.
    fn length(&self) -> io::Result<u64>;
}

/// Who may read a new file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Whoever the system's default lets.
    Everyone,
    /// Its owner alone.
    Owner,
}

/// Begins the name of a file that [`replace`] has not finished.
const UNFINISHED: &str = ".";
/// Ends it.
const UNFINISHED_END: &str = ".tmp";

/// Writes `bytes` to `path` so that after any crash the file holds either its old content or all of the new one. When
/// it returns, the new one is durable, or that of somebody who wrote the path after this. Writers of a path in one
/// program wait for each other, because both would write into one unfinished file.
pub fn replace(disk: &dyn Disk, path: &Path, bytes: &[u8], access: Access) -> io::Result<()> {
    let _turn = Turn::take(path);
    let name = path.file_name().ok_or_else(|| io::Error::other(format!("{} has no file name", path.display())))?;
    let process = std::process::id();
    let unfinished = format!("{UNFINISHED}{}.{process}{UNFINISHED_END}", name.to_string_lossy());
    let unfinished = path.with_file_name(unfinished);
    let mut written = disk.create(&unfinished, access)?;
    let placed = written.write_all(bytes).and_then(|()| written.sync()).and_then(|()| disk.rename(&unfinished, path));
    if placed.is_err() {
        // On a full disk a half-written file must not hold the space that others wait for.
        let _ = disk.remove(&unfinished);
    }
    placed?;
    disk.sync_folder(folder_of(path))
}

/// All files below a folder, in order; none when the folder is not there.
pub fn walk(disk: &dyn Disk, folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let names = match disk.list(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            names => names?,
        };
        files.extend(names.into_iter().map(|name| folder.join(name)));
        folders.extend(disk.folders(&folder)?.into_iter().map(|name| folder.join(name)));
    }
    files.sort();
    Ok(files)
}

/// Whether this is the name of a file that [`replace`] began and a crash left behind. Nobody but its writer needs it.
pub fn is_unfinished(name: &str) -> bool {
    name.len() > UNFINISHED.len() + UNFINISHED_END.len()
        && name.starts_with(UNFINISHED)
        && name.ends_with(UNFINISHED_END)
}

/// Makes a folder and those missing above it, and their names durable.
pub fn create_folder_durably(disk: &dyn Disk, folder: &Path) -> io::Result<()> {
    // Its own name is synced in any case: whoever made it may have died before doing so.
    let is_missing = |path: &&Path| matches!(disk.list(path), Err(error) if error.kind() == io::ErrorKind::NotFound);
    let above = folder.ancestors().skip(1).filter(|path| !path.as_os_str().is_empty());
    let made: Vec<&Path> = [folder].into_iter().chain(above.take_while(is_missing)).collect();
    disk.create_folder(folder)?;
    made.into_iter().try_for_each(|path| disk.sync_folder(folder_of(path)))
}

/// Makes a folder below `root`, which is there, and all names between durable, also those that somebody made who died
/// before syncing them.
pub fn create_folder_below(disk: &dyn Disk, root: &Path, folder: &Path) -> io::Result<()> {
    disk.create_folder(folder)?;
    let between = folder.ancestors().skip(1).take_while(|above| above.starts_with(root));
    between.into_iter().try_for_each(|above| disk.sync_folder(above))
}

/// Makes the names of whole files below a root durable that a program may have left without: one that dies between a name
/// and its folder's sync leaves names that are seen until the power goes.
pub fn settle_names(disk: &dyn Disk, root: &Path, files: &[PathBuf]) -> io::Result<()> {
    let above = |file| Path::ancestors(file).skip(1).take_while(|above| above.starts_with(root));
    let folders: BTreeSet<&Path> = files.iter().map(PathBuf::as_path).flat_map(above).collect();
    folders.into_iter().try_for_each(|folder| disk.sync_folder(folder))
}

/// The folder in which a file lies.
pub fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
