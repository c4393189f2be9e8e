//! `device`: who is there and what it runs.

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::{Map, Value, json};
use tributary_process::config::HumanDuration;

use super::{Failure, Remote, certificates, orders};

/// Devices
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  cloud-hub device list
  cloud-hub device show edge-1
  cloud-hub device set edge-1 --label site=lyon --group canary
  cloud-hub device revoke edge-1 --reason \"stolen from the depot\"
  cloud-hub device allow-enrolment edge-1")]
pub enum Device {
    /// List devices
    List,
    /// Show one device with its last report
    Show {
        /// Its id
        device: String,
    },
    /// Set labels and group; registers a device that is not there yet
    Set {
        /// Its id
        device: String,
        /// A label such as site=lyon; the given ones replace all
        #[arg(long = "label", value_name = "KEY=VALUE")]
        labels: Vec<String>,
        /// Its group
        #[arg(long)]
        group: Option<String>,
    },
    /// Ask it for its log, a bundle, a restart or a new key
    Command(orders::Ask),
    /// What it was asked for, and what came of it
    Commands {
        /// Its id
        device: String,
    },
    /// Show or write the result of a command
    Result {
        /// Its id
        device: String,
        /// The command's id
        command: String,
        /// Where to write it; standard output when left out
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Take back a command that was not sent yet
    Cancel {
        /// Its id
        device: String,
        /// The command's id
        command: String,
    },
    /// List the certificates that a device was issued
    Certificates {
        /// Its id
        device: String,
    },
    /// Take all certificates of a device back; its connection ends at once
    Revoke {
        /// Its id
        device: String,
        /// Why, for people who look later
        #[arg(long)]
        reason: String,
    },
    /// Let a wiped, replaced or revoked device enrol once more under its id
    AllowEnrolment {
        /// Its id
        device: String,
        /// How long this holds, such as 2h or 1d
        #[arg(long, default_value = "1d", value_name = "TIME")]
        expires: HumanDuration,
    },
}

/// Labels as people write them.
pub(super) fn pairs(labels: Vec<String>) -> Result<Map<String, Value>, Failure> {
    let mut pairs = Map::new();
    for label in labels {
        let wrong = || Failure::Usage(format!("label {label:?} is not of the form key=value"));
        let (key, value) = label.split_once('=').ok_or_else(wrong)?;
        pairs.insert(key.to_owned(), Value::from(value));
    }
    Ok(pairs)
}

impl Device {
    pub(super) async fn run(self, remote: &Remote) -> Result<(), Failure> {
        match self {
            Self::List => {
                let devices = remote.list("/devices", usize::MAX).await?;
                remote.show_list(
                    &devices,
                    &[
                        ("device", "id"),
                        ("on", "connected"),
                        ("version", "report.lines.0.committed.version"),
                        ("state", "report.lines.0.state"),
                        ("generation", "report.generation"),
                        ("group", "group"),
                        ("last seen", "last_seen"),
                    ],
                );
            }
            Self::Command(ask) => ask.run(remote).await?,
            Self::Commands { device } => orders::list(remote, &device).await?,
            Self::Result { device, command, output } => orders::show(remote, &device, &command, output).await?,
            Self::Cancel { device, command } => orders::cancel(remote, &device, &command).await?,
            Self::Show { device } => remote.show(&remote.get(&format!("/devices/{device}")).await?),
            Self::Set { device, labels, group } => {
                let body = json!({"labels": pairs(labels)?, "group": group});
                let set = remote.put(&format!("/devices/{device}"), &body).await?;
                remote.done(&set, &format!("device {device} is set"));
            }
            Self::Certificates { device } => certificates::list(remote, &device).await?,
            Self::Revoke { device, reason } => certificates::revoke(remote, &device, &reason).await?,
            Self::AllowEnrolment { device, expires } => certificates::allow(remote, &device, expires).await?,
        }
        Ok(())
    }
}
