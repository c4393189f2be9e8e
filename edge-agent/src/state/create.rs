//! A new state file.

use std::io;
use std::path::Path;

use redb::{Builder, Database};
use tributary_process::disk::{Disk, folder_of};

/// Makes the file of a new state if there is none. It gets its name only when it is whole: redb writes a new file in
/// several steps, and takes one that a power cut left half-made for damaged for ever.
pub(super) fn make_if_missing(
    disk: &dyn Disk,
    path: &Path,
    builder: &Builder,
    create: impl Fn(&Builder, &Path) -> Result<Database, redb::Error>,
) -> Result<(), redb::Error> {
    match disk.length(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        known => return known.map(|_| ()).map_err(redb::Error::Io),
    }
    let unfinished = path.with_extension("new");
    match disk.remove(&unfinished) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => other.map_err(redb::Error::Io)?,
    }
    drop(create(builder, &unfinished)?);
    let place = || -> io::Result<()> {
        disk.append(&unfinished)?.sync()?;
        disk.rename(&unfinished, path)?;
        disk.sync_folder(folder_of(path))
    };
    place().map_err(redb::Error::Io)
}
