//! CSV and JSON lines.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;

use serde_json::Value as Json;
use tributary_features::{EntityKey, EntityKind, Event, Value, ValueKind, View};
use tributary_wire::EventId;

use super::ReplayConfig;
use super::reader::{ReplayError, Rows, column};
use crate::sources::event_json;

/// The longest line that is read; a longer one is no event.
const MAX_LINE: u64 = 1 << 20;

fn open(file: &PathBuf) -> Result<File, ReplayError> {
    File::open(file).map_err(|source| ReplayError::Io { file: file.clone(), source })
}

/// A column that the view knows.
struct Wanted<K> {
    at: Option<usize>,
    name: String,
    kind: K,
}

pub(super) struct CsvRows {
    file: PathBuf,
    row: u64,
    rows: csv::StringRecordsIntoIter<File>,
    id: usize,
    time: usize,
    entities: Vec<Wanted<EntityKind>>,
    values: Vec<Wanted<ValueKind>>,
}

impl CsvRows {
    pub(super) fn open(config: &ReplayConfig, view: &View, begin: u64) -> Result<Self, ReplayError> {
        let path = &config.file;
        let unreadable = |error: csv::Error| ReplayError::Unreadable { file: path.clone(), problem: error.to_string() };
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(open(path)?);
        let names: Vec<String> = reader.headers().map_err(unreadable)?.iter().map(str::to_owned).collect();
        let (id, time) = (column(path, &names, &config.id)?, column(path, &names, &config.time_column)?);
        let mut entities = Vec::new();
        for entity in view.entities() {
            let at = Some(column(path, &names, &entity.name)?);
            entities.push(Wanted { at, name: entity.name.clone(), kind: entity.kind });
        }
        let mut values = Vec::new();
        for value in view.values() {
            let at = names.iter().position(|name| *name == value.name);
            if at.is_none() && value.required {
                column(path, &names, &value.name)?;
            }
            values.push(Wanted { at, name: value.name.clone(), kind: value.kind });
        }
        let mut rows = reader.into_records();
        // A row with an error counts as a row, here as in the first reading.
        let skipped = rows.by_ref().take(begin as usize).count();
        if (skipped as u64) < begin {
            let problem = format!("it has only {skipped} rows, {begin} were read before");
            return Err(ReplayError::Unreadable { file: path.clone(), problem });
        }
        Ok(Self { file: path.clone(), row: begin, rows, id, time, entities, values })
    }

    fn event(&self, row: &csv::StringRecord) -> Result<Event, String> {
        let cell = |at: usize| row.get(at).unwrap_or_default();
        let id = EventId::new(cell(self.id)).map_err(|error| error.to_string())?;
        let time = cell(self.time);
        let time = match time.parse::<i64>() {
            Ok(micros) => tributary_wire::Micros(micros),
            Err(_) => event_json::parse_time(time).map_err(|error| error.to_string())?,
        };
        let mut entities = Vec::with_capacity(self.entities.len());
        for wanted in &self.entities {
            let text = wanted.at.map_or("", cell);
            let key = match wanted.kind {
                EntityKind::Int => EntityKey::Int(parse(&wanted.name, text, "a whole number")?),
                EntityKind::Text if text.is_empty() => return Err(format!("`{}` is missing", wanted.name)),
                EntityKind::Text => EntityKey::Text(text.to_owned()),
            };
            entities.push((wanted.name.clone(), key));
        }
        let mut values = Vec::with_capacity(self.values.len());
        for wanted in &self.values {
            let text = wanted.at.map_or("", cell);
            if text.is_empty() {
                continue;
            }
            let value = match wanted.kind {
                ValueKind::Bool => Value::Bool(match text {
                    "true" | "True" | "1" => true,
                    "false" | "False" | "0" => false,
                    _ => return Err(wrong(&wanted.name, "true or false", text)),
                }),
                ValueKind::Int => Value::Int(parse(&wanted.name, text, "a whole number")?),
                ValueKind::Double => Value::Double(parse(&wanted.name, text, "a number")?),
                ValueKind::Text => Value::Text(text.to_owned()),
            };
            values.push((wanted.name.clone(), value));
        }
        Ok(Event { id, time, entities, values })
    }
}

fn wrong(name: &str, expected: &str, found: &str) -> String {
    let found: String = found.chars().take(80).collect();
    format!("`{name}` should be {expected}, found {found:?}")
}

