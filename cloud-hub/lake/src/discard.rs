//! Files that do not count are removed, if need be later: a disk that refuses to be written to refuses that too.

use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::PoisonError;

use tributary_process::disk::{Disk, folder_of, is_unfinished};

use crate::Lake;

impl Lake {
    /// Removes a file that does not count, and what was begun of it. One that cannot be removed is left for
    /// [`Self::discard_left`], or for the next start.
    pub fn discard(&self, path: &str) {
        if let Err(error) = remove(&*self.disk, &self.root.join(path)) {
            tracing::warn!(path, %error, "could not remove a file that is not in the catalog");
            self.left.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned());
        }
    }

    /// Tries those again that could not be removed: whoever reads the folder past the catalog would take their records
    /// for others.
    pub fn discard_left(&self) {
        let left = std::mem::take(&mut *self.left.lock().unwrap_or_else(PoisonError::into_inner));
        left.iter().for_each(|path| self.discard(path));
    }
}

fn remove(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    there(disk.remove(path))?;
    let folder = folder_of(path);
    let begun = format!(".{}.", path.file_name().unwrap_or_default().to_string_lossy());
    let names = there(disk.list(folder))?.unwrap_or_default();
    let begun = names.iter().filter(|name| is_unfinished(name) && name.starts_with(&begun));
    begun.map(|name| folder.join(name)).try_for_each(|path| there(disk.remove(&path)).map(drop))
}

/// What is not there is fine.
fn there<T>(answer: io::Result<T>) -> io::Result<Option<T>> {
    match answer {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        answer => answer.map(Some),
    }
}
