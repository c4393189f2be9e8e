//! A run that fails says how to run it again, whatever ends it: a check, or a panic somewhere in the code that ships.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;

use crate::{data, figures, rollout};

/// A seed that failed, and how to see it fail again.
#[derive(Debug)]
pub struct Failed {
    /// The seed.
    pub seed: u64,
    /// Which story.
    pub story: &'static str,
    /// What goes with the seed on the command line.
    pub flags: String,
    /// What was found.
    pub why: String,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, story, flags, why } = self;
        writeln!(f, "!!! seed {seed} of {story}{flags} fails at commit {}: {why}", commit())?;
        write!(f, "run it again: cargo run -p tributary-world -- --story {story} --replay {seed}{flags} --trace")
    }
}

impl std::error::Error for Failed {}

/// Runs a seed of the story of data.
pub fn data(seed: u64, options: data::Options) -> Result<figures::Run, Failed> {
    let flags = flag("devices", options.devices.map(|devices| devices as u64));
    watched(seed, "data", flags, || data::run(seed, options).map_err(|error| format!("{error:#}")))
}

/// Runs a seed of the story of rollouts.
pub fn rollouts(seed: u64, settings: &rollout::Settings) -> Result<rollout::Figures, Failed> {
    let flags = flag("devices", settings.devices.map(|devices| devices as u64)) + &flag("minutes", settings.minutes);
    watched(seed, "rollouts", flags, || rollout::run(seed, settings).map_err(|broken| broken.to_string()))
}

fn flag(name: &str, value: Option<u64>) -> String {
    value.map_or(String::new(), |value| format!(" --{name} {value}"))
}

fn watched<T>(
    seed: u64,
    story: &'static str,
    flags: String,
    run: impl FnOnce() -> Result<T, String>,
) -> Result<T, Failed> {
    // Nothing of the world is used after its end.
    let ended = catch_unwind(AssertUnwindSafe(run));
    let why = match ended {
        Ok(Ok(ended)) => return Ok(ended),
        Ok(Err(why)) => why,
        Err(panic) => format!("panicked: {}", words(&*panic)),
    };
    Err(Failed { seed, story, flags, why })
}

fn words(panic: &(dyn Any + Send)) -> &str {
    let literal = panic.downcast_ref::<&str>().copied();
    literal.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without words")
}

/// The commit of the source that this was built from, as far as git knows.
pub fn commit() -> String {
    let asked = Command::new("git")
        .args(["-C", env!("CARGO_MANIFEST_DIR"), "describe", "--always", "--dirty", "--abbrev=12"])
        .output();
    match asked {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        _ => "(unknown: git does not say)".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_somewhere_in_a_run_names_the_seed_and_the_command() {
        let flags = flag("devices", Some(3)) + &flag("minutes", None);
        let index = std::hint::black_box(7);
        let failed = watched(42, "rollouts", flags, || Ok([1, 2, 3][index])).unwrap_err().to_string();
        assert!(failed.contains("seed 42 of rollouts --devices 3 fails at commit"), "{failed}");
        assert!(failed.contains("panicked: index out of bounds: the len is 3 but the index is 7"), "{failed}");
        let command = "cargo run -p tributary-world -- --story rollouts --replay 42 --devices 3 --trace";
        assert!(failed.contains(command), "{failed}");
        assert_eq!(watched(42, "data", String::new(), || Ok(1)).unwrap(), 1);
        assert!(watched(1, "data", String::new(), || Err::<(), _>("lost".into())).unwrap_err().why == "lost");
    }
}
