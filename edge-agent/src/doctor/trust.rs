//! What this device believes: the root, the chain of metadata that it has seen, and who may tell it what to run.

use std::sync::Arc;

use edge_agent_core::lines::{Remembered, open_remembered};
use edge_agent_core::updater::Record;
use serde_json::Value;
use tributary_process::checkup::{Finding, span};
use tributary_process::clock::SystemClock;
use tributary_release::chain::{Fetched, Source, check_root};
use tributary_wire::Micros;

use super::Subject;
use super::running::Running;
use crate::state::{Store, StoreError};
use crate::trust::{StoredFiles, Trust};
use crate::update::stored;
use crate::words::in_words;

const SECTION: &str = "Trust";

/// Nobody is asked: what is stored has to speak for itself.
struct Nobody;

impl Source for Nobody {
    fn metadata<'a>(&'a self, _name: &'a str, _max: u64) -> Fetched<'a> {
        Box::pin(async { Err("the doctor asks nobody".into()) })
    }

    fn target<'a>(&'a self, _path: &'a str, _max: u64) -> Fetched<'a> {
        Box::pin(async { Err("the doctor asks nobody".into()) })
    }
}

pub(super) async fn check(subject: &Subject, running: &Running, store: Option<Arc<Store>>) -> Vec<Finding> {
    let (root, mut findings) = root(subject);
    let Some(root) = root else { return findings };
    if let Some(status) = running.status() {
        findings.push(judge_running(&status["hub"]));
        if let Some(problem) = status["hub"]["problem"].as_str() {
            findings.push(Finding::warn(SECTION, "assignment", problem));
        }
        return findings;
    }
    let Some(store) = store else {
        let why = running.in_the_way().unwrap_or("the state cannot be read");
        findings.push(Finding::skipped(SECTION, "metadata", why));
        return findings;
    };
    let remembered = stored::remembered(&store);
    // Those that cannot be read are told where packages are.
    let records: Vec<Record> =
        stored::records(&store).unwrap_or_default().into_iter().map(|(_, record)| record).collect();
    let files = Arc::new(StoredFiles::new(store));
    let clock = Arc::new(SystemClock::start());
    match Trust::open(Some(&root), Arc::new(Nobody), files, subject.time.clone(), clock).await {
        Ok(trust) => {
            findings.extend(judge(&trust, subject.time.now()));
            findings.push(assignment(&trust, remembered, &records));
        }
        Err(error) => findings.push(
            Finding::fail(SECTION, "metadata", in_words(&error))
                .advise("the agent does not start with it: enrol again, or correct `trust.root`"),
        ),
    }
    findings
}

/// The root that everything follows from.
fn root(subject: &Subject) -> (Option<Vec<u8>>, Vec<Finding>) {
    let given = subject.config.trust.root.as_deref();
    let enrolled = || {
        let current = subject.identity.as_ref().ok()?.as_ref()?.current();
        current.root.clone().map(String::into_bytes)
    };
    let from = given.map_or("enrolment".to_owned(), |path| path.display().to_string());
    let bytes = match given.map(std::fs::read) {
        Some(Ok(bytes)) => Some(bytes),
        Some(Err(error)) => {
            let finding = Finding::fail(SECTION, "root", format!("{from}: {error}"));
            return (
                None,
                vec![finding.advise("put the file of `trust.root` there: the agent does not start without it")],
            );
        }
        None => enrolled(),
    };
    let Some(bytes) = bytes else {
        let found = "no root of trust: no package is ever installed";
        let enrolled = matches!(subject.identity, Ok(Some(_)));
        let advice = match enrolled {
            true => {
                "the hub had no signed repository when this device enrolled: make one there (cloud-hub keys init), then: edge-agent enroll --again"
            }
            false => "enrol the device, or set `trust.root`",
        };
        return (None, vec![Finding::warn(SECTION, "root", found).advise(advice)]);
    };
    match check_root(&bytes) {
        Ok(version) => (
            Some(bytes),
            vec![Finding::ok(SECTION, "root", format!("version {version}, signed by its own keys, from {from}"))],
        ),
        Err(error) => {
            let finding = Finding::fail(SECTION, "root", format!("{from}: {}", in_words(&error)));
            (None, vec![finding.advise("the agent does not start with it: enrol again, or correct `trust.root`")])
        }
    }
}

