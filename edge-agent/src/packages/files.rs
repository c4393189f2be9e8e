//! Package files by content: `<sha256>.tpk` is whole and durable, `<sha256>.part` is on its way, and `<sha256>.mark` says
//! how much of it is durable.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tributary_process::disk::{Disk, RealDisk, create_folder_durably, is_unfinished};
use tributary_release::{Hasher, MAX_PACKAGE_BYTES, digest};
use tributary_wire::{ReleaseRef, Sha256};

use super::partial::Partial;
use super::turn::{Turn, Turns};

pub(super) const WHOLE: &str = "tpk";
pub(super) const PART: &str = "part";
pub(super) const MARK: &str = "mark";
/// Agents up to 0.1 kept a signed statement beside each package.
const STATEMENT: &str = "release";
pub(super) const PATCH: &str = "patch";
const KINDS: [&str; 5] = [WHOLE, PART, MARK, STATEMENT, PATCH];
/// What a download leaves free on the disk for everything else that the device has to write.
const RESERVE_BYTES: u64 = 16 << 20;

/// The folder of packages.
#[derive(Debug, Clone)]
pub struct PackageFiles {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    budget: Option<u64>,
    turns: Arc<Turns>,
    /// Lasts as long as any clone, such as that of a file on its way.
    _turn: Option<Turn>,
}

/// Why a package file is not what was released.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read or put in place.
    #[error("package file {path}")]
    Disk {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its length is not the released one.
    #[error("package file {path} has {found} bytes, expected {expected}")]
    Length {
        /// Which file.
        path: PathBuf,
        /// As released.
        expected: u64,
        /// As found.
        found: u64,
    },
    /// Its bytes are not those that were released.
    #[error("package file {path} has hash {found}, expected {expected}")]
    Hash {
        /// Which file.
        path: PathBuf,
        /// As released.
        expected: Sha256,
        /// As found.
        found: Sha256,
    },
}

impl FileError {
    /// Whether the bytes are wrong, which reading again does not change.
    pub fn is_damage(&self) -> bool {
        !matches!(self, Self::Disk { .. })
    }
}

/// A download that there is no room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{needed} more bytes are needed for the download, {limit} {found}")]
pub struct NoRoom {
    needed: u64,
    found: u64,
    limit: &'static str,
}

impl PackageFiles {
    /// Opens the folder on this machine's disk, or makes it.
    pub fn open(folder: PathBuf) -> io::Result<Self> {
        Self::open_on(Arc::new(RealDisk), folder, None)
    }

    /// Opens the folder, or makes it. With a budget, all files in it together have at most so many bytes.
    pub fn open_on(disk: Arc<dyn Disk>, folder: PathBuf, budget: Option<u64>) -> io::Result<Self> {
        create_folder_durably(&*disk, &folder)?;
        Ok(Self { disk, folder, budget, turns: Arc::default(), _turn: None })
    }

    /// The same folder, for whoever is to bring this package: waits until nobody else does. The turn ends when this and
    /// all its clones are gone.
    pub async fn turn(&self, sha256: &Sha256) -> Self {
        Self { _turn: Some(self.turns.take(sha256).await), ..self.clone() }
    }

    /// Where a whole package lies, or would.
    pub fn path(&self, sha256: &Sha256) -> PathBuf {
        self.named(sha256, WHOLE)
    }

    /// Whether a whole package is here.
    pub fn has(&self, sha256: &Sha256) -> bool {
        self.disk.length(&self.path(sha256)).is_ok()
    }

    /// The whole packages that are here.
    pub fn held(&self) -> io::Result<Vec<Sha256>> {
        let names = self.disk.list(&self.folder)?;
        Ok(names.iter().filter_map(|name| parse(name)).filter(|(_, kind)| *kind == WHOLE).map(|(it, _)| it).collect())
    }

    /// The bytes of a whole package, if they are those of the release.
    pub fn read(&self, release: &ReleaseRef) -> Result<Vec<u8>, FileError> {
        let path = self.path(&release.sha256);
        let failed = |source| FileError::Disk { path: path.clone(), source };
        let found = self.disk.length(&path).map_err(failed)?;
        if found != release.length || found > MAX_PACKAGE_BYTES as u64 {
            return Err(FileError::Length { path, expected: release.length, found });
        }
        let bytes = self.disk.read(&path, found).map_err(failed)?;
        let hash = digest(&bytes);
        match hash == release.sha256 {
            true => Ok(bytes),
            false => Err(FileError::Hash { path, expected: release.sha256, found: hash }),
        }
    }

