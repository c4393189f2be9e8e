//! Observations from devices to durable Parquet at a real hub, acknowledged end to end.

mod batches;
mod device;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, ensure};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde::{Deserialize, Serialize};

use crate::figures::{Spread, count, megabytes, seconds};
use crate::machine;
use crate::peer::Python;
use crate::programs::Programs;

pub use batches::{DeviceBatches, ROWS};

const SCRIPT: &str = include_str!("../peers/lake.py");
const DEVICES: usize = 4;
/// The peer is slow; its rate does not depend on how many rows there are.
const PEER_ROWS: usize = 100_000;

/// What one side did.
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    /// Who.
    pub engine: String,
    /// Observations in one repetition.
    pub rows: usize,
    /// Parquet files made of them.
    pub files: usize,
    /// Seconds until the last was durable.
    pub seconds: Spread,
    /// Observations per second in the fastest repetition.
    pub rows_per_second: f64,
    /// Seconds of a core that the process used in the cheapest repetition, without the sender.
    pub cpu: f64,
    /// Highest resident bytes of the process.
    pub peak: u64,
}

/// Both sides.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Load when it began.
    pub load: f64,
    /// Bytes that one observation takes on the wire.
    pub bytes_per_row: f64,
    /// Ours first.
    pub figures: Vec<Figure>,
}

/// Sends pre-encoded batches of several devices to a real hub and waits for the last receipt, `rounds` times.
pub async fn measure(
    programs: &Programs,
    rows: usize,
    rounds: usize,
    python: &Python,
    scratch: &Path,
) -> anyhow::Result<Report> {
    let load = machine::load();
    eprintln!("encoding {} observations", count(rows as f64));
    let devices = batches::encode(rows, DEVICES)?;
    let sent: usize = devices.iter().map(|device| device.batches.len() * ROWS).sum();
    let bytes: usize = devices.iter().flat_map(|device| &device.batches).map(|batch| batch.len()).sum();
    let (mut times, mut cpu, mut peak, mut files) = (Vec::new(), f64::INFINITY, 0, 0);
    for round in 0..rounds {
        let folder = scratch.join(format!("ingest-{round}"));
        std::fs::create_dir(&folder)?;
        let done = at_hub(programs, &devices, sent, &folder).await?;
        times.push(done.seconds);
        (cpu, peak, files) = (cpu.min(done.cpu), peak.max(done.peak), done.files);
        // A lake of many megabytes is of no use any more.
        std::fs::remove_dir_all(&folder)?;
    }
    let own = Spread::of(times).context("no repetition was asked for")?;
    let figure = |engine: String, rows: usize, files, seconds: Spread, cpu, peak| {
        let rows_per_second = rows as f64 / seconds.min;
        Figure { engine, rows, files, seconds, rows_per_second, cpu, peak }
    };
    let mut figures = vec![figure("tributary".to_owned(), sent, files, own, cpu, peak)];
    let group = (sent / ROWS).div_ceil(files.max(1));
    if let Some((engine, answers)) = peer(group, rounds, python, scratch)? {
        let seconds = Spread::of(answers.iter().map(|answer| answer.seconds)).context("no answer of the peer")?;
        let peak = answers.iter().map(|answer| answer.peak).max().unwrap_or(0);
        let cpu = answers.iter().map(|answer| answer.cpu).fold(f64::INFINITY, f64::min);
        figures.push(figure(engine, answers[0].rows, answers[0].files, seconds, cpu, peak));
    }
    Ok(Report { load, bytes_per_row: bytes as f64 / sent as f64, figures })
}

struct Done {
    seconds: f64,
    cpu: f64,
    peak: u64,
    files: usize,
}

async fn at_hub(programs: &Programs, devices: &[DeviceBatches], sent: usize, folder: &Path) -> anyhow::Result<Done> {
    let hub = programs.hub(folder).await?;
    let before = hub.process.cpu();
    let seconds = device::send(&hub.mqtt, devices).await?;
    let (cpu, peak) = (hub.process.cpu() - before, hub.process.memory().peak);
    let (files, found) = recount(&hub.data.join("lake").join("observations"))?;
    ensure!(found == sent, "{sent} observations were acknowledged, {found} are in the lake");
    Ok(Done { seconds, cpu, peak, files })
}

