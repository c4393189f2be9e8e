//! At start: what the catalog says counts, what it does not know is cleared away, and a lost catalog is made again.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use anyhow::Context as _;
use cloud_hub_lake::{BatchKey, Differences, FileEntry, Footer, FooterBatch, StreamSchema};
use serde_json::{Value, json};
use tributary_process::disk::walk;
use tributary_wire::{SequenceNumber, StreamName};

use super::ledger::{Answer, Entry, Ledger, LedgerError};
use super::progress::Progress;
use super::{Parts, adopt};
use crate::audit::Noted;
use crate::catalog::alerts::Raise;
use crate::catalog::batches::{Numbering, State};

/// What was found at start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Recovered {
    /// Files that count.
    pub files: usize,
    /// Files that a crash left behind before they counted; removed.
    pub orphans: usize,
    /// Files that should be there and are not; an alert says which.
    pub missing: usize,
    /// Files whose catalog rows were made again from their footers.
    pub rebuilt: usize,
    /// Files that could not be used for that, or held parts of batches whose other parts could not; they lie aside, and
    /// an alert says which.
    pub set_aside: usize,
}

/// Loads the catalog into the lake, removes what does not count, and rebuilds a catalog that was lost.
pub async fn recover<L: Ledger>(parts: &Parts<L>) -> anyhow::Result<Recovered> {
    let mut recovered = Recovered::default();
    resync(parts).await.context("could not read the catalog")?;
    let there = compare(parts).await?.unregistered;
    let known = parts.catalog.files().await?.len();
    // An empty catalog beside a full lake is a lost catalog, not a lake of orphans.
    if known == 0 && there.iter().any(|path| path.ends_with(".parquet")) {
        let damaged;
        (recovered.rebuilt, damaged) =
            rebuild(parts, &there).await.context("could not rebuild the catalog from the lake")?;
        resync(parts).await?;
        if damaged {
            // Beside damage nobody knows what the files that are left over would have meant.
            recovered.set_aside = set_aside(parts, compare(parts).await?.unregistered).await?;
        }
    }
    let Differences { unregistered, missing } = compare(parts).await?;
    recovered.orphans = unregistered.len();
    recovered.missing = missing.len();
    let lake = parts.lake.clone();
    tokio::task::spawn_blocking(move || unregistered.iter().for_each(|path| lake.discard(path))).await?;
    if !missing.is_empty() {
        tracing::error!(files = missing.len(), first = missing[0], "files of the lake are missing");
        let some: Vec<_> = missing.iter().take(20).collect();
        let detail = serde_json::json!({ "files": missing.len(), "some": some });
        let alert = Raise { kind: "lake-files-missing", subject: "lake", severity: "critical", detail };
        parts.catalog.raise(alert, parts.now()).await?;
    }
    clear_quarantine(parts).await?;
    recovered.files = parts.catalog.files().await?.len();
    Ok(recovered)
}

async fn compare<L: Ledger>(parts: &Parts<L>) -> anyhow::Result<Differences> {
    let lake = parts.lake.clone();
    Ok(tokio::task::spawn_blocking(move || lake.compare()).await??)
}

/// Makes the lake's index what the catalog says.
pub(super) async fn resync<L: Ledger>(parts: &Parts<L>) -> Result<(), LedgerError> {
    for (stream, schema) in parts.catalog.schemas().await? {
        parts.lake.set_schema(&stream, schema);
    }
    let all = parts.catalog.files().await?;
    let mut last: HashMap<StreamName, i64> = HashMap::new();
    let new = all.into_iter().filter(|file| {
        let last = last.entry(file.stream.clone()).or_insert_with(|| parts.lake.last_number(&file.stream));
        file.number > *last
    });
    parts.lake.register(new.collect::<Vec<_>>());
    Ok(())
}

/// Files of the quarantine without a row were never answered for: the device sends the message again.
async fn clear_quarantine<L: Ledger>(parts: &Parts<L>) -> anyhow::Result<()> {
    let known: HashSet<String> = parts.catalog.kept_paths().await?.into_iter().collect();
    let (disk, folder) = (parts.lake.disk().clone(), parts.quarantine.clone());
    tokio::task::spawn_blocking(move || {
        for path in walk(&*disk, &folder)? {
            let below = path.strip_prefix(&folder).ok().and_then(|below| below.to_str());
            if below.is_none_or(|below| !known.contains(below)) {
                disk.remove(&path)?;
            }
        }
        Ok::<_, std::io::Error>(())
    })
    .await?
    .context("could not clear the quarantine folder")
}

