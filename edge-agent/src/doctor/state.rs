//! The state file, and what was set aside of it.

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use tributary_process::checkup::host::{self, Locked};
use tributary_process::checkup::{ASIDE, Finding, Mend, aside, bytes, count, rename_new};

use super::Subject;
use super::outbox::Outbox;
use super::running::Running;
use crate::state::{Contents, Damage, Store, inspect};
use crate::words::in_words;

const SECTION: &str = "State";
const FILE: &str = "state.redb";

/// The state, opened over changes that nobody keeps, and what is to be said about it.
pub(super) struct Opened {
    pub(super) findings: Vec<Finding>,
    pub(super) store: Option<Arc<Store>>,
}

pub(super) fn check(subject: &Subject, running: &Running) -> Opened {
    let path = subject.path(FILE);
    let mut findings = Vec::new();
    let mut store = None;
    match running {
        Running::Somebody { status: Ok(status), .. } => {
            findings.push(running_file(status));
            findings.extend(Outbox::of_agent(status, &subject.config).judge());
        }
        Running::Somebody { .. } | Running::Unknown(_) => {
            findings.push(Finding::skipped(SECTION, FILE, running.in_the_way().unwrap_or_default()));
        }
        Running::Nobody { .. } if !path.exists() => findings.push(absent(subject)),
        Running::Nobody { .. } => match inspect(&path) {
            Ok((opened, contents)) => {
                let size = host::standing(&path).map_or(0, |standing| standing.bytes);
                findings.push(whole_file(&contents, size));
                findings.extend(Outbox::of_file(&opened, &contents, &subject.config, subject.now).judge());
                store = Some(Arc::new(opened));
            }
            Err(damage) => findings.push(broken(&path, &damage, &subject.at())),
        },
    }
    findings.extend(set_aside_before(&subject.config.state_dir));
    Opened { findings, store }
}

fn absent(subject: &Subject) -> Finding {
    let known = subject.path("identity").exists() || subject.path("packages").exists();
    if known {
        let found = format!("{FILE} is not there; the agent begins a new life of its state at its next start");
        Finding::warn(SECTION, FILE, found)
            .advise("if nobody set it aside or removed it, find out where it went before you start the agent")
    } else {
        Finding::ok(SECTION, FILE, "not there yet: the agent makes it at its first start")
    }
}

/// What a person has to know before the file is given up.
fn broken(path: &Path, damage: &Damage, at: &str) -> Finding {
    let size = host::standing(path).map_or(0, |standing| standing.bytes);
    let found = format!("{}: {}", bytes(size), in_words(damage.error.cause()));
    if !damage.error.is_broken() {
        return Finding::fail(SECTION, FILE, found)
            .advise("the disk or its permissions refuse it: look at dmesg and at the folder's owner");
    }
    let lost = match &damage.contents {
        Some(contents) => format!(
            "{} waited for the hub in {} and {} were in no batch yet",
            count(contents.records, "record", "records"),
            count(contents.batches, "batch", "batches"),
            count(contents.unbatched, "event", "events"),
        ),
        None => "how many records waited for the hub can no longer be counted".to_owned(),
    };
    let advice = format!(
        "the agent refuses to start with it, and empties nothing. Set aside, it begins a new life of its state: packages \
         are fetched again, and what had not reached the hub stays in the set-aside file ({lost}). Look for what broke it: \
         dmesg, the disk's own health"
    );
    Finding::fail(SECTION, FILE, found).advise(advice).mended_by(give_up(path, at))
}

/// Renames the file under its lock alone, so that no agent has it open.
fn give_up(path: &Path, at: &str) -> Mend {
    let (path, to) = (path.to_owned(), aside(path, at));
    let name = to.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Mend::new(format!("rename {} to {name}; every byte is kept", path.display()), move || {
        match host::take_lock(&path).map_err(|error| error.to_string())? {
            Locked::Held(holder) => Err(format!("{holder} has it open")),
            Locked::Free(_lock) => {
                rename_new(&path, &to).map_err(|error| error.to_string())?;
                Ok(format!("kept as {}; the next start begins a new life of the state", to.display()))
            }
        }
    })
}

fn whole_file(contents: &Contents, size: u64) -> Finding {
    let found = format!(
        "{}, whole; life {}, {} accepted, {} kept for windows",
        bytes(size),
        contents.incarnation,
        count(contents.accepted, "event", "events"),
        contents.kept
    );
    Finding::ok(SECTION, FILE, found)
}

fn running_file(status: &Value) -> Finding {
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    let found = format!(
        "open in the running agent; life {}, {} accepted",
        number(&status["incarnation"]),
        count(number(&status["events"]["accepted"]), "event", "events"),
    );
    Finding::ok(SECTION, FILE, found)
}

/// Files that a doctor set aside: their bytes are still of use to somebody, or only take room.
fn set_aside_before(folder: &Path) -> Option<Finding> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.contains(ASIDE))
        .collect();
    names.sort();
    if names.is_empty() {
        return None;
    }
    let found = format!("{} set aside earlier", count(names.len() as u64, "item was", "items were"));
    let finding = Finding::warn(SECTION, "set aside", found).with_details(names);
    Some(finding.advise("keep them until nobody needs what is in them, then remove them"))
}
