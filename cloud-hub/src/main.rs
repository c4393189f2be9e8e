//! `cloud-hub`: see `cloud-hub --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    cloud_hub::cli(std::env::args_os())
}
