//! From nothing to a model that decides.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use serde_json::{Value, json};

use super::hub::{Page, Run};
use super::{AGENTS, CHANGE_DAY, PATIENCE, SHORT_PATIENCE, STREAM_DAYS, Story};
use crate::display::{Display, thousands};
use crate::fleet::{Fleet, LINE, Wish};
use crate::options::Options;
use crate::step::Step;
use crate::{recount, wait};

/// The hub and the agents run, and the hub sees every agent.
pub async fn start(display: &mut Display, options: &Options, folder: &Path) -> Result<Fleet> {
    display.step(Step::Start);
    let sabotaged = options.sabotage == Some(Step::Start);
    let wish = Wish {
        executable: std::env::current_exe()?,
        agents: AGENTS,
        view: tributary_fraud::VIEW_TOML,
        misled: sabotaged.then_some(AGENTS - 1),
    };
    let mut fleet = Fleet::start(folder, &wish).await?;
    let patience = if sabotaged { SHORT_PATIENCE } else { PATIENCE };
    wait::until("all agents are connected", patience, async || {
        fleet.check()?;
        let devices: Page<Value> = fleet.api.get("/api/v1/devices").await?;
        let connected = devices.items.iter().filter(|device| device["connected"] == true).count();
        if connected != AGENTS {
            return Ok(Err(format!("{connected} of {AGENTS} are")));
        }
        // The hub knows of a connection a moment before the agent does.
        for local in &fleet.locals {
            let status: Value = local.get("/v1/status").await?;
            match status["hub"]["transport"].as_str() {
                None => return Ok(Err("an agent has not heard the hub's answer yet".to_owned())),
                Some("quic") => {}
                Some(other) => bail!("an agent speaks over {other} with its hub on this machine, expected quic"),
            }
        }
        Ok(Ok(()))
    })
    .await?;
    display.fact(format!("a hub with its own certificate authority; web API at {}", fleet.api.endpoint()));
    display.fact("a signed repository: root keys, 2 of 3, made offline; they say who signs which model line");
    display.fact(format!("{AGENTS} agents, enrolled with one token, certified, connected by MQTT 5 over QUIC"));
    Ok(fleet)
}

impl Story {
    /// Payments are decided by the fallback, and every one reaches the lake.
    pub async fn stream(&mut self) -> Result<()> {
        self.send("views", "application/toml", tributary_fraud::VIEW_TOML.into()).await?;
        self.set_line(json!({"strategy": "all", "min_predictions": 100})).await?;
        let sent = self.days_until(STREAM_DAYS).await?;
        let share = 100.0 * sent.frauds as f64 / sent.payments.max(1) as f64;
        self.display.fact(format!(
            "{} payments in {STREAM_DAYS} days, {share:.1} % frauds; labels follow 7 days later",
            thousands(sent.payments as u64)
        ));
        let accepted = self.traffic.accepted.len();
        self.wait_for_lake(accepted).await?;
        if self.sabotaged(Step::Stream) {
            let files = recount::files(&self.fleet.lake().join("events"))?;
            std::fs::remove_file(&files[files.len() / 2])?;
        }
        let found = recount::event_ids(&self.fleet.lake(), "events")?.len();
        ensure!(found == accepted, "{accepted} payments were accepted but {found} are in the lake");
        self.display.fact(format!("all {} accepted events are in the lake's Parquet files", thousands(found as u64)));
        Ok(())
    }

    /// Waits until the hub has registered so many events and observations.
    pub async fn wait_for_lake(&mut self, accepted: usize) -> Result<()> {
        wait::until("the lake has every record", self.patience(), async || {
            self.fleet.check()?;
            let streams: Vec<Value> = self.ask("lake/streams").await?;
            let rows = |name: &str| {
                let stream = streams.iter().find(|stream| stream["stream"] == name);
                stream.and_then(|stream| stream["rows"].as_u64()).unwrap_or(0) as usize
            };
            let (events, observations) = (rows("events"), rows("observations"));
            let complete = events >= accepted && observations >= accepted;
            let missing = format!("{events} events and {observations} observations of {accepted}");
            Ok(if complete { Ok(()) } else { Err(missing) })
        })
        .await
    }

    /// A first model, asked for by hand.
    pub async fn train(&mut self) -> Result<()> {
        let range = json!({
            "line": LINE,
            "from": self.traffic.midnight(7).0,
            "to": self.traffic.midnight(STREAM_DAYS - 7).0,
            "reason": "the first model of the line",
        });
        let run: Run = self.post("runs", &range).await?;
        if self.sabotaged(Step::Train) {
            self.post::<Value>(&format!("runs/{}/cancel", run.id), &json!({})).await?;
        }
        let version = self.finish_run(run.id).await?;
        let auc = self.summary.versions[&version].auc_int8;
        ensure!(auc > 0.75, "a first model with AUC {auc:.3} is worth nothing");
        Ok(())
    }

