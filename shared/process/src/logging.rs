//! Logs go to standard error, so that standard output stays a program's result.

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// What is logged and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// A level, or directives such as `info,rumqttc=warn`.
    pub filter: String,
    /// How lines look.
    pub format: Format,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { filter: "info".into(), format: Format::Text }
    }
}

/// Starts logging for the process. A second call changes nothing, so tests may call it freely.
pub fn init(config: &LogConfig) -> anyhow::Result<()> {
    let filter = EnvFilter::from_str(&config.filter)
        .map_err(|error| anyhow::anyhow!("log filter {:?} is not valid: {error}", config.filter))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match config.format {
        Format::Text => builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init(),
        Format::Json => builder.json().try_init(),
    };
    if started.is_err() {
        tracing::debug!("logging was started before");
    }
    Ok(())
}
