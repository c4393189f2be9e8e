//! `edge-agent run`.

use std::process::ExitCode;

use anyhow::Context;
use tributary_process::logging;
use tributary_process::shutdown::Shutdown;

use super::{Failure, Settings};
use crate::Agent;

/// Enough for a device: one for the network, one for everything else. The pipeline has a thread of its own.
const WORKERS: usize = 2;

pub(super) fn run(settings: &Settings) -> Result<ExitCode, Failure> {
    let config = settings.load()?;
    logging::init(&config.log).context("logging")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build();
    let runtime = runtime.context("runtime")?;
    runtime.block_on(async {
        let shutdown = Shutdown::on_signal().context("signals")?;
        let device = config.device.clone();
        let agent = Agent::build(config).await.context("cannot start")?;
        tracing::info!(%device, version = crate::VERSION, "the agent works");
        agent.run(shutdown).await
    })?;
    Ok(ExitCode::SUCCESS)
}
