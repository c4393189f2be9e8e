//! Which columns a stream has. A new column is welcome; a column never changes its type.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field as ArrowField, Fields, Schema, SchemaRef, TimeUnit};
use tributary_wire::{Field, FieldType};

/// Columns that the lake adds to every row.
pub const SYSTEM_COLUMNS: [&str; 4] = ["device", "incarnation", "sequence", "ingest_time"];

/// More columns than any feature view has; what is beyond it is a mistake or an attack on the registry.
pub const MAX_COLUMNS: usize = 1_000;

/// One column of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamColumn {
    /// Its name.
    pub name: String,
    /// The one type it has in all files.
    pub kind: FieldType,
    /// Unit in words, empty when it has none.
    pub unit: String,
    /// Whether a device ever declared that values may be missing. In files every column may be empty, because
    /// older files lack newer columns.
    pub nullable: bool,
}

/// The columns of a stream, in order of first appearance.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StreamSchema {
    /// One per column.
    pub columns: Vec<StreamColumn>,
}

/// Why a batch does not fit its stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchemaConflict {
    /// The type of a column changed.
    #[error(
        "column {column:?} is {found}, but in this stream it is {expected}; a changed type needs a new stream version"
    )]
    Type {
        /// Which column.
        column: String,
        /// As registered.
        expected: &'static str,
        /// As sent.
        found: &'static str,
    },
    /// A name twice in one batch.
    #[error("column {column:?} appears twice")]
    Twice {
        /// Which column.
        column: String,
    },
    /// A name that the lake itself uses.
    #[error("column {column:?} is one that the lake adds to every row")]
    Reserved {
        /// Which column.
        column: String,
    },
    /// A name that other engines could not read.
    #[error("column name {column:?} does not match [A-Za-z0-9_.-]{{1,64}}")]
    Name {
        /// Which column, cut to 80 characters.
        column: String,
    },
    /// More columns than a stream may have.
    #[error("the stream would have {found} columns, at most {MAX_COLUMNS} are allowed")]
    TooMany {
        /// How many there would be.
        found: usize,
    },
    /// Times so far ahead that they would hide everything else from whoever asks for the newest.
    #[error("event time {found} is more than {} days ahead of the hub's clock", crate::days::MAX_DAYS_AHEAD)]
    Future {
        /// The latest.
        found: String,
    },
    /// The rows lie on more days than one batch may touch.
    #[error("the rows lie on {found} different days, at most {limit} are allowed in one batch")]
    Days {
        /// How many.
        found: usize,
        /// How many may be.
        limit: usize,
    },
}

impl StreamSchema {
    /// Checks the fields of a batch against the stream; the columns that are new to it.
    pub fn additions(&self, fields: &[Field]) -> Result<Vec<StreamColumn>, SchemaConflict> {
        let mut additions: Vec<StreamColumn> = Vec::new();
        for (place, field) in fields.iter().enumerate() {
            let column = || field.name.chars().take(80).collect::<String>();
            if SYSTEM_COLUMNS.contains(&field.name.as_str()) {
                return Err(SchemaConflict::Reserved { column: column() });
            }
            if !is_column_name(&field.name) {
                return Err(SchemaConflict::Name { column: column() });
            }
            if fields[..place].iter().any(|other| other.name == field.name) {
                return Err(SchemaConflict::Twice { column: column() });
            }
            match self.columns.iter().find(|known| known.name == field.name) {
                Some(known) if known.kind == field.kind => {}
                Some(known) => {
                    let (expected, found) = (kind_name(known.kind), kind_name(field.kind));
                    return Err(SchemaConflict::Type { column: column(), expected, found });
                }
                None => additions.push(StreamColumn {
                    name: field.name.clone(),
                    kind: field.kind,
                    unit: field.unit.clone(),
                    nullable: field.nullable,
                }),
            }
        }
        match self.columns.len() + additions.len() {
            found if found > MAX_COLUMNS => Err(SchemaConflict::TooMany { found }),
            _ => Ok(additions),
        }
    }

