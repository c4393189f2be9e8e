//! The published card payments (or generated ones) through the view's 15 windows on one core, beside polars and DuckDB.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use tributary_features::{Replay, View};
use tributary_fraud::{Generator, GeneratorConfig, Transaction, VIEW_TOML, load_parquet, write_parquet};

use crate::figures::{Agreement, Spread, TOLERANCE, count, seconds};
use crate::machine;
use crate::peer::Python;

const SCRIPT: &str = include_str!("../peers/windows.py");
const PEERS: [&str; 2] = ["polars", "duckdb"];

/// What one engine did.
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    /// Which engine, with its version.
    pub engine: String,
    /// Seconds for all events.
    pub seconds: Spread,
    /// Events per second in the fastest repetition.
    pub events_per_second: f64,
    /// Our rate by this engine's.
    pub ratio: f64,
    /// How its features compare with ours.
    pub agreement: Option<Agreement>,
}

/// All engines on the same events.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Where the events come from.
    pub source: String,
    /// How many.
    pub events: usize,
    /// Load when it began.
    pub load: f64,
    /// Payments of a customer in the same instant as an earlier one: a replay has not seen the later one yet, while the
    /// peers' windows hold both.
    pub simultaneous: usize,
    /// Ours first.
    pub engines: Vec<Figure>,
}

#[derive(Deserialize)]
struct Answer {
    seconds: f64,
    version: String,
}

/// Measures. The engines take turns, so that a busy moment of the machine does not fall on one of them alone.
pub fn measure(transactions: Option<&Path>, rounds: usize, python: &Python, scratch: &Path) -> anyhow::Result<Report> {
    let load = machine::load();
    let (source, path, payments) = payments(transactions, scratch)?;
    let view = View::from_toml(VIEW_TOML).context("the card-risk view")?;
    let width = view.features().len();
    let mut features = vec![0.0; payments.len() * width];
    let peers: Vec<&str> = PEERS.into_iter().filter(|peer| python.has(&[peer, "numpy"])).collect();
    let mut ours = Vec::new();
    let mut theirs: Vec<(String, Vec<f64>, Option<Agreement>)> = peers.iter().map(|_| Default::default()).collect();
    let out = scratch.join("features");
    for round in 0..rounds {
        ours.push(replay(&view, &payments, &mut features));
        for (peer, (name, times, agreement)) in peers.iter().zip(&mut theirs) {
            let answer: Answer =
                python.run(SCRIPT, &[peer, &path.display().to_string(), &out.display().to_string()])?;
            *name = format!("{peer} {}", answer.version);
            times.push(answer.seconds);
            if round == 0 {
                let bytes = fs::read(&out).context("the peer's features")?;
                let table: Vec<f32> = bytes.as_chunks().0.iter().map(|chunk| f32::from_le_bytes(*chunk)).collect();
                *agreement = Some(Agreement::of(&features, &table, width)?);
            }
        }
    }
    let events = payments.len();
    let rate = |spread: &Spread| events as f64 / spread.min;
    let own = Spread::of(ours).context("no repetition was asked for")?;
    let figure = |engine: String, spread: Spread, agreement| Figure {
        engine,
        seconds: spread,
        events_per_second: rate(&spread),
        ratio: rate(&own) / rate(&spread),
        agreement,
    };
    let mut engines = vec![figure("tributary".to_owned(), own, None)];
    let theirs = theirs.into_iter().filter_map(|(name, times, agreement)| Some((name, Spread::of(times)?, agreement)));
    engines.extend(theirs.map(|(name, spread, agreement)| figure(name, spread, agreement)));
    let missing = PEERS.into_iter().filter(|peer| !peers.contains(peer)).collect::<Vec<_>>();
    let source = if missing.is_empty() { source } else { format!("{source}; not installed: {}", missing.join(", ")) };
    Ok(Report { source, events, load, simultaneous: simultaneous(&payments), engines })
}

