//! `train`: operators ask the hub for runs; `train run DIR` carries one out in this process, as the hub's child does.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::{Args, Subcommand};
use cloud_hub_trainer::Step;
use serde_json::{Value, json};
use tributary_process::outln;

use super::show::text;
use super::{Failure, Remote};

/// Training runs
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  cloud-hub train start card-fraud --wait
  cloud-hub train list
  cloud-hub train run hub-data/runs/3        repeat a prepared run here")]
pub enum Train {
    /// Ask the hub for a run
    Start {
        /// The line
        line: String,
        /// A dataset that is there; else one is made
        #[arg(long, conflicts_with_all = ["from", "to"])]
        dataset: Option<i64>,
        /// Event time of the first rows
        #[arg(long)]
        from: Option<String>,
        /// Event time before which the rows lie
        #[arg(long)]
        to: Option<String>,
        /// Decides chance
        #[arg(long)]
        seed: Option<u64>,
        /// Why
        #[arg(long)]
        reason: Option<String>,
        /// Show progress until it ends; exit code 1 when it did not succeed
        #[arg(long)]
        wait: bool,
    },
    /// List runs, newest first
    List {
        /// Only of this line
        #[arg(long)]
        line: Option<String>,
        /// How many at most
        #[arg(long, default_value_t = 20)]
        most: usize,
    },
    /// Show a run with its progress and result
    Show {
        /// Its number
        run: i64,
    },
    /// Watch a run until it ends
    Wait {
        /// Its number
        run: i64,
    },
    /// Stop a run
    Cancel {
        /// Its number
        run: i64,
    },
    /// Carry out a prepared run (a folder with run.json) in this process
    Run(Run),
}

/// How often a run is looked at while waiting.
const LOOK: Duration = Duration::from_millis(300);

impl Train {
    pub(super) async fn run(self, remote: &Remote) -> Result<(), Failure> {
        match self {
            Self::Start { line, dataset, from, to, seed, reason, wait } => {
                let mut body = json!({"line": line});
                for (name, value) in [
                    ("dataset", dataset.map(Value::from)),
                    ("from", from.map(Value::from)),
                    ("to", to.map(Value::from)),
                    ("seed", seed.map(Value::from)),
                    ("reason", reason.map(Value::from)),
                ] {
                    if let Some(value) = value {
                        body[name] = value;
                    }
                }
                let run = remote.post("/runs", &body).await?;
                match (wait, run["id"].as_i64()) {
                    (true, Some(id)) => watch(remote, id).await?,
                    _ => remote.done(&run, &format!("run {} is queued", text(&run["id"]))),
                }
            }
            Self::List { line, most } => {
                let query = line.map(|line| format!("?line={line}")).unwrap_or_default();
                let runs = remote.list(&format!("/runs{query}"), most).await?;
                remote.show_list(
                    &runs,
                    &[
                        ("run", "id"),
                        ("line", "line"),
                        ("state", "state"),
                        ("version", "version"),
                        ("auc", "result.int8.auc_roc"),
                        ("created", "created"),
                        ("why", "reason"),
                    ],
                );
            }
            Self::Show { run } => {
                let mut run = remote.get(&format!("/runs/{run}")).await?;
                if let Some(steps) = run["progress"].as_array_mut().filter(|_| !remote.json()) {
                    steps.iter_mut().for_each(|step| *step = step_line(step).into());
                }
                remote.show(&run);
            }
            Self::Wait { run } => watch(remote, run).await?,
            Self::Cancel { run } => {
                let cancelled = remote.post(&format!("/runs/{run}/cancel"), &Value::Null).await?;
                remote.done(&cancelled, &format!("run {run} is {}", text(&cancelled["state"])));
            }
            Self::Run(_) => {}
        }
        Ok(())
    }
}

async fn watch(remote: &Remote, id: i64) -> Result<(), Failure> {
    let (mut shown, mut stages) = (0, BTreeSet::new());
    loop {
        let run = remote.get(&format!("/runs/{id}")).await?;
        let state = text(&run["state"]);
        let stage = format!("run {id} is {state}, step {}", text(&run["step"]));
        if stages.insert(stage.clone()) {
            eprintln!("{stage}");
        }
        let steps = run["progress"].as_array().cloned().unwrap_or_default();
        // A run that was started again says everything anew.
        shown = if steps.len() < shown { 0 } else { shown };
        for step in &steps[shown..] {
            eprintln!("  {}", step_line(step));
        }
        shown = steps.len();
        match state.as_str() {
            "succeeded" => {
                let version = text(&run["version"]);
                remote.done(&run, &format!("run {id} gave version {version} of line {}", text(&run["line"])));
                return Ok(());
            }
            "failed" | "cancelled" => return Err(anyhow::anyhow!("run {id} {state}: {}", text(&run["error"])).into()),
            _ => tokio::time::sleep(LOOK).await,
        }
    }
}

/// One step of the trainer as a person reads it.
fn step_line(step: &Value) -> String {
    match serde_json::from_value::<Step>(step.clone()) {
        Ok(step) => describe(&step),
        Err(_) => step.to_string(),
    }
}

fn describe(step: &Step) -> String {
    match step {
        Step::Data { training, training_positives, validation, test } => {
            format!(
                "{training} rows to train on ({training_positives} positive), {validation} to validate, {test} to test"
            )
        }
        Step::FromScratch { reason } => format!("begins from scratch: {reason}"),
        Step::Epoch { epoch, of, loss, validation_auc, validation_average_precision, seconds_left } => format!(
            "epoch {epoch}/{of}  loss {loss:.4}  AUC {validation_auc:.4}  AP {validation_average_precision:.4}  {seconds_left:.0} s left"
        ),
        Step::Quantized { f32, int8, passed } => {
            format!("int8 scores {int8:.4}, f32 {f32:.4}: {} ships", if *passed { "int8" } else { "f32" })
        }
        Step::Tested { auc, average_precision } => {
            format!("on later rows: AUC {auc:.4}, average precision {average_precision:.4}")
        }
        Step::Done { bytes } => format!("package of {bytes} bytes"),
    }
}

/// Carry out a prepared run
#[derive(Debug, Args)]
pub struct Run {
    /// Folder with run.json; progress, result and package are left beside it
    folder: PathBuf,
    /// Stop when standard input ends: how a hub's child notices that the hub is gone
    #[arg(long, hide = true)]
    stop_with_input: bool,
}

/// How long a run may take to stop by itself after its hub is gone.
const STOP: Duration = Duration::from_secs(2);

impl Run {
    /// Trains in this process; the trainer's own exit codes: 2 settings, 3 data, 4 training, 5 files, 6 cancelled.
    pub fn run(self) -> ExitCode {
        let stop = Arc::new(AtomicBool::new(false));
        if self.stop_with_input {
            let stop = stop.clone();
            std::thread::spawn(move || {
                let _ = std::io::stdin().lock().read_to_end(&mut Vec::new());
                stop.store(true, Ordering::Relaxed);
                std::thread::sleep(STOP);
                std::process::exit(6);
            });
        }
        let mut progress = |step: &Step| {
            eprintln!("{}", describe(step));
            !stop.load(Ordering::Relaxed)
        };
        match cloud_hub_trainer::run(&self.folder, &mut progress) {
            Ok(result) => {
                outln!("version {} of line {}: AUC {:.4}", result.version, result.line, result.served().auc_roc);
                ExitCode::SUCCESS
            }
            Err(error) => {
                // Its words include those of its causes.
                eprintln!("error: {error}");
                ExitCode::from(error.exit_code())
            }
        }
    }
}
