//! The agent's program; see `edge-agent --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    edge_agent::cli(std::env::args_os())
}