    /// Whether so many more bytes may be written here: asked before a download begins.
    pub fn room(&self, needed: u64) -> io::Result<Result<(), NoRoom>> {
        let free = self.disk.free(&self.folder)?.saturating_sub(RESERVE_BYTES);
        let left = match self.budget {
            Some(budget) => budget.saturating_sub(self.used()?),
            None => u64::MAX,
        };
        Ok(if needed > left {
            Err(NoRoom { needed, found: left, limit: "the budget for packages leaves" })
        } else if needed > free {
            Err(NoRoom { needed, found: free, limit: "the disk has, beside its reserve," })
        } else {
            Ok(())
        })
    }

    fn used(&self) -> io::Result<u64> {
        let names = self.disk.list(&self.folder)?;
        // A file that goes away meanwhile uses nothing.
        Ok(names.iter().filter_map(|name| self.disk.length(&self.folder.join(name)).ok()).sum())
    }

    /// Opens the file of a download, with what an earlier attempt durably left of it. Refused when the rest does not
    /// fit: nothing is begun that cannot be finished.
    pub fn partial(&self, release: &ReleaseRef) -> io::Result<Partial> {
        let here = self.disk.length(&self.named(&release.sha256, PART)).unwrap_or(0);
        let needed = release.length.saturating_sub(here);
        self.room(needed)?.map_err(|error| io::Error::new(io::ErrorKind::StorageFull, error))?;
        Partial::open(self.clone(), release.clone())
    }

    /// Forgets a package whose bytes turned out to be wrong.
    pub fn remove(&self, sha256: &Sha256) -> io::Result<()> {
        // The mark goes first: it must not speak of bytes that come later.
        for kind in [MARK, PART, WHOLE, STATEMENT, PATCH] {
            match self.disk.remove(&self.named(sha256, kind)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
            if kind == MARK {
                self.disk.sync_folder(&self.folder)?;
            }
        }
        self.disk.sync_folder(&self.folder)
    }

    /// Removes every file of a package that is not among `keep`, and what a crash left half-written; how many went.
    pub fn collect(&self, keep: &[Sha256]) -> io::Result<usize> {
        let patches: Vec<Sha256> = keep.iter().filter_map(|to| self.patch(to)).collect();
        let mut removed = 0;
        for name in self.disk.list(&self.folder)? {
            let unreferenced =
                parse(&name).is_some_and(|(sha256, _)| !keep.contains(&sha256) && !patches.contains(&sha256));
            if unreferenced || (is_unfinished(&name) && !is_being_written(&name)) {
                self.disk.remove(&self.folder.join(&name))?;
                removed += 1;
            }
        }
        // A removal that a power cut takes back is done again by the next collection.
        Ok(removed)
    }

    pub(super) fn named(&self, sha256: &Sha256, kind: &str) -> PathBuf {
        self.folder.join(format!("{sha256}.{kind}"))
    }

    pub(super) fn disk(&self) -> &dyn Disk {
        &*self.disk
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Checks length and hash of a file, in pieces: a package need not fit into memory to be checked.
    pub(super) fn check(&self, path: &Path, release: &ReleaseRef) -> Result<(), FileError> {
        let failed = |source| FileError::Disk { path: path.to_owned(), source };
        let mut file = self.disk.open(path).map_err(failed)?;
        let (mut hasher, mut found, mut piece) = (Hasher::new(), 0, vec![0; 64 * 1024]);
        loop {
            match file.read(&mut piece) {
                Ok(0) => break,
                Ok(read) => {
                    hasher.update(&piece[..read]);
                    found += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(error)),
            }
        }
        if found != release.length {
            return Err(FileError::Length { path: path.to_owned(), expected: release.length, found });
        }
        let hash = hasher.finish();
        match hash == release.sha256 {
            true => Ok(()),
            false => Err(FileError::Hash { path: path.to_owned(), expected: release.sha256, found: hash }),
        }
    }
}

/// The package and the kind of one of our file names.
fn parse(name: &str) -> Option<(Sha256, &str)> {
    let (sha256, kind) = name.split_once('.')?;
    Some((sha256.parse().ok()?, kind)).filter(|(_, kind)| KINDS.contains(kind))
}

/// Whether this very process may be writing the file; one that died is not.
fn is_being_written(name: &str) -> bool {
    name.ends_with(&format!(".{}.tmp", std::process::id()))
}

#[cfg(test)]
#[path = "files_tests.rs"]
mod tests;
