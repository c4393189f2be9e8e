//! At the first start after a restore: what devices had receipts for after the backup was made is found again from the
//! lake's footers and from the quarantine's files. Until this is done no file is an orphan; which files count, and which
//! were left behind, is in [`super::judge`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::Context as _;
use cloud_hub_lake::{BatchKey, FileEntry, FooterBatch, StreamSchema};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::SqliteConnection;
use tributary_process::disk::{create_folder_below, settle_names, walk};
use tributary_wire::{DeviceId, Micros, SequenceNumber, Sha256, StreamName};

use super::decode::{Content, decode, digest};
use super::judge::{Described, Judge, Verdict, spare};
use super::ledger::Answer;
use super::progress::Progress;
use super::rebuild::{answer, choose, key};
use super::recover::resync;
use super::{HUB_DEVICE, Parts};
use crate::audit::{self, Change};
use crate::catalog::batches::{self, Numbering, State};
use crate::catalog::quarantine::Kept;
use crate::catalog::{alerts, devices, files, now, quarantine};

/// What was found in files and taken in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TakenIn {
    /// Files of the lake.
    pub files: u64,
    /// Their rows.
    pub rows: u64,
    /// Batches in them.
    pub batches: u64,
    /// Gaps and other numbers without rows.
    pub rowless: u64,
    /// Quarantined messages.
    pub quarantined: u64,
    /// Files that cannot be used and were moved aside.
    pub set_aside: u64,
    /// Files that a crash had left behind before they counted: all that is in them is in other files. They were moved
    /// aside as well.
    pub leftovers: u64,
}

/// Takes in what the catalog does not know, if it was just restored. One transaction: a start that is cut off does it
/// again.
pub async fn take_in(parts: &Parts) -> anyhow::Result<Option<TakenIn>> {
    let query = "select epoch, backup_time from restores where state = 'reading' order by epoch desc limit 1";
    let restored: Option<(i64, i64)> = sqlx::query_as(query).fetch_optional(parts.catalog.reader()).await?;
    let Some((epoch, backup_time)) = restored else { return Ok(None) };
    resync(parts).await.context("could not read the catalog")?;
    let lake = parts.lake.clone();
    let (found, mut aside) = tokio::task::spawn_blocking(move || {
        let mut unusable = Vec::new();
        let mut found = Vec::new();
        let mut paths = lake.compare()?.unregistered;
        lake.settle(&paths)?;
        paths.retain(|path| path.ends_with(".parquet"));
        for path in paths {
            match lake.describe(&path) {
                Ok(described) => found.push(described),
                Err(error) => {
                    tracing::warn!(path, %error, "a file of the lake cannot be used");
                    unusable.push(path);
                }
            }
        }
        Ok::<_, cloud_hub_lake::LakeError>((found, unusable))
    })
    .await?
    .context("could not look at the lake")?;
    let now = now();
    let mut taken = TakenIn::default();
    let mut transaction = parts.catalog.write().await?;
    let (mut usable, mut condemned, mut judge) = (Vec::new(), Vec::new(), Judge::default());
    for described in found {
        match judge.judge(&mut transaction, parts, &described).await? {
            Verdict::New => usable.push(described),
            Verdict::Known => condemned.push(described),
            Verdict::Other(problem) => {
                let path = described.0.path;
                tracing::warn!(path, problem, "a file of the lake cannot be taken in");
                aside.push(path);
            }
        }
    }
    let counting = choose(usable.clone());
    let counts: BTreeSet<&str> = counting.iter().map(|(entry, ..)| &*entry.path).collect();
    // Parts of batches whose other parts are gone, and what was written once more later.
    condemned.extend(usable.into_iter().filter(|(entry, ..)| !counts.contains(&*entry.path)));
    write(&mut transaction, &counting, &mut taken, now).await?;
    taken.quarantined = take_in_quarantine(&mut transaction, parts, now).await?;
    let lake = parts.lake.clone();
    let (condemned, leftovers) = tokio::task::spawn_blocking(move || {
        let leftovers = spare(&lake, &condemned, &counting);
        (condemned.into_iter().map(|(entry, ..)| entry.path).collect::<Vec<_>>(), leftovers)
    })
    .await?;
    aside.extend(condemned.into_iter().filter(|path| !leftovers.contains(path)));
    (taken.set_aside, taken.leftovers) = (aside.len() as u64, leftovers.len() as u64);
    for path in &leftovers {
        tracing::info!(path, "a file of the lake was left behind before the backup; what it holds is in others");
    }
    let moved: Vec<String> = aside.iter().cloned().chain(leftovers).collect();
    set_aside(parts, &moved).await.context("could not move files of the lake aside")?;
    let query = "select count(*) from devices where report is not null and last_seen >= $1";
    let waits_for: i64 =
        sqlx::query_scalar(query).bind(backup_time - 7 * Micros::DAY).fetch_one(&mut *transaction).await?;
    let query = "update restores set state = 'waiting', found_json = $2, waits_for = $3, waiting_since = $4
                 where epoch = $1";
    let done = sqlx::query(query).bind(epoch).bind(json!(taken).to_string()).bind(waits_for).bind(now.0);
    done.execute(&mut *transaction).await?;
    if taken.set_aside > 0 {
        let problem = "files of the lake cannot be used, and not all that they hold is in others";
        let detail = json!({"problem": problem, "files": taken.set_aside,
                            "where": aside_folder(parts), "some": aside.iter().take(20).collect::<Vec<_>>()});
        let alert = alerts::Raise { kind: "lake-files-set-aside", subject: "lake", severity: "critical", detail };
        alerts::raise(&mut transaction, alert, now).await?;
    }
    let from = json!({"state": "reading"});
    let change = Change { action: "catalog.take-in", subject: &epoch.to_string(), from, to: json!(taken) };
    audit::record_own(&mut transaction, change, now).await?;
    transaction.commit().await?;
    tracing::info!(?taken, "a restored hub took in what was stored after its backup");
    Ok(Some(taken))
}

