//! The agent's client of The Update Framework under the public conformance suite.
//!
//! No registry carries the suite: `TRIBUTARY_TUF_CONFORMANCE` names a clone of
//! <https://github.com/theupdateframework/tuf-conformance>. Without it this test is skipped, loudly, also in CI; what the
//! suite attacks is attacked by our own tests too (`shared/release/src/chain/tests`).

use std::path::PathBuf;
use std::process::Command;

use crate::tools;

const TEST: &str = "TUF conformance";

#[test]
fn the_public_conformance_suite_passes_with_no_expected_failures() {
    let Some(suite) = std::env::var_os("TRIBUTARY_TUF_CONFORMANCE").map(PathBuf::from) else {
        let why =
            "TRIBUTARY_TUF_CONFORMANCE does not name a clone of https://github.com/theupdateframework/tuf-conformance";
        return tools::skipped(TEST, why);
    };
    let needed = (tools::python_with(TEST, &["tuf", "pytest", "securesystemslib"]), tools::program(TEST, "faketime"));
    let (Some(python), Some(_)) = needed else { return };
    let client = format!("{} agent tuf", env!("CARGO_BIN_EXE_programs"));
    let mut command = Command::new(python);
    command.args(["-m", "pytest", "-q", "-p", "no:cacheprovider", "tuf_conformance", "--entrypoint", &client]);
    let output = command.current_dir(&suite).output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}\n{}", String::from_utf8_lossy(&output.stderr));
    let summary = told.lines().last().unwrap_or_default();
    let all =
        summary.contains("passed") && !["failed", "xfail", "xpass", "skipped"].iter().any(|it| summary.contains(it));
    assert!(all, "{told}");
    let passed: usize = summary.split_whitespace().next().and_then(|count| count.parse().ok()).unwrap();
    assert!(passed >= 100, "the suite has more tests than that: {summary}");
}
