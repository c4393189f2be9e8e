//! The log as JSON lines: one entry a line, to be kept elsewhere and verified again.
//!
//! Before and after stand in it as the JSON that they are. The hash covers their exact text, so they are written and
//! read without being interpreted.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tributary_wire::{Micros, Sha256};

use super::entry::{Draft, Entry};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    number: u64,
    time: i64,
    who: String,
    role: String,
    action: String,
    subject: String,
    from: Box<RawValue>,
    to: Box<RawValue>,
    origin: String,
    previous: Sha256,
    hash: Sha256,
}

/// One line, with its end.
pub fn write(entry: &Entry) -> String {
    let Draft { time, who, role, action, subject, from, to, origin } = entry.draft.clone();
    let line = Line {
        number: entry.number,
        time: time.0,
        who,
        role,
        action,
        subject,
        from: raw(from),
        to: raw(to),
        origin,
        previous: entry.previous,
        hash: entry.hash,
    };
    let mut line = serde_json::to_string(&line).unwrap_or_default();
    line.push('\n');
    line
}

/// A text that somebody changed may not be JSON any more; as a string it still shows, and its hash still does not fit.
fn raw(text: String) -> Box<RawValue> {
    let one_line = !text.contains(['\n', '\r']);
    let kept = one_line.then(|| RawValue::from_string(text.clone()).ok()).flatten();
    kept.or_else(|| serde_json::value::to_raw_value(&text).ok()).unwrap_or_default()
}

/// Reads one line.
pub fn read(line: &str) -> Result<Entry, serde_json::Error> {
    let line: Line = serde_json::from_str(line)?;
    Ok(Entry {
        number: line.number,
        draft: Draft {
            time: Micros(line.time),
            who: line.who,
            role: line.role,
            action: line.action,
            subject: line.subject,
            from: line.from.get().to_owned(),
            to: line.to.get().to_owned(),
            origin: line.origin,
        },
        previous: line.previous,
        hash: line.hash,
    })
}
