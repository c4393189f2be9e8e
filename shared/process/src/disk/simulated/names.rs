//! The names on the simulated disk, as programs see them and as a power cut leaves them.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use rand::rngs::StdRng;

use super::is_left;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    Folder,
    /// The content of this number.
    File(u64),
}

#[derive(Debug, Clone, Default)]
pub(super) struct Names {
    current: BTreeMap<PathBuf, Entry>,
    durable: BTreeMap<PathBuf, Entry>,
    /// Since the last sync of their folder, in order.
    unsynced: Vec<Change>,
}

#[derive(Debug, Clone)]
enum Change {
    Link(PathBuf, Entry),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf, Entry),
}

impl Change {
    fn apply(&self, names: &mut BTreeMap<PathBuf, Entry>) {
        match self {
            Self::Link(path, entry) => {
                names.insert(path.clone(), *entry);
            }
            Self::Unlink(path) => {
                names.remove(path);
            }
            Self::Rename(from, to, entry) => {
                names.remove(from);
                names.insert(to.clone(), *entry);
            }
        }
    }

    /// A file that moved from one folder to another is safe with a sync of either, which is more than POSIX says.
    fn is_in(&self, folder: &Path) -> bool {
        match self {
            Self::Link(path, _) | Self::Unlink(path) => path.parent() == Some(folder),
            Self::Rename(from, to, _) => from.parent() == Some(folder) || to.parent() == Some(folder),
        }
    }
}

fn not_found(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{} is not on the simulated disk", path.display()))
}

impl Names {
    /// The ends of all paths, `/` and the working folder, are always there.
    pub(super) fn has_folder(&self, path: &Path) -> bool {
        path.parent().is_none() || self.current.get(path) == Some(&Entry::Folder)
    }

    pub(super) fn file(&self, path: &Path) -> io::Result<u64> {
        match self.current.get(path) {
            Some(Entry::File(id)) => Ok(*id),
            Some(Entry::Folder) => Err(io::Error::new(io::ErrorKind::IsADirectory, path.display().to_string())),
            None => Err(not_found(path)),
        }
    }

    pub(super) fn contents(&self) -> impl Iterator<Item = u64> + '_ {
        self.current.values().filter_map(|entry| match entry {
            Entry::File(id) => Some(*id),
            Entry::Folder => None,
        })
    }

    pub(super) fn link(&mut self, path: &Path, entry: Entry) -> io::Result<()> {
        match path.parent() {
            Some(folder) if self.has_folder(folder) => self.change(Change::Link(path.to_owned(), entry)),
            folder => return Err(not_found(folder.unwrap_or(path))),
        }
        Ok(())
    }

    pub(super) fn unlink(&mut self, path: &Path) -> io::Result<()> {
        self.file(path)?;
        self.change(Change::Unlink(path.to_owned()));
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let id = self.file(from)?;
        if !to.parent().is_some_and(|folder| self.has_folder(folder)) {
            return Err(not_found(to));
        }
        self.change(Change::Rename(from.to_owned(), to.to_owned(), Entry::File(id)));
        Ok(())
    }

    pub(super) fn files(&self, folder: &Path) -> io::Result<Vec<String>> {
        self.list(folder, |entry| matches!(entry, Entry::File(_)))
    }

    pub(super) fn folders(&self, folder: &Path) -> io::Result<Vec<String>> {
        self.list(folder, |entry| *entry == Entry::Folder)
    }

    fn list(&self, folder: &Path, wanted: impl Fn(&Entry) -> bool) -> io::Result<Vec<String>> {
        if !self.has_folder(folder) {
            return Err(not_found(folder));
        }
        let below = self.current.range(folder.to_owned()..).take_while(|(path, _)| path.starts_with(folder));
        let inside = below.filter(|(path, entry)| wanted(entry) && path.parent() == Some(folder));
        Ok(inside.filter_map(|(path, _)| Some(path.file_name()?.to_string_lossy().into_owned())).collect())
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.current);
        self.unsynced.push(change);
    }

    pub(super) fn sync(&mut self, folder: &Path) {
        let (synced, rest) = std::mem::take(&mut self.unsynced).into_iter().partition(|change| change.is_in(folder));
        self.unsynced = rest;
        let synced: Vec<Change> = synced;
        synced.iter().for_each(|change| change.apply(&mut self.durable));
    }

    pub(super) fn crash(&mut self, mut coin: Option<&mut StdRng>) {
        for change in std::mem::take(&mut self.unsynced) {
            if is_left(&mut coin) {
                change.apply(&mut self.durable);
            }
        }
        // What lies in a folder whose name is gone cannot be reached.
        let durable = &self.durable;
        let reachable = |path: &Path| {
            path.ancestors().skip(1).all(|above| above.parent().is_none() || durable.get(above) == Some(&Entry::Folder))
        };
        let lost: Vec<PathBuf> = durable.keys().filter(|path| !reachable(path)).cloned().collect();
        for path in &lost {
            self.durable.remove(path);
        }
        self.current = self.durable.clone();
    }
}
