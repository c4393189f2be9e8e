//! Both programs and the demo in one executable, for the tests beside it to start and kill.

fn main() -> std::process::ExitCode {
    tributary_demo::main()
}
