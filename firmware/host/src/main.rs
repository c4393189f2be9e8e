//! Tools for the node that run on a laptop.
//!
//! ```text
//! cargo run -p tributary-node-host -- train boards/mps2/model.bin
//! cargo run -p tributary-node-host -- figures [link]
//! cargo run -p tributary-node-host -- image firmware mps2 1 1 PROGRAM emulator mps2.img
//! ```
//!
//! An image wants what it is (`firmware` from an ELF file, or `model` from a payload as `tributary-signal` reads it), the
//! node type, version and rollback index, the file, the file of the secret key, and where to write it. The key `emulator`
//! is the one that every emulated node trusts.

mod elf;
mod emulator;
mod figures;
mod image;
mod line;
mod train;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["train", path] => train::write(path),
        ["figures"] => figures::print(),
        ["figures", "link"] => figures::print_link(),
        ["image", kind, node, version, rollback, file, key, out] => {
            image::write(kind, node, (version, rollback), file, key, out)
        }
        _ => Err("usage: train FILE | figures [link] | image KIND NODE VERSION ROLLBACK FILE KEY OUT".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
