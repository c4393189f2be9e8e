//! `lake`, `quarantine`, `view`, `label`, `dataset`: what flows in and what is made of it.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Subcommand;
use serde_json::{Value, json};
use tributary_process::out;

use super::sampling::quoted;
use super::show::{fold, text};
use super::{Failure, Remote};

/// Streams of the lake
#[derive(Debug, Subcommand)]
pub enum Lake {
    /// Rows, files, batches and losses per stream
    Streams,
    /// What devices gave up for want of room or time, newest first
    Gaps(Gaps),
}

/// Which gaps
#[derive(Debug, clap::Args)]
pub struct Gaps {
    /// Only of this device
    #[arg(long, value_name = "ID")]
    device: Option<String>,
    /// Only of this stream
    #[arg(long)]
    stream: Option<String>,
    /// Only for this reason: disk-budget, age or corrupt
    #[arg(long)]
    reason: Option<String>,
    /// Only with records from this event time on, such as 2026-01-31T00:00:00Z
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Only with records before this event time
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// How many at most
    #[arg(long, default_value_t = 50)]
    most: usize,
}

impl Gaps {
    async fn run(self, remote: &Remote) -> Result<(), Failure> {
        let filters = [
            ("device", self.device),
            ("stream", self.stream),
            ("reason", self.reason),
            ("from", self.from),
            ("to", self.to),
        ];
        let given = filters.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", quoted(&value?))));
        let query = given.collect::<Vec<_>>().join("&");
        let path = if query.is_empty() { "/lake/gaps".to_owned() } else { format!("/lake/gaps?{query}") };
        let gaps = remote.list(&path, self.most).await?;
        let columns = [
            ("gap", "number"),
            ("device", "device"),
            ("stream", "stream"),
            ("records", "records"),
            ("reason", "reason"),
            ("from", "from_time"),
            ("to", "to_time"),
            ("received", "received"),
        ];
        remote.show_list(&gaps, &columns);
        Ok(())
    }
}

impl Lake {
    pub(super) async fn run(self, remote: &Remote) -> Result<(), Failure> {
        if let Self::Gaps(gaps) = self {
            return gaps.run(remote).await;
        }
        let streams = remote.get("/lake/streams").await?;
        remote.show_list(
            streams.as_array().map(Vec::as_slice).unwrap_or_default(),
            &[
                ("stream", "stream"),
                ("rows", "rows"),
                ("files", "files"),
                ("batches", "batches"),
                ("aside", "quarantined"),
                ("dropped", "dropped"),
                ("to", "to_time"),
            ],
        );
        Ok(())
    }
}

/// Messages that were kept aside
#[derive(Debug, Subcommand)]
pub enum Quarantine {
    /// List them, newest first
    List {
        /// How many at most
        #[arg(long, default_value_t = 50)]
        most: usize,
    },
    /// Read one again, as if it came now
    Replay {
        /// Its id
        id: String,
        /// Put its records into this stream instead of their own
        #[arg(long)]
        stream: Option<String>,
    },
}

impl Quarantine {
    pub(super) async fn run(self, remote: &Remote) -> Result<(), Failure> {
        match self {
            Self::List { most } => {
                let items = remote.list("/quarantine", most).await?;
                if remote.json() || items.is_empty() {
                    remote.show_list(&items, &[]);
                    return Ok(());
                }
                for item in items {
                    let [id, state, device] = ["id", "state", "device"].map(|name| text(&item[name]));
                    let what = match (item["stream"].as_str(), item["sequence"].as_i64()) {
                        (Some(stream), Some(number)) => format!("{stream} {number}"),
                        _ => format!("{} bytes", text(&item["bytes"])),
                    };
                    let mut told = format!("{id}  {state}  {device}  {what}\n");
                    fold(&mut told, "  ", &text(&item["detail"]), 2);
                    out!("{told}");
                }
            }
            Self::Replay { id, stream } => {
                let query = stream.map(|stream| format!("?stream={stream}")).unwrap_or_default();
                let replayed = remote.post(&format!("/quarantine/{id}/replay{query}"), &Value::Null).await?;
                remote.done(&replayed, &format!("message {id} is {}", text(&replayed["state"])));
            }
        }
        Ok(())
    }
}

/// Feature views
#[derive(Debug, Subcommand)]
#[command(after_help = "Example:\n  cloud-hub view add card.toml")]
pub enum View {
    /// Add a feature view from a TOML file
    Add {
        /// The file
        file: PathBuf,
    },
    /// List feature views
    List,
    /// Print the text of a feature view
    Show {
        /// Its name
        name: String,
        /// Its version; the newest when left out
        #[arg(long)]
        version: Option<u32>,
    },
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    Ok(std::fs::read(path).with_context(|| format!("could not read {}", path.display()))?)
}

impl View {
    pub(super) async fn run(self, remote: &Remote) -> Result<(), Failure> {
        match self {
            Self::Add { file } => {
                let view = remote.send("/views", "application/toml", read(&file)?.into()).await?;
                let sentence = format!("feature view {} version {}", text(&view["name"]), text(&view["version"]));
                remote.done(&view, &sentence);
            }
            Self::List => {
                let views = remote.list("/views", usize::MAX).await?;
                remote.show_list(&views, &[("view", "name"), ("version", "version"), ("created", "created")]);
            }
            Self::Show { name, version } => {
                let query = version.map(|version| format!("?version={version}")).unwrap_or_default();
                let view = remote.get(&format!("/views/{name}{query}")).await?;
                remote.done(&view, view["source"].as_str().unwrap_or_default().trim_end());
            }
        }
        Ok(())
    }
}

