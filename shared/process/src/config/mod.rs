//! Settings from a file, the environment and flags, into one typed tree.
//!
//! The tree's type owns its defaults and refuses unknown keys (`#[serde(deny_unknown_fields, default)]`), so a
//! misspelt key is an error that names it. Later layers win: file < environment < flags.

mod unit;

pub use unit::{ByteSize, HumanDuration};

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

/// Why settings could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is not there or not readable.
    #[error("could not read {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{} is not valid TOML: {problem}", path.display())]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// What and where.
        problem: String,
    },
    /// A flag is not `key=value`.
    #[error("setting {found:?} is not of the form section.key=value")]
    Flag {
        /// What was given.
        found: String,
    },
    /// A key goes through something that is not a section.
    #[error("setting {key}: {part} is a value, not a section")]
    NotASection {
        /// The whole key.
        key: String,
        /// The part that is in the way.
        part: String,
    },
    /// The tree does not accept it: an unknown key, a wrong type, a value out of range.
    #[error("settings ({sources}): {problem}")]
    Invalid {
        /// Where the settings came from.
        sources: String,
        /// What is wrong.
        problem: String,
    },
}

/// Where settings come from, weakest first.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// A TOML file.
    pub file: Option<PathBuf>,
    /// Variables, already reduced to those with the program's prefix: `("SECTION__KEY", "value")`.
    pub environment: Vec<(String, String)>,
    /// Flags of the form `section.key=value`.
    pub flags: Vec<String>,
}

impl Sources {
    /// Takes the variables whose names begin with `prefix` and two underscores, such as `EDGE_AGENT__HUB__MQTT`.
    pub fn with_environment(mut self, prefix: &str) -> Self {
        let prefix = format!("{prefix}__");
        self.environment = std::env::vars()
            .filter_map(|(name, value)| Some((name.strip_prefix(&prefix)?.to_owned(), value)))
            .collect();
        self.environment.sort();
        self
    }

    /// Merges the layers and reads them into `T`.
    pub fn load<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        let mut tree = match &self.file {
            Some(path) => read_file(path)?,
            None => Table::new(),
        };
        for (name, value) in &self.environment {
            set(&mut tree, &name.to_lowercase().replace("__", "."), value)?;
        }
        for flag in &self.flags {
            let (key, value) = flag.split_once('=').ok_or_else(|| ConfigError::Flag { found: flag.clone() })?;
            set(&mut tree, key.trim(), value)?;
        }
        T::deserialize(Value::Table(tree)).map_err(|error| ConfigError::Invalid {
            sources: self.describe(),
            problem: error.to_string().trim().into(),
        })
    }

    fn describe(&self) -> String {
        let mut sources = Vec::new();
        if let Some(path) = &self.file {
            sources.push(path.display().to_string());
        }
        if !self.environment.is_empty() {
            sources.push("environment".into());
        }
        if !self.flags.is_empty() {
            sources.push("flags".into());
        }
        if sources.is_empty() { "defaults".into() } else { sources.join(", ") }
    }
}

/// The effective settings as TOML, for a person to read or to save as a file.
pub fn print<T: Serialize>(config: &T) -> Result<String, ConfigError> {
    toml::to_string_pretty(config)
        .map_err(|error| ConfigError::Invalid { sources: "effective".into(), problem: error.to_string() })
}

fn read_file(path: &Path) -> Result<Table, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.into(), source })?;
    text.parse().map_err(|error: toml::de::Error| ConfigError::Syntax { path: path.into(), problem: error.to_string() })
}

fn set(tree: &mut Table, key: &str, value: &str) -> Result<(), ConfigError> {
    let mut sections: Vec<&str> = key.split('.').collect();
    let last = sections.pop().filter(|last| !last.is_empty()).ok_or_else(|| ConfigError::Flag { found: key.into() })?;
    let mut table = tree;
    for part in sections {
        table = table
            .entry(part)
            .or_insert_with(|| Value::Table(Table::new()))
            .as_table_mut()
            .ok_or_else(|| ConfigError::NotASection { key: key.into(), part: part.into() })?;
    }
    table.insert(last.into(), guess(value));
    Ok(())
}

/// A flag has no type: what reads as a TOML number, boolean, list or quoted text is one, the rest is text.
fn guess(value: &str) -> Value {
    let parsed = format!("x = {value}").parse::<Table>().ok().and_then(|mut table| table.remove("x"));
    parsed.filter(|value| !value.is_datetime()).unwrap_or_else(|| Value::String(value.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Default, Serialize, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Tree {
        name: String,
        hub: Hub,
    }

    #[derive(Debug, PartialEq, Default, Serialize, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Hub {
        port: u16,
        wait: HumanDuration,
        labels: Vec<String>,
    }

    fn sources(file: &str, environment: &[(&str, &str)], flags: &[&str]) -> (tempfile::TempDir, Sources) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.toml");
        std::fs::write(&path, file).unwrap();
        let environment = environment.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        let flags = flags.iter().map(ToString::to_string).collect();
        (folder, Sources { file: Some(path), environment, flags })
    }

    #[test]
    fn flags_win_over_the_environment_which_wins_over_the_file() {
        let file = "name = \"file\"\n[hub]\nport = 1\nwait = \"5s\"\nlabels = [\"a\"]";
        let (_folder, sources) =
            sources(file, &[("NAME", "environment"), ("HUB__PORT", "2")], &["hub.port=3", "hub.labels=[\"b\"]"]);
        let tree: Tree = sources.load().unwrap();
        assert_eq!(tree.name, "environment");
        assert_eq!(tree.hub.port, 3);
        assert_eq!(tree.hub.labels, ["b"]);
        assert_eq!(print(&tree).unwrap().parse::<Table>().unwrap()["hub"]["wait"].as_str(), Some("5s"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let message = |file: &str, flags: &[&str]| {
            let (_folder, sources) = sources(file, &[], flags);
            sources.load::<Tree>().unwrap_err().to_string()
        };
        assert!(message("[hub]\nprot = 1", &[]).contains("unknown field `prot`"));
        assert!(message("[hub]\nport = \"x\"", &[]).contains("expected u16"));
        assert!(message("[hub", &[]).contains("is not valid TOML"));
        assert!(message("", &["hub"]).contains("\"hub\" is not of the form"));
        assert!(message("name = \"x\"", &["name.deep=1"]).contains("name is a value, not a section"));
        assert!(message("", &["hub.wait=soon"]).contains("\"soon\" is not a duration"));
    }
}
