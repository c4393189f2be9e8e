//! Package files: those that the catalog names are there, and every one has its hash.

use std::path::Path;

use sqlx::SqlitePool;
use tributary_process::checkup::{Finding, Mend, bytes, count};
use tributary_release::sha256_file;

use super::{Subject, words};

const SECTION: &str = "Packages";

pub(super) async fn check(subject: &Subject, catalog: Option<&SqlitePool>) -> Vec<Finding> {
    let folder = subject.path("packages");
    let mut findings = Vec::new();
    if let Some(catalog) = catalog {
        let query = "select line, version, sha256 from versions order by line, version";
        match sqlx::query_as::<_, (String, i64, String)>(query).fetch_all(catalog).await {
            Ok(rows) => findings.extend(missing(&folder, &rows)),
            Err(error) => findings.push(Finding::fail(SECTION, "versions", words(&error))),
        }
    }
    if !folder.is_dir() {
        findings.push(Finding::ok(SECTION, "files", "none yet"));
        return findings;
    }
    let at = subject.at();
    let looked = tokio::task::spawn_blocking(move || by_hash(&folder, &at)).await;
    findings.extend(looked.unwrap_or_else(|error| vec![Finding::fail(SECTION, "files", words(&error))]));
    findings
}

fn missing(folder: &Path, rows: &[(String, i64, String)]) -> Option<Finding> {
    let gone = rows.iter().filter(|(_, _, sha256)| !folder.join(format!("{sha256}.tpk")).exists());
    let gone: Vec<String> =
        gone.map(|(line, version, sha256)| format!("{line} version {version}: {sha256}.tpk")).collect();
    let found = format!("{} of {} has no package file", gone.len(), count(rows.len() as u64, "version", "versions"));
    (!gone.is_empty()).then(|| {
        Finding::fail(SECTION, "versions", found)
            .with_details(gone)
            .advise("bring the files back from a backup or a mirror, or upload the same packages again: a device that needs one cannot get it")
    })
}

/// Blocks on the disk.
fn by_hash(folder: &Path, at: &str) -> Vec<Finding> {
    let (mut findings, mut number, mut total) = (Vec::new(), 0, 0);
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => return vec![Finding::fail(SECTION, "files", format!("{}: {error}", folder.display()))],
    };
    for path in entries.flatten().map(|entry| entry.path()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some(expected) = name.strip_suffix(".tpk") else { continue };
        number += 1;
        match sha256_file(&path) {
            Ok((length, found)) => {
                total += length;
                if found.to_string() != expected {
                    let found = format!("{name} is damaged: its content does not have its hash, and devices refuse it");
                    let finding = Finding::fail(SECTION, "files", found).mended_by(Mend::set_aside(&path, at));
                    findings.push(finding.advise(
                        "then bring the file back from a backup or a mirror, or upload the same package again",
                    ));
                }
            }
            Err(error) => findings.push(Finding::fail(SECTION, "files", format!("{name} cannot be read: {error}"))),
        }
    }
    if findings.is_empty() {
        let words = format!("{}, {}", count(number, "file", "files"), bytes(total));
        findings.push(Finding::ok(SECTION, "files", format!("{words}; every one has its hash")));
    }
    findings
}
