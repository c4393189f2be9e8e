//! `serve` and `config`: the hub itself, and what it would run with.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use tributary_process::config::{Sources, print};
use tributary_process::{out, outln};

use super::Failure;

/// Where settings come from; later ones win: file, environment (CLOUD_HUB__SECTION__KEY), flags.
#[derive(Debug, Args)]
pub struct Settings {
    /// Settings file (TOML)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// One setting, such as data_dir=/var/lib/hub or gateway.tls=127.0.0.1:0
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
}

impl Settings {
    /// Where they come from.
    pub(super) fn sources(self) -> Sources {
        let sources = Sources { file: self.config, environment: Vec::new(), flags: self.set };
        sources.with_environment("CLOUD_HUB")
    }

    pub(super) fn load(self) -> Result<crate::config::Config, Failure> {
        self.sources().load().map_err(|error| Failure::Usage(crate::api::chain(&error)))
    }
}

/// Run a hub until SIGTERM or SIGINT
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cloud-hub serve
  cloud-hub serve --config hub.toml --set log.filter=debug
  CLOUD_HUB__DATA_DIR=/var/lib/hub cloud-hub serve")]
pub struct Serve {
    #[command(flatten)]
    settings: Settings,
}

impl Serve {
    /// Runs the hub in this process.
    pub fn run(self) -> Result<ExitCode, Failure> {
        let config = self.settings.load()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(anyhow::Error::from)?;
        runtime.block_on(crate::serve(config))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Settings or the description of the web API
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Config {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    settings: Settings,
}

/// What to print
#[derive(Debug, Subcommand)]
enum What {
    /// Print all effective settings as TOML; so does `config` alone
    Show(Settings),
    /// Print the description of the web API (OpenAPI, JSON)
    Openapi,
}

impl Config {
    /// Prints to standard output.
    pub fn run(self, json: bool) -> Result<ExitCode, Failure> {
        match self.what.unwrap_or(What::Show(self.settings)) {
            What::Show(settings) => {
                let config = settings.load()?;
                match json {
                    true => outln!("{:#}", serde_json::to_value(&config).map_err(anyhow::Error::from)?),
                    false => out!("{}", print(&config).map_err(anyhow::Error::from)?),
                }
            }
            What::Openapi => out!("{}", crate::api::openapi_text()),
        }
        Ok(ExitCode::SUCCESS)
    }
}
