//! Packages: the ones in place through every check of a start, all others by their hash.

use std::path::Path;
use std::sync::Arc;

use edge_agent_core::lines::Of;
use edge_agent_core::updater::Record;
use tributary_process::checkup::{Finding, Mend, bytes, count};
use tributary_process::disk::{Disk as _, RealDisk};
use tributary_release::sha256_file;
use tributary_wire::{LineName, ReleaseRef, Role, Sha256, UpdaterState};

use super::Subject;
use crate::packages::{ActivePackage, OpenError, PackageFiles};
use crate::state::Store;
use crate::update::stored::records;
use crate::words::in_words;

const SECTION: &str = "Packages";

pub(super) fn check(subject: &Subject, store: Option<&Store>) -> Vec<Finding> {
    let folder = subject.path("packages");
    let mut findings = Vec::new();
    let mut checked = Vec::new();
    match store.map(records) {
        Some(Ok(records)) => {
            for ((line, role), record) in &records {
                findings.extend(of_record(subject, &folder, (line, role), record, &mut checked));
            }
            if records.iter().all(|(_, record)| record.committed.is_none()) {
                findings.push(none_in_place(subject));
            }
            findings.extend(unreferenced(&folder, &records));
        }
        Some(Err(error)) => findings.push(
            Finding::fail(SECTION, "updater", in_words(&error))
                .advise("the agent refuses to start with it: a newer agent may have written it; run that one"),
        ),
        None if !subject.path("state.redb").exists() => findings.push(none_in_place(subject)),
        None => {}
    }
    findings.extend(by_hash(subject, &folder, &checked));
    findings
}

fn none_in_place(subject: &Subject) -> Finding {
    if subject.config.view.is_none() {
        return Finding::fail(
            SECTION,
            "in place",
            "no package yet, and no feature view to work with until there is one",
        )
        .advise("name a file in `view`: the agent does not start without");
    }
    Finding::ok(SECTION, "in place", "none yet: the declared fallback answers")
}

fn of_record(
    subject: &Subject,
    folder: &Path,
    (line, role): (&LineName, &Role),
    record: &Record,
    checked: &mut Vec<Sha256>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let served = subject.config.lines.contains(line);
    let in_use = [("committed", record.committed.as_ref()), ("previous", record.previous.as_ref())];
    for (what, release) in in_use {
        let Some(release) = release else { continue };
        checked.push(release.sha256);
        let name = format!("{line} {role}");
        let title = format!("{what} version {}", release.version);
        findings.push(judge(&name, what, &title, open(folder, line, release), folder, release, &subject.at()));
    }
    if record.state() == UpdaterState::RolledBack
        && let Some(undone) = &record.undone
    {
        let found = format!("version {} was given up: {}", undone.release.version, undone.reason);
        findings.push(Finding::warn(SECTION, format!("{line} {role}"), found));
    }
    if !served {
        let found = format!("{line} was served here before; the settings no longer name it");
        findings.push(Finding::ok(SECTION, format!("{line} {role}"), found));
    }
    findings
}

/// All checks that a package passes before it serves, golden cases last.
fn open(folder: &Path, line: &LineName, release: &ReleaseRef) -> Result<String, OpenError> {
    let files = PackageFiles::open_on(Arc::new(RealDisk), folder.to_owned(), None);
    let files = files
        .map_err(|source| OpenError::File(crate::packages::FileError::Disk { path: folder.to_owned(), source }))?;
    let package = ActivePackage::open(&files, line, release)?;
    let cases = count(package.package.golden.len() as u64, "golden case", "golden cases");
    Ok(format!("{}, {cases} hold on {}", bytes(release.length), package.engine.name()))
}

fn judge(
    name: &str,
    what: &str,
    title: &str,
    opened: Result<String, OpenError>,
    folder: &Path,
    release: &ReleaseRef,
    at: &str,
) -> Finding {
    let error = match opened {
        Ok(words) => return Finding::ok(SECTION, name, format!("{title}: {words}")),
        Err(error) => error,
    };
    let found = format!("{title}: {}", in_words(&error));
    let finding =
        if what == "committed" { Finding::fail(SECTION, name, found) } else { Finding::warn(SECTION, name, found) };
    let path = folder.join(format!("{}.tpk", release.sha256));
    match &error {
        OpenError::File(problem) if problem.is_damage() => finding
            .mended_by(Mend::set_aside(&path, at))
            .advise("the agent fetches it again by itself; until then the previous one or the fallback answers"),
        OpenError::File(_) if !path.exists() => {
            finding.advise("the agent fetches it again by itself; until then the previous one or the fallback answers")
        }
        OpenError::File(_) => finding.advise("the disk refuses it: look at dmesg and at the folder's owner"),
        OpenError::Agent { .. } => finding.advise("update the agent"),
        _ => finding.advise(
            "it was whole when it was installed: did the agent or the machine change? Roll out another version",
        ),
    }
}

/// Names are hashes, so every file can be held against its own.
fn by_hash(subject: &Subject, folder: &Path, checked: &[Sha256]) -> Vec<Finding> {
    let names = match RealDisk.list(folder) {
        Ok(names) => names,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return vec![Finding::ok(SECTION, "files", "none yet")];
        }
        Err(error) => return vec![Finding::fail(SECTION, "files", format!("{}: {error}", folder.display()))],
    };
    let (mut findings, mut number, mut total) = (Vec::new(), 0, 0);
    for name in names {
        let path = folder.join(&name);
        total += RealDisk.length(&path).unwrap_or(0);
        let Some(sha256) = name.strip_suffix(".tpk").and_then(|hash| hash.parse::<Sha256>().ok()) else { continue };
        number += 1;
        if checked.contains(&sha256) {
            continue;
        }
        match sha256_file(&path) {
            Ok((_, found)) if found == sha256 => {}
            Ok(_) => findings.push(
                Finding::warn(SECTION, "files", format!("{name} is damaged: its content does not have its hash"))
                    .mended_by(Mend::set_aside(&path, &subject.at())),
            ),
            // A running agent clears away what nobody needs.
            Err(_) if !path.exists() => {}
            Err(error) => findings.push(Finding::fail(SECTION, "files", format!("{name} cannot be read: {error}"))),
        }
    }
    let budget = subject.config.state.packages.map_or(String::new(), |budget| format!(" of {}", bytes(budget.0)));
    let words = format!("{}, {}{budget} in all", count(number, "package", "packages"), bytes(total));
    if findings.is_empty() {
        findings.push(Finding::ok(SECTION, "files", format!("{words}; every one has its hash")));
    }
    findings
}

fn unreferenced(folder: &Path, records: &[(Of, Record)]) -> Option<Finding> {
    let kept: Vec<Sha256> = records.iter().flat_map(|(_, record)| record.references()).collect();
    let names = RealDisk.list(folder).ok()?;
    let idle = names.iter().filter(|name| {
        name.strip_suffix(".tpk").and_then(|hash| hash.parse().ok()).is_some_and(|sha256| !kept.contains(&sha256))
    });
    let number = idle.count() as u64;
    let found = format!("{} no longer needed; cleared away at the next start", count(number, "file is", "files are"));
    (number > 0).then(|| Finding::ok(SECTION, "left over", found))
}
