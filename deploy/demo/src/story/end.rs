//! A bad release, and the last count.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use hyper::Method;
use serde_json::{Value, json};
use tributary_inference::onnx::Graph;
use tributary_release::Package;
use tributary_wire::VersionNumber;

use super::hub::{Page, Rollout, Version};
use super::{AGENTS, DAYS, Story};
use crate::display::thousands;
use crate::fleet::LINE;
use crate::recount;
use crate::step::Step;

/// The feature that the bad package cannot stand: it is 1 for payments at night.
const FEATURE: &str = "night";

impl Story {
    /// A package that is signed and passes its golden cases, but fails on payments at night: the first agent undoes
    /// it by itself, no other agent gets it, and the rollout stops.
    pub async fn bad_release(&mut self) -> Result<()> {
        self.rest().await?;
        let versions: Page<Version> = self.ask(&format!("lines/{LINE}/versions")).await?;
        let newest = versions.items.iter().map(|version| version.version).max().context("no versions")?;
        let history: Value = self.ask(&format!("lines/{LINE}/aliases/champion/history")).await?;
        let champion = history["items"][0]["version"].as_u64().context("no champion")? as u32;
        let sound = versions.items.iter().find(|version| version.version == champion).context("no champion")?;
        let path = format!("/api/v1/repository/targets/models/{LINE}/{}.v{champion}.tpk", sound.sha256);
        let file = self.fleet.api.send(Method::GET, &path, "", Default::default()).await?.accepted()?.body;
        ensure!(file.len() as u64 == sound.length, "the package has another length than the registry says");
        let bad = newest + 1;
        let package = if self.sabotaged(Step::BadRelease) { renumbered(&file, bad)? } else { spoiled(&file, bad)? };
        self.send(&format!("lines/{LINE}/versions"), "application/octet-stream", package).await?;
        self.post::<Value>(&format!("lines/{LINE}/versions/{bad}/publish"), &json!({})).await?;
        let policy = json!({"strategy": "waves", "percent": [30, 60, 100], "min_predictions": 100});
        let body = json!({"line": LINE, "version": bad, "policy": policy, "reason": "a bad package, on purpose"});
        self.post::<Value>("rollouts", &body).await?;
        self.display.fact(format!("version {bad} is signed and passes its golden cases, but fails at night"));

        let deadline = Instant::now() + self.patience();
        let mut sent = Instant::now();
        let rollout = loop {
            self.fleet.check()?;
            let rollout = self.rollout_of(bad).await?.context("the rollout is gone")?;
            match rollout.state.as_str() {
                "stopped" => break rollout,
                "completed" => bail!("the bad version reached every agent"),
                _ if Instant::now() > deadline => {
                    bail!("the rollout is {}: {}", rollout.state, rollout.waiting.join("; "))
                }
                _ => {}
            }
            self.display.progress(format!("{}; {}", rollout.state, rollout.waiting.join("; ")));
            if self.traffic.day < i64::from(DAYS) && sent.elapsed() > Duration::from_secs(1) {
                self.day().await?;
                sent = Instant::now();
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        let members: Vec<&str> = rollout.members.iter().map(|member| member.device.as_str()).collect();
        ensure!(members.len() == 1, "the bad version was assigned to {members:?}");
        for local in &self.fleet.locals {
            let status: Value = local.get("/v1/status").await?;
            let committed = committed_version(&status);
            ensure!(committed == Some(champion), "an agent runs version {committed:?}: {status}");
        }
        let why = rollout.stop_reason.or(rollout.members[0].detail.clone()).unwrap_or_default();
        self.display.fact(format!("{} undid it by itself; the rollout stopped: {why}", members[0]));
        self.display.fact(format!("all {AGENTS} agents run version {champion}; no other agent ever got version {bad}"));
        Ok(())
    }

    /// Takes the closed loop's hands off the line and lets what it has begun end: one rollout at a time.
    async fn rest(&mut self) -> Result<()> {
        self.set_retrain_manual().await?;
        let deadline = Instant::now() + self.patience();
        // Between a run's end and the rollout that follows from it there is a moment in which nothing is under way.
        let mut calm = 0;
        loop {
            let runs = self.runs().await?;
            let rollouts: Page<Rollout> = self.ask("rollouts").await?;
            let busy = runs.iter().any(|run| matches!(run.state.as_str(), "queued" | "running"))
                || rollouts.items.iter().any(|rollout| matches!(rollout.state.as_str(), "running" | "stopping"));
            calm = if busy { 0 } else { calm + 1 };
            if calm == 3 {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "what the closed loop had begun did not end");
            self.display.progress("waiting for what the closed loop has begun");
            if busy && self.traffic.day < i64::from(DAYS) - 15 {
                self.day().await?;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// What agents said they accepted is in the lake, once, or reported as dropped.
    pub async fn reconcile(&mut self) -> Result<()> {
        let accepted = self.traffic.accepted.len();
        self.wait_for_lake(accepted).await?;
        let events = recount::event_ids(&self.fleet.lake(), "events")?;
        let observations = recount::event_ids(&self.fleet.lake(), "observations")?;
        let streams: Vec<Value> = self.ask("lake/streams").await?;
        let dropped: u64 = streams.iter().filter_map(|stream| stream["dropped"].as_u64()).sum();
        let mut claimed: Vec<&str> = self.traffic.accepted.keys().map(String::as_str).collect();
        if self.sabotaged(Step::Reconcile) {
            claimed.push("tx-never-sent");
        }
        let lost =
            claimed.iter().filter(|id| !events.contains_key(**id) || !observations.contains_key(**id)).count() as u64;
        let doubled = events.values().chain(observations.values()).filter(|count| **count > 1).count() as u64;
        let summary = &mut self.summary;
        summary.accepted = claimed.len() as u64;
        summary.in_lake = summary.accepted - lost;
        summary.dropped = dropped;
        summary.duplicated = doubled;
        summary.requests_failed = self.traffic.failed;
        ensure!(lost <= dropped, "{lost} accepted payments are not in the lake, {dropped} were reported as dropped");
        ensure!(doubled == 0, "{doubled} payments are in the lake more than once");
        self.display.fact(format!(
            "{} accepted = {} in the lake + {dropped} dropped; {doubled} doubled",
            thousands(summary.accepted),
            thousands(summary.in_lake)
        ));
        self.verify_audit().await
    }

    /// The hub's log of changes is whole, up to the entry that each agent remembers from its newest assignment.
    async fn verify_audit(&mut self) -> Result<()> {
        let mut entries = 0;
        for local in &self.fleet.locals {
            let status: Value = local.get("/v1/status").await?;
            let head = &status["hub"]["audit"];
            let (Some(number), Some(hash)) = (head["number"].as_u64(), head["hash"].as_str()) else { continue };
            let verdict: Value = self.ask(&format!("audit/verify?head={number}:{hash}")).await?;
            ensure!(verdict["whole"] == true, "the audit log is not whole: {verdict}");
            entries = verdict["last"].as_u64().unwrap_or_default();
        }
        ensure!(entries > 0, "no agent remembers an entry of the audit log");
        self.summary.audit_entries = entries;
        self.display.fact(format!("{entries} changes of state in the audit log, whole up to what the agents remember"));
        Ok(())
    }
}

fn committed_version(status: &Value) -> Option<u32> {
    let line = status["lines"].as_array()?.iter().find(|line| line["line"] == LINE)?;
    let committed = &line["committed"];
    committed["version"].as_u64().or(committed.as_u64()).map(|version| version as u32)
}

fn renumbered(file: &[u8], version: u32) -> Result<Vec<u8>> {
    let mut package = Package::read(file)?;
    package.manifest.version = VersionNumber(version);
    Ok(package.write()?)
}

/// The same package, but its graphs give no number for payments at night, and its golden cases know only days.
fn spoiled(file: &[u8], version: u32) -> Result<Vec<u8>> {
    let mut package = Package::read(file)?;
    let features = &package.manifest.features;
    let night = features.iter().position(|name| name == FEATURE).context("the view has no feature for nights")?;
    let mut operators = Vec::new();
    for entry in &mut package.graphs {
        let mut graph = Graph::from_bytes(&entry.onnx)?;
        graph.limit_domain(night, 0.5)?;
        operators.extend(graph.operators().into_iter().map(|operator| operator.to_string()));
        entry.onnx = graph.to_bytes()?;
    }
    operators.sort();
    operators.dedup();
    package.manifest.requires.operators = operators;
    package.manifest.version = VersionNumber(version);
    package.golden.retain(|case| case.features[night] < 0.5);
    ensure!(!package.golden.is_empty(), "all golden cases are at night");
    Ok(package.write()?)
}
