//! Events as JSON: `{"id", "time", "entities": {…}, "values": {…}}`, or the same fields flat in a line of a file.

use serde_json::{Map, Value as Json};
use tributary_features::{Event, Value};
use tributary_wire::{EntityKey, EventId, IdError, Micros};

/// Why a JSON value is not an event.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum EventError {
    /// Another JSON type than needed.
    #[error("`{field}` should be {expected}, found {found}")]
    Type {
        /// Which field.
        field: String,
        /// What it should be.
        expected: &'static str,
        /// What it is.
        found: &'static str,
    },
    /// A field that every event has.
    #[error("`{0}` is missing")]
    Missing(&'static str),
    /// A field that no event has.
    #[error("unknown field `{0}`; an event has `id`, `time`, `entities`, `values`")]
    Unknown(String),
    /// Not an event id.
    #[error("`id`: {0}")]
    Id(#[from] IdError),
    /// Not an instant.
    #[error("`time` {found:?} is neither RFC 3339 such as 2018-04-01T00:00:31Z nor whole UTC microseconds: {problem}")]
    Time {
        /// The text.
        found: String,
        /// Why.
        problem: String,
    },
    /// A number beyond what 64 bits hold.
    #[error("`{field}` is {found}; it must be a finite number")]
    Number {
        /// Which field.
        field: String,
        /// The number.
        found: String,
    },
}

fn type_name(value: &Json) -> &'static str {
    match value {
        Json::Null => "null",
        Json::Bool(_) => "true or false",
        Json::Number(_) => "a number",
        Json::String(_) => "a text",
        Json::Array(_) => "an array",
        Json::Object(_) => "an object",
    }
}

fn wrong(field: &str, expected: &'static str, found: &Json) -> EventError {
    EventError::Type { field: field.to_owned(), expected, found: type_name(found) }
}

/// Reads one event. The id is returned even when the rest is wrong, so that the answer can name it.
pub fn read(json: &Json) -> (Option<EventId>, Result<Event, EventError>) {
    let id = json.get("id").and_then(Json::as_str).and_then(|id| EventId::new(id).ok());
    (id, event(json))
}

fn event(json: &Json) -> Result<Event, EventError> {
    let Json::Object(fields) = json else { return Err(wrong("event", "an object", json)) };
    if let Some(unknown) = fields.keys().find(|key| !["id", "time", "entities", "values"].contains(&key.as_str())) {
        return Err(EventError::Unknown(unknown.chars().take(80).collect()));
    }
    let field = |name: &'static str| fields.get(name).ok_or(EventError::Missing(name));
    let id = read_id(field("id")?)?;
    let time = read_time(field("time")?)?;
    let mut entities = Vec::new();
    for (name, key) in object("entities", fields.get("entities"))? {
        entities.push((name.clone(), read_entity(name, key)?));
    }
    let mut values = Vec::new();
    for (name, value) in object("values", fields.get("values"))? {
        if let Some(value) = read_value(name, value)? {
            values.push((name.clone(), value));
        }
    }
    Ok(Event { id, time, entities, values })
}

fn object<'a>(field: &str, json: Option<&'a Json>) -> Result<impl Iterator<Item = (&'a String, &'a Json)>, EventError> {
    match json {
        None => Ok(None.into_iter().flatten()),
        Some(Json::Object(map)) => Ok(Some(map).into_iter().flatten()),
        Some(other) => Err(wrong(field, "an object", other)),
    }
}

/// Reads an event id.
pub fn read_id(json: &Json) -> Result<EventId, EventError> {
    match json {
        Json::String(text) => Ok(EventId::new(text)?),
        other => Err(wrong("id", "a text", other)),
    }
}

/// Reads an instant.
pub fn read_time(json: &Json) -> Result<Micros, EventError> {
    match json {
        Json::Number(number) => number.as_i64().map(Micros).ok_or_else(|| EventError::Time {
            found: number.to_string(),
            problem: "not a whole number of 64 bits".into(),
        }),
        Json::String(text) => parse_time(text),
        other => Err(wrong("time", "a text or a whole number", other)),
    }
}

