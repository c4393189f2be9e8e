//! A hub is killed and made again from an older backup; its agents, which nobody touches, go on with it.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tributary_demo::fleet::{Fleet, LINE, Wish};
use tributary_demo::{recount, wait};
use tributary_fraud::{Generator, GeneratorConfig, Transaction};

use crate::model;
use crate::process::{PATIENCE, run};
use crate::source::STREAMS;

const AGENTS: usize = 2;

struct Story {
    fleet: Fleet,
    payments: Box<dyn Iterator<Item = Transaction>>,
    accepted: HashSet<String>,
    backups: TempDir,
}

impl Story {
    async fn begin(folder: &TempDir) -> Self {
        let executable = PathBuf::from(env!("CARGO_BIN_EXE_programs"));
        let wish = Wish { executable, agents: AGENTS, view: tributary_fraud::VIEW_TOML, misled: None };
        let fleet = Fleet::start(folder.path(), &wish).await.unwrap();
        let config = GeneratorConfig { seed: 5, customers: 120, terminals: 40, days: 90, ..Default::default() };
        let payments = Box::new(Generator::new(config));
        let story = Self { fleet, payments, accepted: HashSet::new(), backups: tempfile::tempdir().unwrap() };
        story.send("/views", "application/toml", tributary_fraud::VIEW_TOML.into()).await;
        let settings = json!({"view": "card-risk", "rollout": {"strategy": "all"}});
        let path = format!("/api/v1/lines/{LINE}");
        story.fleet.api.call::<Value>(Method::PUT, &path, &settings).await.unwrap();
        story
    }

    async fn send(&self, path: &str, kind: &str, body: Vec<u8>) -> Value {
        let sent = self.fleet.api.send(Method::POST, &format!("/api/v1{path}"), kind, body.into()).await.unwrap();
        sent.accepted().unwrap().json().unwrap()
    }

    /// So many payments to every agent, until each is durable there.
    async fn feed(&mut self, count: usize) {
        for local in &self.fleet.locals {
            let payments: Vec<Transaction> = self.payments.by_ref().take(count).collect();
            assert_eq!(payments.len(), count, "the generator made too few");
            let events: Vec<Value> = payments
                .iter()
                .map(|payment| {
                    json!({"id": format!("tx-{}", payment.id), "time": payment.time.0,
                           "entities": {"customer_id": payment.customer_id, "terminal_id": payment.terminal_id},
                           "values": {"amount": payment.amount}})
                })
                .collect();
            let answer: Value = local.call(Method::POST, "/v1/events?durable=true", &events).await.unwrap();
            for result in answer["results"].as_array().unwrap() {
                assert_eq!((&result["status"], &result["durable"]), (&json!("accepted"), &json!(true)), "{result}");
                self.accepted.insert(result["id"].as_str().unwrap().to_owned());
            }
        }
    }

    /// Publishes a version and brings it to all agents, which try it on payments.
    async fn roll_out(&mut self, version: u32) {
        self.send(&format!("/lines/{LINE}/versions"), "application/octet-stream", model::package(version)).await;
        self.send(&format!("/lines/{LINE}/versions/{version}/publish"), "application/json", Vec::new()).await;
        let order = json!({"line": LINE, "version": version, "reason": "a test"}).to_string();
        let rollout = self.send("/rollouts", "application/json", order.into()).await;
        let path = format!("/api/v1/rollouts/{}", rollout["id"]);
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            self.fleet.check().unwrap();
            let found: Value = self.fleet.api.get(&path).await.unwrap();
            if found["state"] == "completed" {
                break;
            }
            assert!(std::time::Instant::now() < deadline, "version {version} stays {found:#}");
            self.feed(4).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        for status in self.statuses().await {
            assert_eq!(status["lines"][0]["committed"], version, "{status:#}");
        }
    }

    async fn statuses(&self) -> Vec<Value> {
        let mut all = Vec::new();
        for local in &self.fleet.locals {
            all.push(local.get("/v1/status").await.unwrap());
        }
        all
    }

    /// Waits until the hub has all events and their observations but `gone`, and no agent waits for a receipt; the
    /// batches of events that the hub has then.
    async fn quiet(&mut self, gone: usize) -> i64 {
        let expected = self.accepted.len() - gone;
        wait::until("the hub has everything", PATIENCE, async || {
            self.fleet.check()?;
            for local in &self.fleet.locals {
                let status: Value = local.get("/v1/status").await?;
                if status["outbox"]["batches"] != 0 {
                    return Ok(Err(status["outbox"].to_string()));
                }
            }
            let streams: Vec<Value> = self.fleet.api.get("/api/v1/lake/streams").await?;
            let number = |of: &str, what: &str| {
                let found = streams.iter().find(|stream| stream["stream"] == of);
                found.map_or(0, |it| it[what].as_i64().unwrap())
            };
            // Records of a batch that is still open are in no outbox.
            let rows = STREAMS.map(|stream| number(stream, "rows"));
            let all = rows.iter().all(|rows| *rows as usize >= expected);
            Ok(if all {
                Ok(number("events", "batches"))
            } else {
                Err(format!("{rows:?} of {expected} in {STREAMS:?}"))
            })
        })
        .await
        .unwrap()
    }

