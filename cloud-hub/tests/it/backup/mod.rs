//! Backups from the command line and the web API, of a hub that runs and of one that stands still; and hubs that were
//! restored from them.

mod broken;
mod guide;
mod restored;
mod signing;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::TestHub;

const PROGRAM: &str = env!("CARGO_BIN_EXE_cloud-hub");

/// Runs the command line: exit code and everything it said.
fn tries(arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).env_remove("CLOUD_HUB_URL").env_remove("CLOUD_HUB_TOKEN_FILE");
    let output = command.output().unwrap();
    (output.status.code().unwrap(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

fn does(arguments: &[&str]) -> String {
    let (code, said) = tries(arguments);
    assert_eq!(code, 0, "{arguments:?}: {said}");
    said
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Makes a backup of a hub's data into a folder of its own.
fn backup(hub: &TestHub, more: &[&str]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let said = does(&[&["--json", "backup", text(folder.path()), "--data-dir", text(hub.hub.data())], more].concat());
    let made: Value = serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said}"));
    let path = PathBuf::from(made["file"].as_str().unwrap());
    (folder, path)
}

/// Restores into a new folder and starts a hub there. What the restore said comes with it.
async fn restored(from: &Path, more: &[&str]) -> (TestHub, Value) {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("hub");
    let said = does(&[&["--json", "restore", text(from), "--data", text(&data)], more].concat());
    (TestHub::start_bare(folder, |_| {}).await, serde_json::from_str(&said).unwrap())
}

/// Rows of a stream, as the web API says.
async fn rows(hub: &TestHub, stream: &str) -> u64 {
    let all = hub.get("/lake/streams").await.1;
    let found = all.as_array().unwrap().iter().find(|summary| summary["stream"] == stream);
    found.map_or(0, |summary| summary["rows"].as_u64().unwrap())
}
