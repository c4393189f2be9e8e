//! The benchmark's command line.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Parser, ValueEnum};
use serde::Serialize;
use tributary_bench::machine::Machine;
use tributary_bench::peer::Python;
use tributary_bench::programs::Programs;
use tributary_bench::{agent, deltas, gateway, inference, ingest, machine, replay, returning, size, update};

/// Measures and prints figures beside a peer's, from the same session on the same machine.
///
/// `agent`, `ingest`, `update`, `returning` and `size` start the real programs, which lie beside this one after
/// `cargo build --release -p edge-agent -p cloud-hub`. Peers are Python packages: polars, duckdb, numpy,
/// onnxruntime, pyarrow; and for `gateway` mosquitto. One that is missing is named.
#[derive(Debug, Parser)]
#[command(name = "tributary-bench", version, max_term_width = 100)]
struct Cli {
    /// What to measure
    #[arg(value_enum)]
    what: What,
    /// Card transactions to replay, a Parquet file; generated ones when left out
    #[arg(long, value_name = "FILE")]
    transactions: Option<PathBuf>,
    /// Write all figures as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Repetitions of `replay`, `ingest` and `gateway`
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100))]
    rounds: u64,
    /// Events of each kind of `agent`
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=5_000))]
    events: u64,
    /// Observations of `ingest`
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    rows: u64,
    /// Agents of the large fleet of `update`
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u64).range(2..=1_000))]
    devices: u64,
    /// Devices of `returning`
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    returning: u64,
    /// Batches that each of them brings, in each of two streams: one an hour
    #[arg(long, value_name = "N", default_value_t = 168, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    batches: u64,
    /// Records in each of these batches
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=512))]
    batch_rows: u64,
    /// Interpreter of the peers
    #[arg(long, value_name = "PROGRAM", default_value = "python3")]
    python: String,
    /// Folder with edge-agent and cloud-hub; that of this program when left out
    #[arg(long, value_name = "DIR")]
    programs: Option<PathBuf>,
    /// Folder of what `gateway` and `deltas` start
    #[arg(long, value_name = "DIR", hide = true)]
    folder: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// Everything
    All,
    /// Payments through the windows of 15 features, beside polars and DuckDB
    Replay,
    /// One event over the agent's local API, beside a service in Python
    Agent,
    /// Observations to durable Parquet at the hub, beside pyarrow and SQLite
    Ingest,
    /// Messages, connections, memory and a crowd at the hub's gateway, beside mosquitto and rumqttd
    Gateway,
    /// One prediction on one thread, beside onnxruntime
    Inference,
    /// From publishing to serving on one agent and on many under load, and telemetry beside a large file
    Update,
    /// A fleet that comes back with a week's backlog to a hub that was away
    Returning,
    /// Both programs, on disk and in idle memory
    Size,
    /// A retrained package as patches of every kind, beside zstd, bsdiff and xdelta3
    Deltas,
    /// Applies a patch, for `deltas`
    #[value(hide = true)]
    ApplyPatch,
    /// The hub's gateway, for `gateway`
    #[value(hide = true)]
    ServeGateway,
    /// rumqttd's own server, for `gateway`
    #[value(hide = true)]
    ServeRumqttd,
}

