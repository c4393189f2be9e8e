//! Logs go to standard error, so that standard output stays a program's result.

use std::collections::VecDeque;
use std::io::Write;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, fmt};

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
    start(config, None)
}

/// As [`init`]; what is logged is also kept in memory, as text, up to [`TAIL_BYTES`].
pub fn init_with_tail(config: &LogConfig) -> anyhow::Result<Tail> {
    let tail = Tail::default();
    start(config, Some(tail.clone()))?;
    Ok(tail)
}

fn start(config: &LogConfig, tail: Option<Tail>) -> anyhow::Result<()> {
    let filter = EnvFilter::from_str(&config.filter)
        .map_err(|error| anyhow::anyhow!("log filter {:?} is not valid: {error}", config.filter))?;
    let kept = tail.map(|tail| fmt::layer().with_ansi(false).with_writer(tail));
    let logging = tracing_subscriber::registry().with(filter).with(kept);
    let shown = fmt::layer().with_writer(std::io::stderr);
    let started = match config.format {
        Format::Text => {
            let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
            logging.with(shown.with_ansi(ansi)).try_init()
        }
        // Fields of another form than text: the two must not share what they have formatted.
        Format::Json => logging.with(shown.json().fmt_fields(fmt::format::JsonFields::new())).try_init(),
    };
    if started.is_err() {
        tracing::debug!("logging was started before");
    }
    Ok(())
}

/// What [`Tail`] holds at most.
pub const TAIL_BYTES: usize = 1 << 20;

/// The last lines of the process's log.
#[derive(Debug, Clone, Default)]
pub struct Tail(Arc<Mutex<Lines>>);

#[derive(Debug, Default)]
struct Lines {
    lines: VecDeque<Box<str>>,
    bytes: usize,
}

impl Tail {
    /// The last lines, oldest first, as many as are kept and fit into `bytes`.
    pub fn last(&self, lines: usize, bytes: usize) -> String {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut size = 0;
        let fits = |line: &&str| {
            size += line.len();
            size <= bytes
        };
        let newest = kept.lines.iter().rev().map(AsRef::as_ref);
        let mut chosen: Vec<&str> = newest.take(lines).take_while(fits).collect();
        chosen.reverse();
        chosen.concat()
    }

    fn add(&self, text: &str) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for piece in text.split_inclusive('\n') {
            kept.bytes += piece.len();
            // A line may come in pieces.
            match kept.lines.back_mut() {
                Some(last) if !last.ends_with('\n') => *last = format!("{last}{piece}").into(),
                _ => {
                    kept.bytes += LINE_COST;
                    kept.lines.push_back(piece.into());
                }
            }
        }
        while kept.bytes > TAIL_BYTES {
            let Some(oldest) = kept.lines.pop_front() else { break };
            kept.bytes -= oldest.len() + LINE_COST;
        }
    }
}

/// What a line takes beside its text.
const LINE_COST: usize = size_of::<Box<str>>();

impl Write for &Tail {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.add(&String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> fmt::MakeWriter<'a> for Tail {
    type Writer = &'a Tail;
    fn make_writer(&'a self) -> &'a Tail {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_keeps_the_last_lines_within_its_size() {
        let tail = Tail::default();
        let long = "x".repeat(1_000);
        for n in 0..5_000 {
            writeln!(&tail, "{n} {long}").unwrap();
        }
        assert!(tail.0.lock().unwrap().bytes <= TAIL_BYTES);
        let last = tail.last(3, usize::MAX);
        let numbers: Vec<_> = last.lines().map(|line| line.split(' ').next().unwrap()).collect();
        assert_eq!(numbers, ["4997", "4998", "4999"]);
        let all = tail.last(usize::MAX, usize::MAX).lines().count();
        assert!((900..1_100).contains(&all), "{all}");
        assert_eq!(tail.last(10, 2_500).lines().count(), 2);
        assert_eq!(tail.last(0, 2_500), "");
    }

    #[test]
    fn events_become_lines_of_text() {
        let tail = Tail::default();
        let logging = tracing_subscriber::registry().with(fmt::layer().with_ansi(false).with_writer(tail.clone()));
        tracing::subscriber::with_default(logging, || tracing::info!(device = "edge-1", "the first\nand the second"));
        let text = tail.last(10, usize::MAX);
        assert!(text.contains("the first") && text.contains("device=\"edge-1\""), "{text}");
        assert!(!text.contains('\u{1b}'));
    }
}
