//! The window snapshot of an agent that does not run, looked at in a copy: sled writes to whatever it opens.

use std::fs;
use std::io;
use std::path::Path;

use tributary_features::View;
use tributary_wire::Incarnation;

use super::snapshot::Snapshot;
use crate::state::Loaded;

/// A larger one is not copied to be looked at; the agent checks it at its start all the same.
pub const MOST_BYTES: u64 = 256 << 20;
/// Memory for the copy's pages.
const CACHE_BYTES: u64 = 4 << 20;

/// What a snapshot is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// There is none, or it was never written.
    None,
    /// Whole.
    Whole {
        /// Last event in it.
        number: u64,
        /// How many windows it holds.
        entries: u64,
    },
    /// Whole, but not of this state, or not of this view: thrown away at the next start.
    Foreign(String),
    /// Broken: thrown away at the next start.
    Broken(String),
    /// Not looked at, and why.
    Unseen(String),
}

/// Looks at a snapshot by way of a copy in `scratch`, an empty folder. `loaded` is of the state that it belongs to.
pub fn inspect(
    folder: &Path,
    scratch: &Path,
    view: Option<&View>,
    state: Option<(Incarnation, &Loaded)>,
) -> io::Result<Seen> {
    if !folder.exists() {
        return Ok(Seen::None);
    }
    let bytes = size(folder)?;
    if bytes > MOST_BYTES {
        let limit = MOST_BYTES >> 20;
        return Ok(Seen::Unseen(format!(
            "{} MiB are more than the {limit} MiB that are copied to look at",
            bytes >> 20
        )));
    }
    copy(folder, scratch)?;
    let (snapshot, found) = match Snapshot::open(scratch, CACHE_BYTES) {
        Ok(opened) => opened,
        Err(problem) => return Ok(Seen::Broken(problem)),
    };
    drop(snapshot);
    let Some((stamp, _)) = found else { return Ok(Seen::None) };
    let wrong = state.and_then(|(incarnation, loaded)| stamp.mismatch(view, incarnation, loaded));
    Ok(match wrong {
        Some(wrong) => Seen::Foreign(wrong),
        None => Seen::Whole { number: stamp.number, entries: stamp.entries },
    })
}

fn size(folder: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let about = entry.metadata()?;
        bytes += if about.is_dir() { size(&entry.path())? } else { about.len() };
    }
    Ok(bytes)
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        match entry.file_type()? {
            kind if kind.is_dir() => copy(&entry.path(), &target)?,
            kind if kind.is_file() => drop(fs::copy(entry.path(), target)?),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Rig, event, view};

    fn files(folder: &Path) -> Vec<std::path::PathBuf> {
        let mut found = Vec::new();
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
        }
        found
    }

    #[test]
    fn a_snapshot_is_whole_foreign_or_broken_and_the_agent_starts_whatever_it_is() {
        let rig = Rig::new();
        let running = rig.start();
        running.submit((1..200).map(event).collect()).unwrap();
        let loaded = |store: &crate::state::Store| (store.incarnation(), store.load().unwrap());
        let (incarnation, state) = loaded(&running.store);
        running.stop();
        let folder = rig.folder.path().join("windows");
        let look = |view: Option<&View>, incarnation: Incarnation| {
            let scratch = tempfile::tempdir().unwrap();
            inspect(&folder, scratch.path(), view, Some((incarnation, &state))).unwrap()
        };
        let Seen::Whole { number: 199, entries } = look(Some(&view()), incarnation) else { panic!() };
        assert!(entries > 0);
        assert!(
            matches!(look(None, Incarnation(incarnation.0 + 1)), Seen::Foreign(why) if why.contains("incarnation"))
        );

        let whole: Vec<_> = files(&folder).into_iter().map(|path| (fs::read(&path).unwrap(), path)).collect();
        let (mut broken, mut seen) = (0, 0);
        for (bytes, path) in &whole {
            let used = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0);
            let cuts = [Vec::new(), bytes[..bytes.len() / 2].to_vec()];
            let flips = (0..=used).step_by(used / 12 + 1).map(|at| {
                let mut bytes = bytes.clone();
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 0x5a;
                }
                bytes
            });
            for damaged in flips.chain(cuts) {
                let _ = fs::remove_dir_all(&folder);
                for (bytes, path) in &whole {
                    fs::create_dir_all(path.parent().unwrap()).unwrap();
                    fs::write(path, bytes).unwrap();
                }
                fs::write(path, &damaged).unwrap();
                seen += 1;
                broken += u32::from(matches!(look(Some(&view()), incarnation), Seen::Broken(_) | Seen::None));
                assert_eq!(fs::read(path).unwrap(), damaged, "only the copy was opened");
                // What it says is what the agent finds.
                let running = rig.start();
                assert_eq!(running.serving.shown().accepted, 199, "{}", path.display());
                running.stop();
            }
        }
        assert!(broken > 2, "{broken} of {seen}");
    }
}
