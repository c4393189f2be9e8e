//! The programs and the demo in one executable, for the tests beside it to start and kill.

use std::ffi::OsString;

fn main() -> std::process::ExitCode {
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    if arguments.get(1).is_some_and(|first| first == "vibration") {
        arguments.remove(0);
        return tributary_vibration::commands::cli(arguments);
    }
    tributary_demo::main()
}
