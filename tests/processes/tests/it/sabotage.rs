//! The demo ends with 0 only if every step truly happened: each step, broken on purpose, makes it fail.

use std::process::Command;

use serde_json::Value;

fn demo(arguments: &[&str]) -> (std::process::Output, Option<Value>) {
    let folder = tempfile::tempdir().unwrap();
    let summary = folder.path().join("summary.json");
    let output = Command::new(env!("CARGO_BIN_EXE_programs"))
        .args(["--once", "--summary"])
        .arg(&summary)
        .args(arguments)
        .output()
        .unwrap();
    let summary = std::fs::read(&summary).ok().map(|bytes| serde_json::from_slice(&bytes).unwrap());
    (output, summary)
}

fn text(output: &std::process::Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn without_a_change_there_is_no_alert_and_no_retraining() {
    let (output, summary) = demo(&["--no-change"]);
    assert!(output.status.success(), "{}", text(&output));
    let summary = summary.unwrap();
    assert_eq!((&summary["alerts"], &summary["retrainings"]), (&0.into(), &0.into()), "{summary}");
    assert!(summary["accepted"].as_u64().unwrap() > 10_000, "{summary}");
    assert_eq!(summary["in_lake"], summary["accepted"]);
}
