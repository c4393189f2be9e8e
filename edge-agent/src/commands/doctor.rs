//! `edge-agent doctor`.

use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use tributary_process::checkup::Style;
use tributary_process::config::HumanDuration;
use tributary_process::{out, outln};

use super::{Failure, Settings};
use crate::doctor::{Options, examine};

/// Look at everything that this device needs: settings, state, packages,
/// trust, certificate, the way to the hub, clock and disk. Says what is
/// wrong and what to do. Changes nothing, unless --repair is given.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  edge-agent doctor --config agent.toml
  edge-agent doctor --config agent.toml --offline --json
  edge-agent doctor --config agent.toml --repair

Give it the settings and the user of the agent. Where an agent runs, it is
asked for what only it can open; stop it to have its files read as well.
--repair deletes nothing: what is broken gets another name beside the old
one, such as state.redb.broken-20261121T093000Z.

Exit codes: 0 nothing is broken (there may be warnings), 1 something is,
2 wrong usage. --json lists the findings, each with section, check, result
(ok, skipped, warn, fail), found, details, advice and repair. Every check,
and what --repair does: deploy/device/doctor.md.")]
pub(super) struct Doctor {
    /// Mend what can be mended without losing anything; what is done is
    /// said before
    #[arg(long)]
    repair: bool,
    /// Longest wait for each answer over the network
    #[arg(long, value_name = "DURATION", default_value = "5s")]
    timeout: HumanDuration,
    /// Ask nobody over the network
    #[arg(long)]
    offline: bool,
}

pub(super) fn doctor(settings: &Settings, doctor: &Doctor) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("runtime")?;
    // Damage over which a library panics is a finding here, not a message of its own.
    std::panic::set_hook(Box::new(|_| {}));
    let options = Options { patience: doctor.timeout.0, offline: doctor.offline };
    let mut report = runtime.block_on(examine(&settings.sources(), options));
    if doctor.repair {
        if !settings.json {
            out!("{}", report.announcement());
        }
        if report.mend() {
            // What hung on it is well now too, or is not.
            report = report.again(runtime.block_on(examine(&settings.sources(), options)));
        }
    }
    drop(std::panic::take_hook());
    if settings.json {
        outln!("{:#}", report.json());
    } else {
        out!("{}", report.text(Style::of_output()));
    }
    Ok(if report.is_well() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
