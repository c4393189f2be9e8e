//! Verified metadata in a folder, under the names of the specification.

use std::fmt::Write as _;
use std::io::{self, ErrorKind};
use std::path::PathBuf;

use tributary_process::durable;
use tributary_release::chain::MetadataFiles;

/// The folder.
pub(super) struct FolderFiles {
    folder: PathBuf,
}

impl FolderFiles {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }
}

impl MetadataFiles for FolderFiles {
    fn load(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match std::fs::read(self.folder.join(name)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// One file after the other, each whole: the chain makes its peace with a store that holds the first of them only.
    fn store(&self, files: &[(String, Vec<u8>)]) -> io::Result<()> {
        for (name, bytes) in files {
            let path = self.folder.join(name);
            if let Some(folder) = path.parent().filter(|folder| !folder.is_dir()) {
                std::fs::create_dir_all(folder)?;
                durable::sync_folder(&self.folder)?;
            }
            durable::write(&path, bytes)?;
        }
        Ok(())
    }
}

/// A file name for a target's path: one folder, whatever the path says.
pub(super) fn file_name(target: &str) -> String {
    let mut name = String::new();
    for byte in target.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) && !name.is_empty() {
            name.push(char::from(byte));
        } else {
            let _ = write!(name, "%{byte:02X}");
        }
    }
    // File systems allow 255 bytes.
    if name.len() > 200 { tributary_release::digest(target.as_bytes()).to_string() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_target_leaves_its_folder_or_hides() {
        assert_eq!(file_name("models/fraud/v1.tpk"), "models%2Ffraud%2Fv1.tpk");
        assert_eq!(file_name("../../etc/passwd"), "%2E.%2F..%2Fetc%2Fpasswd");
        assert_eq!(file_name(".hidden"), "%2Ehidden");
        assert_eq!(file_name(&"x".repeat(300)).len(), 64);
        assert_ne!(file_name("a b"), file_name("a%20b"));
    }

    #[test]
    fn metadata_is_kept_with_the_history_of_roots_below() {
        let folder = tempfile::tempdir().unwrap();
        let files = FolderFiles::new(folder.path().join("metadata"));
        std::fs::create_dir(folder.path().join("metadata")).unwrap();
        let file = |name: &str| (name.to_owned(), name.as_bytes().to_vec());
        files.store(&[file("root_history/2.root.json"), file("timestamp.json")]).unwrap();
        assert_eq!(files.load("root_history/2.root.json").unwrap().as_deref(), Some(&b"root_history/2.root.json"[..]));
        assert_eq!(files.load("snapshot.json").unwrap(), None);
    }
}
