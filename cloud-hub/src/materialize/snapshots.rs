//! Every snapshot that devices were given, on disk: datasets need the one that an observation names.

use std::io;
use std::path::{Path, PathBuf};

use tributary_features::View;
use tributary_process::durable;
use tributary_wire::{FeatureSnapshot, FeatureSnapshotV1, Micros, SnapshotNumber};

/// Folder of all snapshots, by view: `<view>-v<version>/<number>-<taken>.snapshot`.
///
/// A file is the parts in their byte form, each behind its length, in one zstd frame with a checksum.
#[derive(Debug, Clone)]
pub struct Snapshots {
    folder: PathBuf,
}

/// Why a snapshot cannot be kept or found.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotsError {
    /// The disk refused.
    #[error("could not {verb} {}", path.display())]
    Disk {
        /// What was tried.
        verb: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A file does not hold a snapshot.
    #[error("{} is damaged: {problem}", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

/// A snapshot that is kept.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    number: SnapshotNumber,
    taken: Micros,
    path: PathBuf,
}

/// Many times what a snapshot of a million entities takes; a damaged length must not fill the memory.
const MAX_BYTES: u64 = 1 << 30;

impl Snapshots {
    /// Snapshots in a folder, which is made when the first is kept.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    fn of_view(&self, view: &View) -> PathBuf {
        self.folder.join(format!("{}-v{}", view.name(), view.version()))
    }

    /// In the order of their numbers.
    fn entries(&self, view: &View) -> Result<Vec<Entry>, SnapshotsError> {
        let folder = self.of_view(view);
        let failed = |source| SnapshotsError::Disk { verb: "list", path: folder.clone(), source };
        let files = match std::fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            files => files.map_err(failed)?,
        };
        let mut entries = Vec::new();
        for file in files {
            entries.extend(entry(file.map_err(failed)?.path()));
        }
        entries.sort();
        Ok(entries)
    }

    /// Number and time of the newest snapshot of a view.
    pub fn newest(&self, view: &View) -> Result<Option<(SnapshotNumber, Micros)>, SnapshotsError> {
        Ok(self.entries(view)?.last().map(|entry| (entry.number, entry.taken)))
    }

    /// The parts of a snapshot; `None` when it is not kept any more.
    pub fn parts(&self, view: &View, number: SnapshotNumber) -> Result<Option<Vec<FeatureSnapshotV1>>, SnapshotsError> {
        match self.entries(view)?.into_iter().find(|entry| entry.number == number) {
            Some(entry) => read(&entry.path).map(Some),
            None => Ok(None),
        }
    }

    /// Keeps a snapshot, durably: devices may be given it from then on.
    pub fn keep(
        &self,
        view: &View,
        number: SnapshotNumber,
        taken: Micros,
        parts: &[FeatureSnapshotV1],
    ) -> Result<(), SnapshotsError> {
        let folder = self.of_view(view);
        let path = folder.join(format!("{number:010}-{}.snapshot", taken.0));
        let failed = |verb| {
            let path = path.clone();
            move |source| SnapshotsError::Disk { verb, path, source }
        };
        create_folder(&self.folder, &folder).map_err(failed("make the folder of"))?;
        let bytes = encode(parts).map_err(failed("compress"))?;
        durable::write(&path, &bytes).map_err(failed("write"))
    }

    /// Removes the snapshots of a view that were taken before an instant; the newest stays.
    pub fn forget(&self, view: &View, before: Micros) -> Result<(), SnapshotsError> {
        let mut entries = self.entries(view)?;
        entries.pop();
        for entry in entries.into_iter().filter(|entry| entry.taken < before) {
            let removed = std::fs::remove_file(&entry.path);
            removed.map_err(|source| SnapshotsError::Disk { verb: "remove", path: entry.path, source })?;
        }
        Ok(())
    }
}

/// Reads a file's name; files of other names (a crash leaves temporary ones) are none of ours.
fn entry(path: PathBuf) -> Option<Entry> {
    let (number, taken) = path.file_name()?.to_str()?.strip_suffix(".snapshot")?.split_once('-')?;
    let (number, taken) = (SnapshotNumber(number.parse().ok()?), Micros(taken.parse().ok()?));
    Some(Entry { number, taken, path })
}

/// Makes a folder below `root` whose name survives a crash.
fn create_folder(root: &Path, folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    std::fs::create_dir_all(folder)?;
    durable::sync_folder(root)?;
    durable::sync_folder(root.parent().unwrap_or(root))
}

