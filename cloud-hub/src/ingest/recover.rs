//! At start: what the catalog says counts, what it does not know is cleared away, and a lost catalog is made again.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use anyhow::Context as _;
use cloud_hub_lake::{BatchKey, Differences, FileEntry, Footer, FooterBatch, StreamSchema};
use serde_json::{Value, json};
use tributary_wire::{SequenceNumber, StreamName};

use super::Parts;
use super::progress::Progress;
use crate::audit::{self, Change};
use crate::catalog::batches::{self, Numbering, State};
use crate::catalog::{alerts, devices, files, quarantine};

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
}

/// Loads the catalog into the lake, removes what does not count, and rebuilds a catalog that was lost.
pub async fn recover(parts: &Parts) -> anyhow::Result<Recovered> {
    let mut recovered = Recovered::default();
    resync(parts).await.context("could not read the catalog")?;
    let there = compare(parts).await?.unregistered;
    let known = files::all(parts.catalog.reader()).await?.len();
    // An empty catalog beside a full lake is a lost catalog, not a lake of orphans.
    if known == 0 && there.iter().any(|path| path.ends_with(".parquet")) {
        recovered.rebuilt = rebuild(parts, &there).await.context("could not rebuild the catalog from the lake")?;
        resync(parts).await?;
    }
    let Differences { unregistered, missing } = compare(parts).await?;
    recovered.orphans = unregistered.len();
    recovered.missing = missing.len();
    let lake = parts.lake.clone();
    tokio::task::spawn_blocking(move || unregistered.iter().for_each(|path| lake.discard(path))).await?;
    if !missing.is_empty() {
        tracing::error!(files = missing.len(), first = missing[0], "files of the lake are missing");
        let mut transaction = parts.catalog.write().await?;
        let some: Vec<_> = missing.iter().take(20).collect();
        let detail = serde_json::json!({ "files": missing.len(), "some": some });
        let alert = alerts::Raise { kind: "lake-files-missing", subject: "lake", severity: "critical", detail };
        alerts::raise(&mut transaction, alert, parts.now()).await?;
        transaction.commit().await?;
    }
    clear_quarantine(parts).await?;
    recovered.files = files::all(parts.catalog.reader()).await?.len();
    Ok(recovered)
}

async fn compare(parts: &Parts) -> anyhow::Result<Differences> {
    let lake = parts.lake.clone();
    Ok(tokio::task::spawn_blocking(move || lake.compare()).await??)
}

/// Makes the lake's index what the catalog says.
pub(super) async fn resync(parts: &Parts) -> Result<(), sqlx::Error> {
    for (stream, schema) in files::schemas(parts.catalog.reader()).await? {
        parts.lake.set_schema(&stream, schema);
    }
    let all = files::all(parts.catalog.reader()).await?;
    let mut last: HashMap<StreamName, i64> = HashMap::new();
    let new = all.into_iter().filter(|file| {
        let last = last.entry(file.stream.clone()).or_insert_with(|| parts.lake.last_number(&file.stream));
        file.number > *last
    });
    parts.lake.register(new.collect::<Vec<_>>());
    Ok(())
}

/// Files of the quarantine without a row were never answered for: the device sends the message again.
async fn clear_quarantine(parts: &Parts) -> anyhow::Result<()> {
    let mut catalog = parts.catalog.reader().acquire().await?;
    let known: HashSet<String> = quarantine::paths(&mut catalog).await?.into_iter().collect();
    let (storage, folder) = (parts.lake.storage().clone(), parts.quarantine.clone());
    tokio::task::spawn_blocking(move || {
        for path in storage.list(&folder)? {
            let below = path.strip_prefix(&folder).ok().and_then(|below| below.to_str());
            if below.is_none_or(|below| !known.contains(below)) {
                storage.remove(&path)?;
            }
        }
        Ok::<_, std::io::Error>(())
    })
    .await?
    .context("could not clear the quarantine folder")
}

/// Makes the catalog's rows again from the footers of all files. A file counts when every batch in it is whole over
/// all files and no file before it (names sort by time of writing) has the same batch; what a crash left behind half
/// written does not count, and its devices, never acknowledged, send it again.
async fn rebuild(parts: &Parts, paths: &[String]) -> anyhow::Result<usize> {
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
    let counting = choose(found);
    let now = parts.now();
    let mut transaction = parts.catalog.write().await?;
    let mut schemas: BTreeMap<StreamName, StreamSchema> = BTreeMap::new();
    let mut whole: BTreeMap<BatchKey, FooterBatch> = BTreeMap::new();
    for (number, (entry, footer, schema)) in (1..).zip(&counting) {
        files::insert(&mut transaction, &FileEntry { number, ..entry.clone() }, now).await?;
        let known = schemas.entry(entry.stream.clone()).or_default();
        for column in &schema.columns {
            if known.columns.iter().all(|other| other.name != column.name) {
                known.columns.push(column.clone());
            }
        }
        whole.extend(footer.batches.iter().map(|batch| (key(&footer.stream, batch), batch.clone())));
    }
    for (stream, schema) in &schemas {
        files::add_columns(&mut transaction, stream, 0, &schema.columns, now).await?;
    }
    let mut standings: BTreeMap<Numbering, Progress> = BTreeMap::new();
    for (key, batch) in whole {
        devices::seen(&mut transaction, &key.device, now).await?;
        let of = Numbering { device: key.device, incarnation: key.incarnation, stream: key.stream };
        let at = batch.sequence;
        batches::insert(&mut transaction, &of, at, at, &batch.hash, batch.of, State::Stored, now).await?;
        standings.entry(of).or_default().add(at.0, at.0);
    }
    for (of, standing) in standings {
        batches::set_through(&mut transaction, &of, standing.through()).await?;
    }
    let change = Change {
        action: "catalog.rebuild",
        subject: "catalog",
        from: Value::Null,
        to: json!({"files": counting.len(), "reason": "the catalog was empty beside a lake with files"}),
    };
    audit::record(&mut transaction, change, now).await?;
    transaction.commit().await?;
    Ok(counting.len())
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
    // The same batch and day twice: the first file that has it keeps it.
    let mut seen: BTreeSet<(BatchKey, i64)> = BTreeSet::new();
    found.retain(|(_, footer, _)| {
        let keys: Vec<_> = footer.batches.iter().map(|b| (key(&footer.stream, b), footer.day)).collect();
        let fresh = keys.iter().all(|key| !seen.contains(key));
        if fresh {
            seen.extend(keys);
        }
        fresh
    });
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