    /// The Arrow schema of the stream's files: its columns, then the lake's own.
    pub fn arrow(&self) -> SchemaRef {
        let own = self.columns.iter().map(|column| ArrowField::new(&column.name, data_type(column.kind), true));
        Arc::new(Schema::new(own.chain(system_fields()).collect::<Fields>()))
    }
}

fn is_column_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

pub(crate) fn system_fields() -> [ArrowField; 4] {
    let [device, incarnation, sequence, ingest_time] = SYSTEM_COLUMNS;
    [
        ArrowField::new(device, DataType::Utf8, false),
        ArrowField::new(incarnation, DataType::Int64, false),
        ArrowField::new(sequence, DataType::Int64, false),
        ArrowField::new(ingest_time, data_type(FieldType::Time), false),
    ]
}

/// The Arrow type that holds a wire type.
pub fn data_type(kind: FieldType) -> DataType {
    match kind {
        FieldType::Bool => DataType::Boolean,
        FieldType::Int => DataType::Int64,
        FieldType::Double => DataType::Float64,
        FieldType::Float => DataType::Float32,
        FieldType::Text => DataType::Utf8,
        FieldType::Bytes => DataType::Binary,
        FieldType::Time => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        FieldType::FloatList => DataType::List(Arc::new(ArrowField::new("element", DataType::Float32, false))),
    }
}

const KINDS: [(FieldType, &str); 8] = [
    (FieldType::Bool, "bool"),
    (FieldType::Int, "int"),
    (FieldType::Double, "double"),
    (FieldType::Float, "float"),
    (FieldType::Text, "text"),
    (FieldType::Bytes, "bytes"),
    (FieldType::Time, "time"),
    (FieldType::FloatList, "float-list"),
];

/// The wire type that an Arrow type holds; none for one that the lake never writes.
pub fn kind_of(arrow: &DataType) -> Option<FieldType> {
    KINDS.iter().map(|(kind, _)| *kind).find(|kind| data_type(*kind) == *arrow)
}

/// The name of a type in catalogs and messages.
pub fn kind_name(kind: FieldType) -> &'static str {
    KINDS.iter().find(|(known, _)| *known == kind).map_or("unknown", |(_, name)| name)
}

/// Reads [`kind_name`]'s text back.
pub fn kind_from_name(name: &str) -> Option<FieldType> {
    KINDS.iter().find(|(_, known)| *known == name).map(|(kind, _)| *kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tributary_wire::Sensitivity;

    fn field(name: &str, kind: FieldType) -> Field {
        Field { name: name.into(), kind, unit: String::new(), nullable: false, sensitivity: Sensitivity::Keep }
    }

    #[test]
    fn a_new_column_is_welcome_and_a_changed_type_is_not() {
        let mut schema = StreamSchema::default();
        schema.columns = schema.additions(&[field("amount", FieldType::Double)]).unwrap();
        let added = schema.additions(&[field("amount", FieldType::Double), field("pin", FieldType::Bool)]).unwrap();
        assert_eq!(added.iter().map(|column| column.name.as_str()).collect::<Vec<_>>(), ["pin"]);
        let conflict = schema.additions(&[field("amount", FieldType::Text)]).unwrap_err();
        assert_eq!(
            conflict.to_string(),
            "column \"amount\" is text, but in this stream it is double; a changed type needs a new stream version"
        );
    }

    #[test]
    fn names_that_would_harm_other_readers_are_refused() {
        let schema = StreamSchema::default();
        let conflict = |fields: &[Field]| schema.additions(fields).unwrap_err();
        assert!(matches!(conflict(&[field("device", FieldType::Text)]), SchemaConflict::Reserved { .. }));
        assert!(matches!(conflict(&[field("a b", FieldType::Text)]), SchemaConflict::Name { .. }));
        let twice = [field("a", FieldType::Text), field("a", FieldType::Text)];
        assert!(matches!(conflict(&twice), SchemaConflict::Twice { .. }));
    }

    #[test]
    fn type_names_are_read_back() {
        for (kind, name) in KINDS {
            assert_eq!((kind_name(kind), kind_from_name(name)), (name, Some(kind)));
        }
    }
}