fn parse<T: std::str::FromStr>(name: &str, text: &str, expected: &str) -> Result<T, String> {
    text.parse().map_err(|_| wrong(name, expected, text))
}

impl Rows for CsvRows {
    fn next(&mut self) -> Result<Option<Result<Event, String>>, ReplayError> {
        self.row += 1;
        Ok(match self.rows.next() {
            None => None,
            Some(Err(error)) if error.is_io_error() => {
                return Err(ReplayError::Broken { file: self.file.clone(), row: self.row, problem: error.to_string() });
            }
            Some(Ok(row)) => Some(self.event(&row)),
            // The reader goes on behind a row of another width or with bytes that are no text.
            Some(Err(error)) => Some(Err(error.to_string())),
        })
    }
}

pub(super) struct JsonRows {
    file: PathBuf,
    lines: BufReader<File>,
    row: u64,
    id: String,
    time: String,
    entities: Vec<String>,
    values: Vec<String>,
}

impl JsonRows {
    pub(super) fn open(config: &ReplayConfig, view: &View, begin: u64) -> Result<Self, ReplayError> {
        let mut rows = Self {
            file: config.file.clone(),
            lines: BufReader::new(open(&config.file)?),
            row: 0,
            id: config.id.clone(),
            time: config.time_column.clone(),
            entities: view.entities().iter().map(|entity| entity.name.clone()).collect(),
            values: view.values().iter().map(|value| value.name.clone()).collect(),
        };
        while rows.row < begin {
            if rows.line()?.is_none() {
                let problem = format!("it has only {} rows, {begin} were read before", rows.row);
                return Err(ReplayError::Unreadable { file: rows.file, problem });
            }
        }
        Ok(rows)
    }

    /// The next line, however wrong it is.
    fn line(&mut self) -> Result<Option<Result<Vec<u8>, String>>, ReplayError> {
        use std::io::Read;
        let broken = |file: &PathBuf, row, error: std::io::Error| ReplayError::Broken {
            file: file.clone(),
            row: row + 1,
            problem: error.to_string(),
        };
        let mut line = Vec::new();
        let read = self.lines.by_ref().take(MAX_LINE).read_until(b'\n', &mut line);
        let read = read.map_err(|error| broken(&self.file, self.row, error))?;
        if read == 0 {
            return Ok(None);
        }
        let row = self.row;
        self.row += 1;
        if line.last() != Some(&b'\n') && read as u64 == MAX_LINE {
            self.lines.skip_until(b'\n').map_err(|error| broken(&self.file, row, error))?;
            return Ok(Some(Err(format!("the line is longer than {MAX_LINE} bytes"))));
        }
        Ok(Some(Ok(line)))
    }

    /// Either an event as the local API takes it, or flat fields with the view's names.
    fn event(&self, line: &[u8]) -> Result<Event, String> {
        let json: Json = serde_json::from_slice(line).map_err(|error| error.to_string())?;
        let nested =
            json.get("entities").is_some_and(Json::is_object) || json.get("values").is_some_and(Json::is_object);
        if nested {
            return event_json::read(&json).1.map_err(|error| error.to_string());
        }
        let Json::Object(fields) = &json else { return Err("the line is no JSON object".into()) };
        let field = |name: &str| fields.get(name).ok_or_else(|| format!("`{name}` is missing"));
        let text = |error: event_json::EventError| error.to_string();
        let id = match field(&self.id)? {
            Json::Number(number) => EventId::new(&number.to_string()).map_err(|error| error.to_string())?,
            other => event_json::read_id(other).map_err(text)?,
        };
        let time = event_json::read_time(field(&self.time)?).map_err(text)?;
        let mut entities = Vec::new();
        for name in self.entities.iter().filter(|name| fields.contains_key(*name)) {
            entities.push((name.clone(), event_json::read_entity(name, &fields[name]).map_err(text)?));
        }
        let mut values = Vec::new();
        for name in self.values.iter().filter(|name| fields.contains_key(*name)) {
            if let Some(value) = event_json::read_value(name, &fields[name]).map_err(text)? {
                values.push((name.clone(), value));
            }
        }
        Ok(Event { id, time, entities, values })
    }
}

impl Rows for JsonRows {
    fn next(&mut self) -> Result<Option<Result<Event, String>>, ReplayError> {
        Ok(self.line()?.map(|line| line.and_then(|line| self.event(&line))))
    }
}
