//! What commands print. Unlike `print!`, a reader that has seen enough (`… | head`) ends the program without a panic.

use std::fmt::Arguments;
use std::io::{self, Write};

/// What a shell reports for a program whose output nobody reads any more.
const BROKEN_PIPE: i32 = 141;

/// Writes to standard output. Use [`out!`](crate::out) and [`outln!`](crate::outln).
pub fn write(text: Arguments<'_>) {
    let mut stdout = io::stdout().lock();
    if let Err(error) = stdout.write_fmt(text).and_then(|()| stdout.flush()) {
        if error.kind() == io::ErrorKind::BrokenPipe {
            std::process::exit(BROKEN_PIPE);
        }
        eprintln!("could not write to standard output: {error}");
        std::process::exit(1);
    }
}

/// Prints to standard output.
#[macro_export]
macro_rules! out {
    ($($text:tt)*) => { $crate::output::write(::std::format_args!($($text)*)) };
}

/// Prints a line to standard output.
#[macro_export]
macro_rules! outln {
    ($($text:tt)*) => { $crate::output::write(::std::format_args!("{}\n", ::std::format_args!($($text)*))) };
}
