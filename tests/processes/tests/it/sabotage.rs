//! The demo ends with 0 only if every step truly happened: each step, broken on purpose, makes it fail there.

use std::process::{Command, Output};

use serde_json::Value;

struct Told {
    output: Output,
    /// Missing when the story broke off before it began.
    summary: Option<Value>,
}

impl Told {
    fn text(&self) -> String {
        format!("{}{}", String::from_utf8_lossy(&self.output.stdout), String::from_utf8_lossy(&self.output.stderr))
    }

    fn steps(&self) -> Vec<String> {
        let steps = self.summary.as_ref().and_then(|summary| summary["steps"].as_array().cloned());
        steps.into_iter().flatten().filter_map(|step| step.as_str().map(str::to_owned)).collect()
    }
}

fn demo(arguments: &[&str]) -> Told {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("summary.json");
    let mut command = Command::new(env!("CARGO_BIN_EXE_programs"));
    let output = command.args(["--once", "--summary"]).arg(&path).args(arguments).output().unwrap();
    let summary = std::fs::read(&path).ok().map(|bytes| serde_json::from_slice(&bytes).unwrap());
    Told { output, summary }
}

const STEPS: [&str; 11] =
    ["start", "stream", "train", "ship", "decide", "detect", "retrain", "waves", "compare", "bad-release", "reconcile"];

/// All steps before the broken one happened, and none from it on.
fn breaks_off_at(step: &str) {
    let told = demo(&["--sabotage", step]);
    assert_eq!(told.output.status.code(), Some(1), "{}", told.text());
    let before: Vec<_> = STEPS.into_iter().take_while(|name| *name != step).collect();
    assert_eq!(told.steps(), before, "{}", told.text());
    assert!(told.text().contains("The story broke off"), "{}", told.text());
}

macro_rules! sabotage {
    ($($name:ident: $step:literal),* $(,)?) => {
        $(#[test]
        fn $name() {
            breaks_off_at($step);
        })*
    };
}

sabotage! {
    an_agent_with_a_wrong_address_is_missed: "start",
    a_lost_file_of_the_lake_is_missed: "stream",
    a_cancelled_run_ships_nothing: "train",
    a_stopped_agent_is_missed: "ship",
    an_agent_without_its_package_is_noticed: "decide",
    without_a_change_the_alert_is_missed: "detect",
    a_cancelled_retraining_is_missed: "retrain",
    a_paused_rollout_is_noticed: "waves",
    a_version_compared_with_itself_is_not_better: "compare",
    a_sound_package_does_not_pass_for_a_bad_one: "bad-release",
    a_claim_that_was_never_accepted_is_found: "reconcile",
}

#[test]
fn without_a_change_there_is_no_alert_and_no_retraining() {
    let told = demo(&["--no-change"]);
    assert!(told.output.status.success(), "{}", told.text());
    let summary = told.summary.unwrap();
    assert_eq!((&summary["alerts"], &summary["retrainings"]), (&0.into(), &0.into()), "{summary}");
    assert!(summary["accepted"].as_u64().unwrap() > 10_000, "{summary}");
    assert_eq!(summary["in_lake"], summary["accepted"]);
}

#[test]
fn a_file_of_transactions_is_streamed_instead_of_generated_ones() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("transactions.parquet");
    let config = tributary_fraud::GeneratorConfig { seed: 3, days: 50, ..Default::default() };
    let payments: Vec<_> = tributary_fraud::Generator::new(config).collect();
    tributary_fraud::write_parquet(&path, &payments).unwrap();
    let told = demo(&["--transactions", path.to_str().unwrap()]);
    assert!(told.output.status.success(), "{}", told.text());
    assert_eq!(told.steps(), ["start", "stream", "train", "ship", "decide", "reconcile"], "{}", told.text());
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let told = demo(&["--transactions", "/nowhere/at-all.parquet"]);
    assert_eq!(told.output.status.code(), Some(1));
    assert!(told.text().contains("/nowhere/at-all.parquet"), "{}", told.text());
}
