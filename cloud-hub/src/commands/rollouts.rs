//! `rollout` and `alert`: moving the fleet, and what a person should know.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::{Subcommand, ValueEnum};
use serde_json::json;
use tributary_process::config::HumanDuration;
use tributary_process::out;
use tributary_wire::Micros;

use super::show::{fold, instant, text};
use super::{Failure, Remote};

/// In which steps.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Strategy {
    /// Every device at once
    All,
    /// A growing share of the fleet
    Waves,
}

/// Rollouts
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  cloud-hub rollout start card-fraud 2 --percent 10,50,100 --wait
  cloud-hub rollout start card-fraud 2 --strategy all --patch-wait 0s
  cloud-hub rollout start card-fraud 3 --role challenger-b --share 500 --selector site=lyon
  cloud-hub rollout share 2 1000
  cloud-hub rollout end 2
  cloud-hub rollout show 1
  cloud-hub rollout abort 1 --reason 'wrong version'")]
pub enum Rollout {
    /// Bring a published version to the fleet
    Start {
        /// The line
        line: String,
        /// The version
        version: u32,
        /// What it does on a device: primary, shadow (scored, never answers) or challenger-<name>
        #[arg(long, default_value = "primary")]
        role: String,
        /// Of how many entities in 10 000 a challenger answers
        #[arg(long, default_value_t = 0, value_name = "PER_10_000")]
        share: u16,
        /// Only for devices with these labels, such as site=lyon,gpu=true
        #[arg(long, value_name = "LABELS", default_value = "")]
        selector: String,
        /// In which steps; the policy's own when left out
        #[arg(long)]
        strategy: Option<Strategy>,
        /// Share of the fleet after each wave, such as 10,50,100
        #[arg(long, value_delimiter = ',')]
        percent: Vec<u8>,
        /// Predictions that a wave must make before the next begins
        #[arg(long)]
        min_predictions: Option<u64>,
        /// How long a wave waits for patches to the release, such as 10m; 0s: not at all
        #[arg(long, value_name = "DURATION")]
        patch_wait: Option<HumanDuration>,
        /// Policy file (TOML); flags win over it
        #[arg(long, value_name = "FILE")]
        policy: Option<PathBuf>,
        /// Show its steps until it ends; exit code 1 when it was not completed
        #[arg(long)]
        wait: bool,
    },
    /// List rollouts, newest first
    List {
        /// How many at most
        #[arg(long, default_value_t = 20)]
        most: usize,
    },
    /// Show a rollout with its devices and reasons
    Show {
        /// Its number
        rollout: i64,
    },
    /// Give a challenger another share of the predictions
    Share {
        /// Its number
        rollout: i64,
        /// Of how many entities in 10 000 it answers; 0: it is only scored
        share: u16,
        /// Why
        #[arg(long, default_value = "asked for on the command line")]
        reason: String,
    },
    /// Take a role beside the primary from every device
    End {
        /// Its number
        rollout: i64,
        /// Why
        #[arg(long, default_value = "asked for on the command line")]
        reason: String,
    },
    /// Hold it where it is
    Pause {
        /// Its number
        rollout: i64,
        /// Why
        #[arg(long, default_value = "asked for on the command line")]
        reason: String,
    },
    /// Let it go on
    Resume {
        /// Its number
        rollout: i64,
        /// Why
        #[arg(long, default_value = "asked for on the command line")]
        reason: String,
    },
    /// Stop it and take every device back
    Abort {
        /// Its number
        rollout: i64,
        /// Why
        #[arg(long, default_value = "asked for on the command line")]
        reason: String,
    },
}

