//! From publishing a version to its serving on one device and on many, under load: how long it takes, and whether a
//! request is dropped in the switch.
//!
//! The devices are real agents, enrolled over HTTPS, connected over QUIC, each with a client that asks all along. What a
//! client reads decides: the first answer of the new version is the moment when it serves.

mod beside;
mod client;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use hyper::Method;
use serde::Serialize;
use serde_json::{Value, json};
use tributary_fraud::VIEW_TOML;

use crate::figures::{Spread, count, megabytes, seconds};
use crate::package::{self, TRIAL};
use crate::programs::{Agent, Hub, LINE, Programs};
use crate::{machine, update};

pub use beside::Figure as Beside;
use client::Clients;

/// How long a fleet on one machine may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// One fleet's update.
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    /// Agents that were updated.
    pub devices: usize,
    /// Load when it began.
    pub load: f64,
    /// From the call that publishes to the first answer of the new version, device by device.
    pub serving: Spread,
    /// The last device's.
    pub last: f64,
    /// Requests while the fleet was updated.
    pub requests: u64,
    /// Of those, without an answer of a model: refused, failed, or answered by the fallback.
    pub dropped: u64,
    /// The longest that a client waited for an answer meanwhile, in seconds.
    pub longest: f64,
    /// Whether the rollout waited until the hub had made the patches.
    pub patches: bool,
    /// How the package came, by way: `patch`, `compressed` or `plain`.
    pub ways: BTreeMap<String, usize>,
    /// Private memory of all agents together when all were updated.
    pub memory: u64,
    /// Bytes of packages and patches that all devices fetched.
    pub fetched: u64,
    /// Bytes of the package.
    pub package: usize,
    /// Bytes that the hub sent on QUIC streams beside MQTT, repository metadata included.
    pub over_quic: u64,
}

/// All of it.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// By fleet.
    pub updates: Vec<Figure>,
    /// Acknowledgements of telemetry beside a large file.
    pub beside: Vec<Beside>,
}

/// Updates a fleet of one and a fleet of `devices`.
pub async fn measure(programs: &Programs, devices: usize, scratch: &Path) -> anyhow::Result<Report> {
    let beside = beside::measure().await.context("telemetry beside a file")?;
    eprintln!("training a package to ship");
    let trained = package::train(scratch)?;
    let second = package::retrain(scratch, &trained.package)?;
    let mut updates = Vec::new();
    for (devices, patches) in [(1, false), (1, true), (devices, true)] {
        let folder = scratch.join(format!("fleet-{}", updates.len()));
        std::fs::create_dir(&folder)?;
        updates.push(update::fleet(programs, (devices, patches), &trained, &second, &folder).await?);
        // Two hundred states are large, and the next fleet needs none of them.
        std::fs::remove_dir_all(&folder)?;
    }
    Ok(Report { updates, beside })
}

/// Brings version 1 to all of a fleet, then measures the way of version 2.
async fn fleet(
    programs: &Programs,
    (devices, patches): (usize, bool),
    trained: &package::Trained,
    second: &[u8],
    folder: &Path,
) -> anyhow::Result<Figure> {
    eprintln!("starting {devices} agents");
    let hub = programs.hub(folder).await?;
    let token = hub.enrolment_token(folder, devices).await?;
    let mut agents = Vec::new();
    for number in 1..=devices {
        agents.push(programs.begin_agent(folder, &hub, &format!("edge-{number}"), &token)?);
    }
    for agent in &mut agents {
        agent.answers().await?;
    }
    set_up(&hub, &trained.package).await?;
    until("every device has reported", async || {
        let page: Value = hub.api.get("/api/v1/devices?limit=1000").await?;
        let reported =
            page["items"].as_array().map_or(0, |items| items.iter().filter(|it| !it["report"].is_null()).count());
        Ok(reported >= devices)
    })
    .await?;
    // One client of a lonely device asks without a pause; those of many share the machine with them.
    let pace = if devices == 1 { Duration::ZERO } else { Duration::from_millis(500) };
    let clients = Clients::start(&agents, trained, pace)?;
    let first = roll_out(&hub, 1, patches).await?;
    settled(&agents, 1).await?;
    until("the hub has seen the end of the first rollout", async || {
        let rollout: Value = hub.api.get(&format!("/api/v1/rollouts/{first}")).await?;
        Ok(rollout["state"] != "running")
    })
    .await?;
    upload(&hub, second).await?;
    let (load, before) = (machine::load(), file_bytes(&hub).await?);
    clients.mark();
    let began = Instant::now();
    publish(&hub, 2).await?;
    roll_out(&hub, 2, patches).await?;
    settled(&agents, 2).await?;
    let over_quic = file_bytes(&hub).await? - before;
    let seen = clients.stop()?;
    let (ways, fetched) = arrivals(&agents).await?;
    let waits: Vec<f64> = seen
        .serving
        .iter()
        .map(|at| at.map(|at| (at - began).as_secs_f64()))
        .collect::<Option<_>>()
        .context("a client saw no answer of version 2")?;
    let last = waits.iter().copied().fold(0.0, f64::max);
    let serving = Spread::of(waits).context("no device")?;
    let (requests, dropped, longest) = (seen.requests, seen.dropped, seen.longest.as_secs_f64());
    let package = second.len();
    let memory = agents.iter().map(|agent| agent.process.private()).sum();
    Ok(Figure {
        devices,
        load,
        serving,
        last,
        requests,
        dropped,
        longest,
        patches,
        ways,
        memory,
        fetched,
        package,
        over_quic,
    })
}

