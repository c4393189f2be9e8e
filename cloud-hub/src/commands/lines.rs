//! `line` and `quality`: what a line is, what happened to it, how good it is.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::show::{fold, instant, text};
use super::{Failure, Remote};
use tributary_process::out;
use tributary_wire::Micros;

/// Model lines
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  cloud-hub line set card-fraud --view card-risk
  cloud-hub line set card-fraud --view card-risk --settings fraud.toml
  cloud-hub line story card-fraud")]
pub enum Line {
    /// Make or change a line
    Set {
        /// Its name
        line: String,
        /// Name of its feature view
        #[arg(long)]
        view: String,
        /// Version of its feature view; the newest when left out
        #[arg(long)]
        view_version: Option<u32>,
        /// Settings file (TOML or JSON): training, quantization, promotion, drift, rollout, ...
        #[arg(long, value_name = "FILE")]
        settings: Option<PathBuf>,
    },
    /// List lines
    List,
    /// Show a line with all of its settings
    Show {
        /// Its name
        line: String,
    },
    /// What happened to a line and why
    Story {
        /// Its name
        line: String,
        /// How many steps at most, the newest
        #[arg(long, default_value_t = 50)]
        most: usize,
    },
    /// What is known about drift
    Drift {
        /// Its name
        line: String,
    },
}

impl Line {
    pub(super) async fn run(self, remote: &Remote) -> Result<(), Failure> {
        match self {
            Self::Set { line, view, view_version, settings } => {
                let mut body = match settings {
                    None => json!({}),
                    Some(path) => {
                        let text = std::fs::read_to_string(&path)
                            .with_context(|| format!("could not read {}", path.display()))?;
                        match path.extension().is_some_and(|extension| extension == "json") {
                            true => serde_json::from_str(&text).map_err(|error| usage(&path, error))?,
                            false => toml::from_str::<Value>(&text).map_err(|error| usage(&path, error))?,
                        }
                    }
                };
                body["view"] = view.into();
                if let Some(version) = view_version {
                    body["view_version"] = version.into();
                }
                let set = remote.put(&format!("/lines/{line}"), &body).await?;
                let sentence = format!(
                    "line {line}: revision {}, feature view {} version {}",
                    text(&set["revision"]),
                    text(&set["view"]),
                    text(&set["view_version"])
                );
                remote.done(&set, &sentence);
            }
            Self::List => {
                let lines = remote.list("/lines", usize::MAX).await?;
                remote.show_list(
                    &lines,
                    &[
                        ("line", "name"),
                        ("view", "view"),
                        ("v", "view_version"),
                        ("revision", "revision"),
                        ("retrain", "retrain"),
                        ("changed", "changed"),
                    ],
                );
            }
            Self::Show { line } => remote.show(&remote.get(&format!("/lines/{line}")).await?),
            Self::Story { line, most } => {
                let mut steps = remote.list(&format!("/lines/{line}/events"), most).await?;
                steps.reverse();
                if remote.json() {
                    remote.show(&Value::from(steps));
                    return Ok(());
                }
                for step in steps {
                    let time = Micros(step["time"].as_i64().unwrap_or(0));
                    let mut told = String::new();
                    fold(&mut told, &format!("{}  ", instant(time)), &text(&step["message"]), 22);
                    out!("{told}");
                }
            }
            Self::Drift { line } => {
                let versions = remote.get(&format!("/lines/{line}/drift")).await?;
                match remote.json() {
                    true => remote.show(&versions),
                    false => remote.show_list(&windows(&versions), &DRIFT_COLUMNS),
                }
            }
        }
        Ok(())
    }
}

const DRIFT_COLUMNS: [(&str, &str); 6] = [
    ("v", "version"),
    ("from", "start"),
    ("to", "end"),
    ("predictions", "predictions"),
    ("signals", "signals"),
    ("drifted", "drifted"),
];

/// The windows of every version, each with what drifted in it or why it was not judged.
fn windows(versions: &Value) -> Vec<Value> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut rows = Vec::new();
    for version in list(versions) {
        for window in list(&version["windows"]) {
            let signals = list(&window["signals"]);
            let drifted = signals.iter().filter(|signal| signal["drifted"] == true);
            let drifted: Vec<_> =
                drifted.map(|signal| format!("{} {}", text(&signal["kind"]), text(&signal["name"]))).collect();
            let found = match (window["skipped"].as_str(), drifted.is_empty()) {
                (Some(reason), _) => format!("not judged: {reason}"),
                (None, true) => "none".to_owned(),
                (None, false) => drifted.join(", "),
            };
            rows.push(json!({
                "version": version["version"], "start": window["start"], "end": window["end"],
                "predictions": window["predictions"], "signals": signals.len(), "drifted": found,
            }));
        }
    }
    rows
}

fn usage(path: &std::path::Path, error: impl std::fmt::Display) -> Failure {
    Failure::Usage(format!("{}: {error}", path.display()))
}

/// What labels say about the versions of a line
#[derive(Debug, Args)]
pub struct Quality {
    /// The line
    line: String,
    /// From this event time on
    #[arg(long)]
    from: Option<String>,
    /// Before this event time
    #[arg(long)]
    to: Option<String>,
}

const QUALITY_COLUMNS: [(&str, &str); 9] = [
    ("day", "day"),
    ("v", "version"),
    ("rows", "observations"),
    ("known", "labelled"),
    ("true", "positives"),
    ("alarms", "alarms"),
    ("hits", "hits"),
    ("AUC", "auc"),
    ("AP", "average_precision"),
];

impl Quality {
    pub(super) async fn run(self, remote: &Remote) -> Result<(), Failure> {
        let limits = [("from", self.from), ("to", self.to)];
        let query: Vec<String> = limits
            .into_iter()
            .filter_map(|(name, value)| Some(format!("{name}={}", value?.replace('+', "%2B"))))
            .collect();
        let query = if query.is_empty() { String::new() } else { format!("?{}", query.join("&")) };
        let quality = remote.get(&format!("/lines/{}/quality{query}", self.line)).await?;
        match remote.json() {
            true => remote.show(&quality),
            false => {
                let days = quality["days"].as_array().map_or(&[][..], Vec::as_slice);
                remote.show_list(days, &QUALITY_COLUMNS);
            }
        }
        Ok(())
    }
}
