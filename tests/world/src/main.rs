//! `cargo run -p tributary-world`: many seeds, one after the other.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use tributary_world::data::Options;
use tributary_world::figures::Figures;
use tributary_world::{replay, rollout};

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
    /// How many minutes faults go on in the story of rollouts, instead of an hour.
    #[arg(long, value_name = "MINUTES", value_parser = clap::value_parser!(u16).range(1..=600))]
    minutes: Option<u16>,
    /// Runs this seed alone.
    #[arg(long, value_name = "SEED", conflicts_with_all = ["seeds", "from", "hours"])]
    replay: Option<u64>,
    /// Shows everything that happens.
    #[arg(long)]
    trace: bool,
    /// What is simulated.
    #[arg(long, value_enum, default_value_t = Story::Both)]
    story: Story,
}

/// What is simulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Story {
    /// Events on their way into the lake.
    Data,
    /// Releases on their way to devices.
    Rollouts,
    /// For each seed the one, then the other.
    Both,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let (from, seeds) = arguments.replay.map_or((arguments.from, arguments.seeds), |seed| (seed, 1));
    let devices = arguments.devices.map(usize::from);
    let options = Options { shown: arguments.trace, devices, breakage: None };
    let minutes = arguments.minutes.map(u64::from);
    let settings = rollout::Settings { trace: arguments.trace, devices, minutes, breakage: None };
    let story = arguments.story;
    let (begun, mut shown) = (Instant::now(), Instant::now());
    let until = arguments.hours.map(|hours| Duration::from_secs_f64(hours * 3600.0));
    let (mut figures, mut rollouts) = (Figures::default(), rollout::Figures::default());
    let mut seed = from;
    let failed = |failed: replay::Failed| {
        eprintln!("\n{failed}");
        ExitCode::FAILURE
    };
    while until.map_or(seed < from + seeds, |until| begun.elapsed() < until) {
        if story != Story::Rollouts {
            match replay::data(seed, options) {
                Ok(run) => {
                    if arguments.replay.is_some() {
                        println!("the trace of seed {seed} is {:016x}", run.trace);
                    }
                    figures.add(&run);
                }
                Err(error) => return failed(error),
            }
        }
        if story != Story::Data {
            match replay::rollouts(seed, &settings) {
                Ok(run) => {
                    if arguments.replay.is_some() {
                        println!("the trace of the rollouts of seed {seed} is {:016x}", run.trace);
                    }
                    rollouts.take(&run);
                }
                Err(error) => return failed(error),
            }
        }
        seed += 1;
        if shown.elapsed() > Duration::from_secs(10) {
            eprintln!("{} seeds in {:.0} s", seed - from, begun.elapsed().as_secs_f64());
            shown = Instant::now();
        }
    }
    if story != Story::Rollouts {
        print!("{figures}");
    }
    if story != Story::Data {
        print!("{rollouts}");
    }
    let took = begun.elapsed().as_secs_f64();
    let passed = figures.sum.time.as_secs_f64() + rollouts.seconds;
    let lived = figures.sum.lived.as_secs_f64() + rollouts.device_seconds;
    println!("{:>12.0} times faster than real: worlds' time, one world after the other", passed / took);
    println!("{:>12.0} seconds of devices' time a second", lived / took);
    println!("{:>12} is the commit", replay::commit());
    ExitCode::SUCCESS
}
