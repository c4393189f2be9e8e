//! The command line. `serve` runs a hub, `train run` one training run; everything else only calls the web API of a hub.

mod remote;
mod access;
mod show;
mod serve;
mod doctor;
mod devices;
mod certificates;
mod tokens;
mod data;
mod lines;
mod models;
mod train;
mod repository;
mod rollouts;
mod flags;
mod sampling;
mod orders;
mod audit;
mod backup;
mod restore;
mod keys;
pub mod benchmark;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

pub use remote::{Failure, Remote};

/// Gathers what devices saw, watches, trains, signs and rolls out.
#[derive(Debug, Parser)]
#[command(name = "cloud-hub", version, max_term_width = 100, after_help = AFTER_HELP)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Examples:
  cloud-hub serve --set data_dir=hub-data     run a hub on this machine
  export CLOUD_HUB_CA=hub-data/identity/authority.pem
  export CLOUD_HUB_TOKEN_FILE=hub-data/keys/admin.token
  cloud-hub device list                       who is there
  cloud-hub train start card-fraud --wait     train a version and watch it
  cloud-hub rollout start card-fraud 2        bring version 2 to the fleet

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 hub not reachable, 4 not found, 5 refused by the hub.";

/// What all operators' commands understand.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Address of the hub; also the variable CLOUD_HUB_URL
    #[arg(long, global = true, value_name = "URL")]
    hub: Option<String>,
    /// Certificate of the hub's authority (PEM); also CLOUD_HUB_CA
    #[arg(long, global = true, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// File with the API token; also CLOUD_HUB_TOKEN_FILE, or the token itself in CLOUD_HUB_TOKEN
    #[arg(long, global = true, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Print the hub's answer as JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a hub
    Serve(serve::Serve),
    /// Print settings or the description of the web API
    Config(serve::Config),
    /// Look at a hub on this machine, and say what is wrong and what to do
    Doctor(doctor::Doctor),
    /// Devices: list, show, set labels and group, certificates
    #[command(subcommand)]
    Device(devices::Device),
    /// Tokens for devices to enrol with: create, list, revoke
    #[command(subcommand)]
    Token(tokens::Token),
    /// Streams of the lake
    #[command(subcommand)]
    Lake(data::Lake),
    /// Messages that were kept aside
    #[command(subcommand)]
    Quarantine(data::Quarantine),
    /// Feature views
    #[command(subcommand)]
    View(data::View),
    /// Labels: the truth about events, known later
    #[command(subcommand)]
    Label(data::Label),
    /// Datasets made from the lake
    #[command(subcommand)]
    Dataset(data::Dataset),
    /// Model lines: settings, story, quality
    #[command(subcommand)]
    Line(lines::Line),
    /// What labels say about a line's versions
    Quality(lines::Quality),
    /// Versions, aliases, releases
    #[command(subcommand)]
    Model(models::Model),
    /// The signed repository: write a mirror
    #[command(subcommand)]
    Repository(repository::Repository),
    /// Training runs
    #[command(subcommand)]
    Train(train::Train),
    /// Rollouts: start, watch, pause, resume, abort; shares and ends of challengers
    #[command(subcommand)]
    Rollout(rollouts::Rollout),
    /// Flags for the applications beside the agents
    #[command(subcommand)]
    Flag(flags::Flag),
    /// What devices send of their raw observations
    #[command(subcommand)]
    Sampling(sampling::Sampling),
    /// Alerts
    #[command(subcommand)]
    Alert(rollouts::Alert),
    /// API tokens: who may call the web API
    #[command(subcommand)]
    Access(access::Access),
    /// The audit log: who changed what, and whether it is whole
    #[command(subcommand)]
    Audit(audit::Audit),
    /// Backups of a hub: make, check, list
    Backup(backup::Backup),
    /// A hub from a backup, and what it waits for
    Restore(restore::Restore),
    /// Who may sign what in the repository that devices believe
    #[command(subcommand)]
    Keys(keys::Keys),
    /// Figures beside published ones, from data that you bring
    #[command(subcommand)]
    Benchmark(benchmark::Benchmark),
}

/// Runs one command line (the program's name first) and says how the process should end.
pub fn main<I, T>(arguments: I) -> ExitCode
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(error.exit_code() as u8);
        }
    };
    let json = cli.global.json;
    match run(cli) {
        Ok(code) => code,
        Err(failure) => failure.report(json),
    }
}

fn run(cli: Cli) -> Result<ExitCode, Failure> {
    let Cli { global, command } = cli;
    // These run without the operator's runtime: they bring their own or need none.
    let mut command = match command {
        Command::Serve(serve) => return serve.run(),
        Command::Config(config) => return config.run(global.json),
        Command::Doctor(doctor) => return doctor.run(global.json),
        Command::Benchmark(benchmark) => return Ok(benchmark::run(&benchmark)?),
        Command::Train(train::Train::Run(run)) => return Ok(run.run()),
        other => other,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(anyhow::Error::from)?;
    runtime.block_on(async {
        // It can also look at files, without any hub.
        if let Command::Audit(command) = command {
            return command.run(&global).await;
        }
        // Both also work on folders, without any hub.
        match command {
            Command::Backup(command) => return command.run(&global).await,
            Command::Restore(command) => return command.run(&global).await,
            other => command = other,
        }
        // Keys are also made, and files signed, on machines that never see a hub.
        if let Command::Keys(command) = command {
            return command.run(&global).await;
        }
        let remote = Remote::new(&global)?;
        match command {
            Command::Device(command) => command.run(&remote).await,
            Command::Token(command) => command.run(&remote).await,
            Command::Lake(command) => command.run(&remote).await,
            Command::Quarantine(command) => command.run(&remote).await,
            Command::View(command) => command.run(&remote).await,
            Command::Label(command) => command.run(&remote).await,
            Command::Dataset(command) => command.run(&remote).await,
            Command::Line(command) => command.run(&remote).await,
            Command::Quality(command) => command.run(&remote).await,
            Command::Model(command) => command.run(&remote).await,
            Command::Repository(command) => command.run(&remote).await,
            Command::Train(command) => command.run(&remote).await,
            Command::Rollout(command) => command.run(&remote).await,
            Command::Flag(command) => command.run(&remote).await,
            Command::Sampling(command) => command.run(&remote).await,
            Command::Alert(command) => command.run(&remote).await,
            Command::Access(command) => command.run(&remote).await,
            Command::Serve(_)
            | Command::Config(_)
            | Command::Doctor(_)
            | Command::Benchmark(_)
            | Command::Audit(_)
            | Command::Keys(_)
            | Command::Backup(_)
            | Command::Restore(_) => Ok(()),
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_fits_in_eighty_columns() {
        for line in Cli::command().term_width(80).render_long_help().to_string().lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }
}
