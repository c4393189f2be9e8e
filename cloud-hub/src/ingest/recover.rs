//! At start: what the catalog says counts, what it does not know is cleared away, and a lost catalog is made again. Beside
//! a catalog made again nothing is deleted that might be the only copy.

use std::collections::{HashMap, HashSet};

use anyhow::Context as _;
use cloud_hub_lake::{Differences, LakeError};
use serde_json::json;
use tributary_process::disk::walk;
use tributary_wire::StreamName;

use super::judge::spare;
use super::ledger::{Ledger, LedgerError};
use super::rebuild::rebuild;
use super::{Parts, adopt};
use crate::catalog::alerts::Raise;

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
    /// Files that could not be used for that, and beside them those that held parts of their batches; they lie aside,
    /// and an alert says which.
    pub set_aside: usize,
    /// Files that were whole, but of whose batches a part or a later copy is in no other file: a crash left them behind,
    /// or others were lost. They lie aside as well, and an alert says so.
    pub partial: usize,
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
        let left = compare(parts).await?.unregistered;
        if damaged {
            // Beside damage nobody knows what the files that are left over would have meant.
            recovered.set_aside =
                set_aside(parts, left, "files of the lake cannot be used; batches in them are missing").await?;
        } else {
            let problem = "files of the lake hold batches of which other parts are in no file: either a crash left the \
                           files behind, and devices send these batches again, or other files were lost";
            recovered.partial = set_aside(parts, not_elsewhere(parts, left).await?, problem).await?;
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

/// Of files that do not count in a catalog made from all of them, those that hold what no file that counts holds. Whether
/// that was ever acknowledged only the lost catalog knew.
async fn not_elsewhere<L: Ledger>(parts: &Parts<L>, paths: Vec<String>) -> anyhow::Result<Vec<String>> {
    let lake = parts.lake.clone();
    let paths = tokio::task::spawn_blocking(move || {
        let files = paths.iter().filter(|path| path.ends_with(".parquet"));
        let left = files.map(|path| lake.describe(path)).collect::<Result<Vec<_>, _>>()?;
        let spare = spare(&lake, &left, &[]);
        let paths = left.into_iter().map(|(entry, ..)| entry.path);
        Ok::<_, LakeError>(paths.filter(|path| !spare.contains(path)).collect())
    });
    paths.await?.context("could not look at files that are left over in the lake")
}

/// Moves files out of the lake and tells people.
async fn set_aside<L: Ledger>(parts: &Parts<L>, paths: Vec<String>, problem: &str) -> anyhow::Result<usize> {
    if paths.is_empty() {
        return Ok(0);
    }
    adopt::set_aside(parts, &paths).await.context("could not move files of the lake aside")?;
    let (files, some): (_, Vec<_>) = (paths.len(), paths.iter().take(20).collect());
    tracing::error!(files, first = some.first(), problem, "files of the lake were set aside");
    let detail = json!({ "problem": problem, "files": files, "some": some, "folder": adopt::aside_folder(parts) });
    let alert = Raise { kind: "lake-files-set-aside", subject: "lake", severity: "critical", detail };
    parts.catalog.raise(alert, parts.now()).await?;
    Ok(files)
}
