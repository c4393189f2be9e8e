//! `vibration`: makes the anomaly model of sensor nodes from what they sent, and data to try it with.

use std::ffi::OsString;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Parser};
use tributary_release::SigningKey;

use crate::lake::{self, ADXL345_COUNT};
use crate::{Input, Vibration, VibrationConfig, learn};

/// The anomaly model of vibration sensor nodes
#[derive(Debug, Parser)]
#[command(name = "vibration")]
enum Command {
    /// Learn from healthy windows of the hub's lake, and write a signed image for the nodes
    Train(Train),
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

#[derive(Debug, Args)]
struct Train {
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
    /// Nodes that have confirmed it take nothing with a lower index; the
    /// version unless given, so that nodes take no older version
    #[arg(long)]
    rollback: Option<u32>,
    /// File of the key that signs images for nodes
    #[arg(long)]
    key: PathBuf,
    /// Where to write the image
    #[arg(long)]
    out: PathBuf,
}

/// Runs the command that the arguments ask for; the first one is the program's name.
pub fn cli(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let command = match Command::try_parse_from(arguments) {
        Ok(command) => command,
        Err(error) => {
            // Help comes this way too, with exit code 0.
            let _ = error.print();
            return ExitCode::from(error.exit_code() as u8);
        }
    };
    match run(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vibration: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Train(train) => train.run(),
        Command::Generate { seconds, seed, wears_after, tenfold } => {
            let config = VibrationConfig { seed, wears_after, tenfold, ..VibrationConfig::default() };
            let (mut machine, mut out) = (Vibration::new(config), BufWriter::new(std::io::stdout().lock()));
            writeln!(out, "time_s,across,along,down")?;
            for sample in 0..(seconds * config.rate) as u64 {
                let [across, along, down] = machine.sample();
                writeln!(out, "{:.4},{across:.5},{along:.5},{down:.5}", sample as f64 / config.rate)?;
            }
            Ok(out.flush()?)
        }
    }
}

impl Train {
    fn rollback(&self) -> u32 {
        self.rollback.unwrap_or(self.version)
    }

    fn run(&self) -> anyhow::Result<()> {
        let key = SigningKey::load(&self.key)?;
        let windows = lake::windows(&self.lake)?;
        let wanted = windows.iter().filter(|window| {
            let of_node = self.node.as_ref().is_none_or(|node| *node == window.node);
            let (from, to) = (self.from.unwrap_or(i64::MIN), self.to.unwrap_or(i64::MAX));
            of_node && (from..to).contains(&window.time)
        });
        let inputs: Vec<Input> = wanted.map(|recorded| recorded.window.input(self.count)).collect();
        let within =
            || format!("{} of the {} windows in {} are wanted", inputs.len(), windows.len(), self.lake.display());
        let learnt = learn(&inputs).with_context(within)?;
        let image = lake::image(&learnt, &self.kind, self.version, self.rollback(), &key)?;
        std::fs::write(&self.out, &image).with_context(|| format!("write {}", self.out.display()))?;
        let (parity, threshold) = (learnt.parity(&inputs)?, learnt.model()?.threshold());
        println!("{} windows of {}; threshold {threshold}", inputs.len(), windows.len());
        println!(
            "int8 against 32-bit floating point: {:.2} steps apart on average, {:.2} at most; {} of {} decided alike",
            parity.mean, parity.largest, parity.agree.0, parity.agree.1
        );
        let (out, kind, version, rollback) = (self.out.display(), &self.kind, self.version, self.rollback());
        println!("{out}: {} bytes for nodes of type {kind}, version {version}, rollback index {rollback}", image.len());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn train(more: &[&str]) -> Train {
        let needed = "vibration train --lake lake --kind mps2 --version 7 --key nodes.key --out v7.img";
        match Command::try_parse_from(needed.split(' ').chain(more.iter().copied())).unwrap() {
            Command::Train(train) => train,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_node_that_confirmed_a_version_takes_no_older_one_unless_that_is_wanted() {
        Command::command().debug_assert();
        assert_eq!(train(&[]).rollback(), 7);
        assert_eq!(train(&["--rollback", "3"]).rollback(), 3);
    }
}
