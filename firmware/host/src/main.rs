//! Tools for the node that run on a laptop.
//!
//! ```text
//! cargo run -p tributary-node-host -- train boards/mps2/model.bin
//! cargo run -p tributary-node-host -- figures
//! ```

mod elf;
mod emulator;
mod figures;
mod line;
mod train;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["train", path] => train::write(path),
        ["figures"] => figures::print(),
        _ => Err("usage: train FILE | figures".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
