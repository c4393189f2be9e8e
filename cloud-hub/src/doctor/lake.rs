//! The lake: every file that the catalog names, and every file that it does not.

use std::sync::Arc;

use cloud_hub_lake::{FileEntry, Lake};
use sqlx::SqlitePool;
use tributary_process::checkup::{Finding, bytes, count};
use tributary_process::disk::RealDisk;

use super::{Subject, words};
use crate::catalog::files;

const SECTION: &str = "Lake";

pub(super) async fn check(subject: &Subject, catalog: Option<&SqlitePool>) -> Vec<Finding> {
    let root = subject.path("lake");
    if !root.is_dir() {
        return vec![Finding::ok(SECTION, "files", "none yet")];
    }
    let Some(catalog) = catalog else {
        return vec![Finding::skipped(SECTION, "files", "without the catalog nobody knows which files count")];
    };
    let read = async { Ok::<_, sqlx::Error>((files::all(catalog).await?, files::schemas(catalog).await?)) };
    let (entries, schemas) = match read.await {
        Ok(read) => read,
        Err(error) => return vec![Finding::fail(SECTION, "files", words(&error))],
    };
    let lake = match Lake::open(Arc::new(RealDisk), root) {
        Ok(lake) => lake,
        Err(error) => return vec![Finding::fail(SECTION, "files", words(&error))],
    };
    schemas.into_iter().for_each(|(stream, schema)| lake.set_schema(&stream, schema));
    lake.register(entries.iter().cloned());
    let (deep, running) = (subject.options.deep, subject.running.is_some());
    let looked = tokio::task::spawn_blocking(move || look(&lake, &entries, deep, running)).await;
    let mut findings = looked.unwrap_or_else(|error| vec![Finding::fail(SECTION, "files", words(&error))]);
    findings.extend(quarantine(subject, catalog).await);
    findings
}

/// Blocks on the disk.
fn look(lake: &Lake, entries: &[FileEntry], deep: bool, running: bool) -> Vec<Finding> {
    let mut problems = Vec::new();
    for entry in entries {
        let problem = if deep { lake.read(entry).map(drop) } else { Ok(()) };
        match problem.and_then(|()| lake.verify(entry)) {
            Ok(()) => {
                let size = std::fs::metadata(lake.root().join(&entry.path)).map_or(0, |about| about.len());
                if size != entry.bytes {
                    problems.push(format!("{} has {size} bytes, the catalog says {}", entry.path, entry.bytes));
                }
            }
            Err(error) => problems.push(words(&error)),
        }
    }
    let total: u64 = entries.iter().map(|entry| entry.bytes).sum();
    let rows: u64 = entries.iter().map(|entry| entry.rows).sum();
    let all = count(entries.len() as u64, "file", "files");
    let how = if deep { "every record was read" } else { "sizes and footers fit; --deep reads every record" };
    let mut findings = vec![if problems.is_empty() {
        Finding::ok(SECTION, "files", format!("{all}, {}, {rows} rows; {how}", bytes(total)))
    } else {
        let found = format!("{} of {all} cannot be used", problems.len());
        Finding::fail(SECTION, "files", found).with_details(problems).advise(
            "bring them back from a backup of the lake's folder; devices have given their copies up, once acknowledged",
        )
    }];
    match lake.compare() {
        // A hub that works has files on their way.
        Ok(differences) if !running && !differences.unregistered.is_empty() => {
            let found = format!(
                "{} that the catalog does not name",
                count(differences.unregistered.len() as u64, "file is there", "files are there")
            );
            let advice = "left by a crash before they counted, or newer than a restored catalog; the next start settles it. If you \
                          put an older catalog here by hand, copy the lake's folder first";
            findings
                .push(Finding::warn(SECTION, "left over", found).with_details(differences.unregistered).advise(advice));
        }
        Ok(_) => {}
        Err(error) => findings.push(Finding::fail(SECTION, "left over", words(&error))),
    }
    findings
}

async fn quarantine(subject: &Subject, catalog: &SqlitePool) -> Vec<Finding> {
    let query = "select path, bytes from quarantine where state = 'kept'";
    let rows: Vec<(String, i64)> = match sqlx::query_as(query).fetch_all(catalog).await {
        Ok(rows) => rows,
        Err(error) => return vec![Finding::fail(SECTION, "quarantine", words(&error))],
    };
    let folder = subject.path("quarantine");
    let missing: Vec<String> =
        rows.iter().map(|(path, _)| path.clone()).filter(|path| !folder.join(path).exists()).collect();
    if !missing.is_empty() {
        let found =
            format!("{} of {} kept there are gone", missing.len(), count(rows.len() as u64, "message", "messages"));
        return vec![
            Finding::fail(SECTION, "quarantine", found)
                .with_details(missing)
                .advise("bring them back from a backup of the folder quarantine/"),
        ];
    }
    let total: i64 = rows.iter().map(|(_, bytes)| bytes).sum();
    let words =
        format!("{}, {}", count(rows.len() as u64, "message is kept", "messages are kept"), bytes(total.max(0) as u64));
    vec![match rows.len() {
        0 => Finding::ok(SECTION, "quarantine", "empty"),
        _ => Finding::warn(SECTION, "quarantine", words)
            .advise("cloud-hub quarantine list says why; what can be read now: cloud-hub quarantine replay"),
    }]
}
