//! One event over a real agent's local API to its decision, with a fraud package in place.
//!
//! The hub that ships the package is stopped before anything is measured: on a real device it is elsewhere, and its work
//! would be charged to the agent.

pub(crate) mod ship;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde::Serialize;
use serde_json::json;
use tributary_features::{DeviceWindows, FleetTable, View};
use tributary_fraud::{Transaction, VIEW_TOML};
use tributary_inference::load_served;
use tributary_process::http::Client;
use tributary_release::Package;

use crate::figures::{Spread, histogram_mean, megabytes, seconds};
use crate::local::Local;
use crate::machine;
use crate::package;
use crate::peer::Python;
use crate::programs::Programs;

const SCRIPT: &str = include_str!("../peers/service.py");
/// Between two paced events: longer than a commit takes, so that none waits for the one before.
const PACE: Duration = Duration::from_millis(8);
const WARM_UP: usize = 500;

/// How the caller asks.
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    /// Who answers.
    pub engine: &'static str,
    /// Whether the answer waits for the disk.
    pub durable: bool,
    /// Whether each event waits a while after the answer to the one before; else it follows at once.
    pub paced: bool,
    /// From the first byte sent to the last byte read.
    pub answer: Spread,
    /// Features and model, as the agent itself measured and answered it.
    pub decision: Option<Spread>,
    /// Mean of a commit, sync included, by the agent's metrics.
    pub commit_mean: Option<f64>,
    /// Mean of the wait for the writer, by the agent's metrics.
    pub wait_mean: Option<f64>,
}

/// All of it.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Load when it began.
    pub load: f64,
    /// Over the local API, and the peer.
    pub figures: Vec<Figure>,
    /// Check and windows of one event, in this process.
    pub features: Spread,
    /// One row through the model, in this process.
    pub model: Spread,
    /// Appending 4 KiB to a file and syncing it: what no durable answer can be faster than.
    pub sync: Spread,
    /// Bytes of the package.
    pub package: usize,
    /// Resident bytes with the package in place, after the events.
    pub resident: u64,
    /// Of those, bytes that belong to the process alone; the rest is pages of its file, which the kernel can drop.
    pub private: u64,
    /// Highest resident bytes.
    pub peak: u64,
    /// Events that the agent accepted.
    pub events: usize,
}

/// Trains a package, brings it to an agent through a hub, stops the hub, and measures.
pub async fn measure(programs: &Programs, events: usize, python: &Python, scratch: &Path) -> anyhow::Result<Report> {
    let load = machine::load();
    eprintln!("training a package to serve");
    let trained = package::train(scratch)?;
    let package = Package::read(&trained.package).context("the trained package")?;
    let (features, model) = in_process(&package, &trained.later, events)?;
    // Before and after: a shared disk is not always equally fast.
    let mut syncs = sync(scratch, events.min(250))?;
    eprintln!("shipping it to an agent");
    let hub = programs.hub(scratch).await?;
    let agent = programs.agent(scratch, &hub).await?;
    let mut payments = trained.later.iter();
    let mut local = Local::connect(&agent.socket)?;
    ship::ship(&hub, &agent, &trained.package, &mut local, &mut payments).await?;
    drop(hub);

    let mut sent = WARM_UP;
    each(&mut local, "/v1/events?durable=false", &mut payments, WARM_UP, Duration::ZERO)?;
    let mut figures = Vec::new();
    for (durable, paced) in [(true, true), (false, true), (true, false), (false, false)] {
        let path = format!("/v1/events?durable={durable}");
        let before = metrics(&agent.local).await?;
        let answers = each(&mut local, &path, &mut payments, events, if paced { PACE } else { Duration::ZERO })?;
        let after = metrics(&agent.local).await?;
        sent += answers.len();
        let mean = |name: &str| histogram_mean(&before, &after, &format!("edge_agent_{name}_seconds"));
        let (took, decisions): (Vec<f64>, Vec<f64>) = answers.into_iter().unzip();
        figures.push(Figure {
            engine: "tributary",
            durable,
            paced,
            answer: Spread::of(took).context("no event was asked for")?,
            decision: Spread::of(decisions),
            commit_mean: mean("commit"),
            wait_mean: mean("wait"),
        });
    }
    let (memory, private) = (agent.process.memory(), agent.process.private());
    drop(agent);
    syncs.extend(sync(scratch, events.min(250))?);
    let sync = Spread::of_durations(&syncs).context("no event was asked for")?;
    figures.extend(peer(&package, &trained.later, events, python, scratch)?);
    let (package, resident, peak) = (trained.package.len(), memory.resident, memory.peak);
    Ok(Report { load, figures, features, model, sync, package, resident, private, peak, events: sent })
}

