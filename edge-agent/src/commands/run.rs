//! `edge-agent run`.

use std::process::ExitCode;

use anyhow::Context;
use tributary_process::logging;
use tributary_process::shutdown::Shutdown;

use super::{Failure, Settings};
use crate::orders::restart::Program;
use crate::{Agent, BuildError};

/// Enough for a device: one for the network, one for everything else. The pipeline has a thread of its own.
const WORKERS: usize = 2;

pub(super) fn run(settings: &Settings) -> Result<ExitCode, Failure> {
    let config = settings.load()?;
    let log = logging::init_with_tail(&config.log).context("logging")?;
    let program = Program::present().context("this program's own path")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build();
    let runtime = runtime.context("runtime")?;
    let restart = runtime.block_on(async {
        let shutdown = Shutdown::on_signal().context("signals")?;
        let device = config.device.clone();
        let agent = Agent::build(config).await.map_err(cannot_start)?.with_log(log);
        tracing::info!(%device, version = crate::VERSION, "the agent works");
        let restart = agent.restart_wanted();
        agent.run(shutdown).await?;
        anyhow::Ok(restart)
    })?;
    if restart.is_set() {
        tracing::info!("starting again");
        // Everything that could hold a file or a socket has to be gone before.
        drop(runtime);
        return Err(anyhow::Error::new(program.start_again()).context("could not start again").into());
    }
    Ok(ExitCode::SUCCESS)
}

/// Nothing is emptied or begun anew because it cannot be read: a start that is tried again and again says the same each
/// time, and where a person finds more.
fn cannot_start(error: BuildError) -> anyhow::Error {
    let held = matches!(&error, BuildError::Store(error) if error.is_held());
    let advice = match &error {
        _ if held => "another process works with this state",
        BuildError::Config(_) | BuildError::Hub(_) | BuildError::Mirrors(_) => "",
        _ => "`edge-agent doctor` with the same settings says what is wrong and what to do",
    };
    let context = if advice.is_empty() { "cannot start".to_owned() } else { format!("cannot start ({advice})") };
    anyhow::Error::new(error).context(context)
}
