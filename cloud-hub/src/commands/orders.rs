//! `device command`, `device commands`, `device result`, `device cancel`: what a device is asked for, and its answer.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use tributary_process::config::HumanDuration;

use super::show::{plain, text};
use super::{Failure, Remote};

/// How often a waiting command looks.
const LOOK: Duration = Duration::from_millis(300);

/// Ask a device for something, once
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cloud-hub device command edge-1 logs --lines 200 --wait
  cloud-hub device command edge-1 diagnostics --output bundle.tar.zst
  cloud-hub device command edge-1 restart --deadline 1h")]
pub struct Ask {
    /// Its id
    device: String,
    #[command(subcommand)]
    order: Order,
    /// Wait for the result and show it
    #[arg(long, global = true)]
    wait: bool,
    /// How long it is tried, such as 15m
    #[arg(long, global = true, value_name = "TIME")]
    deadline: Option<HumanDuration>,
}

#[derive(Debug, Subcommand)]
enum Order {
    /// The last lines of its log
    Logs {
        /// At most so many
        #[arg(long, default_value_t = 200)]
        lines: u32,
    },
    /// A bundle for whoever looks for a fault; always waits
    Diagnostics {
        /// Where to write it: a tar archive, compressed with zstd
        #[arg(long, value_name = "FILE")]
        output: PathBuf,
    },
    /// Start its agent again, in place
    Restart,
    /// Make a new key and have it certified
    RotateKey,
}

impl Ask {
    pub(super) async fn run(self, remote: &Remote) -> Result<(), Failure> {
        let deadline = self.deadline.map(|deadline| deadline.0.as_secs());
        let (body, output) = match &self.order {
            Order::Logs { lines } => (json!({"order": "logs", "lines": lines}), None),
            Order::Diagnostics { output } => (json!({"order": "diagnostics"}), Some(output.clone())),
            Order::Restart => (json!({"order": "restart"}), None),
            Order::RotateKey => (json!({"order": "rotate-key"}), None),
        };
        let mut body = body;
        body["deadline_seconds"] = json!(deadline);
        let asked = remote.post(&format!("/devices/{}/commands", self.device), &body).await?;
        if !self.wait && output.is_none() {
            let sentence = format!(
                "{} is {}; look with: cloud-hub device commands {}",
                text(&asked["id"]),
                text(&asked["state"]),
                self.device
            );
            remote.done(&asked, &sentence);
            return Ok(());
        }
        let path = format!("/devices/{}/commands/{}", self.device, text(&asked["id"]));
        eprintln!("command {} is {}; waiting for its result", text(&asked["id"]), text(&asked["state"]));
        let mut command = asked;
        // The hub ends it at its deadline, so this ends too.
        while matches!(command["state"].as_str(), Some("queued" | "sent")) {
            tokio::time::sleep(LOOK).await;
            command = remote.get(&path).await?;
        }
        match command["state"].as_str() {
            Some("done") => result(remote, &path, &command, output).await,
            state => {
                let reason = command["reason"].as_str().filter(|reason| !reason.is_empty());
                let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
                Err(anyhow::anyhow!("the command is {}{reason}", state.unwrap_or("gone")).into())
            }
        }
    }
}

/// Shows or writes what a device sent.
async fn result(remote: &Remote, path: &str, command: &Value, output: Option<PathBuf>) -> Result<(), Failure> {
    let mut body = Vec::new();
    remote.save(&format!("{path}/result"), &mut body).await?;
    match output {
        Some(file) => {
            std::fs::write(&file, &body).with_context(|| format!("could not write {}", file.display()))?;
            remote.done(command, &format!("{} bytes are in {}", body.len(), file.display()));
        }
        None if remote.json() => remote.show(command),
        // What a device says must not steer the terminal; whoever keeps it in a file gets it as it is.
        None if std::io::stdout().is_terminal() => {
            let keep = |letter| if matches!(letter, '\n' | '\t') { letter } else { '\u{fffd}' };
            let shown = plain(&String::from_utf8_lossy(&body), keep);
            std::io::stdout().lock().write_all(shown.as_bytes()).context("could not write to standard output")?;
        }
        None => {
            std::io::stdout().lock().write_all(&body).context("could not write to standard output")?;
        }
    }
    Ok(())
}

/// Lists what a device was asked for, newest first.
pub(super) async fn list(remote: &Remote, device: &str) -> Result<(), Failure> {
    let commands = remote.list(&format!("/devices/{device}/commands"), 100).await?;
    remote.show_list(
        &commands,
        &[
            ("command", "id"),
            ("order", "order"),
            ("state", "state"),
            ("asked", "created"),
            ("sent", "times"),
            ("reason", "reason"),
        ],
    );
    Ok(())
}

/// Shows or writes the result of an earlier command.
pub(super) async fn show(remote: &Remote, device: &str, id: &str, output: Option<PathBuf>) -> Result<(), Failure> {
    let path = format!("/devices/{device}/commands/{id}");
    let command = remote.get(&path).await?;
    result(remote, &path, &command, output).await
}

/// Takes a command back.
pub(super) async fn cancel(remote: &Remote, device: &str, id: &str) -> Result<(), Failure> {
    let cancelled = remote.delete(&format!("/devices/{device}/commands/{id}")).await?;
    remote.done(&cancelled, &format!("command {id} is cancelled"));
    Ok(())
}
