//! Facts about files and the machine that any program may want to know. All of it only reads, but for [`set_mode`].

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// Whose a file or folder is, and who may do what with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Permission bits.
    pub mode: u32,
    /// Id of its owner.
    pub owner: u32,
    /// Bytes of a file.
    pub bytes: u64,
    /// Whether it is a folder.
    pub is_folder: bool,
}

/// How much room there is where a folder lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Bytes that this program may still write.
    pub free: u64,
    /// Bytes there are.
    pub total: u64,
    /// Files that may still be made; none where the file system does not count them.
    pub files_free: Option<u64>,
    /// Files there may be.
    pub files_total: u64,
    /// Whether it is mounted for reading alone.
    pub read_only: bool,
}

/// A process that holds a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its id, where the system says it.
    pub id: Option<u32>,
    /// Its name.
    pub name: String,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.id {
            Some(id) => write!(f, "{} (process {id})", self.name),
            None => f.write_str("another process"),
        }
    }
}

/// Looks at a file or folder.
pub fn standing(path: &Path) -> io::Result<Standing> {
    let about = std::fs::metadata(path)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        Ok(Standing { mode: about.mode() & 0o7777, owner: about.uid(), bytes: about.len(), is_folder: about.is_dir() })
    }
    #[cfg(not(unix))]
    Ok(Standing { mode: 0, owner: 0, bytes: about.len(), is_folder: about.is_dir() })
}

/// Changes permission bits.
pub fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
    }
    #[cfg(not(unix))]
    {
        let _ = (path, mode);
        Err(io::Error::from(io::ErrorKind::Unsupported))
    }
}

/// Whether this process may write there, as the system sees it.
pub fn may_write(path: &Path) -> bool {
    #[cfg(unix)]
    return rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok();
    #[cfg(not(unix))]
    return std::fs::metadata(path).is_ok_and(|about| !about.permissions().readonly());
}

/// The id of the user as whom this process runs, where the system says it.
pub fn user() -> Option<u32> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// The name of a user, with the id.
pub fn user_name(id: u32) -> String {
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let named = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(id)).then(|| format!("{name} ({id})"))
    });
    named.unwrap_or_else(|| format!("user {id}"))
}

/// How much room there is.
#[cfg(unix)]
pub fn room(folder: &Path) -> io::Result<Room> {
    let found = rustix::fs::statvfs(folder)?;
    Ok(Room {
        free: found.f_bavail.saturating_mul(found.f_frsize),
        total: found.f_blocks.saturating_mul(found.f_frsize),
        files_free: (found.f_files > 0).then_some(found.f_favail),
        files_total: found.f_files,
        read_only: found.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY),
    })
}

/// How much room there is.
#[cfg(not(unix))]
pub fn room(_folder: &Path) -> io::Result<Room> {
    Err(io::Error::from(io::ErrorKind::Unsupported))
}

/// The nearest folder that is there, from a path upwards.
pub fn nearest_folder(path: &Path) -> PathBuf {
    let there = path.ancestors().find(|above| above.is_dir());
    there.filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()
}

/// The most files that this process may have open.
pub fn open_files() -> Option<u64> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// What came of trying a lock.
#[derive(Debug)]
pub enum Locked {
    /// It is free, and held as long as this lives: nobody who wants it alone gets it meanwhile.
    Free(File),
    /// Somebody has it.
    Held(Holder),
}

/// Takes the lock of a file together with others who only look, if nobody has it alone.
pub fn share_lock(path: &Path) -> io::Result<Locked> {
    lock(path, File::try_lock_shared)
}

/// Takes the lock of a file alone, if nobody has it.
pub fn take_lock(path: &Path) -> io::Result<Locked> {
    lock(path, File::try_lock)
}

fn lock(path: &Path, try_lock: fn(&File) -> Result<(), TryLockError>) -> io::Result<Locked> {
    let file = File::open(path)?;
    match try_lock(&file) {
        Ok(()) => Ok(Locked::Free(file)),
        Err(TryLockError::WouldBlock) => Ok(Locked::Held(holder(&file))),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Who holds a lock on a file, as far as the system says.
fn holder(file: &File) -> Holder {
    let id = (|| {
        #[cfg(unix)]
        let inode = std::os::unix::fs::MetadataExt::ino(&file.metadata().ok()?);
        #[cfg(not(unix))]
        let inode = 0;
        held_by(&std::fs::read_to_string("/proc/locks").ok()?, inode)
    })();
    let name = id.and_then(|id| std::fs::read_to_string(format!("/proc/{id}/comm")).ok());
    Holder { id, name: name.map_or_else(|| "a process".to_owned(), |name| name.trim().to_owned()) }
}

/// The process in a line such as `1: FLOCK ADVISORY WRITE 812 fd:01:1835 0 EOF`. Locks of open files have none there.
fn held_by(locks: &str, inode: u64) -> Option<u32> {
    locks.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let place = fields.iter().position(|field| field.matches(':').count() == 2)?;
        let found: u64 = fields[place].rsplit(':').next()?.parse().ok()?;
        let id = fields.get(place.checked_sub(1)?)?.parse().ok()?;
        (found == inode).then_some(id)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_free_shared_or_held_and_its_holder_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        std::fs::write(&path, "").unwrap();
        let Locked::Free(first) = share_lock(&path).unwrap() else { panic!("it is free") };
        assert!(matches!(share_lock(&path).unwrap(), Locked::Free(_)));
        let Locked::Held(holder) = take_lock(&path).unwrap() else { panic!("somebody looks at it") };
        assert!(holder.id.is_none_or(|id| id == std::process::id()), "{holder}");
        drop(first);
        assert!(matches!(take_lock(&path).unwrap(), Locked::Free(_)));
        let lines = "1: POSIX  ADVISORY  WRITE -1 08:01:17 0 EOF\n2: FLOCK  ADVISORY  WRITE 812 fd:01:1835 0 EOF\n";
        assert_eq!((held_by(lines, 1835), held_by(lines, 17), held_by(lines, 5)), (Some(812), None, None));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_machine_says_what_it_has() {
        let folder = tempfile::tempdir().unwrap();
        let room = room(folder.path()).unwrap();
        assert!(room.total >= room.free && !room.read_only);
        assert!(open_files().unwrap() > 10);
        let standing = standing(folder.path()).unwrap();
        assert!(standing.is_folder && Some(standing.owner) == user());
        assert!(user_name(0).starts_with("root"));
        assert_eq!(nearest_folder(&folder.path().join("a/b")), folder.path());
        assert!(may_write(folder.path()));
    }
}
