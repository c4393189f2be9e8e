//! What can be asked of the demo.

use std::path::PathBuf;

use clap::Parser;

use crate::step::Step;

/// Card fraud, end to end: three agents decide on card payments, a hub gathers, trains, ships, notices a new fraud
/// pattern, retrains, and rolls out in waves. Everything runs on this machine, on free ports, in a temporary folder.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "tributary",
    version,
    max_term_width = 80,
    after_help = "The two programs are here too:\n  tributary hub --help      the hub and its operators' commands\n  \
                  tributary agent --help    the agent\n\nExit code 0 only if every step truly happened, else 1."
)]
pub struct Options {
    /// End after the story; without it the hub and the agents keep running until Ctrl-C.
    #[arg(long)]
    pub once: bool,
    /// Decides customers, payments and frauds.
    #[arg(long, default_value_t = 7)]
    pub seed: u64,
    /// Keep the fraud pattern as it is: then there must be no alert and no retraining.
    #[arg(long)]
    pub no_change: bool,
    /// Break one step on purpose; the demo must then fail.
    #[arg(long, value_enum, value_name = "STEP")]
    pub sabotage: Option<Step>,
    /// Write the figures as JSON.
    #[arg(long, value_name = "FILE")]
    pub summary: Option<PathBuf>,
    /// Stream these transactions (Parquet) instead of generated ones. The story then ends when its first model decides,
    /// because nobody knows whether and when the pattern of the file changes.
    #[arg(long, value_name = "FILE")]
    pub transactions: Option<PathBuf>,
    /// With --transactions: take only this many customers, the lowest numbers first.
    #[arg(long, default_value_t = 300, value_name = "N")]
    pub customers: usize,
    /// Work in this folder and leave it there, instead of a temporary one.
    #[arg(long, value_name = "FOLDER")]
    pub keep: Option<PathBuf>,
}