/// Labels
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  cloud-hub label set t-4711 true
  cloud-hub label import chargebacks.csv      columns event_id,label[,event_time,known_at]")]
pub enum Label {
    /// Label one event
    Set {
        /// The event's id
        event: String,
        /// true or false
        #[arg(action = clap::ArgAction::Set)]
        label: bool,
    },
    /// Send a CSV or JSON file of labels
    Import {
        /// The file; its name ends with .csv or .json
        file: PathBuf,
    },
    /// Count labels
    Stats,
}

/// Rows sent at once: far below the hub's limit on bodies.
const ROWS_AT_ONCE: usize = 20_000;

impl Label {
    pub(super) async fn run(self, remote: &Remote) -> Result<(), Failure> {
        match self {
            Self::Set { event, label } => {
                let stored = remote.post("/labels", &json!({"event_id": event, "label": label})).await?;
                remote.done(&stored, &format!("event {event} is labelled {label}"));
            }
            Self::Import { file } => {
                let body = read(&file)?;
                if file.extension().is_some_and(|extension| extension == "json") {
                    let stored = remote.send("/labels", "application/json", body.into()).await?;
                    return report(remote, &stored);
                }
                let body = String::from_utf8(body).context("the file is not text")?;
                let mut lines = body.lines();
                let header = lines.next().unwrap_or_default();
                let rows: Vec<&str> = lines.filter(|line| !line.trim().is_empty()).collect();
                let (mut stored, mut refused, mut errors) = (0, 0, Vec::new());
                for (index, rows) in rows.chunks(ROWS_AT_ONCE).enumerate() {
                    let part = format!("{header}\n{}\n", rows.join("\n"));
                    let answer = remote.send("/labels", "text/csv", part.into()).await?;
                    stored += answer["stored"].as_u64().unwrap_or(0);
                    refused += answer["refused"].as_u64().unwrap_or(0);
                    if index == 0 {
                        errors = answer["errors"].as_array().cloned().unwrap_or_default();
                    }
                    eprintln!("{} of {} rows sent", index * ROWS_AT_ONCE + rows.len(), body.lines().count() - 1);
                }
                report(remote, &json!({"stored": stored, "refused": refused, "errors": errors}))?;
            }
            Self::Stats => remote.show(&remote.get("/labels/stats").await?),
        }
        Ok(())
    }
}

/// Refused rows are a failure, though the others are stored.
fn report(remote: &Remote, stored: &Value) -> Result<(), Failure> {
    let (kept, refused) = (text(&stored["stored"]), stored["refused"].as_u64().unwrap_or(0));
    remote.done(stored, &format!("{kept} labels stored, {refused} refused"));
    let errors = stored["errors"].as_array().cloned().unwrap_or_default();
    for error in errors.iter().take(10) {
        eprintln!("  {}: {}", text(&error["at"]), text(&error["detail"]));
    }
    if refused > 0 { Err(anyhow::anyhow!("{refused} rows were refused").into()) } else { Ok(()) }
}

/// Datasets
#[derive(Debug, Subcommand)]
#[command(after_help = "Example:\n  cloud-hub dataset make card-fraud --from 2026-01-01T00:00:00Z")]
pub enum Dataset {
    /// Make a dataset by replaying the lake through the line's feature view
    Make {
        /// The line
        line: String,
        /// Event time of the first rows
        #[arg(long)]
        from: Option<String>,
        /// Event time before which the rows lie
        #[arg(long)]
        to: Option<String>,
        /// How long after an event its label is taken to be known, such as 7d
        #[arg(long)]
        label_delay: Option<String>,
    },
    /// List datasets
    List,
    /// Show one dataset
    Show {
        /// Its number
        dataset: i64,
    },
}

impl Dataset {
    pub(super) async fn run(self, remote: &Remote) -> Result<(), Failure> {
        match self {
            Self::Make { line, from, to, label_delay } => {
                let body = json!({"line": line, "from": from, "to": to, "label_delay": label_delay});
                let made = remote.post("/datasets", &body).await?;
                let [id, rows, positives, mismatches] =
                    ["id", "rows", "positives", "mismatches"].map(|name| text(&made[name]));
                let sentence = format!("dataset {id}: {rows} rows, {positives} positive, {mismatches} mismatches");
                remote.done(&made, &sentence);
            }
            Self::List => {
                let datasets = remote.list("/datasets", usize::MAX).await?;
                remote.show_list(
                    &datasets,
                    &[
                        ("id", "id"),
                        ("line", "line"),
                        ("rows", "rows"),
                        ("positive", "positives"),
                        ("mismatch", "mismatches"),
                        ("from", "from"),
                        ("to", "to"),
                    ],
                );
            }
            Self::Show { dataset } => remote.show(&remote.get(&format!("/datasets/{dataset}")).await?),
        }
        Ok(())
    }
}
