//! `cargo run -p tributary-world`: many seeds, one after the other.

use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use clap::Parser;
use tributary_world::data::{self, Options};
use tributary_world::figures::Figures;

/// Simulates fleets, one for each seed, and prints what they came to. The first seed that fails ends it with exit code 1
/// and the command that runs that seed again.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many seeds.
    #[arg(long, value_name = "N", default_value_t = 200)]
    seeds: u64,
    /// The first seed.
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    from: u64,
    /// Goes on with further seeds for so many hours instead.
    #[arg(long, value_name = "H", conflicts_with = "seeds")]
    hours: Option<f64>,
    /// So many devices in every world, instead of as many as its seed says.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    devices: Option<u16>,
    /// Runs this seed alone.
    #[arg(long, value_name = "SEED", conflicts_with_all = ["seeds", "from", "hours"])]
    replay: Option<u64>,
    /// Shows everything that happens.
    #[arg(long)]
    trace: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let (from, seeds) = arguments.replay.map_or((arguments.from, arguments.seeds), |seed| (seed, 1));
    let options = Options { shown: arguments.trace, devices: arguments.devices.map(usize::from), breakage: None };
    let (begun, mut shown) = (Instant::now(), Instant::now());
    let until = arguments.hours.map(|hours| Duration::from_secs_f64(hours * 3600.0));
    let mut figures = Figures::default();
    let mut seed = from;
    while until.map_or(seed < from + seeds, |until| begun.elapsed() < until) {
        match data::run(seed, options) {
            Ok(run) => {
                if arguments.replay.is_some() {
                    println!("the trace of seed {seed} is {:016x}", run.trace);
                }
                figures.add(&run);
            }
            Err(error) => {
                let devices = arguments.devices.map_or(String::new(), |devices| format!(" --devices {devices}"));
                eprintln!("\n!!! seed {seed} fails at commit {}: {error:?}\n", commit());
                eprintln!("run it again: cargo run -p tributary-world -- --replay {seed}{devices} --trace");
                return ExitCode::FAILURE;
            }
        }
        seed += 1;
        if shown.elapsed() > Duration::from_secs(10) {
            eprintln!("{} seeds in {:.0} s", figures.runs, begun.elapsed().as_secs_f64());
            shown = Instant::now();
        }
    }
    print!("{figures}");
    println!("{:>12.0} times faster than real", figures.sum.lived.as_secs_f64() / begun.elapsed().as_secs_f64());
    println!("{:>12} is the commit", commit());
    ExitCode::SUCCESS
}

/// The commit of the source that this was built from, as far as git knows.
fn commit() -> String {
    let asked = Command::new("git")
        .args(["-C", env!("CARGO_MANIFEST_DIR"), "describe", "--always", "--dirty", "--abbrev=12"])
        .output();
    match asked {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        _ => "(unknown: git does not say)".to_owned(),
    }
}
