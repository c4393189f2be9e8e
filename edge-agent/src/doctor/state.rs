//! The state file and the outbox in it.

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use tributary_process::checkup::host::{self, Locked};
use tributary_process::checkup::{ASIDE, Finding, Mend, aside, bytes, count, rename_new, span};
use tributary_wire::Micros;

use super::Subject;
use super::running::Running;
use crate::state::{Contents, Damage, Store, inspect};
use crate::words::in_words;

const SECTION: &str = "State";
const FILE: &str = "state.redb";
/// From this share of its budget on the outbox is nearly full.
const NEARLY: u64 = 80;
/// Records that wait for longer than this wait for something that is wrong.
const LONG: i64 = Micros::DAY;

/// The state, opened over changes that nobody keeps, and what is to be said about it.
pub(super) struct Opened {
    pub(super) findings: Vec<Finding>,
    pub(super) store: Option<Arc<Store>>,
}

pub(super) fn check(subject: &Subject, running: &Running) -> Opened {
    let path = subject.path(FILE);
    let budget = subject.config.outbox.budget.0;
    let mut findings = Vec::new();
    let mut store = None;
    match running {
        Running::Somebody { status: Ok(status), .. } => findings.extend(judge_running(status, budget)),
        Running::Somebody { .. } | Running::Unknown(_) => {
            findings.push(Finding::skipped(SECTION, FILE, running.in_the_way().unwrap_or_default()));
        }
        Running::Nobody { .. } if !path.exists() => findings.push(absent(subject)),
        Running::Nobody { .. } => match inspect(&path) {
            Ok((opened, contents)) => {
                let size = host::standing(&path).map_or(0, |standing| standing.bytes);
                findings.extend(judge(&contents, size, budget, subject.now));
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

fn judge(contents: &Contents, size: u64, budget: u64, now: Micros) -> Vec<Finding> {
    let found = format!(
        "{}, whole; life {}, {} accepted, {} kept for windows",
        bytes(size),
        contents.incarnation,
        count(contents.accepted, "event", "events"),
        contents.kept
    );
    let waits = contents.oldest.map(|oldest| now.since(oldest));
    let mut findings = vec![Finding::ok(SECTION, FILE, found)];
    findings.extend(judge_outbox(
        contents.batches,
        contents.bytes,
        Some(contents.records),
        waits,
        contents.dropped,
        budget,
    ));
    findings
}

fn judge_running(status: &Value, budget: u64) -> Vec<Finding> {
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    let found = format!(
        "open in the running agent; life {}, {} accepted",
        number(&status["incarnation"]),
        count(number(&status["events"]["accepted"]), "event", "events"),
    );
    let outbox = &status["outbox"];
    let mut findings = vec![Finding::ok(SECTION, FILE, found)];
    let (batches, size, dropped) =
        (number(&outbox["batches"]), number(&outbox["bytes"]), number(&outbox["dropped_records"]));
    findings.extend(judge_outbox(batches, size, None, None, dropped, budget));
    findings
}

fn judge_outbox(
    batches: u64,
    size: u64,
    records: Option<u64>,
    waits: Option<i64>,
    dropped: u64,
    budget: u64,
) -> Vec<Finding> {
    let share = (size * 100).checked_div(budget).unwrap_or(100);
    let records = records.map_or(String::new(), |records| format!(" with {}", count(records, "record", "records")));
    let mut found = format!(
        "{}{records} wait, {} of {} ({share} %)",
        count(batches, "batch", "batches"),
        bytes(size),
        bytes(budget)
    );
    if let Some(waits) = waits.filter(|_| batches > 0) {
        found += &format!("; the oldest for {}", span(waits));
    }
    let outbox = if share >= NEARLY {
        Finding::fail(SECTION, "outbox", found).advise(
            "the oldest records are given up when it is full: bring the device to its hub, or raise `outbox.budget`",
        )
    } else if waits.is_some_and(|waits| waits > LONG) {
        Finding::warn(SECTION, "outbox", found).advise("the hub takes nothing: see the section Hub")
    } else {
        Finding::ok(SECTION, "outbox", found)
    };
    let mut findings = vec![outbox];
    if dropped > 0 {
        let found = format!(
            "{} given up for want of room in this life; the hub is told as gaps",
            count(dropped, "record", "records")
        );
        findings.push(
            Finding::warn(SECTION, "dropped", found).advise("raise `outbox.budget`, or find out why the hub was away"),
        );
    }
    findings
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

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tributary_process::checkup::Mark;
    use tributary_wire::Incarnation;

    use super::*;

    const CONTENTS: Contents = Contents {
        incarnation: Incarnation(7),
        accepted: 100,
        kept: 50,
        batches: 2,
        records: 90,
        bytes: 1 << 20,
        oldest: Some(Micros(0)),
        unbatched: 3,
        dropped: 0,
    };

    #[test]
    fn an_outbox_that_fills_waits_or_loses_is_told() {
        let marks = |contents: Contents, now| {
            judge(&contents, 1 << 20, 10 << 20, Micros(now)).iter().map(Finding::mark).collect::<Vec<_>>()
        };
        assert_eq!(marks(CONTENTS, 1), [Mark::Ok, Mark::Ok]);
        assert_eq!(marks(CONTENTS, 2 * LONG), [Mark::Ok, Mark::Warn]);
        assert_eq!(marks(Contents { bytes: 9 << 20, ..CONTENTS }, 1), [Mark::Ok, Mark::Fail]);
        assert_eq!(marks(Contents { dropped: 5, ..CONTENTS }, 1), [Mark::Ok, Mark::Ok, Mark::Warn]);
        let found = judge(&CONTENTS, 1 << 20, 10 << 20, Micros(3_600_000_000 * 3));
        assert_eq!(found[1].found(), "2 batches with 90 records wait, 1.0 MiB of 10.0 MiB (10 %); the oldest for 3 h");
        let running = json!({"incarnation": 7, "events": {"accepted": 1}, "outbox": {"batches": 1, "bytes": 10, "dropped_records": 2}});
        assert_eq!(
            judge_running(&running, 1000).iter().map(Finding::mark).collect::<Vec<_>>(),
            [Mark::Ok, Mark::Ok, Mark::Warn]
        );
    }
}
