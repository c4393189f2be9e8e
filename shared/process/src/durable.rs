//! Files that are there, whole, after a power cut: written beside, synced, renamed, folder synced.

use std::io;
use std::path::Path;

use crate::disk::{Access, Disk, RealDisk, replace};

/// Writes `bytes` to `path` so that after any crash the file holds either its old content or all of the new one.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace(&RealDisk, path, bytes, Access::Everyone)
}

/// As [`write`], for secrets: only the owner may read the file.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace(&RealDisk, path, bytes, Access::Owner)
}

/// Makes the names in a folder durable; a rename is only safe after this.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    RealDisk.sync_folder(folder)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_write_replaces_the_whole_content_and_leaves_nothing_beside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        write(&path, b"first, and longer").unwrap();
        write_private(&path, b"second").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        #[cfg(unix)]
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions()) & 0o777, 0o600);
    }
}
