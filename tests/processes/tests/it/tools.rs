//! What tests need beside our own programs; `.ci/install` installs it.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A Python with pyarrow. Without it a test is skipped, loudly; in CI that is a failure.
pub fn python(test: &str) -> Option<PathBuf> {
    python_with(test, &["pyarrow"])
}

/// A Python with these modules. Without it a test is skipped, loudly; in CI that is a failure.
pub fn python_with(test: &str, modules: &[&str]) -> Option<PathBuf> {
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let folder = std::env::var_os("TRIBUTARY_TOOLS").map_or(home.join(".cache/tributary/tools"), PathBuf::from);
    let mut candidates = [folder.join("bin/python"), PathBuf::from("python3")].into_iter();
    let imports = format!("import {}", modules.join(", "));
    let found = candidates.find(|python| {
        let run = Command::new(python).args(["-c", &imports]).output();
        run.is_ok_and(|output| output.status.success())
    });
    if found.is_none() {
        missing(test, &format!("Python with {}", modules.join(" and ")));
    }
    found
}

/// A program of the system. Without it a test is skipped, loudly; in CI that is a failure.
pub fn program(test: &str, name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Debian keeps some where only root's path leads.
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    let found = folders.map(|folder| folder.join(name)).find(|path| path.is_file());
    if found.is_none() {
        missing(test, name);
    }
    found
}

fn missing(test: &str, what: &str) {
    lacks(test, &format!("no {what}; .ci/install installs it"));
}

/// This machine lacks what a test needs: it is skipped, loudly; in CI that is a failure.
pub fn lacks(test: &str, why: &str) {
    lacks_in(std::env::var_os("CI").is_some(), test, why);
}

fn lacks_in(ci: bool, test: &str, why: &str) {
    assert!(!ci, "{test}: {why}");
    skipped(test, why);
}

/// Says so on the terminal itself. For what no machine of CI has either; else see [`lacks`].
pub fn skipped(test: &str, why: &str) {
    say(&format!("\n!!! SKIPPED: {test}: {why}\n"));
}

/// Says something to whoever runs the tests, on the terminal itself: what a passing test prints is otherwise kept back.
pub fn say(words: &str) {
    let _ = writeln!(std::io::stderr(), "{words}");
}

/// A number from the environment, to run a test in another size or with another seed; one that cannot be read ends the
/// test.
pub fn number(variable: &str) -> Option<u64> {
    let value = std::env::var_os(variable)?;
    Some(read_number(variable, &value.to_string_lossy()).unwrap_or_else(|problem| panic!("{problem}")))
}

fn read_number(variable: &str, value: &str) -> Result<u64, String> {
    value.parse().map_err(|_| format!("{variable} is {value:?}; expected a whole number from 0 on"))
}

/// Event ids of one stream of a lake with their counts, read by pyarrow, in the form `id count` a line.
pub fn recount(python: &Path, lake: &Path, stream: &str) -> std::collections::HashMap<String, u32> {
    let script = "
import collections, pathlib, sys, pyarrow.parquet as pq
counts = collections.Counter()
for path in pathlib.Path(sys.argv[1]).rglob('*.parquet'):
    counts.update(pq.ParquetFile(path).read(columns=['event_id'])['event_id'].to_pylist())
for event, count in counts.items():
    print(event, count)
";
    let output = Command::new(python).args(["-c", script]).arg(lake.join(stream)).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let pairs = text.lines().filter_map(|line| line.rsplit_once(' '));
    pairs.map(|(event, count)| (event.to_owned(), count.parse().unwrap())).collect()
}

/// Bytes as text.
pub fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// The bytes of such a text.
pub fn from_base64(text: &str) -> Vec<u8> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).unwrap()
}

#[test]
fn a_wrong_number_in_the_environment_is_told_and_not_passed_over() {
    assert_eq!(read_number("TRIBUTARY_KILLS", "500"), Ok(500));
    for wrong in ["", "many", "-1", "2.5", "99999999999999999999"] {
        let problem = read_number("TRIBUTARY_KILLS", wrong).unwrap_err();
        assert!(problem.contains("TRIBUTARY_KILLS is") && problem.contains("whole number"), "{problem}");
    }
}

#[test]
fn what_a_machine_lacks_fails_in_ci_and_is_skipped_elsewhere() {
    lacks_in(false, "a test of skipping", "nothing is missing");
    let failed = std::panic::catch_unwind(|| lacks_in(true, "a test of skipping", "no namespaces"));
    let told = failed.unwrap_err().downcast::<String>().unwrap();
    assert_eq!(*told, "a test of skipping: no namespaces");
}