impl Rollout {
    pub(super) async fn run(self, remote: &Remote) -> Result<(), Failure> {
        match self {
            Self::Start {
                line,
                version,
                role,
                share,
                selector,
                strategy,
                percent,
                min_predictions,
                patch_wait,
                policy,
                wait,
            } => {
                let mut rules = match &policy {
                    None => json!({}),
                    Some(path) => {
                        let text = std::fs::read_to_string(path)
                            .with_context(|| format!("could not read {}", path.display()))?;
                        toml::from_str(&text).map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))?
                    }
                };
                if let Some(strategy) = strategy {
                    rules["strategy"] = match strategy {
                        Strategy::All => "all".into(),
                        Strategy::Waves => "waves".into(),
                    };
                }
                if !percent.is_empty() {
                    rules["percent"] = percent.into();
                }
                if let Some(count) = min_predictions {
                    rules["min_predictions"] = count.into();
                }
                if let Some(HumanDuration(wait)) = patch_wait {
                    rules["patch_wait_s"] = wait.as_secs().into();
                }
                let mut body = json!({
                    "line": line, "version": version, "role": role, "share": share, "selector": selector,
                });
                // No rules at all: those of the line's settings hold.
                if rules.as_object().is_some_and(|rules| !rules.is_empty()) {
                    body["policy"] = rules;
                }
                let started = remote.post("/rollouts", &body).await?;
                match (wait, started["id"].as_i64()) {
                    (true, Some(id)) => watch(remote, id).await?,
                    _ => remote.done(&started, &format!("rollout {} began", text(&started["id"]))),
                }
            }
            Self::List { most } => {
                let rollouts = remote.list("/rollouts", most).await?;
                remote.show_list(
                    &rollouts,
                    &[
                        ("id", "id"),
                        ("line", "line"),
                        ("role", "role"),
                        ("version", "version"),
                        ("state", "state"),
                        ("wave", "wave"),
                        ("why", "reason"),
                    ],
                );
            }
            Self::Show { rollout } => {
                let mut rollout = remote.get(&format!("/rollouts/{rollout}")).await?;
                if let Some(steps) = rollout["steps"].as_array_mut().filter(|_| !remote.json()) {
                    for step in steps {
                        let time = instant(Micros(step["time"].as_i64().unwrap_or(0)));
                        *step = format!("{time} {}", text(&step["message"])).into();
                    }
                }
                remote.show(&rollout);
            }
            Self::Share { rollout, share, reason } => {
                let body = json!({"share": share, "reason": reason});
                let changed = remote.post(&format!("/rollouts/{rollout}/share"), &body).await?;
                remote.done(&changed, &format!("the share is {share} in 10000"));
            }
            Self::End { rollout, reason } => command(remote, rollout, "end", &reason).await?,
            Self::Pause { rollout, reason } => command(remote, rollout, "pause", &reason).await?,
            Self::Resume { rollout, reason } => command(remote, rollout, "resume", &reason).await?,
            Self::Abort { rollout, reason } => command(remote, rollout, "abort", &reason).await?,
        }
        Ok(())
    }
}

async fn command(remote: &Remote, rollout: i64, verb: &str, reason: &str) -> Result<(), Failure> {
    let changed = remote.post(&format!("/rollouts/{rollout}/{verb}"), &json!({"reason": reason})).await?;
    remote.done(&changed, &format!("rollout {rollout} is {}", text(&changed["state"])));
    Ok(())
}

async fn watch(remote: &Remote, id: i64) -> Result<(), Failure> {
    let mut last = String::new();
    loop {
        let rollout = remote.get(&format!("/rollouts/{id}")).await?;
        let state = text(&rollout["state"]);
        let now = format!("rollout {id} is {state}, wave {}", text(&rollout["wave"]));
        if now != last {
            eprintln!("{now}");
            last = now;
        }
        match state.as_str() {
            "completed" => {
                remote.done(&rollout, &format!("rollout {id} is completed"));
                return Ok(());
            }
            "stopped" => {
                return Err(anyhow::anyhow!("rollout {id} is stopped: {}", text(&rollout["stop_reason"])).into());
            }
            _ => tokio::time::sleep(Duration::from_millis(500)).await,
        }
    }
}

/// Alerts
#[derive(Debug, Subcommand)]
pub enum Alert {
    /// List alerts, newest first
    List {
        /// How many at most
        #[arg(long, default_value_t = 50)]
        most: usize,
    },
    /// Say that an alert is known
    Silence {
        /// Its id
        alert: String,
        /// For how long, such as 2h or 7d
        #[arg(long = "for", default_value = "1d")]
        duration: HumanDuration,
    },
}

impl Alert {
    pub(super) async fn run(self, remote: &Remote) -> Result<(), Failure> {
        match self {
            Self::List { most } => {
                let alerts = remote.list("/alerts", most).await?;
                if remote.json() || alerts.is_empty() {
                    remote.show_list(&alerts, &[]);
                    return Ok(());
                }
                for alert in alerts {
                    let opened = instant(Micros(alert["opened"].as_i64().unwrap_or(0)));
                    let [id, kind, subject, state] = ["id", "kind", "subject", "state"].map(|name| text(&alert[name]));
                    let mut told = format!("{id}  {state}  {kind}  {subject}  {opened}\n");
                    let detail = &alert["detail"];
                    let why = ["reason", "problem"].into_iter().find(|name| detail[name].is_string());
                    fold(&mut told, "  ", &text(why.map_or(detail, |name| &detail[name])), 2);
                    out!("{told}");
                }
            }
            Self::Silence { alert, duration } => {
                let silenced =
                    remote.post(&format!("/alerts/{alert}/silence"), &json!({"seconds": duration.0.as_secs()})).await?;
                remote.done(&silenced, &format!("alert {alert} is {}", text(&silenced["state"])));
            }
        }
        Ok(())
    }
}
