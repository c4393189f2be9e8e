//! Labels as callers send them: JSON (one or many) and CSV. A wrong row is named; the others go on.

use serde::Deserialize;
use serde_json::Value;
use tributary_wire::{EventId, Micros};

use crate::api::{FieldError, Instant};

/// The truth about one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// Which event.
    pub event_id: EventId,
    /// The truth.
    pub label: bool,
    /// When the event happened, if the caller knows.
    pub event_time: Option<Micros>,
    /// When the truth became known.
    pub known_at: Micros,
}

/// What could be read, and what not.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Read {
    /// The labels, in the order of the rows.
    pub labels: Vec<Label>,
    /// The rows that were wrong.
    pub errors: Vec<FieldError>,
}

/// The body as a whole is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Not JSON, or neither an object nor a list.
    #[error("the body is not JSON with a label or a list of labels: {0}")]
    Json(String),
    /// The first line does not name the columns.
    #[error("the first line of the CSV must name the columns: {0}")]
    Header(String),
    /// Nothing in it.
    #[error("there is not one label in the body")]
    Empty,
}

/// How far ahead a label may become known. Replayed histories may lie ahead of the wall clock; what lies further ahead
/// is a mistaken unit.
const AHEAD_MICROS: i64 = 10 * 366 * Micros::DAY;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    event_id: EventId,
    label: bool,
    #[serde(default)]
    event_time: Option<Instant>,
    #[serde(default)]
    known_at: Option<Instant>,
}

impl Row {
    fn label(self, now: Micros) -> Result<Label, String> {
        let known_at = self.known_at.map_or(now, |at| at.0);
        let event_time = self.event_time.map(|at| at.0);
        if known_at.since(now) > AHEAD_MICROS {
            return Err(format!("known_at {known_at} lies more than ten years ahead; now is {now}"));
        }
        if let Some(time) = event_time.filter(|time| *time > known_at) {
            return Err(format!(
                "event_time {time} lies after known_at {known_at}: nothing is known before it happens"
            ));
        }
        Ok(Label { event_id: self.event_id, label: self.label, event_time, known_at })
    }
}

/// Reads one label or a list of them.
pub fn from_json(body: &[u8], now: Micros) -> Result<Read, Unreadable> {
    let value: Value = serde_json::from_slice(body).map_err(|error| Unreadable::Json(error.to_string()))?;
    let rows = match value {
        Value::Array(rows) => rows,
        row @ Value::Object(_) => vec![row],
        other => return Err(Unreadable::Json(format!("found {}", kind(&other)))),
    };
    let mut read = Read::default();
    for (index, row) in rows.into_iter().enumerate() {
        let row = Row::deserialize(row).map_err(|error| error.to_string());
        read.take(format!("rows[{index}]"), row.and_then(|row| row.label(now)));
    }
    read.not_empty()
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Reads CSV with the columns `event_id`, `label` (true, false, 1, 0) and, where wanted, `event_time` and `known_at`.
pub fn from_csv(body: &[u8], now: Micros) -> Result<Read, Unreadable> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(body);
    let header = reader.headers().map_err(|error| Unreadable::Header(error.to_string()))?.clone();
    const KNOWN: [&str; 4] = ["event_id", "label", "event_time", "known_at"];
    if let Some(unknown) = header.iter().find(|name| !KNOWN.contains(name)) {
        return Err(Unreadable::Header(format!("unknown column {unknown:?}; known are {}", KNOWN.join(", "))));
    }
    let place = |name: &str| header.iter().position(|column| column == name);
    let missing = |name: &str| Unreadable::Header(format!("column {name:?} is missing"));
    let (id, label) =
        (place("event_id").ok_or_else(|| missing("event_id"))?, place("label").ok_or_else(|| missing("label"))?);
    let (event_time, known_at) = (place("event_time"), place("known_at"));
    let mut read = Read::default();
    for (index, record) in reader.records().enumerate() {
        let line = record.as_ref().ok().and_then(csv::StringRecord::position).map(csv::Position::line);
        // Lines are counted as an editor counts them: the header is line 1.
        let at = format!("line {}", line.unwrap_or(index as u64 + 2));
        let row = record.map_err(|error| error.to_string()).and_then(|record| {
            let text = |place: Option<usize>| place.and_then(|place| record.get(place)).filter(|text| !text.is_empty());
            let time = |name: &str, place| {
                text(place).map(|text| text.parse::<Instant>().map_err(|error| format!("{name}: {error}"))).transpose()
            };
            Row {
                event_id: EventId::new(text(Some(id)).unwrap_or_default()).map_err(|error| error.to_string())?,
                label: match text(Some(label)).unwrap_or_default() {
                    "true" | "1" => true,
                    "false" | "0" => false,
                    found => return Err(format!("label {found:?} is not true, false, 1 or 0")),
                },
                event_time: time("event_time", event_time)?,
                known_at: time("known_at", known_at)?,
            }
            .label(now)
        });
        read.take(at, row);
    }
    read.not_empty()
}

