//! Work that mends, and loses nothing.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::host;

/// Work that mends what was found, without losing anything.
pub struct Mend {
    pub(super) what: String,
    pub(super) work: Box<dyn FnOnce() -> Result<String, String> + Send>,
}

impl fmt::Debug for Mend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Mend").field(&self.what).finish()
    }
}

impl Mend {
    /// `what` is to be done, said beforehand; `work` does it and says what was done, or why not.
    pub fn new(what: impl Into<String>, work: impl FnOnce() -> Result<String, String> + Send + 'static) -> Self {
        Self { what: what.into(), work: Box::new(work) }
    }

    /// Leaves a file or folder to its owner alone.
    pub fn private(path: &Path, mode: u32) -> Self {
        let path = path.to_owned();
        Self::new(format!("set the mode of {} to {mode:04o}", path.display()), move || {
            host::set_mode(&path, mode).map_err(|error| error.to_string())?;
            Ok(format!("{} has mode {mode:04o}", path.display()))
        })
    }

    /// Gives a file or folder that cannot be used another name beside the old one; nothing of it is lost.
    pub fn set_aside(path: &Path, at: &str) -> Self {
        let (path, aside) = (path.to_owned(), aside(path, at));
        Self::new(format!("rename {} to {}", path.display(), name_of(&aside)), move || {
            rename_new(&path, &aside).map_err(|error| error.to_string())?;
            Ok(format!("kept as {}", aside.display()))
        })
    }
}

/// The name under which something is set aside at an instant (RFC 3339): `state.redb.broken-20261121T093000Z`.
pub fn aside(path: &Path, at: &str) -> PathBuf {
    let seconds = at.split('.').next().unwrap_or_default().trim_end_matches('Z');
    let compact: String = seconds.chars().filter(char::is_ascii_alphanumeric).collect();
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!("{ASIDE}{compact}Z"));
    path.with_file_name(name)
}

/// Between the name of a file and the instant at which it was set aside.
pub const ASIDE: &str = ".broken-";

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Renames durably, and never onto something that is there.
pub fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    if to.symlink_metadata().is_ok() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{} is there already", to.display())));
    }
    std::fs::rename(from, to)?;
    crate::durable::sync_folder(crate::disk::folder_of(to))
}
