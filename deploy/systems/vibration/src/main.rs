//! The program; see `vibration --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    tributary_vibration::commands::cli(std::env::args_os())
}
