//! `vibration`: makes the anomaly model of sensor nodes from what they sent, and data to try it with.

use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use tributary_release::SigningKey;
use tributary_vibration::lake::{self, ADXL345_COUNT};
use tributary_vibration::{Input, Vibration, VibrationConfig, learn};

/// The anomaly model of vibration sensor nodes
#[derive(Debug, Parser)]
enum Command {
    /// Learn from healthy windows of the hub's lake, and write a signed image for the nodes
    Train {
        /// Folder of the lake, such as `data/lake`
        #[arg(long)]
        lake: PathBuf,
        /// Learn only from this node; otherwise from all
        #[arg(long)]
        node: Option<String>,
        /// From this time on, UTC microseconds; the machine was healthy
        #[arg(long)]
        from: Option<i64>,
        /// Up to this time, UTC microseconds
        #[arg(long)]
        to: Option<i64>,
        /// One count of the nodes' converter in nm/s²
        #[arg(long, default_value_t = ADXL345_COUNT)]
        count: u32,
        /// Type of the nodes
        #[arg(long)]
        kind: String,
        /// Version of the image: higher than any before
        #[arg(long)]
        version: u32,
        /// Nodes that have confirmed it take nothing with a lower index
        #[arg(long, default_value_t = 1)]
        rollback: u32,
        /// File of the key that signs images for nodes
        #[arg(long)]
        key: PathBuf,
        /// Where to write the image
        #[arg(long)]
        out: PathBuf,
    },
    /// Write vibration of a machine whose bearing wears, in m/s² on three axes, as CSV
    Generate {
        /// Seconds of it
        #[arg(long, default_value_t = 60.0)]
        seconds: f64,
        /// Chance begins here
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Seconds after which the bearing begins to wear; else it never does
        #[arg(long)]
        wears_after: Option<f64>,
        /// Seconds in which the blows then become ten times as strong
        #[arg(long, default_value_t = 600.0)]
        tenfold: f64,
    },
}

fn main() -> ExitCode {
    match run(Command::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vibration: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Train { lake, node, from, to, count, kind, version, rollback, key, out } => {
            let key = SigningKey::load(&key)?;
            let windows = lake::windows(&lake)?;
            let wanted = windows.iter().filter(|window| {
                let of_node = node.as_ref().is_none_or(|node| *node == window.node);
                of_node && from.is_none_or(|from| window.time >= from) && to.is_none_or(|to| window.time < to)
            });
            let inputs: Vec<Input> = wanted.map(|recorded| recorded.window.input(count)).collect();
            let learnt = learn(&inputs)?;
            let image = lake::image(&learnt, &kind, version, rollback, &key)?;
            std::fs::write(&out, &image).with_context(|| format!("write {}", out.display()))?;
            let (parity, threshold) = (learnt.parity(&inputs)?, learnt.model()?.threshold());
            println!("{} windows of {}; threshold {threshold}", inputs.len(), windows.len());
            println!(
                "int8 against 32-bit floating point: {:.2} steps apart on average, {:.2} at most; {} of {} decided alike",
                parity.mean, parity.largest, parity.agree.0, parity.agree.1
            );
            println!("{}: {} bytes for nodes of type {kind}, version {version}", out.display(), image.len());
        }
        Command::Generate { seconds, seed, wears_after, tenfold } => {
            let config = VibrationConfig { seed, wears_after, tenfold, ..VibrationConfig::default() };
            let (mut machine, mut out) = (Vibration::new(config), BufWriter::new(std::io::stdout().lock()));
            writeln!(out, "time_s,across,along,down")?;
            for sample in 0..(seconds * config.rate) as u64 {
                let [across, along, down] = machine.sample();
                writeln!(out, "{:.4},{across:.5},{along:.5},{down:.5}", sample as f64 / config.rate)?;
            }
            out.flush()?;
        }
    }
    Ok(())
}
