//! `cargo run -p tributary-world`: many seeds, on all cores.

mod page;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use tributary_world::data::Options;
use tributary_world::figures::Figures;
use tributary_world::replay::{self, Failed};
use tributary_world::rollout;
use tributary_world::seeds::{cores, until_one_fails};

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
    /// Of these, how many of the story of rollouts, which takes longer; otherwise all.
    #[arg(long, value_name = "N")]
    rollouts: Option<u64>,
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
    #[arg(long, requires = "replay")]
    trace: bool,
    /// What is simulated.
    #[arg(long, value_enum, default_value_t = Story::Both)]
    story: Story,
    /// Afterwards real programs are killed so many times while they work (the test `kills` of tributary-processes).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    kills: Option<u32>,
    /// Writes all of it into this file, as a page.
    #[arg(long, value_name = "FILE")]
    page: Option<PathBuf>,
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

/// What all seeds came to so far.
#[derive(Debug, Default)]
struct Sums {
    seeds: u64,
    data: Figures,
    rollouts: rollout::Figures,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let begun = Instant::now();
    let sums = match simulate(&arguments, begun) {
        Ok(sums) => sums,
        Err(failed) => {
            eprintln!("\n{failed}");
            return ExitCode::FAILURE;
        }
    };
    let took = begun.elapsed();
    let mut parts = Vec::new();
    if arguments.story != Story::Rollouts {
        parts.push(("Events on their way into the lake", sums.data.to_string()));
    }
    if arguments.story != Story::Data {
        parts.push(("Releases on their way to devices", sums.rollouts.to_string()));
    }
    parts.push(("Time", pace(&sums, took)));
    if let Some(kills) = arguments.kills {
        match page::kill(kills) {
            Ok(told) => parts.push(("Real programs, killed while they work", told)),
            Err(error) => {
                eprintln!("\n!!! {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    for (title, told) in &parts {
        print!("{title}\n{told}");
    }
    println!("{:>12} is the commit", replay::commit());
    if let Some(path) = &arguments.page
        && let Err(error) = page::write(path, &parts)
    {
        eprintln!("could not write {}: {error}", path.display());
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// How much faster than real all of it was.
fn pace(sums: &Sums, took: Duration) -> String {
    let passed = sums.data.sum.time.as_secs_f64() + sums.rollouts.seconds;
    let lived = sums.data.sum.lived.as_secs_f64() + sums.rollouts.device_seconds;
    let (took, cores) = (took.as_secs_f64(), cores());
    format!(
        "{took:>12.0} s on {cores} cores\n{:>12.0} seconds of worlds' time a second\n{:>12.0} seconds of devices' time a second\n",
        passed / took,
        lived / took
    )
}

/// Runs the seeds; says now and then how far it is.
fn simulate(arguments: &Arguments, begun: Instant) -> Result<Sums, Failed> {
    let until = arguments.hours.map(|hours| Duration::from_secs_f64(hours * 3600.0));
    let numbers = match (arguments.replay, until) {
        (Some(seed), _) => seed..seed.saturating_add(1),
        (None, Some(_)) => arguments.from..u64::MAX,
        (None, None) => arguments.from..arguments.from.saturating_add(arguments.seeds),
    };
    let in_time = |_: &u64| until.is_none_or(|until| begun.elapsed() < until);
    let sums = Mutex::new((Sums::default(), begun));
    until_one_fails(numbers.take_while(in_time), |seed| {
        let (run, rollouts) = run(arguments, seed)?;
        let (sums, shown) = &mut *sums.lock().expect("nothing panics while it is held");
        sums.seeds += 1;
        run.iter().for_each(|run| sums.data.add(run));
        rollouts.iter().for_each(|rollouts| sums.rollouts.take(rollouts));
        if shown.elapsed() > Duration::from_secs(10) {
            *shown = Instant::now();
            eprintln!("{} seeds in {:.0} s", sums.seeds, begun.elapsed().as_secs_f64());
        }
        Ok(())
    })?;
    Ok(sums.into_inner().expect("nothing panics while it is held").0)
}

type Ran = (Option<tributary_world::figures::Run>, Option<rollout::Figures>);

fn run(arguments: &Arguments, seed: u64) -> Result<Ran, Failed> {
    let (shown, devices) = (arguments.trace, arguments.devices.map(usize::from));
    let options = Options { shown, devices, breakage: None };
    let settings =
        rollout::Settings { trace: shown, devices, minutes: arguments.minutes.map(u64::from), breakage: None };
    let story = arguments.story;
    let data = (story != Story::Rollouts).then(|| replay::data(seed, options)).transpose()?;
    let is_left_out = arguments.rollouts.is_some_and(|rollouts| seed.saturating_sub(arguments.from) >= rollouts);
    let runs_rollouts = story != Story::Data && (arguments.replay.is_some() || !is_left_out);
    let rollouts = runs_rollouts.then(|| replay::rollouts(seed, &settings)).transpose()?;
    if arguments.replay.is_some() {
        data.iter().for_each(|run| println!("the trace of seed {seed} is {:016x}", run.trace));
        rollouts.iter().for_each(|run| println!("the trace of the rollouts of seed {seed} is {:016x}", run.trace));
    }
    Ok((data, rollouts))
}
