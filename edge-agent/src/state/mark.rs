//! Whether the program that last worked with the state closed it in order.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tributary_process::disk::{Access, Disk, replace};

/// What the mark says when nothing is in doubt.
const CLOSED: &[u8] = b"closed";
/// Far more than it ever has.
const LIMIT: u64 = 4096;
/// Another number after every start of the machine.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// A small file beside the state. While a program works with the state it names the start of the machine; after an
/// orderly end it says `closed`.
///
/// It answers one question: may what the kernel shows of the state be something that it failed to write and will never
/// write? Only if a program worked with it since the machine started and did not close it in order. A machine that was
/// started anew shows what is on the disk.
#[derive(Debug, Clone)]
pub(super) struct Mark {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    boot: Vec<u8>,
    /// Whether this program has asked: afterwards what stands there is its own, and what it met itself it knows.
    asked: Arc<AtomicBool>,
}

impl Mark {
    /// The mark beside a state, at this start of the machine.
    pub(super) fn beside(state: &Path, disk: Arc<dyn Disk>, boot: impl Into<Vec<u8>>) -> Self {
        Self { disk, path: state.with_extension("open"), boot: boot.into(), asked: Arc::default() }
    }

    /// From here on somebody works with the state. Whether the program before this one leaves it in doubt; that it cannot
    /// be told counts as such.
    pub(super) fn open(&self) -> io::Result<bool> {
        let in_doubt = !self.asked.load(Ordering::Acquire)
            && self.disk.read(&self.path, LIMIT).map_or(true, |found| found != CLOSED && found == self.boot);
        let named = match replace(&*self.disk, &self.path, &self.boot, Access::Owner) {
            Ok(()) => Ok(in_doubt),
            // On a full disk there is room for no other file; that there is none says the same.
            Err(error) => match self.disk.remove(&self.path) {
                Err(gone) if gone.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(in_doubt),
            },
        };
        named.inspect(|_| self.asked.store(true, Ordering::Release))
    }

    /// Nobody works with the state any more, and nothing of it is in doubt.
    pub(super) fn close(&self) {
        if let Err(error) = replace(&*self.disk, &self.path, CLOSED, Access::Owner) {
            tracing::debug!(%error, "the state is closed, but not marked so: it will be written once more");
        }
    }
}

/// Which start of the machine this is; where the system has no word for it, all are taken for one.
pub(super) fn boot() -> Vec<u8> {
    std::fs::read(BOOT).unwrap_or_default().trim_ascii().to_vec()
}

#[cfg(test)]
mod tests {
    use tributary_process::disk::SimDisk;

    use super::*;

    fn mark(disk: &SimDisk) -> Mark {
        Mark::beside(Path::new("/state.redb"), Arc::new(disk.until_crash()), disk.boots().to_string())
    }

    #[test]
    fn only_a_program_that_died_alone_leaves_doubt() {
        let disk = SimDisk::new();
        assert!(mark(&disk).open().unwrap(), "an earlier version left no mark");
        mark(&disk).close();
        assert!(!mark(&disk).open().unwrap());
        disk.kill();
        assert!(mark(&disk).open().unwrap(), "it died and closed nothing");
        disk.crash(None);
        assert!(!mark(&disk).open().unwrap(), "the machine shows what is on its disk");
    }

    #[test]
    fn a_disk_without_room_leaves_doubt_and_keeps_nobody_from_starting() {
        let disk = SimDisk::new();
        mark(&disk).open().unwrap();
        mark(&disk).close();
        disk.set_capacity(Some(disk.used()));
        assert!(!mark(&disk).open().unwrap());
        disk.kill();
        assert!(mark(&disk).open().unwrap());
        disk.fail_after(0);
        assert!(mark(&disk).open().is_err(), "a disk that takes nothing");
    }
}