/// Reads an instant from text.
pub fn parse_time(text: &str) -> Result<Micros, EventError> {
    let parsed = text.parse::<jiff::Timestamp>();
    parsed
        .map(|time| Micros(time.as_microsecond()))
        .map_err(|error| EventError::Time { found: text.chars().take(80).collect(), problem: error.to_string() })
}

/// Reads an entity key.
pub fn read_entity(name: &str, json: &Json) -> Result<EntityKey, EventError> {
    match json {
        Json::String(text) => Ok(EntityKey::Text(text.clone())),
        Json::Number(number) => {
            let whole = number.as_i64().map(EntityKey::Int);
            whole.ok_or_else(|| wrong(name, "a text or a whole number of 64 bits", json))
        }
        other => Err(wrong(name, "a text or a whole number", other)),
    }
}

/// Reads a value; null is none.
pub fn read_value(name: &str, json: &Json) -> Result<Option<Value>, EventError> {
    match json {
        Json::Null => Ok(None),
        Json::Bool(value) => Ok(Some(Value::Bool(*value))),
        Json::String(text) => Ok(Some(Value::Text(text.clone()))),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => Ok(Some(Value::Int(whole))),
            (None, Some(value)) if value.is_finite() => Ok(Some(Value::Double(value))),
            _ => Err(EventError::Number { field: name.to_owned(), found: number.to_string() }),
        },
        other => Err(wrong(name, "a number, a text, true or false", other)),
    }
}

/// One event of a body, or an array of them.
pub fn many(json: Json) -> Vec<Json> {
    match json {
        Json::Array(events) => events,
        one => vec![one],
    }
}

/// The JSON form of an event, for clients.
pub fn write(event: &Event) -> Json {
    let entities: Map<String, Json> = event
        .entities
        .iter()
        .map(|(name, key)| {
            let key = match key {
                EntityKey::Int(key) => Json::from(*key),
                EntityKey::Text(key) => Json::from(key.clone()),
            };
            (name.clone(), key)
        })
        .collect();
    let values: Map<String, Json> = event
        .values
        .iter()
        .map(|(name, value)| {
            let value = match value {
                Value::Bool(value) => Json::from(*value),
                Value::Int(value) => Json::from(*value),
                Value::Double(value) => Json::from(*value),
                Value::Text(value) => Json::from(value.clone()),
            };
            (name.clone(), value)
        })
        .collect();
    serde_json::json!({ "id": event.id, "time": event.time.0, "entities": entities, "values": values })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_event_is_read_back_as_it_was_written() {
        let json = json!({"id": "t-1", "time": "2018-04-01T00:00:31Z", "entities": {"customer_id": 7, "shop": "a"},
            "values": {"amount": 1.5, "count": 2, "online": true, "note": "x", "nothing": null}});
        let (id, event) = read(&json);
        let event = event.unwrap();
        assert_eq!(id.as_ref(), Some(&event.id));
        assert_eq!(event.time, Micros(1_522_540_831_000_000));
        assert_eq!(event.values.len(), 4);
        assert_eq!(read(&write(&event)).1.unwrap(), event);
    }

    #[test]
    fn malformed_events_say_which_field_is_wrong() {
        for (json, part) in [
            (json!([]), "`event` should be an object, found an array"),
            (json!({"time": 1}), "`id` is missing"),
            (json!({"id": 5, "time": 1}), "`id` should be a text, found a number"),
            (json!({"id": "", "time": 1}), "event id"),
            (json!({"id": "a", "time": "yesterday"}), "`time` \"yesterday\""),
            (json!({"id": "a", "time": 1.5}), "`time` \"1.5\""),
            (json!({"id": "a", "time": 1, "extra": 1}), "unknown field `extra`"),
            (json!({"id": "a", "time": 1, "entities": 3}), "`entities` should be an object"),
            (json!({"id": "a", "time": 1, "entities": {"c": 1.5}}), "`c` should be a text or a whole number"),
            (json!({"id": "a", "time": 1, "values": {"v": [1]}}), "`v` should be"),
        ] {
            let error = read(&json).1.unwrap_err().to_string();
            assert!(error.contains(part), "{json}: {error}");
        }
    }
}