/// As a table.
pub fn table(report: &Report) -> String {
    let Report { source, events, load, simultaneous, .. } = report;
    let mut text = format!(
        "{} payments ({source}) through 15 features, one thread, load {load:.2}\n\
         {:<18} {:>5} {:>10} {:>10} {:>10} {:>12} {:>8}\n",
        count(*events as f64),
        "engine",
        "runs",
        "min",
        "p50",
        "slowest",
        "events/s",
        "ours by"
    );
    for Figure { engine, seconds: spread, events_per_second, ratio, .. } in &report.engines {
        let times = [spread.min, spread.p50, spread.p99].map(|time| format!("{:>10}", seconds(time))).join(" ");
        let rate = count(*events_per_second);
        text += &format!("{engine:<18} {:>5} {times} {rate:>12} {ratio:>7.1}x\n", spread.repetitions);
    }
    for Figure { engine, agreement, .. } in &report.engines {
        let Some(Agreement { rows, largest, largest_within, rows_beyond }) = agreement else { continue };
        text += &format!(
            "{engine}: {} of {} rows agree to {TOLERANCE:e} (largest difference {largest_within:.1e}); {rows_beyond} do not \
             (largest {largest:.1e}); {simultaneous} payments come in the same instant as another of their customer\n",
            count((rows - rows_beyond) as f64),
            count(*rows as f64),
        );
    }
    text
}

fn payments(path: Option<&Path>, scratch: &Path) -> anyhow::Result<(String, PathBuf, Vec<Transaction>)> {
    if let Some(path) = path {
        let payments = load_parquet(path).context("read the transactions")?;
        let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        return Ok((name, path.to_owned(), payments));
    }
    // As many customers, terminals and days as the published file has.
    let config = GeneratorConfig { customers: 5_000, terminals: 10_000, days: 183, ..GeneratorConfig::default() };
    let payments: Vec<Transaction> = Generator::new(config).collect();
    let path = scratch.join("transactions.parquet");
    write_parquet(&path, &payments).context("write the transactions for the peers")?;
    Ok(("generated".to_owned(), path, payments))
}

/// From payments in memory to features in memory, and how long it took.
fn replay(view: &View, payments: &[Transaction], features: &mut [f32]) -> f64 {
    let begin = Instant::now();
    let mut replay = Replay::new(view);
    for (payment, out) in payments.iter().zip(features.chunks_mut(view.features().len())) {
        replay.observe(&payment.to_row(), payment.fraud, out);
    }
    begin.elapsed().as_secs_f64()
}

fn simultaneous(payments: &[Transaction]) -> usize {
    let by_time = payments.chunk_by(|a, b| a.time == b.time);
    let repeated = by_time.map(|same| {
        let mut customers: Vec<i64> = same.iter().map(|payment| payment.customer_id).collect();
        customers.sort_unstable();
        customers.dedup();
        same.len() - customers.len()
    });
    repeated.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payments_of_a_customer_in_one_instant_are_counted() {
        let config = GeneratorConfig { customers: 20, terminals: 10, days: 1, ..GeneratorConfig::default() };
        let mut payments: Vec<Transaction> = Generator::new(config).collect();
        payments.truncate(4);
        let time = payments[0].time;
        for (payment, customer) in payments.iter_mut().zip([1, 2, 1, 1]) {
            (payment.time, payment.customer_id) = (time, customer);
        }
        assert_eq!(simultaneous(&payments), 2);
    }

    #[test]
    fn a_report_names_both_engines_and_their_ratio() {
        let spread = Spread::of([2.0]).unwrap();
        let figure = |engine: &str, ratio| {
            let agreement = Agreement::of(&[1.0], &[1.0], 1).ok();
            Figure { engine: engine.to_owned(), seconds: spread, events_per_second: 50.0, ratio, agreement }
        };
        let engines = vec![figure("tributary", 1.0), figure("polars 1", 3.0)];
        let report = Report { source: "generated".to_owned(), events: 100, load: 0.5, simultaneous: 0, engines };
        let table = table(&report);
        assert!(table.contains("polars 1") && table.contains("3.0x") && table.contains("1 of 1 rows agree"), "{table}");
    }
}