    /// The lake holds what was accepted but `gone`: each once, and nothing else.
    fn recount(&self, gone: &HashSet<String>) {
        let expected: HashSet<&String> = self.accepted.difference(gone).collect();
        for stream in STREAMS {
            let counts = recount::event_ids(&self.fleet.lake(), stream).unwrap();
            let doubled: Vec<_> = counts.iter().filter(|(_, count)| **count != 1).take(3).collect();
            let lost: Vec<_> = expected.iter().filter(|id| !counts.contains_key(**id)).take(3).collect();
            assert!(lost.is_empty() && doubled.is_empty(), "{stream}: lost {lost:?}, more than once {doubled:?}");
            assert_eq!(
                counts.len(),
                expected.len(),
                "{stream}: something is there that was never accepted, or is gone"
            );
        }
    }

    fn data(&self) -> PathBuf {
        self.fleet.folder.join("hub")
    }

    fn backup(&self, more: &[&'static str]) -> JoinHandle<String> {
        let (to, data) = (self.backups.path().display().to_string(), self.data().display().to_string());
        let more = more.to_vec();
        tokio::task::spawn_blocking(move || {
            let told = run("hub", &[&["--json", "backup", &to, "--data-dir", &data], &*more].concat());
            let made: Value = serde_json::from_str(&told).unwrap();
            made["file"].as_str().unwrap().to_owned()
        })
    }

    /// Kills the hub, moves its folder away, and starts one from the backup in its place.
    async fn restore(&mut self, backup: &str, more: &[&str]) -> Value {
        self.fleet.hub.kill();
        let data = self.data();
        std::fs::rename(&data, data.with_file_name("lost")).unwrap();
        // The same token, so that the test needs no other.
        let data = data.display().to_string();
        let told = run("hub", &[&["--json", "restore", backup, "--data", &data, "--keep-tokens"], more].concat());
        self.fleet.hub.start().unwrap();
        self.fleet.hub_answers(PATIENCE).await.unwrap();
        serde_json::from_str(&told).unwrap()
    }

    async fn restored(&mut self, what: &str, done: impl Fn(&Value) -> bool) -> Value {
        wait::until(what, PATIENCE, async || {
            self.fleet.check()?;
            let status: Value = self.fleet.api.get("/api/v1/restore").await?;
            Ok(if done(&status) { Ok(status) } else { Err(status.to_string()) })
        })
        .await
        .unwrap()
    }
}

/// Generation and versions of metadata only ever grow on a device.
fn grew(before: &[Value], after: &[Value]) {
    for (before, after) in before.iter().zip(after) {
        let number = |status: &Value, path: &str| status.pointer(path).and_then(Value::as_u64).unwrap_or(0);
        for path in ["/hub/generation", "/hub/repository/timestamp", "/hub/repository/snapshot"] {
            let (old, new) = (number(before, path), number(after, path));
            assert!(old > 0 && new > old, "{path}: {old}, then {new}: {after:#}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_go_on_with_a_hub_from_an_older_backup_and_nothing_is_lost_or_doubled() {
    let folder = tempfile::tempdir().unwrap();
    let mut story = Story::begin(&folder).await;
    story.roll_out(1).await;
    story.feed(50).await;
    // While payments go on.
    let making = story.backup(&[]);
    while !making.is_finished() {
        story.feed(5).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let backup = making.await.unwrap();
    story.feed(50).await;
    story.roll_out(2).await;
    story.quiet(0).await;
    let before = story.statuses().await;
    story.fleet.hub.kill();
    // Accepted while there is no hub at all.
    story.feed(50).await;
    let lost = story.fleet.folder.join("lost").display().to_string();
    let said = story.restore(&backup, &["--old-data", &lost]).await;
    assert!(said["newer_lake_files"].as_u64() > Some(0) && said["lost_lake_files"] == 0, "{said:#}");
    let status = story.restored("rollouts go on", |status| status["state"] == "done").await;
    assert!(status["taken_in"]["batches"].as_u64() > Some(0), "{status:#}");
    story.feed(50).await;
    story.roll_out(3).await;
    grew(&before, &story.statuses().await);
    story.quiet(0).await;
    let status = story.restored("the package is known", |status| status["audit_entries_lost"] != 0).await;
    assert_eq!((&status["lost"], &status["packages"]), (&json!([]), &json!([])), "{status:#}");
    story.recount(&HashSet::new());
    let verdict: Value = story.fleet.api.get("/api/v1/audit/verify").await.unwrap();
    assert_eq!(verdict["whole"], true, "{verdict:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_the_lake_lost_as_well_the_hub_says_how_much_is_gone_and_the_rest_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut story = Story::begin(&folder).await;
    story.roll_out(1).await;
    story.feed(50).await;
    let then = story.quiet(0).await;
    let backup = story.backup(&["--with-lake"]).await.unwrap();
    let kept = story.accepted.clone();
    story.feed(50).await;
    let now = story.quiet(0).await;
    assert!(now > then);
    let gone: HashSet<String> = story.accepted.difference(&kept).cloned().collect();
    story.fleet.hub.kill();
    story.feed(50).await;
    let lake = story.backups.path().join("lake").display().to_string();
    story.restore(&backup, &["--lake", &lake]).await;
    let lost_events = |status: &Value| -> i64 {
        let all = status["lost"].as_array().into_iter().flatten();
        all.filter(|lost| lost["stream"] == "events").map(|lost| lost["batches"].as_i64().unwrap()).sum()
    };
    let status = story.restored("all losses are told", |status| lost_events(status) >= now - then).await;
    assert_eq!(lost_events(&status), now - then, "{status:#}");
    story.roll_out(2).await;
    story.quiet(gone.len()).await;
    story.recount(&gone);
}