/// The ranges of a stream below `first` that nobody has answered for; a few at once, for the next report has the rest.
pub(crate) async fn missing(
    catalog: &mut SqliteConnection,
    of: &Numbering,
    first: SequenceNumber,
) -> Result<Vec<(u64, u64)>, sqlx::Error> {
    let (through, beyond) = batches::progress(catalog, of).await?;
    Ok(Progress::new(through, beyond).missing(first.0, 64))
}

async fn write(
    catalog: &mut SqliteConnection,
    counting: &[Described],
    taken: &mut TakenIn,
    now: Micros,
) -> Result<(), sqlx::Error> {
    let mut number = files::last_number(catalog).await?;
    let mut schemas: BTreeMap<StreamName, StreamSchema> = BTreeMap::new();
    for (stream, schema) in files::schemas(&mut *catalog).await? {
        schemas.insert(stream, schema);
    }
    let mut new: BTreeMap<Numbering, BTreeMap<u64, FooterBatch>> = BTreeMap::new();
    for (entry, footer, schema) in counting {
        number += 1;
        files::insert(catalog, &FileEntry { number, ..entry.clone() }, now).await?;
        taken.files += 1;
        taken.rows += entry.rows;
        let known = schemas.entry(entry.stream.clone()).or_default();
        let had = known.columns.len();
        let fresh = |column: &&cloud_hub_lake::StreamColumn| !known.columns.iter().any(|it| it.name == column.name);
        let more: Vec<_> = schema.columns.iter().filter(fresh).cloned().collect();
        files::add_columns(catalog, &entry.stream, had, &more, now).await?;
        known.columns.extend(more);
        for batch in &footer.batches {
            let BatchKey { device, incarnation, stream, .. } = key(&footer.stream, batch);
            let of = new.entry(Numbering { device, incarnation, stream }).or_default();
            of.insert(batch.sequence.0, batch.clone());
        }
    }
    for (of, numbers) in new {
        devices::seen(catalog, &of.device, now).await?;
        let (through, beyond) = batches::progress(catalog, &of).await?;
        let mut standing = Progress::new(through, beyond);
        for (sequence, batch) in numbers {
            let at = SequenceNumber(sequence);
            if !batches::insert(catalog, &of, at, at, &batch.hash, batch.of, State::Stored, now).await? {
                replayed(catalog, &of, at, batch.of, now).await?;
            } else if of.device.as_str() == HUB_DEVICE && batch.hash != digest(&[]) {
                replayed_elsewhere(catalog, &batch.hash, now).await?;
            }
            standing.add(sequence, sequence);
            taken.batches += 1;
        }
        batches::set_through(catalog, &of, standing.through()).await?;
    }
    for rowless in
        counting.iter().rev().flat_map(|(_, footer, _)| footer.rowless.iter().map(|it| answer(&footer.stream, it)))
    {
        taken.rowless += u64::from(write_rowless(catalog, &rowless, now).await?);
    }
    Ok(())
}

/// A message that was in quarantine when the backup was made was replayed since.
async fn replayed(
    catalog: &mut SqliteConnection,
    of: &Numbering,
    sequence: SequenceNumber,
    rows: u64,
    now: Micros,
) -> Result<(), sqlx::Error> {
    if batches::replayed(catalog, of, sequence, rows).await? {
        quarantine::mark_number_replayed(catalog, of, sequence, now).await?;
    }
    Ok(())
}

/// The same, into another stream: the hub's number there has the hash of the message's body.
async fn replayed_elsewhere(catalog: &mut SqliteConnection, hash: &Sha256, now: Micros) -> Result<(), sqlx::Error> {
    for (of, sequence) in batches::quarantined_with(catalog, hash).await? {
        replayed(catalog, &of, sequence, 0, now).await?;
    }
    Ok(())
}

