//! The window snapshot: a cache, so nothing about it is ever lost.

use tributary_features::View;
use tributary_process::checkup::{Finding, Mend, count};

use super::Subject;
use super::running::Running;
use crate::state::Store;
use crate::windows::{Seen, inspect};

const SECTION: &str = "State";
const NAME: &str = "window snapshot";
/// Where the copy that is opened lies, below the system's folder for temporary files.
const SCRATCH: &str = "edge-agent-doctor";

pub(super) fn check(subject: &Subject, running: &Running, store: Option<&Store>) -> Vec<Finding> {
    if let Some(status) = running.status() {
        let windows = &status["windows"];
        let problem = windows["recovery"]["problem"].as_str();
        let held = format!(
            "{} in {} held",
            count(windows["events"].as_u64().unwrap_or(0), "event", "events"),
            count(windows["entities"].as_u64().unwrap_or(0), "entity", "entities")
        );
        return vec![match problem {
            None => Finding::ok(SECTION, NAME, format!("open in the running agent; {held}")),
            Some(problem) => Finding::ok(SECTION, NAME, format!("made anew at the last start ({problem}); {held}")),
        }];
    }
    if let Some(why) = running.in_the_way() {
        return vec![Finding::skipped(SECTION, NAME, why)];
    }
    let folder = subject.path("windows");
    let scratch = std::env::temp_dir().join(format!("{SCRATCH}-{}", std::process::id()));
    let loaded = store.and_then(|store| Some((store.incarnation(), store.load().ok()?)));
    let view = subject.config.view.as_ref().and_then(|path| View::from_toml(&std::fs::read_to_string(path).ok()?).ok());
    // The view of a package in place is stronger than that of the settings, which is then no reason to call it foreign.
    let packaged = store.is_some_and(|store| {
        crate::update::stored::records(store)
            .is_ok_and(|records| records.iter().any(|(_, record)| record.committed.is_some()))
    });
    let view = view.filter(|_| !packaged);
    let seen = inspect(&folder, &scratch, view.as_ref(), loaded.as_ref().map(|(life, loaded)| (*life, loaded)));
    let removed = std::fs::remove_dir_all(&scratch);
    drop(removed);
    let kept = loaded.map_or(0, |(_, loaded)| loaded.first_kept.map_or(0, |first| loaded.next.saturating_sub(first)));
    let again = format!("the agent makes it anew from {} it keeps", count(kept, "event", "events"));
    vec![match seen {
        Ok(Seen::None) => Finding::ok(SECTION, NAME, "none yet"),
        Ok(Seen::Whole { number, entries }) => {
            Finding::ok(SECTION, NAME, format!("whole: {} up to event {number}", count(entries, "window", "windows")))
        }
        Ok(Seen::Foreign(why)) => Finding::ok(SECTION, NAME, format!("{why}: {again}")),
        Ok(Seen::Broken(why)) => Finding::warn(SECTION, NAME, format!("broken: {why}"))
            .mended_by(Mend::set_aside(&folder, &subject.at()))
            .advise(format!("nothing is lost: {again}, with --repair or without")),
        Ok(Seen::Unseen(why)) => Finding::skipped(SECTION, NAME, format!("{why}; the agent checks it at its start")),
        Err(error) => Finding::skipped(SECTION, NAME, format!("could not be copied to be looked at: {error}")),
    }]
}
