//! Package files, named by their hash: the same content is one file, and a name never changes its content.

use std::path::{Path, PathBuf};

use tributary_process::durable;
use tributary_wire::Sha256;

use super::RegistryError;

/// The folder of package files.
#[derive(Debug, Clone)]
pub struct PackageStore {
    folder: PathBuf,
}

impl PackageStore {
    /// Opens the folder, making it at first.
    pub fn open(folder: &Path) -> std::io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// Where the package of that hash lies, if it is there.
    pub fn path(&self, sha256: &Sha256) -> PathBuf {
        self.folder.join(format!("{sha256}.tpk"))
    }

    /// Keeps a package durably; the catalog may name it only after this.
    pub fn put(&self, bytes: &[u8]) -> std::io::Result<Sha256> {
        let sha256 = tributary_release::digest(bytes);
        let path = self.path(&sha256);
        // A file left by a crash before its row was written is as good as a new one: its name is its hash, and it
        // was renamed into place whole.
        if !path.exists() {
            durable::write(&path, bytes)?;
        }
        Ok(sha256)
    }

    /// Reads a package and checks that it is still what its name says.
    pub fn read(&self, sha256: &Sha256) -> Result<Vec<u8>, RegistryError> {
        let bytes = std::fs::read(self.path(sha256)).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => RegistryError::NoPackage(*sha256),
            _ => error.into(),
        })?;
        match tributary_release::digest(&bytes) {
            found if found == *sha256 => Ok(bytes),
            found => Err(RegistryError::unreadable("a package file", format!("its hash is {found}, not {sha256}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_kept_under_its_hash_and_damage_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let store = PackageStore::open(folder.path()).unwrap();
        let sha256 = store.put(b"package").unwrap();
        assert_eq!(store.put(b"package").unwrap(), sha256);
        assert_eq!(store.read(&sha256).unwrap(), b"package");
        std::fs::write(store.path(&sha256), b"Package").unwrap();
        assert!(store.read(&sha256).unwrap_err().to_string().contains("its hash is"));
        assert!(matches!(store.read(&tributary_release::digest(b"x")), Err(RegistryError::NoPackage(_))));
    }
}