/// Files and rows of a stream, by their footers.
pub(crate) fn recount(folder: &Path) -> anyhow::Result<(usize, usize)> {
    let (mut files, mut rows) = (0, 0);
    for entry in std::fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            let (more_files, more_rows) = recount(&path)?;
            (files, rows) = (files + more_files, rows + more_rows);
        } else if path.extension().is_some_and(|extension| extension == "parquet") {
            let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(&path)?)?;
            files += 1;
            rows += builder.metadata().file_metadata().num_rows() as usize;
        }
    }
    Ok((files, rows))
}

#[derive(Deserialize)]
struct Answer {
    seconds: f64,
    cpu: f64,
    rows: usize,
    files: usize,
    peak: u64,
    version: String,
}

/// The same rows as JSON messages of the same size, in groups of as many messages as one of the hub's files had.
fn peer(group: usize, rounds: usize, python: &Python, scratch: &Path) -> anyhow::Result<Option<(String, Vec<Answer>)>> {
    if !python.has(&["pyarrow", "sqlite3"]) {
        return Ok(None);
    }
    let path = scratch.join("messages");
    let mut file = BufWriter::new(File::create(&path).context("the peer's messages")?);
    batches::as_json(PEER_ROWS, |message| Ok(writeln!(file, "{message}")?))?;
    file.flush()?;
    drop(file);
    let mut answers = Vec::new();
    for round in 0..rounds {
        let (folder, group) = (scratch.join(format!("peer-{round}")).display().to_string(), group.to_string());
        let answer: Answer = python.run(SCRIPT, &[&path.display().to_string(), &folder, &group])?;
        answers.push(answer);
    }
    let version = answers.first().map(|answer| answer.version.clone()).unwrap_or_default();
    Ok(Some((format!("pyarrow {version} + SQLite"), answers)))
}

/// As a table.
pub fn table(report: &Report) -> String {
    let Report { load, bytes_per_row, figures } = report;
    let columns = ["rows", "files", "runs", "min", "p50", "rows/s", "rows/s of CPU", "highest memory"];
    let columns = columns.map(|name| format!("{name:>15}")).join("");
    let mut text = format!(
        "observations of {DEVICES} devices in batches of {ROWS}, {bytes_per_row:.0} bytes each on the wire, to a receipt for \
         what is durable; load {load:.2}\n{:<24}{columns}\n",
        "engine"
    );
    for Figure { engine, rows, files, seconds: spread, rows_per_second, cpu, peak } in figures {
        let [min, p50] = [spread.min, spread.p50].map(seconds);
        let per_cpu = *rows as f64 / cpu;
        let [rows, rate, per_cpu] = [*rows as f64, *rows_per_second, per_cpu].map(count);
        let values =
            [rows, files.to_string(), spread.repetitions.to_string(), min, p50, rate, per_cpu, megabytes(*peak)];
        text += &format!("{engine:<24}{}\n", values.map(|value| format!("{value:>15}")).join(""));
    }
    if let [ours, theirs, ..] = &figures[..] {
        text += &format!(
            "ours by {:.1}x; ours comes over MQTT with the sender on the same cores, the peer's is one process that reads a \
             file of JSON messages\n",
            ours.rows_per_second / theirs.rows_per_second
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_has_the_ratio_of_both_sides() {
        let figure = |engine: &str, rows_per_second| {
            let (engine, seconds) = (engine.to_owned(), Spread::of([1.0]).unwrap());
            Figure { engine, rows: 1000, files: 1, seconds, rows_per_second, cpu: 0.5, peak: 1 }
        };
        let figures = vec![figure("tributary", 1000.0), figure("pyarrow", 400.0)];
        let table = table(&Report { load: 0.0, bytes_per_row: 60.0, figures });
        assert!(table.contains("ours by 2.5x") && table.contains("2 000"), "{table}");
    }

    #[test]
    fn a_folder_without_files_has_no_rows() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(recount(folder.path()).unwrap(), (0, 0));
        assert!(recount(&folder.path().join("none")).is_err());
    }
}