async fn tell(hub: &Hub, method: Method, path: &str, body: Value) -> anyhow::Result<Value> {
    let path = format!("/api/v1/{path}");
    hub.api.call(method.clone(), &path, &body).await.with_context(|| format!("{method} {path}"))
}

async fn upload(hub: &Hub, package: &[u8]) -> anyhow::Result<()> {
    let path = format!("/api/v1/lines/{LINE}/versions");
    let answer = hub.api.send(Method::POST, &path, "application/octet-stream", package.to_vec().into()).await?;
    answer.accepted().with_context(|| format!("POST {path}")).map(drop)
}

async fn publish(hub: &Hub, version: u32) -> anyhow::Result<()> {
    tell(hub, Method::POST, &format!("lines/{LINE}/versions/{version}/publish"), json!({})).await.map(drop)
}

/// Number of the new rollout.
async fn roll_out(hub: &Hub, version: u32, patches: bool) -> anyhow::Result<Value> {
    let wait = if patches { PATIENCE.as_secs() } else { 0 };
    let policy = json!({ "strategy": "all", "min_predictions": TRIAL, "patch_wait_s": wait });
    let rollout = json!({ "line": LINE, "version": version, "policy": policy });
    Ok(tell(hub, Method::POST, "rollouts", rollout).await?["id"].take())
}

async fn set_up(hub: &Hub, package: &[u8]) -> anyhow::Result<()> {
    let path = "/api/v1/views";
    let answer = hub.api.send(Method::POST, path, "application/toml", VIEW_TOML.into()).await?;
    answer.accepted().with_context(|| format!("POST {path}"))?;
    let view = tributary_features::View::from_toml(VIEW_TOML)?;
    tell(hub, Method::PUT, &format!("lines/{LINE}"), json!({ "view": view.name(), "retrain": "manual" })).await?;
    upload(hub, package).await?;
    publish(hub, 1).await
}

/// How version 2 came to the agents, by their own words, and what they fetched for it.
async fn arrivals(agents: &[Agent]) -> anyhow::Result<(BTreeMap<String, usize>, u64)> {
    let (mut ways, mut fetched) = (BTreeMap::<String, usize>::new(), 0);
    for agent in agents {
        let status: Value = agent.local.get("/v1/status").await?;
        let arrived = status["download"]["arrived"].as_array().and_then(|all| all.iter().find(|it| it["version"] == 2));
        let arrived = arrived.with_context(|| format!("version 2 did not arrive: {}", status["download"]))?;
        *ways.entry(arrived["way"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
        fetched += arrived["bytes"].as_u64().unwrap_or(0);
    }
    Ok((ways, fetched))
}

/// Waits until every agent has committed a version.
async fn settled(agents: &[Agent], version: u32) -> anyhow::Result<()> {
    let mut left: Vec<&Agent> = agents.iter().collect();
    until(&format!("version {version} is committed everywhere"), async || {
        while let Some(agent) = left.last() {
            let status: Value = agent.local.get("/v1/status").await?;
            let line = &status["lines"][0];
            ensure!(line["state"] != "RolledBack", "a device undid it: {line}");
            if line["committed"] != version || !line["candidate"].is_null() {
                return Ok(false);
            }
            left.pop();
        }
        Ok(true)
    })
    .await
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await? {
        ensure!(Instant::now() < deadline, "not within {} s: {what}", PATIENCE.as_secs());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

async fn file_bytes(hub: &Hub) -> anyhow::Result<u64> {
    let answer = hub.api.send(Method::GET, "/api/v1/metrics", "", Default::default()).await?.accepted()?;
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    let line = text.lines().find(|line| !line.starts_with('#') && line.contains("gateway_file_bytes"));
    Ok(line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).unwrap_or(0.0) as u64)
}

/// As tables.
pub fn table(report: &Report) -> String {
    let mut text = format!(
        "from publishing to serving, under load; every device is an agent process with a state of its own\n\
         {:>8} {:>7} {:>6} {:>10} {:>10} {:>10} {:>9} {:>8} {:>13} {:>10} {:>13} {:>10} {:>9}  ways\n",
        "devices",
        "patches",
        "load",
        "first",
        "p50",
        "last",
        "requests",
        "dropped",
        "longest wait",
        "package",
        "fetched each",
        "over QUIC",
        "memory"
    );
    for figure in &report.updates {
        let Figure { devices, load, serving, last, requests, dropped, longest, package, over_quic, .. } = figure;
        let patches = if figure.patches { "made" } else { "none" };
        let ways: Vec<String> = figure.ways.iter().map(|(way, count)| format!("{way} {count}")).collect();
        let memory = megabytes(figure.memory);
        let (ways, each) = (ways.join(", "), count(figure.fetched as f64 / (*devices).max(1) as f64));
        let [first, p50, last, longest] = [serving.min, serving.p50, *last, *longest].map(seconds);
        let (package, over_quic) = (count(*package as f64), megabytes(*over_quic));
        text += &format!(
            "{devices:>8} {patches:>7} {load:>6.2} {first:>10} {p50:>10} {last:>10} {requests:>9} {dropped:>8} \
             {longest:>13} {package:>10} {each:>13} {over_quic:>10} {memory:>9}  {ways}\n"
        );
    }
    text + "\n" + &beside::table(&report.beside)
}