    /// Follows a run to its end and tells what it found.
    pub async fn finish_run(&mut self, id: i64) -> Result<u32> {
        let run = wait::until("the run ends", PATIENCE, async || {
            self.fleet.check()?;
            let run = self.run(id).await?;
            if let Some(newest) = run.progress.last() {
                self.display.progress(progress(newest));
            }
            Ok(match run.state.as_str() {
                "queued" | "running" => Err(format!("it is {}", run.state)),
                _ => Ok(run),
            })
        })
        .await?;
        let (Some(result), Some(version)) = (&run.result, run.version) else {
            bail!("run {id} {}: {}", run.state, run.error.unwrap_or_default());
        };
        ensure!(run.state == "succeeded", "run {id} {}", run.state);
        self.display.fact(format!(
            "run {id}: {} payments ({} frauds) to learn from, tested on {} later ones",
            thousands(result.training.rows),
            result.training.positives,
            thousands(result.test.rows)
        ));
        self.display.fact(format!(
            "version {version}: AUC {:.3} as f32, {:.3} as int8; {}",
            result.f32.auc_roc, result.int8.auc_roc, result.quantization.reason
        ));
        let result = result.clone();
        self.note_version(version, &result);
        Ok(version)
    }

    /// The closed loop publishes the first version and rolls it out to all; payments go on meanwhile.
    pub async fn ship(&mut self) -> Result<()> {
        if self.sabotaged(Step::Ship) {
            self.fleet.agents[AGENTS - 1].kill();
            bail!(
                "agent {AGENTS} was stopped: {}",
                self.day().await.err().map_or("nothing failed".into(), |e| format!("{e:#}"))
            );
        }
        let rollout = self.roll_out(1, CHANGE_DAY - 7).await?;
        let bytes = self.summary.bytes_shipped.get(&1).copied().unwrap_or(0);
        self.display.fact(format!(
            "rollout {}: {} bytes fetched, checked by the chain root, timestamp, snapshot, targets, line; golden cases run, tried, committed on {} agents",
            rollout.id,
            thousands(bytes),
            rollout.members.len()
        ));
        Ok(())
    }

    /// Sends payments until every agent has committed the version, at most up to `last_day`.
    pub async fn roll_out(&mut self, version: u32, last_day: i64) -> Result<super::hub::Rollout> {
        let deadline = std::time::Instant::now() + self.patience();
        let mut sent = std::time::Instant::now();
        loop {
            self.fleet.check()?;
            let rollout = self.rollout_of(version).await?;
            let done = rollout.as_ref().is_some_and(|rollout| rollout.state == "completed");
            if let Some(rollout) = rollout.clone().filter(|_| done) {
                let committed = rollout.members.iter().filter(|member| member.state == "committed").count();
                ensure!(committed == AGENTS, "{committed} of {AGENTS} agents have committed version {version}");
                let bytes = self.summary.versions.get(&version).map_or(0, |found| found.package_bytes);
                self.summary.bytes_shipped.insert(version, bytes * AGENTS as u64);
                return Ok(rollout);
            }
            let stands = rollout.as_ref().map_or("no rollout yet".into(), |rollout| {
                let wave = rollout.wave.map(|wave| format!(", wave {wave}")).unwrap_or_default();
                format!("{}{wave}; {}", rollout.state, rollout.waiting.join("; "))
            });
            if std::time::Instant::now() > deadline {
                bail!("version {version} did not reach every agent: {stands}");
            }
            self.display.progress(&stands);
            // A day a second at most: trials need payments, but the story has only so many days.
            if self.traffic.day < last_day && sent.elapsed() > Duration::from_secs(1) {
                self.day().await?;
                sent = std::time::Instant::now();
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// A week of payments, each decided by the first version, with all its features.
    pub async fn decide(&mut self) -> Result<()> {
        if self.sabotaged(Step::Decide) {
            self.lose_a_package().await?;
        }
        let from = self.traffic.day;
        self.days_until(from + 7).await?;
        let week = self.traffic.accepted.values().filter(|answer| answer.day >= from);
        let (mut decided, mut degraded, mut declined, mut frauds, mut caught) = (0_u64, 0_u64, 0_u64, 0_u64, 0_u64);
        for answer in week {
            ensure!(answer.version == 1, "a payment was decided by version {}", answer.version);
            decided += 1;
            degraded += u64::from(answer.degraded);
            declined += u64::from(answer.declined);
            frauds += u64::from(answer.fraud);
            caught += u64::from(answer.declined && answer.fraud);
        }
        ensure!(decided > 0, "no payment was decided");
        ensure!(degraded * 100 <= decided, "{degraded} of {decided} decisions were degraded");
        self.display.fact(format!(
            "{} payments decided by version 1: {declined} declined, {caught} of {frauds} frauds among them",
            thousands(decided)
        ));
        Ok(())
    }

    /// Takes the package store away from one agent, as a broken disk would.
    async fn lose_a_package(&mut self) -> Result<()> {
        let agent = &mut self.fleet.agents[AGENTS - 1];
        agent.kill();
        std::fs::remove_dir_all(self.fleet.folder.join(&agent.name).join("packages"))?;
        agent.start()?;
        self.fleet.agents_answer(SHORT_PATIENCE).await
    }
}

fn progress(newest: &Value) -> String {
    let fields = newest.as_object().into_iter().flatten();
    let shown = fields.filter(|(_, value)| value.is_number() || value.is_string());
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    shown.map(|(name, value)| format!("{name} {}", text(value))).collect::<Vec<_>>().join(", ")
}