/// Answers for numbers without rows, unless one of them is known; whether it did.
async fn write_rowless(catalog: &mut SqliteConnection, answer: &Answer, now: Micros) -> Result<bool, sqlx::Error> {
    let Answer { of, sequence, last, hash, state, received, lost, .. } = answer;
    let (through, beyond) = batches::progress(catalog, of).await?;
    let mut standing = Progress::new(through, beyond);
    if standing.overlaps(sequence.0, last.0) {
        return Ok(false);
    }
    standing.add(sequence.0, last.0);
    devices::seen(catalog, &of.device, now).await?;
    batches::insert(catalog, of, *sequence, *last, hash, 0, *state, *received).await?;
    batches::insert_gap(catalog, of, (*sequence, *last), lost, *received).await?;
    batches::set_through(catalog, of, standing.through()).await?;
    Ok(true)
}

/// A message in the quarantine's folder.
pub(super) struct Aside {
    pub(super) id: String,
    pub(super) device: DeviceId,
    /// Its file, below the folder.
    pub(super) below: String,
}

impl Aside {
    pub(super) async fn read<L>(&self, parts: &Parts<L>) -> anyhow::Result<bytes::Bytes> {
        let (disk, path) = (parts.lake.disk().clone(), parts.quarantine.join(&self.below));
        Ok(tokio::task::spawn_blocking(move || disk.read(&path, u64::MAX)).await??.into())
    }
}

/// Messages in the quarantine's folder that are not among those known.
pub(super) async fn unknown_messages<L>(parts: &Parts<L>, known: &BTreeSet<String>) -> anyhow::Result<Vec<Aside>> {
    let (disk, folder) = (parts.lake.disk().clone(), parts.quarantine.clone());
    let there = {
        let folder = folder.clone();
        let there = move || {
            let there = walk(&*disk, &folder)?;
            settle_names(&*disk, &folder, &there).map(|()| there)
        };
        tokio::task::spawn_blocking(there).await??
    };
    let below = there.iter().filter_map(|path| path.strip_prefix(&folder).ok()?.to_str());
    let message = |below: &str| {
        let (device, id) = below.strip_suffix(".batch")?.split_once('/')?;
        Some(Aside { id: id.to_owned(), device: DeviceId::new(device).ok()?, below: below.to_owned() })
    };
    Ok(below.filter(|below| !known.contains(*below)).filter_map(message).collect())
}

/// Messages in the quarantine's folder without a row: kept after the backup.
async fn take_in_quarantine(catalog: &mut SqliteConnection, parts: &Parts, now: Micros) -> anyhow::Result<u64> {
    let known: BTreeSet<String> = quarantine::paths(catalog).await?.into_iter().collect();
    let mut taken = 0;
    for aside in unknown_messages(parts, &known).await? {
        let message = aside.read(parts).await?;
        let Aside { id, device, below } = aside;
        let (named, hash, reason) = match decode(&device, &message, now) {
            Content::Unreadable { .. } => (None, None, "undecodable-header"),
            Content::Records { of, sequence, hash, .. }
            | Content::Gap { of, sequence, hash, .. }
            | Content::Broken { of, sequence, hash, .. } => (Some((of, sequence)), Some(hash), "restored"),
        };
        devices::seen(catalog, &device, now).await?;
        let mut replayed = false;
        if let (Some((of, sequence)), Some(hash)) = (&named, hash) {
            match batches::answered(catalog, of, *sequence).await? {
                None => {
                    batches::insert(catalog, of, *sequence, *sequence, &hash, 0, State::Quarantined, now).await?;
                    let (through, beyond) = batches::progress(catalog, of).await?;
                    batches::set_through(catalog, of, Progress::new(through, beyond).through()).await?;
                }
                // Its records are in the lake: it was replayed.
                Some((known, State::Stored)) => replayed = known == hash.0,
                Some(_) => {}
            }
        }
        let kept = Kept {
            id,
            device,
            named: named.map(|(of, sequence)| (of, sequence.0)),
            reason,
            detail: "kept after the backup that this hub was restored from".to_owned(),
            hash: digest(&message),
            bytes: message.len() as u64,
            path: below,
        };
        quarantine::insert(catalog, &kept, now).await?;
        if replayed {
            quarantine::mark_replayed(catalog, &kept.id, now).await?;
        }
        taken += 1;
    }
    Ok(taken)
}

pub(super) fn aside_folder<L>(parts: &Parts<L>) -> PathBuf {
    parts.lake.root().with_file_name("lake-set-aside")
}

/// Nobody deletes here what might be the only copy of something.
pub(super) async fn set_aside<L>(parts: &Parts<L>, paths: &[String]) -> anyhow::Result<()> {
    if paths.is_empty() {
        return Ok(());
    }
    let (root, to, paths) = (parts.lake.root().to_owned(), aside_folder(parts), paths.to_vec());
    let disk = parts.lake.disk().clone();
    tokio::task::spawn_blocking(move || {
        for path in paths {
            let target = to.join(&path);
            let folder = target.parent().unwrap_or(&to);
            create_folder_below(&*disk, to.parent().unwrap_or(&to), folder)?;
            disk.rename(&root.join(&path), &target)?;
            disk.sync_folder(folder)?;
        }
        Ok::<_, std::io::Error>(())
    })
    .await??;
    Ok(())
}
