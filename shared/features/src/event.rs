//! What happened at a device, and its checked form.

use serde::{Deserialize, Serialize};
use tributary_wire::{EntityKey, EventId, Micros};

use crate::fixed;
use crate::view::{EntityKind, ValueKind, View};

/// Something that happened at a device, as its caller told it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// The caller's name for it; its idempotency key.
    pub id: EventId,
    /// When it happened.
    pub time: Micros,
    /// Whom it is about, by entity name, in any order.
    pub entities: Vec<(String, EntityKey)>,
    /// What was measured, by value name, in any order.
    pub values: Vec<(String, Value)>,
}

/// One measured value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Value {
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number.
    Double(f64),
    /// A text: kept in the lake, never a feature.
    Text(String),
}

impl Value {
    fn type_name(&self) -> &'static str {
        match self {
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Double(_) => "double",
            Self::Text(_) => "text",
        }
    }
}

/// An event that passed the view's checks, in the view's order.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// When it happened.
    pub time: Micros,
    /// One key per entity of the view.
    pub entities: Vec<EntityKey>,
    /// One per value of the view; `None` when it was left out or is a text.
    pub values: Vec<Option<f64>>,
}

/// Why an event does not fit a view.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum RowError {
    /// A field that the view does not have.
    #[error("unknown {kind} {name:?}; the view has {known}")]
    Unknown {
        /// `entity` or `value`.
        kind: &'static str,
        /// The name that was given.
        name: String,
        /// The names that exist.
        known: String,
    },
    /// A field that the view requires.
    #[error("{kind} {name:?} is missing")]
    Missing {
        /// `entity` or `value`.
        kind: &'static str,
        /// Which one.
        name: String,
    },
    /// A field that was given twice.
    #[error("{kind} {name:?} is given twice")]
    Twice {
        /// `entity` or `value`.
        kind: &'static str,
        /// Which one.
        name: String,
    },
    /// A field of another type.
    #[error("{kind} {name:?} should be {expected}, found {found}")]
    Type {
        /// `entity` or `value`.
        kind: &'static str,
        /// Which one.
        name: String,
        /// The type in the view.
        expected: &'static str,
        /// The type that was given.
        found: &'static str,
    },
    /// A number that is none.
    #[error("value {name:?} is {found}; it must be finite")]
    NotFinite {
        /// Which value.
        name: String,
        /// `NaN`, `inf` or `-inf`.
        found: f64,
    },
    /// A number too large for exact sums.
    #[error("value {name:?} is {found}; its size must not exceed {limit}")]
    TooLarge {
        /// Which value.
        name: String,
        /// What was given.
        found: f64,
        /// The largest size allowed.
        limit: f64,
    },
    /// An entity key longer than windows keep.
    #[error("entity {name:?} has a key of {found} bytes; at most {limit} are kept")]
    KeyTooLong {
        /// Which entity.
        name: String,
        /// Length of the key.
        found: usize,
        /// The limit.
        limit: usize,
    },
}

/// The longest text that may name an entity: a key is held in memory for as long as its windows are.
const MAX_KEY_BYTES: usize = 128;

/// The beginning of a name that somebody else chose: it is repeated in answers and logs.
fn clip(name: &str) -> String {
    name.chars().take(80).collect()
}

impl View {
    /// Checks an event against the view and puts its fields in the view's order.
    pub fn row(&self, event: &Event) -> Result<Row, RowError> {
        let mut entities: Vec<Option<EntityKey>> = vec![None; self.entities().len()];
        for (name, key) in &event.entities {
            let kind = "entity";
            let Some(at) = self.entities().iter().position(|field| field.name == *name) else {
                let known = names(self.entities().iter().map(|field| field.name.as_str()));
                return Err(RowError::Unknown { kind, name: clip(name), known });
            };
            let (expected, found) = match (self.entities()[at].kind, key) {
                (EntityKind::Int, EntityKey::Int(_)) | (EntityKind::Text, EntityKey::Text(_)) => ("", ""),
                (EntityKind::Int, EntityKey::Text(_)) => ("int", "text"),
                (EntityKind::Text, EntityKey::Int(_)) => ("text", "int"),
            };
            if expected != found {
                return Err(RowError::Type { kind, name: name.clone(), expected, found });
            }
            if let EntityKey::Text(text) = key
                && text.len() > MAX_KEY_BYTES
            {
                let (found, limit) = (text.len(), MAX_KEY_BYTES);
                return Err(RowError::KeyTooLong { name: name.clone(), found, limit });
            }
            if entities[at].replace(key.clone()).is_some() {
                return Err(RowError::Twice { kind, name: name.clone() });
            }
        }
        let entities = entities
            .into_iter()
            .zip(self.entities())
            .map(|(key, field)| key.ok_or_else(|| RowError::Missing { kind: "entity", name: field.name.clone() }));
        let entities = entities.collect::<Result<_, _>>()?;
        Ok(Row { time: event.time, entities, values: self.row_values(event)? })
    }

    fn row_values(&self, event: &Event) -> Result<Vec<Option<f64>>, RowError> {
        let kind = "value";
        let mut given = vec![false; self.values().len()];
        let mut values = vec![None; self.values().len()];
        for (name, value) in &event.values {
            let Some(at) = self.values().iter().position(|field| field.name == *name) else {
                let known = names(self.values().iter().map(|field| field.name.as_str()));
                return Err(RowError::Unknown { kind, name: clip(name), known });
            };
            if std::mem::replace(&mut given[at], true) {
                return Err(RowError::Twice { kind, name: name.clone() });
            }
            values[at] = match (self.values()[at].kind, value) {
                (ValueKind::Bool, Value::Bool(value)) => Some(f64::from(u8::from(*value))),
                (ValueKind::Int, Value::Int(value)) => Some(*value as f64),
                // Writers of JSON drop the fraction of a whole number; nothing is lost in taking it as a double.
                (ValueKind::Double, Value::Int(value)) => Some(*value as f64),
                (ValueKind::Double, Value::Double(value)) => Some(*value),
                (ValueKind::Text, Value::Text(_)) => None,
                (expected, value) => {
                    let (expected, found) = (expected.name(), value.type_name());
                    return Err(RowError::Type { kind, name: name.clone(), expected, found });
                }
            };
            if let Some(found) = values[at] {
                if !found.is_finite() {
                    return Err(RowError::NotFinite { name: name.clone(), found });
                }
                if found.abs() > fixed::LIMIT {
                    return Err(RowError::TooLarge { name: name.clone(), found, limit: fixed::LIMIT });
                }
            }
        }
        match self.values().iter().zip(&given).find(|(field, given)| field.required && !**given) {
            Some((field, _)) => Err(RowError::Missing { kind, name: field.name.clone() }),
            None => Ok(values),
        }
    }
}

fn names<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}