/// Sends payments one by one; seconds to the answer, and to the decision as the agent tells it.
fn each<'a>(
    local: &mut Local,
    path: &str,
    payments: &mut impl Iterator<Item = &'a Transaction>,
    count: usize,
    pace: Duration,
) -> anyhow::Result<Vec<(f64, f64)>> {
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let payment = payments.next().context("there are too few payments for so many events")?;
        let answer = local.post(path, &body(payment))?;
        let result = &answer.body["results"][0];
        ensure!(result["status"] == "accepted" && result["version"] == 1, "the agent answered {result}");
        let decision = result["latency_us"].as_f64().context("latency_us of an answer")?;
        times.push((answer.took.as_secs_f64(), decision / 1e6));
        std::thread::sleep(pace);
    }
    Ok(times)
}

/// A payment as an application would tell the agent of it.
pub(crate) fn body(payment: &Transaction) -> String {
    let event = json!({
        "id": payment.event_id(),
        "time": payment.time,
        "entities": { "customer_id": payment.customer_id, "terminal_id": payment.terminal_id },
        "values": { "amount": payment.amount },
    });
    event.to_string()
}

async fn metrics(local: &Client) -> anyhow::Result<String> {
    let answer = local.send(hyper::Method::GET, "/metrics", "", Default::default()).await?.accepted()?;
    Ok(String::from_utf8_lossy(&answer.body).into_owned())
}

/// The same code without process, socket and disk.
fn in_process(package: &Package, payments: &[Transaction], events: usize) -> anyhow::Result<(Spread, Spread)> {
    let view = View::from_toml(VIEW_TOML).context("the card-risk view")?;
    let engine = load_served(package).context("the package's graph")?;
    let (mut windows, fleet) = (DeviceWindows::new(&view), FleetTable::new(&view));
    let mut row = vec![0.0; view.features().len()];
    let (mut features, mut model, mut out) = (Vec::new(), Vec::new(), Vec::new());
    for payment in payments.iter().take(events + WARM_UP) {
        let event = payment.to_event();
        let begin = Instant::now();
        let checked = view.row(&event)?;
        windows.observe(&checked, &mut row);
        fleet.fill(&checked, &mut row);
        let made = begin.elapsed();
        engine.predict(&row, 1, &mut out)?;
        model.push(begin.elapsed() - made);
        features.push(made);
    }
    let after = |times: &[Duration]| Spread::of_durations(times.get(WARM_UP..)?);
    after(&features).zip(after(&model)).context("there are too few payments for so many events")
}

fn sync(scratch: &Path, repetitions: usize) -> anyhow::Result<Vec<Duration>> {
    let path = scratch.join("sync");
    let mut file = std::fs::File::create(&path).context("a file to sync")?;
    let mut times = Vec::new();
    for _ in 0..repetitions {
        let begin = Instant::now();
        std::io::Write::write_all(&mut file, &[7; 4096])?;
        file.sync_data()?;
        times.push(begin.elapsed());
    }
    Ok(times)
}

