//! What tests need beside our own programs; `.ci/install` installs it.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A Python with pyarrow. Without it a test is skipped, loudly; in CI that is a failure.
pub fn python(test: &str) -> Option<PathBuf> {
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let folder = std::env::var_os("TRIBUTARY_TOOLS").map_or(home.join(".cache/tributary/tools"), PathBuf::from);
    let candidates = [folder.join("bin/python"), PathBuf::from("python3")];
    let has_pyarrow = |python: &PathBuf| {
        let run = Command::new(python).args(["-c", "import pyarrow"]).output();
        run.is_ok_and(|output| output.status.success())
    };
    let found = candidates.into_iter().find(has_pyarrow);
    if found.is_none() {
        assert!(std::env::var_os("CI").is_none(), "{test}: no Python with pyarrow; .ci/install installs it");
        eprintln!("\n!!! SKIPPED: {test}: no Python with pyarrow; run .ci/install\n");
    }
    found
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
