//! The loop in one command: a hub, three agents, and the story of a fraud pattern that changes.
//!
//! `tributary hub …` and `tributary agent …` are the two programs, through their own entry points: the demo starts
//! itself as either, so that one build is enough for it and for every command that it suggests.

pub mod fleet;
pub mod recount;
pub mod traffic;
pub mod wait;

mod display;
mod options;
mod step;
mod story;
mod summary;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

/// Runs what the arguments ask for: the hub, the agent, or the story.
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    match arguments.get(1).and_then(|first| first.to_str()) {
        Some("hub") => cloud_hub::cli(arguments.into_iter().skip(1)),
        Some("agent") => edge_agent::cli(arguments.into_iter().skip(1)),
        _ => demo(options::Options::parse()),
    }
}

fn demo(options: options::Options) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let told = runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(story::tell(options)));
    match told {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nThe story broke off: {error:#}");
            ExitCode::FAILURE
        }
    }
}
