//! Runs: from the lake to a registered, promoted, published version; cancelled, interrupted, failed.

use std::path::{Path, PathBuf};

use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use tributary_fraud::GeneratorConfig;

use crate::support::TestHub;

/// Small enough for a debug build, large enough to have frauds in every part.
fn payments() -> GeneratorConfig {
    GeneratorConfig { customers: 60, terminals: 30, days: 40, ..GeneratorConfig::default() }
}

fn settings() -> Value {
    json!({
        "training": {
            "range": "30d",
            "split": {"validation_days": 7, "test_days": 7},
            "model": {"hidden": [8], "members": 1, "epochs": 2}
        },
        "cool_down": "0ms",
        "promotion": {"min_positives": 1}
    })
}

fn is_final(run: &Value) -> bool {
    ["succeeded", "failed", "cancelled"].contains(&run["state"].as_str().unwrap_or_default())
}

fn from_here(path: &Path) -> PathBuf {
    let up: PathBuf = std::env::current_dir().unwrap().components().skip(1).map(|_| "..").collect();
    up.join(path.strip_prefix("/").unwrap())
}

fn kinds(story: &Value) -> Vec<String> {
    let steps = story["items"].as_array().unwrap();
    steps.iter().rev().map(|step| step["kind"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_ends_in_a_promoted_published_version_and_the_story_says_why() {
    // The folder of the data is named relative to the hub's own, as in the README.
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start_in(folder, |config| config.data_dir = from_here(&config.data_dir)).await;
    hub.line(settings()).await;
    let events = hub.payments(payments()).await;
    let run = hub.ok(Method::POST, "/runs", json!({"line": "card-fraud", "seed": 3})).await;
    assert_eq!((&run["state"], &run["step"]), (&json!("queued"), &json!("dataset")));
    let run = hub.until("/runs/1", |run| is_final(run) && run["step"] == "done").await;
    assert_eq!(run["state"], "succeeded", "{run:#}");
    assert!(run["progress"].as_array().unwrap().iter().any(|step| step["step"] == "epoch"), "{run:#}");

    let dataset = hub.get("/datasets/1").await.1;
    assert!(dataset["rows"].as_i64().unwrap() > 0 && dataset["rows"].as_i64().unwrap() <= events as i64);
    assert_eq!(dataset["mismatches"], 0);
    let version = hub.get("/lines/card-fraud/versions/1").await.1;
    assert_eq!((&version["run"], &version["dataset"], &version["seed"]), (&json!(1), &json!(1), &json!(3)));
    assert_eq!(version["aliases"], json!(["candidate", "champion"]));
    assert_eq!(version["published"], true);
    assert_eq!(version["manifest"]["lineage"]["dataset"], dataset["hash"]);
    let story = hub.get("/lines/card-fraud/events").await.1;
    let expected =
        ["line-made", "run-queued", "run-started", "dataset-made", "version-registered", "promoted", "published"];
    let told = kinds(&story);
    let told: Vec<&str> = told.iter().map(String::as_str).filter(|kind| expected.contains(kind)).collect();
    assert_eq!(told, expected, "{story:#}");
    let rollouts = hub.get("/rollouts").await.1;
    assert_eq!(rollouts["items"][0]["version"], 1, "{rollouts:#}");

    // The same seed and range again: the same model, which is no better than itself.
    let body = json!({"line": "card-fraud", "dataset": 1, "seed": 3});
    hub.ok(Method::POST, "/runs", body).await;
    let again = hub.until("/runs/2", |run| is_final(run) && run["step"] == "done").await;
    assert_eq!(again["result"]["comparison"]["champion"], 1, "{again:#}");
    assert_eq!(hub.get("/lines/card-fraud/aliases/champion").await.1["version"], 1);
    assert!(kinds(&hub.get("/lines/card-fraud/events").await.1).contains(&"champion-kept".to_owned()));

    let (status, compared) = hub.get("/lines/card-fraud/versions/2/compare?against=1").await;
    assert_eq!(status, StatusCode::OK, "{compared:#}");
    assert_eq!(compared["version"]["auc_roc"], compared["against"]["auc_roc"]);

    // Trained further from the champion: another model from the same rows and seed, near the one before.
    let run_from = async |number: u32, model: Value| {
        let mut further = settings();
        further["training"]["start"] = "champion".into();
        further["training"]["model"] = model;
        hub.line(further).await;
        hub.ok(Method::POST, "/runs", json!({"line": "card-fraud", "dataset": 1, "seed": 3})).await;
        // Nobody runs version 1 yet, so that whether a better one is rolled out stays undecided.
        let run = hub.until(&format!("/runs/{number}"), is_final).await;
        assert_eq!(run["state"], "succeeded", "{run:#}");
        let left = run["progress"].as_array().unwrap().iter().filter(|step| step["step"] == "from_scratch").count();
        (left, run["result"]["package"].clone())
    };
    let (left, package) = run_from(3, json!({"hidden": [8], "members": 1, "epochs": 2})).await;
    assert_eq!(left, 0);
    assert_ne!(package, again["result"]["package"]);
    // A shape that does not fit does not stop the loop.
    assert_eq!(run_from(4, json!({"hidden": [6], "members": 1, "epochs": 2})).await.0, 1);
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_without_data_fails_and_says_so() {
    let hub = TestHub::start().await;
    hub.line(settings()).await;
    hub.ok(Method::POST, "/runs", json!({"line": "card-fraud"})).await;
    let run = hub.until("/runs/1", is_final).await;
    assert_eq!(run["state"], "failed");
    assert!(run["error"].as_str().unwrap().contains("the lake has no events yet"), "{run:#}");
    let cancel = hub.json(Method::POST, "/runs/1/cancel", Value::Null).await;
    assert_eq!(cancel.0, StatusCode::CONFLICT);
    hub.stop().await;
}

/// A trainer that never ends.
pub fn endless(config: &mut cloud_hub::Config) {
    config.training.program = "/bin/sh".into();
    config.training.arguments = vec!["-c".to_owned(), "exec sleep 1000".to_owned()];
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_cancelled_a_failing_trainer_is_named_and_an_interrupted_run_goes_on_until_it_is_given_up() {
    let hub = TestHub::start_in(tempfile::tempdir().unwrap(), |config| {
        endless(config);
        config.training.attempts = 2;
    })
    .await;
    hub.line(settings()).await;
    hub.payments(GeneratorConfig { customers: 10, terminals: 5, ..payments() }).await;
    let training = |run: &Value| run["state"] == "running" && run["attempt"] == 1;
    hub.ok(Method::POST, "/runs", json!({"line": "card-fraud"})).await;
    hub.until("/runs/1", training).await;
    hub.ok(Method::POST, "/runs", json!({"line": "card-fraud"})).await;
    assert_eq!(hub.get("/runs/2").await.1["state"], "queued", "one run at a time");
    let cancelled = hub.ok(Method::POST, "/runs/1/cancel", Value::Null).await;
    assert_eq!(cancelled["state"], "cancelled");
    hub.until("/runs/2", training).await;

    let folder = hub.stop().await;
    let hub = TestHub::start_in(folder, |config| {
        endless(config);
        config.training.attempts = 2;
    })
    .await;
    let run = hub.until("/runs/2", |run| run["attempt"] == 2).await;
    assert_eq!(run["state"], "running");
    let folder = hub.stop().await;
    let hub = TestHub::start_in(folder, |config| {
        config.training.program = "/bin/sh".into();
        config.training.arguments = vec!["-c".to_owned(), "echo out of everything >&2; exit 3".to_owned()];
        config.training.attempts = 2;
    })
    .await;
    let run = hub.until("/runs/2", is_final).await;
    assert!(run["error"].as_str().unwrap().contains("the hub stopped in the middle of it 2 times"), "{run:#}");
    hub.ok(Method::POST, "/runs", json!({"line": "card-fraud"})).await;
    let run = hub.until("/runs/3", is_final).await;
    let error = run["error"].as_str().unwrap();
    assert!(error.contains("ended with code 3") && error.contains("out of everything"), "{error}");
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn drift_queues_one_run_and_the_story_says_once_why_it_does_not_queue_more() {
    let hub = TestHub::start().await;
    let mut settings = settings();
    settings["cool_down"] = "1h".into();
    hub.line(settings).await;
    let line = tributary_wire::LineName::new("card-fraud").unwrap();
    let retrain = || cloud_hub::lines::closed_loop::retrain(&hub.hub, &line, "amounts moved", hub.hub.now());
    assert_eq!(retrain().await.unwrap(), Some(1));
    let run = hub.until("/runs/1", is_final).await;
    assert_eq!((&run["origin"], &run["reason"]), (&json!("drift"), &json!("amounts moved")));
    for _ in 0..3 {
        assert_eq!(retrain().await.unwrap(), None, "the pause after a run");
    }
    let told = kinds(&hub.get("/lines/card-fraud/events").await.1);
    assert_eq!(told.iter().filter(|kind| *kind == "training-not-started").count(), 1, "{told:?}");
    hub.stop().await;
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_trainer_ends_with_its_hub() {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    let hub = TestHub::start().await;
    let mut settings = settings();
    settings["training"]["model"] = json!({"hidden": [8], "members": 1, "epochs": 10_000, "patience": 0});
    hub.line(settings).await;
    hub.payments(payments()).await;
    hub.ok(Method::POST, "/runs", json!({"line": "card-fraud"})).await;
    let epochs = |run: &Value| run["progress"].as_array().unwrap().iter().any(|step| step["step"] == "epoch");
    hub.until("/runs/1", epochs).await;
    let run = hub.hub.data().join("runs/1");
    let _folder = hub.stop().await;

    // The same child again, whose hub dies without a word: only the pipe tells it.
    let mut child = Command::new(env!("CARGO_BIN_EXE_cloud-hub"))
        .args(["train", "run", "--stop-with-input"])
        .arg(run)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().starts_with("epoch 2/")));
    drop(child.stdin.take());
    // Its error output ends when it does.
    for line in lines {
        line.unwrap();
    }
    assert_eq!(child.wait().unwrap().code(), Some(6));
}
