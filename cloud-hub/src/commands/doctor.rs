//! `doctor`: what is wrong with a hub, and what to do.

use std::process::ExitCode;

use clap::Args;
use tributary_process::checkup::Style;
use tributary_process::config::HumanDuration;
use tributary_process::{out, outln};

use super::Failure;
use super::serve::Settings;
use crate::doctor::{Options, examine};

/// Look at everything that a hub needs: settings, permissions, catalog, lake, packages, signed
/// repository, certificates, ports, clock and disk. Says what is wrong and what to do. Changes
/// nothing, unless --repair is given
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cloud-hub doctor --config hub.toml
  cloud-hub doctor --set data_dir=hub-data --deep --json
  cloud-hub doctor --config hub.toml --repair

Run it on the hub's own machine, with the hub's settings and as its user. It may run beside a
working hub. --repair deletes nothing: what is broken gets another name beside the old one,
such as catalog.db.broken-20261121T093000Z.

Exit codes: 0 nothing is broken (there may be warnings), 1 something is, 2 wrong usage. Every check,
and the form of --json: deploy/hub/doctor.md.")]
pub struct Doctor {
    #[command(flatten)]
    settings: Settings,
    /// Mend what can be mended without losing anything; what is done is said before
    #[arg(long)]
    repair: bool,
    /// Read every record of the lake, not only sizes and footers
    #[arg(long)]
    deep: bool,
    /// Longest wait for each answer
    #[arg(long, value_name = "DURATION", default_value = "5s")]
    timeout: HumanDuration,
}

impl Doctor {
    /// Looks, mends if that was asked for, and prints.
    pub fn run(self, json: bool) -> Result<ExitCode, Failure> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(anyhow::Error::from)?;
        let options = Options { patience: self.timeout.0, deep: self.deep };
        let sources = self.settings.sources();
        let mut report = runtime.block_on(examine(&sources, options));
        if self.repair {
            if !json {
                out!("{}", report.announcement());
            }
            if report.mend() {
                // What hung on it is well now too, or is not.
                report = report.again(runtime.block_on(examine(&sources, options)));
            }
        }
        match json {
            true => outln!("{:#}", report.json()),
            false => out!("{}", report.text(Style::of_output())),
        }
        Ok(if report.is_well() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
