//! `model`: versions, aliases and releases of a line.

use std::path::PathBuf;

use anyhow::Context;
use clap::Subcommand;
use serde_json::{Value, json};
use tributary_process::outln;

use super::show::text;
use super::{Failure, Remote};

/// Versions, aliases, releases
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  cloud-hub model list card-fraud
  cloud-hub model upload card-fraud card-fraud-7.tpk
  cloud-hub model alias card-fraud champion 7 --reason 'agreed with risk'
  cloud-hub model releases card-fraud
  cloud-hub model withdraw card-fraud 6 --reason 'nobody here made it'
  cloud-hub model compare card-fraud 7 6 --from 2026-02-01T00:00:00Z")]
pub enum Model {
    /// List the versions of a line
    List {
        /// The line
        line: String,
    },
    /// Show a version with manifest, lineage and scores
    Show {
        /// The line
        line: String,
        /// The version
        version: u32,
    },
    /// Upload a package file as a version
    Upload {
        /// The line
        line: String,
        /// The package
        file: PathBuf,
    },
    /// Sign a version so that devices can fetch it
    Publish {
        /// The line
        line: String,
        /// The version
        version: u32,
    },
    /// Take a release back: it is signed no more, and devices refuse it
    Withdraw {
        /// The line
        line: String,
        /// The version
        version: u32,
        /// Why; kept in the audit log
        #[arg(long)]
        reason: String,
        /// Also while a rollout leads to it, or devices are to run it
        #[arg(long)]
        even_if_wanted: bool,
    },
    /// List what was signed of a line, newest first
    Releases {
        /// The line
        line: String,
    },
    /// List the patches that lead to a version, and why there are not more
    Patches {
        /// The line
        line: String,
        /// The version
        version: u32,
    },
    /// Show where aliases point, or move one
    Alias {
        /// The line
        line: String,
        /// The alias to move
        #[arg(requires = "version")]
        alias: Option<String>,
        /// Where to
        version: Option<u32>,
        /// Why
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Show everywhere an alias has pointed
    History {
        /// The line
        line: String,
        /// The alias
        #[arg(default_value = "champion")]
        alias: String,
    },
    /// Score two versions on the same labelled rows
    Compare {
        /// The line
        line: String,
        /// The version
        version: u32,
        /// The other version
        against: u32,
        /// Event time of the first rows
        #[arg(long)]
        from: Option<String>,
        /// Event time before which the rows lie
        #[arg(long)]
        to: Option<String>,
    },
}

impl Model {
    pub(super) async fn run(self, remote: &Remote) -> Result<(), Failure> {
        match self {
            Self::List { line } => {
                let versions = remote.list(&format!("/lines/{line}/versions"), usize::MAX).await?;
                remote.show_list(
                    &versions,
                    &[
                        ("v", "version"),
                        ("serves", "manifest.serve"),
                        ("auc", "result.int8.auc_roc"),
                        ("ap", "result.int8.average_precision"),
                        ("run", "run"),
                        ("bytes", "length"),
                        ("published", "published"),
                        ("aliases", "aliases"),
                    ],
                );
            }
            Self::Show { line, version } => {
                remote.show(&remote.get(&format!("/lines/{line}/versions/{version}")).await?);
            }
            Self::Upload { line, file } => {
                let body = std::fs::read(&file).with_context(|| format!("could not read {}", file.display()))?;
                let path = format!("/lines/{line}/versions");
                let version = remote.send(&path, "application/octet-stream", body.into()).await?;
                remote.done(&version, &format!("line {line} has version {}", text(&version["version"])));
            }
            Self::Publish { line, version } => {
                let release = remote.post(&format!("/lines/{line}/versions/{version}/publish"), &Value::Null).await?;
                let sentence = match release["state"].as_str() {
                    Some("waiting") => format!(
                        "version {version} waits: line {line} is attended; `cloud-hub keys draft {line} --out DIR` writes \
                         what its key has to sign"
                    ),
                    _ => format!("version {version} is published, signed by key {}", text(&release["key_id"])),
                };
                remote.done(&release, &sentence);
            }
            Self::Withdraw { line, version, reason, even_if_wanted } => {
                let body = json!({"reason": reason, "even_if_wanted": even_if_wanted});
                let done = remote.post(&format!("/lines/{line}/versions/{version}/withdraw"), &body).await?;
                let mut sentence =
                    format!("version {version} of line {line} is withdrawn: no device installs it any more");
                if done["wanted_by"].as_array().is_some_and(|by| !by.is_empty()) {
                    sentence += &format!("; still to be sent elsewhere: {}", text(&done["wanted_by"]));
                }
                remote.done(&done, &sentence);
            }
            Self::Releases { line } => {
                let releases = remote.list(&format!("/releases/{line}"), usize::MAX).await?;
                remote.show_list(
                    &releases,
                    &[("v", "version"), ("state", "state"), ("published", "published"), ("signed by", "key_id")],
                );
            }
            Self::Patches { line, version } => {
                let patches = remote.get(&format!("/patches/{line}/{version}")).await?;
                remote.show_list(
                    patches.as_array().map(Vec::as_slice).unwrap_or_default(),
                    &[
                        ("from", "from"),
                        ("format", "format"),
                        ("state", "state"),
                        ("bytes", "length"),
                        ("of whole", "of_whole"),
                        ("seconds", "seconds"),
                        ("why", "reason"),
                    ],
                );
            }
            Self::Alias { line, alias: Some(alias), version, reason } => {
                let body = json!({"version": version, "reason": reason});
                let change = remote.put(&format!("/lines/{line}/aliases/{alias}"), &body).await?;
                remote.done(&change, &format!("{alias} points to version {}", text(&change["version"])));
            }
            Self::Alias { line, alias: None, .. } => {
                let aliases = remote.get(&format!("/lines/{line}/aliases")).await?;
                show_changes(remote, aliases.as_array().map(Vec::as_slice).unwrap_or_default());
            }
            Self::History { line, alias } => {
                let changes = remote.list(&format!("/lines/{line}/aliases/{alias}/history"), usize::MAX).await?;
                show_changes(remote, &changes);
            }
            Self::Compare { line, version, against, from, to } => {
                let mut path = format!("/lines/{line}/versions/{version}/compare?against={against}");
                for (name, value) in [("from", from), ("to", to)] {
                    if let Some(value) = value {
                        path += &format!("&{name}={}", value.replace('+', "%2B"));
                    }
                }
                let found = remote.get(&path).await?;
                if remote.json() {
                    remote.show(&found);
                    return Ok(());
                }
                let both = [found["version"].clone(), found["against"].clone()];
                remote.show_list(
                    &both,
                    &[
                        ("v", "version"),
                        ("serves", "serve"),
                        ("auc", "auc_roc"),
                        ("ap", "average_precision"),
                        ("decided", "decided"),
                    ],
                );
                let [rows, positives, difference] =
                    ["rows", "positives", "auc_difference"].map(|name| text(&found[name]));
                outln!("on {rows} rows, {positives} positive; AUC difference {difference}");
            }
        }
        Ok(())
    }
}

fn show_changes(remote: &Remote, changes: &[Value]) {
    let columns = [("alias", "alias"), ("version", "version"), ("changed", "changed"), ("why", "reason")];
    remote.show_list(changes, &columns);
}