/// Makes the catalog's rows again from the footers of all files. A file counts when every batch in it is whole over
/// all files and no file after it (names sort by time of writing) has the same batch: what was written and never
/// committed came again and was written again, while what was committed is never written again. Also says whether there
/// are files that cannot be used.
async fn rebuild<L: Ledger>(parts: &Parts<L>, paths: &[String]) -> anyhow::Result<(usize, bool)> {
    let files = paths.iter().filter(|path| path.ends_with(".parquet")).count();
    let found = {
        let (lake, paths) = (parts.lake.clone(), paths.to_vec());
        tokio::task::spawn_blocking(move || {
            let readable = paths.iter().filter(|path| path.ends_with(".parquet")).filter_map(|path| {
                let found = lake.describe(path);
                found.inspect_err(|error| tracing::warn!(path, %error, "a file cannot be used")).ok()
            });
            readable.collect::<Vec<_>>()
        })
        .await?
    };
    let damaged = found.len() < files;
    let counting = choose(found);
    let now = parts.now();
    let mut entry = Entry { files: counting.iter().map(|(file, ..)| file.clone()).collect(), ..Entry::default() };
    let mut whole: BTreeMap<BatchKey, FooterBatch> = BTreeMap::new();
    for (file, footer, schema) in &counting {
        let (known, _) = entry.schemas.entry(file.stream.clone()).or_default();
        for column in &schema.columns {
            if known.columns.iter().all(|other| other.name != column.name) {
                known.columns.push(column.clone());
            }
        }
        whole.extend(footer.batches.iter().map(|batch| (key(&footer.stream, batch), batch.clone())));
    }
    let mut standings: BTreeMap<Numbering, Progress> = BTreeMap::new();
    for (key, FooterBatch { sequence, hash, of: rows, .. }) in whole {
        let of = Numbering { device: key.device, incarnation: key.incarnation, stream: key.stream };
        standings.entry(of.clone()).or_default().add(sequence.0, sequence.0);
        let (last, state, received, lost) = (sequence, State::Stored, now, Vec::new());
        entry.answers.push(Answer { of, sequence, last, hash, rows, state, received, lost, replays: false });
    }
    entry.through = standings.into_iter().map(|(of, standing)| (of, standing.through())).collect();
    let to = json!({"files": counting.len(), "reason": "the catalog was empty beside a lake with files"});
    entry.noted.push(Noted::new("catalog.rebuild", "catalog", Value::Null, to));
    parts.catalog.enter(&entry, now).await?;
    Ok((counting.len(), damaged))
}

/// Moves files out of the lake and tells people.
async fn set_aside<L: Ledger>(parts: &Parts<L>, paths: Vec<String>) -> anyhow::Result<usize> {
    adopt::set_aside(parts, &paths).await.context("could not move files of the lake aside")?;
    let (files, some): (_, Vec<_>) = (paths.len(), paths.iter().take(20).collect());
    tracing::error!(files, first = some.first(), "files of the lake cannot be used and were set aside");
    let problem = "files of the lake cannot be used; batches in them are missing";
    let detail = json!({ "problem": problem, "files": files, "some": some, "folder": adopt::aside_folder(parts) });
    let alert = Raise { kind: "lake-files-set-aside", subject: "lake", severity: "critical", detail };
    parts.catalog.raise(alert, parts.now()).await?;
    Ok(files)
}

type Described = (FileEntry, Footer, StreamSchema);

fn key(stream: &StreamName, batch: &FooterBatch) -> BatchKey {
    BatchKey {
        device: batch.device.clone(),
        incarnation: batch.incarnation,
        stream: stream.clone(),
        sequence: SequenceNumber(batch.sequence.0),
    }
}

/// Files that count, oldest first.
pub(super) fn choose(mut found: Vec<Described>) -> Vec<Described> {
    let name = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    found.sort_by_key(|(entry, ..)| name(&entry.path));
    // The same batch and day twice: the last file that has it is the one that was committed.
    let mut seen: BTreeSet<(BatchKey, i64)> = BTreeSet::new();
    found.reverse();
    found.retain(|(_, footer, _)| {
        let keys: Vec<_> = footer.batches.iter().map(|b| (key(&footer.stream, b), footer.day)).collect();
        let fresh = keys.iter().all(|key| !seen.contains(key));
        if fresh {
            seen.extend(keys);
        }
        fresh
    });
    found.reverse();
    // Leaving a file out may leave others with parts of its batches, so this is repeated until it holds.
    loop {
        let mut rows: HashMap<BatchKey, u64> = HashMap::new();
        for (_, footer, _) in &found {
            footer.batches.iter().for_each(|b| *rows.entry(key(&footer.stream, b)).or_default() += b.rows);
        }
        let before = found.len();
        found.retain(|(_, footer, _)| footer.batches.iter().all(|b| rows[&key(&footer.stream, b)] == b.of));
        if found.len() == before {
            return found;
        }
    }
}

#[cfg(test)]
mod tests {
    use tributary_wire::{DeviceId, Incarnation, Micros, Sha256};

    use super::*;

    fn file(name: &str, batches: &[u64]) -> Described {
        let stream = StreamName::new("events").unwrap();
        let entry = FileEntry {
            number: 0,
            path: format!("events/day=1970-01-01/{name}.parquet"),
            stream: stream.clone(),
            day: 0,
            rows: batches.len() as u64,
            bytes: 1,
            min_time: Micros(0),
            max_time: Micros(0),
        };
        let batch = |sequence: &u64| FooterBatch {
            device: DeviceId::new("edge-1").unwrap(),
            incarnation: Incarnation(1),
            sequence: SequenceNumber(*sequence),
            hash: Sha256([0; 32]),
            rows: 1,
            of: 1,
        };
        let batches = batches.iter().map(batch).collect();
        (entry, Footer { stream, day: 0, min_time: 0, max_time: 0, batches }, StreamSchema::default())
    }

    /// A commit that failed leaves its files; what they held comes again, in other groups. All that was acknowledged is
    /// in the later files, and a file that was not committed must not keep one of those out.
    #[test]
    fn of_two_files_with_the_same_batch_the_later_counts() {
        let names = |files: Vec<Described>| -> Vec<String> {
            choose(files).iter().map(|(entry, ..)| entry.path[22..23].to_owned()).collect()
        };
        assert_eq!(names(vec![file("a", &[1]), file("b", &[1, 2, 3])]), ["b"]);
        assert_eq!(names(vec![file("c", &[2, 3]), file("b", &[1]), file("a", &[1, 2, 3])]), ["b", "c"]);
        assert_eq!(names(vec![file("a", &[1]), file("b", &[2])]), ["a", "b"]);
    }
}