#[derive(Debug, Serialize)]
struct Report {
    machine: Machine,
    size: Option<Vec<size::Figure>>,
    inference: Option<Vec<inference::Figure>>,
    replay: Option<replay::Report>,
    agent: Option<agent::Report>,
    ingest: Option<ingest::Report>,
    gateway: Option<gateway::Report>,
    update: Option<update::Report>,
    deltas: Option<Vec<deltas::Figure>>,
    returning: Option<returning::Report>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    if let (What::ServeGateway | What::ServeRumqttd, Some(folder)) = (cli.what, &cli.folder) {
        let gateway = cli.what == What::ServeGateway;
        return if gateway { gateway::serve::gateway(folder).await } else { gateway::serve::rumqttd(folder).await };
    }
    if let (What::ApplyPatch, Some(folder)) = (cli.what, &cli.folder) {
        return deltas::apply(folder);
    }
    let wanted = |what| cli.what == What::All || cli.what == what;
    if [What::Gateway, What::Update, What::Returning].into_iter().any(wanted) {
        machine::raise_file_limit()?;
    }
    let python = Python::new(&cli.python);
    let scratch = tempfile::tempdir().context("a folder for what is measured")?;
    let folder = |name: &str| -> anyhow::Result<PathBuf> {
        let folder = scratch.path().join(name);
        std::fs::create_dir(&folder)?;
        Ok(folder)
    };
    let processes = [What::Size, What::Agent, What::Ingest, What::Update, What::Returning].into_iter().any(wanted);
    // A missing program is told before anything else takes its minutes.
    let programs = processes.then(|| Programs::find(cli.programs.clone())).transpose()?;
    let machine = Machine::look();
    print!("{}", machine.table());
    let mut report = Report::of(machine);
    if let Some(programs) = programs.as_ref().filter(|_| wanted(What::Size)) {
        let figures = size::measure(programs, &folder("size")?).await.context("size")?;
        print!("\n{}", size::table(report.size.insert(figures)));
    }
    if wanted(What::Inference) {
        let figures = inference::measure(&python, &folder("inference")?).context("inference")?;
        print!("\n{}", inference::table(report.inference.insert(figures)));
    }
    if wanted(What::Replay) {
        let figures = replay::measure(cli.transactions.as_deref(), cli.rounds as usize, &python, &folder("replay")?);
        print!("\n{}", replay::table(report.replay.insert(figures.context("replay")?)));
    }
    if let Some(programs) = programs.as_ref().filter(|_| wanted(What::Agent)) {
        let figures = agent::measure(programs, cli.events as usize, &python, &folder("agent")?).await;
        print!("\n{}", agent::table(report.agent.insert(figures.context("agent")?)));
    }
    if let Some(programs) = programs.as_ref().filter(|_| wanted(What::Ingest)) {
        let (rows, rounds) = (cli.rows as usize, cli.rounds as usize);
        let figures = ingest::measure(programs, rows, rounds, &python, &folder("ingest")?).await;
        print!("\n{}", ingest::table(report.ingest.insert(figures.context("ingest")?)));
    }
    if wanted(What::Gateway) {
        let figures = gateway::measure(cli.rounds as usize, &folder("gateway")?).await.context("gateway")?;
        print!("\n{}", gateway::table(report.gateway.insert(figures)));
    }
    if let Some(programs) = programs.as_ref().filter(|_| wanted(What::Update)) {
        let figures = update::measure(programs, cli.devices as usize, &folder("update")?).await.context("update")?;
        print!("\n{}", update::table(report.update.insert(figures)));
    }
    if let Some(programs) = programs.as_ref().filter(|_| wanted(What::Returning)) {
        let size = returning::Size { devices: cli.returning as usize, batches: cli.batches, rows: cli.batch_rows };
        let figures = returning::measure(programs, size, &folder("returning")?).await.context("returning")?;
        print!("\n{}", returning::table(report.returning.insert(figures)));
    }
    if wanted(What::Deltas) {
        let figures = deltas::measure(&folder("deltas")?).context("deltas")?;
        print!("\n{}", deltas::table(report.deltas.insert(figures)));
    }
    report.conclude(cli.json.as_deref())
}

impl Report {
    /// Nothing was measured yet.
    fn of(machine: Machine) -> Self {
        Self {
            machine,
            size: None,
            inference: None,
            replay: None,
            agent: None,
            ingest: None,
            gateway: None,
            update: None,
            deltas: None,
            returning: None,
        }
    }

    /// Writes the figures where they are wanted, then says what may not be: the figures of a failure are looked at most.
    fn conclude(&self, json: Option<&Path>) -> anyhow::Result<()> {
        if let Some(path) = json {
            let text = serde_json::to_string_pretty(self)?;
            std::fs::write(path, text).with_context(|| format!("write {}", path.display()))?;
        }
        let dropped: u64 = self.update.iter().flat_map(|figures| &figures.updates).map(|fleet| fleet.dropped).sum();
        anyhow::ensure!(dropped == 0, "update: {dropped} requests were dropped in a switch; none may be");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use clap::CommandFactory;
    use tributary_bench::figures::Spread;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn dropped_requests_are_a_failure_whose_figures_are_written_first() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("figures.json");
        let fleet = |dropped| update::Figure {
            devices: 1,
            load: 0.0,
            serving: Spread::of([1.0]).unwrap(),
            last: 1.0,
            requests: 100,
            dropped,
            longest: 0.1,
            patches: true,
            ways: BTreeMap::new(),
            memory: 1,
            fetched: 1,
            package: 1,
            over_quic: 1,
        };
        let report = |dropped| {
            let updates = vec![fleet(0), fleet(dropped)];
            Report { update: Some(update::Report { updates, beside: Vec::new() }), ..Report::of(Machine::look()) }
        };
        let refused = report(3).conclude(Some(&path)).unwrap_err();
        assert_eq!(refused.to_string(), "update: 3 requests were dropped in a switch; none may be");
        let written: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(written["update"]["updates"][1]["dropped"], 3);
        report(0).conclude(None).unwrap();
    }
}