impl Read {
    fn take(&mut self, at: String, row: Result<Label, String>) {
        match row {
            Ok(label) => self.labels.push(label),
            Err(detail) => self.errors.push(FieldError { at, detail }),
        }
    }

    fn not_empty(self) -> Result<Self, Unreadable> {
        if self.labels.is_empty() && self.errors.is_empty() { Err(Unreadable::Empty) } else { Ok(self) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Micros = Micros(1_000_000_000_000_000);

    #[test]
    fn one_label_and_many_are_read_and_wrong_rows_are_named() {
        let one = from_json(br#"{"event_id": "t1", "label": true}"#, NOW).unwrap();
        assert_eq!(one.labels[0].known_at, NOW);
        let many = br#"[{"event_id": "t1", "label": true, "event_time": 5, "known_at": "2001-01-01T00:00:00Z"},
            {"event_id": "t2", "label": "yes"}, {"event_id": "", "label": true}, {"event_id": "t3", "label": false, "x": 1},
            {"event_id": "t4"}, {"event_id": "t5", "label": true, "known_at": 2000000000000000000},
            {"event_id": "t6", "label": true, "event_time": 999999999999999999}]"#;
        let many = from_json(many, NOW).unwrap();
        assert_eq!(many.labels.len(), 1);
        assert_eq!(many.labels[0].known_at, Micros(978_307_200_000_000));
        let expected = [
            "invalid type: string",
            "is not 1 to 64 bytes",
            "unknown field `x`",
            "missing field `label`",
            "ten years ahead",
            "after known_at",
        ];
        for (error, expected) in many.errors.iter().zip(expected) {
            assert!(error.detail.contains(expected), "{}: {}", error.at, error.detail);
        }
        assert_eq!(many.errors[0].at, "rows[1]");
    }

    #[test]
    fn a_body_that_is_no_list_of_labels_is_refused_as_a_whole() {
        assert!(from_json(b"[1", NOW).unwrap_err().to_string().contains("not JSON"));
        assert!(from_json(b"7", NOW).unwrap_err().to_string().contains("found a number"));
        assert_eq!(from_json(b"[]", NOW), Err(Unreadable::Empty));
        assert_eq!(from_csv(b"event_id,label\n", NOW), Err(Unreadable::Empty));
        assert!(from_csv(b"id,label\nt1,1\n", NOW).unwrap_err().to_string().contains("unknown column \"id\""));
        assert!(from_csv(b"event_id\nt1\n", NOW).unwrap_err().to_string().contains("\"label\" is missing"));
    }

    #[test]
    fn csv_rows_are_read_and_wrong_ones_are_named_by_their_line() {
        let csv = b"event_id,label,event_time,known_at\nt1,1,2001-01-01T00:00:00Z,978393600000000\nt2,maybe,,\nt3,false,,\nt4,true,never,\nt5,1\n";
        let read = from_csv(csv, NOW).unwrap();
        assert_eq!(read.labels.iter().map(|label| label.event_id.as_str()).collect::<Vec<_>>(), ["t1", "t3"]);
        assert_eq!(read.labels[0].event_time, Some(Micros(978_307_200_000_000)));
        let places: Vec<&str> = read.errors.iter().map(|error| error.at.as_str()).collect();
        assert_eq!(places, ["line 3", "line 5", "line 6"]);
        assert!(read.errors[0].detail.contains("\"maybe\" is not true"));
        assert!(read.errors[1].detail.contains("event_time"));
    }
}
