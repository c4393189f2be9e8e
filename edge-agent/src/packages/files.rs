//! Package files by content: `<sha256>.tpk` is whole and durable, `<sha256>.part` is on its way.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tributary_process::durable;
use tributary_release::{ReleaseError, check_package_file};
use tributary_wire::{ReleaseRef, Sha256};

const WHOLE: &str = "tpk";
const PART: &str = "part";
const STATEMENT: &str = "release";

/// The folder of packages.
#[derive(Debug, Clone)]
pub struct PackageFiles {
    folder: PathBuf,
}

/// A file on its way. What was written of it is found again by the next process.
#[derive(Debug)]
pub struct Partial {
    files: PackageFiles,
    release: ReleaseRef,
    file: File,
    written: u64,
}

impl PackageFiles {
    /// Opens the folder, or makes it.
    pub fn open(folder: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        durable::sync_folder(folder.parent().unwrap_or(Path::new(".")))?;
        Ok(Self { folder })
    }

    /// Where a whole package lies, or would.
    pub fn path(&self, sha256: &Sha256) -> PathBuf {
        self.named(sha256, WHOLE)
    }

    /// Whether a whole package is here.
    pub fn has(&self, sha256: &Sha256) -> bool {
        self.path(sha256).exists()
    }

    /// The signed statement that came with a package; checked anew by whoever uses it.
    pub fn statement(&self, sha256: &Sha256) -> Option<Vec<u8>> {
        fs::read(self.named(sha256, STATEMENT)).ok()
    }

    /// Keeps the signed statement of a package, so that it can be put in place again without a network.
    pub fn keep_statement(&self, sha256: &Sha256, signed: &[u8]) -> io::Result<()> {
        durable::write(&self.named(sha256, STATEMENT), signed)
    }

    /// Opens the file of a download, with what an earlier attempt left of it.
    pub fn partial(&self, release: &ReleaseRef) -> io::Result<Partial> {
        let path = self.named(&release.sha256, PART);
        let file = OpenOptions::new().append(true).create(true).open(path)?;
        let written = file.metadata()?.len();
        let mut partial = Partial { files: self.clone(), release: release.clone(), file, written };
        if written > release.length {
            partial.restart()?;
        }
        Ok(partial)
    }

    /// Forgets a package whose bytes turned out to be wrong.
    pub fn remove(&self, sha256: &Sha256) -> io::Result<()> {
        for extension in [WHOLE, PART, STATEMENT] {
            match fs::remove_file(self.named(sha256, extension)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Removes every file of a package that is not among `keep`; how many went.
    pub fn collect(&self, keep: &[Sha256]) -> io::Result<usize> {
        let mut removed = 0;
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            let known = path.extension().is_some_and(|found| [WHOLE, PART, STATEMENT].iter().any(|it| found == *it));
            let name = path.file_stem().and_then(|name| name.to_str()).and_then(|name| name.parse::<Sha256>().ok());
            if known && name.is_some_and(|name| !keep.contains(&name)) {
                fs::remove_file(&path)?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    fn named(&self, sha256: &Sha256, extension: &str) -> PathBuf {
        self.folder.join(format!("{sha256}.{extension}"))
    }
}

impl Partial {
    /// How many bytes are there: where the download goes on.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Appends a piece; refuses to grow beyond the release's length.
    pub fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        let found = self.written + piece.len() as u64;
        if found > self.release.length {
            let expected = self.release.length;
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("more than the {expected} bytes released"),
            ));
        }
        self.file.write_all(piece)?;
        self.written = found;
        Ok(())
    }

    /// Begins again from nothing.
    pub fn restart(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.written = 0;
        Ok(())
    }

    /// Checks length and hash of the whole, and puts it in its place durably. Wrong bytes are removed.
    pub fn finish(self) -> Result<PathBuf, ReleaseError> {
        let part = self.files.named(&self.release.sha256, PART);
        let path = self.files.path(&self.release.sha256);
        let failed = |source| ReleaseError::File { path: part.clone(), source };
        self.file.sync_all().map_err(failed)?;
        if let Err(error) = check_package_file(&part, &self.release) {
            fs::remove_file(&part).map_err(failed)?;
            return Err(error);
        }
        fs::rename(&part, &path).map_err(failed)?;
        durable::sync_folder(&self.files.folder).map_err(failed)?;
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use tributary_release::digest;
    use tributary_wire::VersionNumber;

    use super::*;

    const BODY: &[u8] = b"a package, near enough";

    fn release() -> ReleaseRef {
        ReleaseRef { version: VersionNumber(1), length: BODY.len() as u64, sha256: digest(BODY) }
    }

    fn files() -> (tempfile::TempDir, PackageFiles) {
        let folder = tempfile::tempdir().unwrap();
        let files = PackageFiles::open(folder.path().join("packages")).unwrap();
        (folder, files)
    }

    #[test]
    fn a_download_goes_on_where_the_last_process_left_it() {
        let (_folder, files) = files();
        files.partial(&release()).unwrap().write(&BODY[..5]).unwrap();
        let mut again = files.partial(&release()).unwrap();
        assert_eq!(again.written(), 5);
        again.write(&BODY[5..]).unwrap();
        assert!(!files.has(&release().sha256), "not in place before it is whole and checked");
        let path = again.finish().unwrap();
        assert_eq!(fs::read(path).unwrap(), BODY);
        assert!(files.has(&release().sha256));
    }

    #[test]
    fn wrong_bytes_too_few_and_too_many_are_refused_and_gone() {
        let (_folder, files) = files();
        let mut changed = BODY.to_vec();
        changed[3] ^= 1;
        let mut partial = files.partial(&release()).unwrap();
        partial.write(&changed).unwrap();
        assert!(matches!(partial.finish(), Err(ReleaseError::Hash { .. })));
        let mut partial = files.partial(&release()).unwrap();
        assert_eq!(partial.written(), 0);
        partial.write(&BODY[..3]).unwrap();
        assert!(partial.write(BODY).is_err());
        assert!(matches!(partial.finish(), Err(ReleaseError::Length { .. })));
    }

    #[test]
    fn only_what_nothing_refers_to_is_collected() {
        let (_folder, files) = files();
        let [kept, gone] = [digest(b"kept"), digest(b"gone")];
        for sha256 in [&kept, &gone] {
            fs::write(files.path(sha256), b"package").unwrap();
            files.keep_statement(sha256, b"signed").unwrap();
        }
        fs::write(files.folder.join("notes.txt"), b"not ours").unwrap();
        assert_eq!(files.collect(&[kept]).unwrap(), 2);
        assert!(files.has(&kept) && !files.has(&gone));
        assert_eq!(files.statement(&kept).as_deref(), Some(b"signed".as_slice()));
        assert!(files.folder.join("notes.txt").exists());
    }
}
