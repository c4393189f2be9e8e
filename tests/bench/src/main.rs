//! The benchmark's command line.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Parser, ValueEnum};
use serde::Serialize;
use tributary_bench::machine::Machine;
use tributary_bench::peer::Python;
use tributary_bench::programs::Programs;
use tributary_bench::{agent, inference, ingest, replay, size};

/// Measures and prints figures beside a peer's, from the same session on the same machine.
///
/// `agent`, `ingest` and `size` start the real programs, which lie beside this one after
/// `cargo build --release -p edge-agent -p cloud-hub`. Peers are Python packages: polars, duckdb, numpy,
/// onnxruntime, pyarrow; one that is missing is named.
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
    /// Repetitions of `replay` and `ingest`
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100))]
    rounds: u64,
    /// Events of each kind of `agent`
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=5_000))]
    events: u64,
    /// Observations of `ingest`
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    rows: u64,
    /// Interpreter of the peers
    #[arg(long, value_name = "PROGRAM", default_value = "python3")]
    python: String,
    /// Folder with edge-agent and cloud-hub; that of this program when left out
    #[arg(long, value_name = "DIR")]
    programs: Option<PathBuf>,
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
    /// One prediction on one thread, beside onnxruntime
    Inference,
    /// Both programs, on disk and in idle memory
    Size,
}

#[derive(Debug, Serialize)]
struct Report {
    machine: Machine,
    size: Option<Vec<size::Figure>>,
    inference: Option<Vec<inference::Figure>>,
    replay: Option<replay::Report>,
    agent: Option<agent::Report>,
    ingest: Option<ingest::Report>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let wanted = |what| cli.what == What::All || cli.what == what;
    let python = Python::new(&cli.python);
    let scratch = tempfile::tempdir().context("a folder for what is measured")?;
    let folder = |name: &str| -> anyhow::Result<PathBuf> {
        let folder = scratch.path().join(name);
        std::fs::create_dir(&folder)?;
        Ok(folder)
    };
    let processes = [What::Size, What::Agent, What::Ingest].into_iter().any(wanted);
    // A missing program is told before anything else takes its minutes.
    let programs = processes.then(|| Programs::find(cli.programs.clone())).transpose()?;
    let machine = Machine::look();
    print!("{}", machine.table());
    let mut report = Report { machine, size: None, inference: None, replay: None, agent: None, ingest: None };
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
    if let Some(path) = &cli.json {
        let text = serde_json::to_string_pretty(&report)?;
        std::fs::write(path, text).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
