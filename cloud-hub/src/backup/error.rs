//! Why a backup was not made, is not one, or was not restored.

use std::io;
use std::path::{Path, PathBuf};

use tributary_process::config::{ByteSize, HumanDuration};
use tributary_wire::Sha256;

/// What went wrong, with the file.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The disk.
    #[error("could not {verb} {}", path.display())]
    File {
        /// What was tried.
        verb: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The catalog.
    #[error("could not {verb} the catalog {}", path.display())]
    Catalog {
        /// What was tried.
        verb: &'static str,
        /// Which.
        path: PathBuf,
        /// Why it failed.
        source: sqlx::Error,
    },
    /// Somebody asks again and again.
    #[error("the last backup that was asked for ended a moment ago: ask again in {left} (backup.pause is {pause})")]
    TooSoon {
        /// How long to wait.
        left: HumanDuration,
        /// The setting.
        pause: HumanDuration,
    },
    /// There would not be enough room.
    #[error("{} has room for {}, the backup takes up to {}", path.display(), ByteSize(*free), ByteSize(*needed))]
    NoRoom {
        /// Where.
        path: PathBuf,
        /// Free bytes.
        free: u64,
        /// Needed bytes.
        needed: u64,
    },
    /// Something is in the way.
    #[error("{} {problem}", path.display())]
    InTheWay {
        /// Where.
        path: PathBuf,
        /// What is there.
        problem: String,
    },
    /// There is no hub in that folder.
    #[error("{} has no {missing}: expected the data folder of a hub", path.display())]
    NoHub {
        /// Where.
        path: PathBuf,
        /// What a hub has.
        missing: &'static str,
    },
    /// A file that the catalog names is not what it should be.
    #[error("{} is damaged: its hash is {found}, expected {expected}", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// Hash of what is there.
        found: Sha256,
        /// Hash that its name promises.
        expected: Sha256,
    },
    /// Not a backup, or not a whole one.
    #[error("{} is not a whole backup: {member}: {problem}", path.display())]
    Member {
        /// The backup.
        path: PathBuf,
        /// The member.
        member: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A newer program made it.
    #[error("{} was made by a newer program: its {what} is {found}, this one reads up to {known}", path.display())]
    Newer {
        /// The backup.
        path: PathBuf,
        /// What is newer.
        what: &'static str,
        /// As it is there.
        found: i64,
        /// As it may be.
        known: i64,
    },
    /// A list of revocations that cannot be used.
    #[error("{} line {line}: {problem}", path.display())]
    Revocations {
        /// The file.
        path: PathBuf,
        /// Where in it.
        line: usize,
        /// What is wrong.
        problem: String,
    },
    /// Another backup is being made.
    #[error("a backup is being made already")]
    Busy,
    /// The work was broken off.
    #[error("the work was broken off")]
    Stopped,
}

impl BackupError {
    /// For `map_err` of what was tried on a file.
    pub(super) fn file(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { verb, path, source }
    }

    /// For `map_err` of what was tried on a catalog.
    pub(super) fn catalog(verb: &'static str, path: &Path) -> impl FnOnce(sqlx::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Catalog { verb, path, source }
    }
}