fn judge(trust: &Trust, now: Micros) -> Vec<Finding> {
    let mut findings = Vec::new();
    let keys = trust.assignment_keys().ids().len() as u64;
    match (trust.versions(), trust.expires()) {
        (Some(versions), Some(expires)) => {
            let found = format!(
                "root {}, targets {}, snapshot {}, timestamp {}",
                versions.root, versions.targets, versions.snapshot, versions.timestamp
            );
            let left = expires.since(now);
            findings.push(if left <= 0 {
                Finding::warn(
                    SECTION,
                    "metadata",
                    format!("{found}; expired {} ago: no installation begins", span(left)),
                )
                .advise("what runs goes on; the hub brings newer metadata as soon as it is reached")
            } else {
                Finding::ok(SECTION, "metadata", format!("{found}; good for {}", span(left)))
            });
        }
        _ if keys > 0 => findings.push(
            Finding::warn(SECTION, "metadata", "what is stored has expired: no installation begins")
                .advise("what runs goes on; the hub brings newer metadata as soon as it is reached"),
        ),
        _ => findings.push(Finding::ok(SECTION, "metadata", "none yet: the hub was not reached since enrolment")),
    }
    let words = tributary_process::checkup::count(keys, "key", "keys");
    findings.push(match (keys, trust.versions()) {
        (0, Some(_)) if trust.awaits_keys() => {
            let found = "the repository announces others than were held, and their file has not come: no assignment is believed";
            Finding::warn(SECTION, "assignment keys", found)
                .advise("the agent asks for the file again; if it never comes: is it in the hub's repository?")
        }
        (0, Some(_)) => {
            Finding::warn(SECTION, "assignment keys", "the repository announces none: no assignment is believed")
                .advise("at the hub: cloud-hub keys status")
        }
        (0, None) => Finding::ok(SECTION, "assignment keys", "none yet"),
        _ => Finding::ok(SECTION, "assignment keys", format!("{words} may tell this device what to run")),
    });
    findings
}

/// The newest assignment that was accepted: without it nobody knows flags, shares and sampling.
fn assignment(trust: &Trust, remembered: Result<Remembered, StoreError>, records: &[Record]) -> Finding {
    let name = "assignment";
    let remembered = match remembered {
        Ok(remembered) => remembered,
        Err(error) => return Finding::fail(SECTION, name, in_words(&error)),
    };
    match open_remembered(&trust.believed().keys, &remembered, records.iter()) {
        Ok(None) => Finding::ok(SECTION, name, "none yet"),
        Ok(Some((assignment, signer))) => {
            let generation = assignment.desired().generation;
            Finding::ok(SECTION, name, format!("generation {generation}, signed by the trusted key {signer}"))
        }
        Err(error) => Finding::warn(SECTION, name, format!("what is stored counts no more: {}", in_words(&error)))
            .advise("nothing to do: packages go on, and the agent asks the hub for it when it connects"),
    }
}

fn judge_running(hub: &Value) -> Finding {
    if let Some(problem) = hub["repository_problem"].as_str() {
        return Finding::warn(SECTION, "metadata", problem);
    }
    let version = |name: &str| hub["repository"][name].as_u64();
    match (version("root"), version("snapshot"), version("timestamp")) {
        (Some(root), Some(snapshot), Some(timestamp)) => Finding::ok(
            SECTION,
            "metadata",
            format!("the running agent has root {root}, snapshot {snapshot}, timestamp {timestamp}"),
        ),
        _ => Finding::ok(SECTION, "metadata", "none yet: the hub was not reached since enrolment"),
    }
}
