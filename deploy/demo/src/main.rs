//! The demo's program; all of it is in the library, so that tests can start the same programs.

fn main() -> std::process::ExitCode {
    tributary_demo::main()
}
