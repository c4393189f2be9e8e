//! A catalog that was lost is made again from the footers of the lake's files and from the quarantine's files.
//!
//! What devices still hold comes again by itself; numbers that had a receipt and of which nothing is found are given up
//! when their devices report ([`crate::backup::reports`]): the catalog counts as restored from nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use cloud_hub_lake::{BatchKey, FileEntry, Footer, FooterBatch, LakeError, Rowless, StreamSchema};
use serde_json::{Value, json};
use tributary_wire::{SequenceNumber, StreamName};

use super::Parts;
use super::adopt::{self, TakenIn};
use super::decode::{Content, decode, digest};
use super::ledger::{Answer, Entry, Ledger};
use super::progress::Progress;
use crate::audit::Noted;
use crate::catalog::batches::{Numbering, State};
use crate::catalog::quarantine::Kept;

/// Makes the catalog's rows again from the footers of all files. A file counts when every batch in it is whole over
/// all files and no file after it (names sort by time of writing) has the same batch: what was written and never
/// committed came again and was written again, while what was committed is never written again. Also says whether there
/// are files that cannot be used.
pub(super) async fn rebuild<L: Ledger>(parts: &Parts<L>, paths: &[String]) -> anyhow::Result<(usize, bool)> {
    let files = paths.iter().filter(|path| path.ends_with(".parquet")).count();
    let found = {
        let (lake, paths) = (parts.lake.clone(), paths.to_vec());
        tokio::task::spawn_blocking(move || {
            lake.settle(&paths)?;
            let readable = paths.iter().filter(|path| path.ends_with(".parquet")).filter_map(|path| {
                let found = lake.describe(path);
                found.inspect_err(|error| tracing::warn!(path, %error, "a file cannot be used")).ok()
            });
            Ok::<_, LakeError>(readable.collect::<Vec<_>>())
        })
        .await??
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
    let batches = entry.answers.len();
    for (_, footer, _) in counting.iter().rev() {
        let answers = footer.rowless.iter().map(|rowless| answer(&footer.stream, rowless));
        for answer in answers {
            let standing = standings.entry(answer.of.clone()).or_default();
            // Written before, and not committed then.
            if !standing.overlaps(answer.sequence.0, answer.last.0) {
                standing.add(answer.sequence.0, answer.last.0);
                entry.answers.push(answer);
            }
        }
    }
    take_quarantine(parts, &mut entry, &mut standings).await?;
    entry.through = standings.into_iter().map(|(of, standing)| (of, standing.through())).collect();
    let taken = TakenIn {
        files: counting.len() as u64,
        rows: counting.iter().map(|(file, ..)| file.rows).sum(),
        batches: batches as u64,
        quarantined: entry.kept.len() as u64,
        ..TakenIn::default()
    };
    let to = json!({"files": taken.files, "quarantined": taken.quarantined,
                    "reason": "the catalog was empty beside a lake with files"});
    entry.noted.push(Noted::new("catalog.rebuild", "catalog", Value::Null, to));
    entry.rebuilt = Some(taken);
    parts.catalog.enter(&entry, now).await?;
    Ok((counting.len(), damaged))
}

/// The answer that a footer tells of.
pub(super) fn answer(stream: &StreamName, rowless: &Rowless) -> Answer {
    let Rowless { device, incarnation, sequence, last, hash, gap, lost, received } = rowless.clone();
    let of = Numbering { device, incarnation, stream: stream.clone() };
    let state = if gap { State::Gap } else { State::Stored };
    Answer { of, sequence, last, hash, rows: 0, state, received, lost, replays: false }
}

/// What was kept aside had its receipt, and its device has forgotten it.
async fn take_quarantine<L: Ledger>(
    parts: &Parts<L>,
    entry: &mut Entry,
    standings: &mut BTreeMap<Numbering, Progress>,
) -> anyhow::Result<()> {
    let now = parts.now();
    let stored: HashMap<(Numbering, u64), tributary_wire::Sha256> =
        entry.answers.iter().map(|answer| ((answer.of.clone(), answer.sequence.0), answer.hash)).collect();
    for aside in adopt::unknown_messages(parts, &BTreeSet::new()).await? {
        let message = aside.read(parts).await?;
        let (named, reason) = match decode(&aside.device, &message, now) {
            Content::Unreadable { .. } => (None, "undecodable-header"),
            Content::Records { of, sequence, hash, .. }
            | Content::Gap { of, sequence, hash, .. }
            | Content::Broken { of, sequence, hash, .. } => {
                if stored.get(&(of.clone(), sequence.0)) == Some(&hash) {
                    entry.replayed.push(aside.id.clone());
                }
                let standing = standings.entry(of.clone()).or_default();
                if !standing.contains(sequence.0) {
                    standing.add(sequence.0, sequence.0);
                    let (last, state, received, lost) = (sequence, State::Quarantined, now, Vec::new());
                    let of = of.clone();
                    entry.answers.push(Answer {
                        of,
                        sequence,
                        last,
                        hash,
                        rows: 0,
                        state,
                        received,
                        lost,
                        replays: false,
                    });
                }
                (Some((of, sequence.0)), "restored")
            }
        };
        let detail = "found again after the catalog was lost".to_owned();
        let (hash, bytes) = (digest(&message), message.len() as u64);
        let adopt::Aside { id, device, below: path } = aside;
        entry.kept.push(Kept { id, device, named, reason, detail, hash, bytes, path });
    }
    Ok(())
}

type Described = (FileEntry, Footer, StreamSchema);

pub(super) fn key(stream: &StreamName, batch: &FooterBatch) -> BatchKey {
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
        (
            entry,
            Footer { stream, day: 0, min_time: 0, max_time: 0, batches, rowless: Vec::new() },
            StreamSchema::default(),
        )
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
