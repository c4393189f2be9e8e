//! A patch on its way lies here like a package, under its own hash; `<sha256>.patch` says which one leads to a package, so
//! that it is kept over a restart as long as the package is wanted.

use std::io;

use tributary_process::disk::{Access, replace};
use tributary_wire::Sha256;

use super::files::{PATCH, PackageFiles};

/// A hash in its written form.
const HASH_BYTES: u64 = 64;

impl PackageFiles {
    /// The length of a whole file that is here.
    pub fn length(&self, sha256: &Sha256) -> io::Result<u64> {
        self.disk().length(&self.path(sha256))
    }

    /// Writes down that a patch leads to a package, in place of another.
    pub fn keep_patch(&self, to: &Sha256, patch: &Sha256) -> io::Result<()> {
        match self.patch(to) {
            Some(kept) if kept == *patch => return Ok(()),
            Some(_) => self.drop_patch(to)?,
            None => {}
        }
        replace(self.disk(), &self.named(to, PATCH), patch.to_string().as_bytes(), Access::Everyone)
    }

    /// The patch that leads to a package, as far as it came.
    pub fn patch(&self, to: &Sha256) -> Option<Sha256> {
        let text = self.disk().read(&self.named(to, PATCH), HASH_BYTES).ok()?;
        String::from_utf8(text).ok()?.parse().ok()
    }

    /// Removes the patch to a package and what was written down of it.
    pub fn drop_patch(&self, to: &Sha256) -> io::Result<()> {
        let Some(patch) = self.patch(to) else { return Ok(()) };
        self.remove(&patch)?;
        match self.disk().remove(&self.named(to, PATCH)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use tributary_release::digest;
    use tributary_wire::{ReleaseRef, VersionNumber};

    use super::*;

    #[test]
    fn a_patch_stays_as_long_as_its_package_is_wanted() {
        let folder = tempfile::tempdir().unwrap();
        let files = PackageFiles::open(folder.path().join("packages")).unwrap();
        let (to, other, patch) = (digest(b"package"), digest(b"other"), digest(b"patch"));
        files.keep_patch(&to, &patch).unwrap();
        let release = ReleaseRef { version: VersionNumber(1), length: 5, sha256: patch };
        files.partial(&release).unwrap().write(b"pat").unwrap();
        assert_eq!(files.collect(&[to]).unwrap(), 0);
        assert_eq!(files.partial(&release).unwrap().written(), 3, "it goes on after a restart");
        files.partial(&release).unwrap().write(b"ch").unwrap();
        files.partial(&release).unwrap().finish().unwrap();
        assert_eq!(files.length(&patch).unwrap(), 5);
        assert_eq!(files.collect(&[to]).unwrap(), 0);
        // Another patch takes its place.
        files.keep_patch(&to, &other).unwrap();
        assert!(!files.has(&patch));
        files.keep_patch(&to, &patch).unwrap();
        files.drop_patch(&to).unwrap();
        files.drop_patch(&to).unwrap();
        assert_eq!(files.patch(&to), None);
        // Nobody wants the package any more.
        files.keep_patch(&to, &patch).unwrap();
        files.partial(&release).unwrap().write(b"pat").unwrap();
        assert!(files.collect(&[other]).unwrap() >= 2);
        assert_eq!((files.patch(&to), files.partial(&release).unwrap().written()), (None, 0));
    }
}