fn peer(
    package: &Package,
    payments: &[Transaction],
    events: usize,
    python: &Python,
    scratch: &Path,
) -> anyhow::Result<Vec<Figure>> {
    #[derive(serde::Deserialize)]
    struct Ready {
        socket: std::path::PathBuf,
    }
    if !python.has(&["numpy", "onnxruntime"]) {
        return Ok(Vec::new());
    }
    let graph = scratch.join("served.onnx");
    std::fs::write(&graph, &package.served().onnx).context("the peer's graph")?;
    let arguments = [graph.display().to_string(), scratch.join("service.db").display().to_string()];
    let socket = scratch.join("service.sock").display().to_string();
    let mut service = python.serve(SCRIPT, &[&arguments[0], &arguments[1], &socket])?;
    let ready: Ready = service.ready()?;
    let mut local = Local::connect(&ready.socket)?;
    let mut figures = Vec::new();
    let mut payments = payments.iter();
    for durable in [true, false] {
        let path = format!("/v1/events?durable={durable}");
        each(&mut local, &path, &mut payments, WARM_UP.min(100), Duration::ZERO)?;
        let times = each(&mut local, &path, &mut payments, events, PACE)?;
        let (took, decisions): (Vec<f64>, Vec<f64>) = times.into_iter().unzip();
        let answer = Spread::of(took).context("no event was asked for")?;
        let decision = Spread::of(decisions);
        let engine = "Python service";
        figures.push(Figure { engine, durable, paced: true, answer, decision, commit_mean: None, wait_mean: None });
    }
    Ok(figures)
}

/// As a table.
pub fn table(report: &Report) -> String {
    let Report { load, figures, features, model, sync, package, resident, private, peak, events } = report;
    let mut text = format!(
        "one event over a Unix socket that stays open, to its decision; a package of {package} bytes, load {load:.2}\n\
         {:<15} {:<8} {:<9} {:>6} {:>10} {:>10} {:>10} {:>19} {:>12} {:>10}\n",
        "engine", "durable", "pace", "events", "min", "p50", "p99", "decision p50, p99", "commit mean", "wait mean"
    );
    for Figure { engine, durable, paced, answer, decision, commit_mean, wait_mean } in figures {
        let [min, p50, p99] = [answer.min, answer.p50, answer.p99].map(seconds);
        let decision = decision.map_or(String::new(), |d| format!("{}, {}", seconds(d.p50), seconds(d.p99)));
        let [commit, wait] = [commit_mean, wait_mean].map(|mean| mean.map_or(String::new(), seconds));
        let (durable, pace) = (if *durable { "yes" } else { "no" }, if *paced { "8 ms" } else { "at once" });
        text += &format!(
            "{engine:<15} {durable:<8} {pace:<9} {:>6} {min:>10} {p50:>10} {p99:>10} {decision:>19} {commit:>12} {wait:>10}\n",
            answer.repetitions
        );
    }
    let part = |name: &str, spread: &Spread| {
        let [min, p50, p99] = [spread.min, spread.p50, spread.p99].map(seconds);
        format!("{name:<44} min {min}, p50 {p50}, p99 {p99} ({} times)\n", spread.repetitions)
    };
    text += &part("features: check and windows (in this process)", features);
    text += &part("model: one row, int8 (in this process)", model);
    text += &part("this disk: append 4 KiB and sync", sync);
    text += &format!(
        "agent with the package after {events} events: {} resident, of it {} private; highest {}\n",
        megabytes(*resident),
        megabytes(*private),
        megabytes(*peak)
    );
    text
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn an_event_is_what_the_local_api_takes() {
        let mut payments = tributary_fraud::Generator::new(Default::default());
        let payment: Transaction = payments.next().unwrap();
        let event: Value = serde_json::from_str(&body(&payment)).unwrap();
        assert_eq!(event["id"], payment.event_id().as_str());
        assert_eq!(event["time"], payment.time.0);
        assert_eq!(event["entities"]["customer_id"], payment.customer_id);
    }
}
