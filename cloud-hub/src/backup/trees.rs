//! Files that never change once they are there (the lake's, packages) are linked where that is possible, and copied
//! where it is not.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use tributary_process::disk::{Disk as _, RealDisk};
use tributary_process::durable;

use super::BackupError;

/// What became of files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Placed {
    /// They got a second name.
    pub linked: u64,
    /// They were copied.
    pub copied: u64,
    /// They were there already.
    pub kept: u64,
}

/// Paths and lengths of all files below a folder, by path; none when it is not there. Unfinished ones, whose names begin
/// with a dot, do not count.
pub(super) fn files(root: &Path) -> Result<Vec<(String, u64)>, BackupError> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries.map_err(BackupError::file("list", &folder))?,
        };
        for entry in entries {
            let entry = entry.map_err(BackupError::file("list", &folder))?;
            let (path, name) = (entry.path(), entry.file_name());
            let meta = match entry.metadata() {
                // Taken away meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                meta => meta.map_err(BackupError::file("look at", &path))?,
            };
            if name.to_string_lossy().starts_with('.') {
                continue;
            }
            match path.strip_prefix(root).ok().and_then(Path::to_str) {
                Some(below) if meta.is_file() => found.push((below.to_owned(), meta.len())),
                Some(_) if meta.is_dir() => folders.push(path),
                _ => {}
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Makes files of one folder appear in another, durably. One that is there with the same length is left: files of these
/// kinds never change.
pub(super) fn place(
    from: &Path,
    to: &Path,
    files: &[(String, u64)],
    mut each: impl FnMut(usize) -> Result<(), BackupError>,
) -> Result<Placed, BackupError> {
    let mut placed = Placed::default();
    let mut folders = BTreeSet::new();
    for (number, (path, length)) in files.iter().enumerate() {
        each(number)?;
        let (source, target) = (from.join(path), to.join(path));
        let folder = target.parent().unwrap_or(to);
        if folders.insert(folder.to_owned()) {
            fs::create_dir_all(folder).map_err(BackupError::file("make", folder))?;
        }
        if fs::metadata(&target).is_ok_and(|there| there.len() == *length) {
            placed.kept += 1;
            continue;
        }
        // What is there instead is half a file.
        let _ = fs::remove_file(&target);
        if fs::hard_link(&source, &target).is_ok() {
            placed.linked += 1;
        } else {
            copy(&source, &target)?;
            placed.copied += 1;
        }
    }
    sync(to, &folders)?;
    Ok(placed)
}

/// Makes the names of all these folders, and of those between them and `root`, durable.
pub(super) fn sync(root: &Path, folders: &BTreeSet<PathBuf>) -> Result<(), BackupError> {
    let mut all: BTreeSet<&Path> = BTreeSet::from([root]);
    for folder in folders {
        all.extend(folder.ancestors().take_while(|above| above.starts_with(root)));
    }
    all.into_iter()
        .filter(|folder| folder.is_dir())
        .try_for_each(|folder| durable::sync_folder(folder).map_err(BackupError::file("sync", folder)))
}

/// Copies one file; it has its name only when all of it is durable.
fn copy(from: &Path, to: &Path) -> Result<(), BackupError> {
    let name = to.file_name().unwrap_or_default().to_string_lossy();
    let unfinished = to.with_file_name(format!(".{name}.tmp"));
    let copied = fs::copy(from, &unfinished).map_err(BackupError::file("copy", from)).and_then(|_| {
        let sync = File::open(&unfinished).and_then(|file| file.sync_all());
        sync.and_then(|()| fs::rename(&unfinished, to)).map_err(BackupError::file("write", to))
    });
    if copied.is_err() {
        let _ = fs::remove_file(&unfinished);
    }
    copied
}

/// Whether files of one folder can be linked into another: both lie on one file system. `to` exists.
pub(super) fn one_system(from: &Path, to: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        let device = |path: &Path| fs::metadata(path).map(|found| found.dev()).ok();
        device(from).is_some() && device(from) == device(to)
    }
    #[cfg(not(unix))]
    {
        let _ = (from, to);
        false
    }
}

/// Refuses work for which there is no room.
pub(super) fn room(folder: &Path, needed: u64) -> Result<(), BackupError> {
    let free = RealDisk.free(folder).map_err(BackupError::file("look at the free space of", folder))?;
    match free < needed {
        true => Err(BackupError::NoRoom { path: folder.to_owned(), free, needed }),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_linked_once_and_half_ones_are_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::create_dir_all(from.join("events/day=1")).unwrap();
        fs::write(from.join("events/day=1/a.parquet"), "aaaa").unwrap();
        fs::write(from.join("events/day=1/.b.parquet.tmp"), "b").unwrap();
        let found = files(&from).unwrap();
        assert_eq!(found, [("events/day=1/a.parquet".to_owned(), 4)]);
        assert_eq!(files(&folder.path().join("none")).unwrap(), []);
        fs::create_dir_all(to.join("events/day=1")).unwrap();
        fs::write(to.join("events/day=1/a.parquet"), "aa").unwrap();
        assert_eq!(place(&from, &to, &found, |_| Ok(())).unwrap(), Placed { linked: 1, ..Placed::default() });
        assert_eq!(fs::read(to.join("events/day=1/a.parquet")).unwrap(), b"aaaa");
        assert_eq!(place(&from, &to, &found, |_| Ok(())).unwrap(), Placed { kept: 1, ..Placed::default() });
        let other = to.join("copied");
        copy(&from.join("events/day=1/a.parquet"), &other).unwrap();
        assert_eq!(fs::read(other).unwrap(), b"aaaa");
        let full = room(folder.path(), u64::MAX).unwrap_err().to_string();
        assert!(full.contains("has room for"), "{full}");
        assert!(one_system(&from, &to) && !one_system(&from.join("none"), &to));
    }
}
