//! The command line: `run` is the agent, everything else talks to a running one or only reads settings.

mod run;
mod enroll;
mod local;
mod doctor;
mod show;
mod tuf;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use tributary_process::config::{ConfigError, Sources};
use tributary_process::http::ClientError;

use crate::config::{Config, InvalidConfig};
use crate::identity::EnrolError;

/// Runs models beside their sensors and keeps working without a network.
#[derive(Debug, Parser)]
#[command(name = "edge-agent", version, propagate_version = true, max_term_width = 80, after_help = AFTER_HELP)]
struct Cli {
    #[command(flatten)]
    settings: Settings,
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Examples:
  edge-agent enroll --hub https://hub:8443 --token-file token   join a hub
  edge-agent run --config agent.toml       run an agent
  edge-agent run --set view=view.toml --set device=edge-7
  edge-agent status --config agent.toml    how the agent of these settings is
  edge-agent predict --config agent.toml events.json
  edge-agent doctor --config agent.toml    what is wrong, and what to do
  edge-agent config --config agent.toml    every setting with its value

Exit codes: 0 done, 1 failed, 2 wrong usage or settings,
3 no agent or no hub answers, 4 some events were refused,
5 the hub refused, or is not the one that the token names.";

const RUN_HELP: &str = "\
A device joins a hub once, before its agent runs for the first time:

  edge-agent enroll --config agent.toml --hub https://hub:8443 \\
      --token-file token

Without that the agent works all the same; records wait in its outbox.
A settings file that is enough:

  device = \"edge-1\"
  lines = [\"card-fraud\"]       # what the hub calls the model line
  view = \"view.toml\"           # features until a package brings its own

  [listen]
  tcp = \"127.0.0.1:7070\"       # for POST /v1/events";

/// Where settings come from: defaults < file < environment < flags.
#[derive(Debug, Clone, Args)]
struct Settings {
    /// Settings file (TOML)
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<std::path::PathBuf>,
    /// One setting; stronger than the file and than variables such as
    /// EDGE_AGENT__HUB__URL. May be repeated
    #[arg(long, global = true, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run an agent until it gets SIGTERM or SIGINT
    #[command(after_help = RUN_HELP)]
    Run,
    /// Join a hub: make a key and get a certificate for it
    Enroll(enroll::Enroll),
    /// Show how a running agent is
    Status(local::Address),
    /// Ask a running agent for decisions on events; nothing is stored
    Predict(local::Predict),
    /// Look at everything that this device needs, and say what is wrong
    Doctor(doctor::Doctor),
    /// Follow a repository of The Update Framework: refresh metadata,
    /// download small targets (what the conformance suite drives)
    Tuf(tuf::Tuf),
    /// Print the effective settings and where they come from
    Config,
}

/// Why a command did not do what it should.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Settings(#[from] ConfigError),
    #[error(transparent)]
    Contradiction(#[from] InvalidConfig),
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    Agent(#[from] ClientError),
    #[error("not enrolled")]
    Enrol(#[from] EnrolError),
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

impl Failure {
    fn code(&self) -> u8 {
        match self {
            Self::Settings(_) | Self::Contradiction(_) | Self::Usage(_) => 2,
            Self::Agent(ClientError::Unreachable { .. } | ClientError::TimedOut { .. }) => 3,
            Self::Enrol(EnrolError::Plain { .. }) => 2,
            Self::Enrol(EnrolError::Unreachable(_)) => 3,
            Self::Enrol(
                EnrolError::OtherHub { .. }
                | EnrolError::Name { .. }
                | EnrolError::Clock { .. }
                | EnrolError::Refused { .. },
            ) => 5,
            Self::Enrol(_) | Self::Agent(_) | Self::Other(_) => 1,
        }
    }
}

impl Settings {
    fn sources(&self) -> Sources {
        let sources = Sources { file: self.config.clone(), flags: self.set.clone(), ..Sources::default() };
        sources.with_environment("EDGE_AGENT")
    }

    fn load(&self) -> Result<Config, Failure> {
        let config: Config = self.sources().load()?;
        config.check()?;
        Ok(config)
    }
}

/// Runs the command that the arguments ask for; the first one is the program's name.
pub fn cli<I, T>(arguments: I) -> ExitCode
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too, with exit code 0.
            let _ = error.print();
            return ExitCode::from(error.exit_code() as u8);
        }
    };
    let settings = &cli.settings;
    let done = match &cli.command {
        Command::Run => run::run(settings),
        Command::Enroll(enroll) => enroll::enroll(settings, enroll),
        Command::Status(address) => local::status(settings, address),
        Command::Predict(predict) => local::predict(settings, predict),
        Command::Doctor(arguments) => doctor::doctor(settings, arguments),
        Command::Tuf(arguments) => tuf::tuf(arguments),
        Command::Config => show::config(settings),
    };
    match done {
        Ok(code) => code,
        Err(failure) => {
            let code = failure.code();
            eprintln!("edge-agent: {:#}", anyhow::Error::from(failure));
            ExitCode::from(code)
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(arguments: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from([&["edge-agent"], arguments].concat())
    }

    #[test]
    fn the_command_line_is_consistent_and_help_fits_80_columns() {
        Cli::command().debug_assert();
        let mut command = Cli::command();
        let mut pages = vec![command.render_long_help().to_string()];
        pages.extend(command.get_subcommands_mut().map(|command| command.render_long_help().to_string()));
        for line in pages.iter().flat_map(|page| page.lines()) {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }

    #[test]
    fn settings_may_stand_before_or_behind_the_command() {
        for arguments in [["--config", "a.toml", "run"], ["run", "--config", "a.toml"]] {
            assert_eq!(parse(&arguments).unwrap().settings.config.unwrap().to_str(), Some("a.toml"));
        }
        assert_eq!(parse(&["walk"]).unwrap_err().exit_code(), 2);
    }

    #[test]
    fn an_unknown_setting_is_wrong_usage_and_is_named() {
        let settings = Settings { config: None, set: vec!["hub.mqqt=x".into()], json: false };
        let failure = settings.load().unwrap_err();
        assert_eq!(failure.code(), 2);
        assert!(failure.to_string().contains("mqqt"), "{failure}");
    }
}