fn encode(parts: &[FeatureSnapshotV1]) -> io::Result<Vec<u8>> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 3)?;
    encoder.include_checksum(true)?;
    for part in parts {
        let bytes = FeatureSnapshot::V1(part.clone()).encode();
        io::Write::write_all(&mut encoder, &(bytes.len() as u32).to_le_bytes())?;
        io::Write::write_all(&mut encoder, &bytes)?;
    }
    encoder.finish()
}

fn read(path: &Path) -> Result<Vec<FeatureSnapshotV1>, SnapshotsError> {
    let damaged = |problem: String| SnapshotsError::Damaged { path: path.to_owned(), problem };
    let file = std::fs::File::open(path);
    let file = file.map_err(|source| SnapshotsError::Disk { verb: "open", path: path.to_owned(), source })?;
    let mut bytes = Vec::new();
    let decoder = zstd::Decoder::new(file).map_err(|error| damaged(error.to_string()))?;
    io::Read::read_to_end(&mut io::Read::take(decoder, MAX_BYTES), &mut bytes)
        .map_err(|error| damaged(error.to_string()))?;
    let (mut parts, mut rest) = (Vec::new(), bytes.as_slice());
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let length = u32::from_le_bytes(*length) as usize;
        let (part, after) = after.split_at_checked(length).ok_or_else(|| damaged("a part is cut off".to_owned()))?;
        let FeatureSnapshot::V1(part) = FeatureSnapshot::decode(part).map_err(|error| damaged(error.to_string()))?;
        parts.push(part);
        rest = after;
    }
    match rest.len() {
        0 => Ok(parts),
        left => Err(damaged(format!("{left} bytes are left after the last part"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tributary_wire::{EntityKey, SnapshotRow};

    fn view() -> View {
        View::from_toml(tributary_fraud::VIEW_TOML).unwrap()
    }

    fn part(number: u64) -> FeatureSnapshotV1 {
        let features = ["a", "b"].map(str::to_owned).to_vec();
        let row = SnapshotRow { key: EntityKey::Int(4), values: vec![1.0, number as f32] };
        FeatureSnapshotV1 {
            view: "card-risk".into(),
            view_version: 1,
            number: SnapshotNumber(number),
            taken: Micros(number as i64 * 10),
            lifetime: 5,
            part: 0,
            parts: 1,
            entity: "terminal_id".into(),
            features,
            rows: vec![row],
        }
    }

    #[test]
    fn snapshots_are_found_by_number_and_old_ones_are_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let snapshots = Snapshots::new(folder.path().join("snapshots"));
        assert_eq!(snapshots.newest(&view()).unwrap(), None);
        assert_eq!(snapshots.parts(&view(), SnapshotNumber(1)).unwrap(), None);
        for number in [2, 1, 12] {
            let parts = [part(number), part(number)];
            snapshots.keep(&view(), SnapshotNumber(number), Micros(number as i64 * 10), &parts).unwrap();
        }
        assert_eq!(snapshots.newest(&view()).unwrap(), Some((SnapshotNumber(12), Micros(120))));
        assert_eq!(snapshots.parts(&view(), SnapshotNumber(2)).unwrap(), Some(vec![part(2), part(2)]));
        snapshots.forget(&view(), Micros(20)).unwrap();
        assert_eq!(snapshots.parts(&view(), SnapshotNumber(1)).unwrap(), None);
        snapshots.forget(&view(), Micros(1_000)).unwrap();
        assert_eq!(snapshots.newest(&view()).unwrap(), Some((SnapshotNumber(12), Micros(120))), "the newest stays");
    }

    #[test]
    fn a_damaged_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let snapshots = Snapshots::new(folder.path().to_owned());
        snapshots.keep(&view(), SnapshotNumber(1), Micros(10), &[part(1)]).unwrap();
        let path = folder.path().join("card-risk-v1/0000000001-10.snapshot");
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let found = snapshots.parts(&view(), SnapshotNumber(1));
            assert!(matches!(found, Err(SnapshotsError::Damaged { .. })), "cut at {cut}: {found:?}");
        }
        for byte in 0..whole.len() {
            let mut changed = whole.clone();
            changed[byte] ^= 1;
            std::fs::write(&path, &changed).unwrap();
            let found = snapshots.parts(&view(), SnapshotNumber(1));
            assert!(found.is_err() || found.unwrap() == Some(vec![part(1)]), "byte {byte}");
        }
    }
}
