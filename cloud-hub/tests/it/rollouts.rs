//! Rollouts from the web API to devices that speak MQTT, and back.

use std::sync::Arc;
use std::sync::Mutex;

use hyper::{Method, StatusCode};
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v5::Packet;
use rumqttc::{AsyncClient, Event, MqttOptions, PublishOptions};
use serde_json::{Value, json};
use tributary_release::{Installed, Standing, VerifyingKeys, digest, verify_assignment};
use tributary_wire::topic::{Channel, Topic};
use tributary_wire::{
    AssignmentV1, ClockState, DeviceId, Generation, Health, Incarnation, LineName, LineReport, MetadataVersions,
    Micros, PackageRef, Report, ReportV1, ReportV2, Resources, Role, SignedAssignment, Stamp, TrialReport, Unfit,
    UpdaterState, VersionNumber,
};

use crate::support::{TestHub, package};

/// What a simulated device knows and does.
struct Simulated {
    device: DeviceId,
    keys: VerifyingKeys,
    number: u64,
    accepted: Option<AssignmentV1>,
    committed: Option<PackageRef>,
    undone: Option<(PackageRef, String)>,
    /// Version that fails its trial.
    bad: u32,
    /// It cannot run anything.
    poor: bool,
    log: Arc<Mutex<Vec<(DeviceId, AssignmentV1)>>>,
}

impl Simulated {
    fn report(&mut self) -> Vec<u8> {
        self.number += 1;
        let line = LineReport {
            line: LineName::new("card-fraud").unwrap(),
            role: Role::primary(),
            state: if self.undone.is_some() { UpdaterState::RolledBack } else { UpdaterState::Committed },
            committed: self.committed,
            previous: None,
            candidate: None,
            undone: self.undone.clone(),
            error: None,
            engine: "tract".to_owned(),
            trial: TrialReport { predictions: 5_000 * self.number, ..TrialReport::default() },
        };
        let base = ReportV1 {
            number: self.number,
            incarnation: Incarnation(1),
            stamp: Stamp { boot: 1, monotonic: 0, wall: Micros(0), clock: ClockState::Unsynchronised },
            reads: 3,
            agent: "test".to_owned(),
            labels: Vec::new(),
            generation: self.accepted.as_ref().map_or(Generation(0), |assignment| assignment.generation),
            asks: false,
            lines: vec![line],
            snapshot: None,
            health: Health { ok: true, ..Health::default() },
            resources: Resources::default(),
        };
        if self.accepted.is_none() {
            return Report::V1(base).encode();
        }
        let metadata = Some(MetadataVersions { root: 1, timestamp: 9, snapshot: 8, targets: 2 });
        let unfit = Unfit {
            line: LineName::new("card-fraud").unwrap(),
            role: Role::primary(),
            package: PackageRef { version: VersionNumber(1), sha256: digest(&package("card-fraud", 1)) },
            reasons: vec!["it needs engine gpu; here are tract".to_owned()],
        };
        let is_assigned = self.accepted.as_ref().is_some_and(|assignment| !assignment.lines.is_empty());
        let unfit = if self.poor && is_assigned { vec![unfit] } else { Vec::new() };
        Report::V2(ReportV2 {
            base,
            metadata,
            unfit,
            withheld: Default::default(),
            held: Vec::new(),
            audit: None,
            nodes: Vec::new(),
        })
        .encode()
    }

    /// Checks an assignment as a real device does and carries it out.
    fn assigned(&mut self, payload: &[u8]) {
        let line = LineName::new("card-fraud").unwrap();
        let package = self.committed.into_iter();
        let installed: Vec<Installed> =
            package.map(|package| Installed { line: line.clone(), role: Role::primary(), package }).collect();
        let generation = self.accepted.as_ref().map_or(Generation(0), |assignment| assignment.generation);
        let standing = Standing { device: &self.device, generation, installed: &installed, now: Micros(0) };
        let signed = SignedAssignment::decode(payload).unwrap();
        // The same one may come again; a device shrugs at it.
        let Ok(opened) = verify_assignment(&self.keys, &standing, &signed) else { return };
        let assignment = opened.desired().clone();
        let Some(own) = assignment.lines.iter().find(|wish| wish.role == Role::primary()) else {
            // Its first one, before anything is rolled out.
            self.accepted = Some(assignment);
            return;
        };
        let wish = own.release.clone();
        let wanted = PackageRef { version: wish.version, sha256: wish.sha256 };
        if self.poor {
            self.committed = None;
        } else if wish.version == VersionNumber(self.bad) {
            self.undone = Some((wanted, "its outputs were out of bounds".to_owned()));
        } else {
            (self.committed, self.undone) = (Some(wanted), None);
        }
        self.log.lock().unwrap().push((self.device.clone(), assignment.clone()));
        self.accepted = Some(assignment);
    }

    async fn live(mut self, port: u16) {
        let mut options = MqttOptions::new(self.device.as_str(), ("127.0.0.1", port));
        options.set_keep_alive(30);
        let (client, mut events) = AsyncClient::builder(options).capacity(16).build();
        let topic = Topic::new(self.device.clone(), Channel::Report).to_string();
        let mut again = tokio::time::interval(std::time::Duration::from_millis(300));
        loop {
            let spoken = tokio::select! {
                event = events.poll() => match event {
                    Ok(Event::Incoming(Packet::Publish(message))) if message.topic.ends_with(b"down/assignment") => {
                        self.assigned(&message.payload);
                        true
                    }
                    Ok(Event::Incoming(Packet::ConnAck(_))) => {
                        client.subscribe(Topic::down_filter(&self.device), QoS::AtLeastOnce).await.unwrap();
                        false
                    }
                    Ok(_) => false,
                    // It asks again; on a busy machine a connection may take longer than its limit.
                    Err(error) => {
                        eprintln!("{}: {error}", self.device);
                        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
                        false
                    }
                },
                _ = again.tick() => true,
            };
            if spoken {
                let report = self.report();
                let once = PublishOptions::new(QoS::AtLeastOnce);
                client.publish(topic.as_str(), report, once).await.unwrap();
            }
        }
    }
}

type Log = Arc<Mutex<Vec<(DeviceId, AssignmentV1)>>>;

/// A hub with published versions 1 and 2, and three devices on which version `bad` fails.
async fn fleet(bad: u32) -> (TestHub, Log) {
    fleet_with(bad, &[]).await
}

/// … of which some cannot run anything.
async fn fleet_with(bad: u32, poor: &[u32]) -> (TestHub, Log) {
    let hub = TestHub::start().await;
    hub.line(json!({})).await;
    for version in 1..=2 {
        let bytes = package("card-fraud", version);
        let sent = hub.send(Method::POST, "/lines/card-fraud/versions", "application/octet-stream", bytes).await;
        assert_eq!(sent.status, StatusCode::CREATED);
        hub.ok(Method::POST, &format!("/lines/card-fraud/versions/{version}/publish"), Value::Null).await;
    }
    let keys = VerifyingKeys::new([hub.hub.keys.assignment().verifying_key()]);
    let log = Log::default();
    let port = hub.hub.mqtt_addresses().plain.unwrap().port();
    for number in 1..=3 {
        let device = DeviceId::new(&format!("edge-{number}")).unwrap();
        let (keys, log) = (keys.clone(), log.clone());
        let (poor, number, accepted) = (poor.contains(&number), 0, None);
        let simulated = Simulated { device, keys, number, accepted, committed: None, undone: None, bad, poor, log };
        tokio::spawn(simulated.live(port));
    }
    hub.until("/devices", |devices| {
        devices["items"]
            .as_array()
            .is_some_and(|all| all.len() == 3 && all.iter().all(|device| device["report"]["generation"] == 1))
    })
    .await;
    (hub, log)
}

async fn begin(hub: &TestHub, version: u32, percent: Value) -> i64 {
    let policy = json!({"strategy": "waves", "percent": percent, "min_predictions": 500});
    let body = json!({"line": "card-fraud", "version": version, "policy": policy, "reason": "a test"});
    hub.ok(Method::POST, "/rollouts", body).await["id"].as_i64().unwrap()
}

fn got(log: &Log, version: u32) -> usize {
    let bytes = digest(&package("card-fraud", version));
    log.lock().unwrap().iter().filter(|(_, assignment)| assignment.lines[0].release.sha256 == bytes).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_reaches_the_fleet_wave_by_wave_and_the_reasons_can_be_read() {
    let (hub, log) = fleet(9).await;
    let id = begin(&hub, 1, json!([30, 60, 100])).await;
    let path = format!("/rollouts/{id}");
    let done = hub.until(&path, |rollout| rollout["state"] == "completed").await;
    let mut waves: Vec<i64> =
        done["members"].as_array().unwrap().iter().map(|member| member["wave"].as_i64().unwrap()).collect();
    waves.sort_unstable();
    assert_eq!(waves, [1, 2, 3], "{done:#}");
    assert!(done["members"].as_array().unwrap().iter().all(|member| member["state"] == "committed"), "{done:#}");
    assert!(
        done["steps"]
            .as_array()
            .unwrap()
            .iter()
            .any(|step| { step["message"].as_str().unwrap().starts_with("wave 1 passed") })
    );
    assert_eq!(got(&log, 1), 3, "each device was assigned once");
    let story = hub.get("/lines/card-fraud/events").await.1.to_string();
    assert!(story.contains("rollout-completed"), "{story}");
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_a_device_undoes_never_reaches_the_next_wave_and_everyone_returns() {
    let (hub, log) = fleet(2).await;
    let first = begin(&hub, 1, json!([100])).await;
    hub.until(&format!("/rollouts/{first}"), |rollout| rollout["state"] == "completed").await;
    let second = begin(&hub, 2, json!([30, 100])).await;
    let path = format!("/rollouts/{second}");
    let stopped = hub.until(&path, |rollout| rollout["state"] == "stopped").await;
    assert!(stopped["stop_reason"].as_str().unwrap().contains("out of bounds"), "{stopped:#}");
    assert_eq!(stopped["members"].as_array().unwrap().len(), 1, "{stopped:#}");
    assert_eq!((&stopped["members"][0]["state"], &stopped["members"][0]["before"]), (&json!("back"), &json!(1)));
    assert_eq!(got(&log, 2), 1);
    let last = log.lock().unwrap().last().unwrap().1.clone();
    assert!(last.lines[0].allow_lower && last.lines[0].release.version == VersionNumber(1));
    let generations: Vec<u64> = log.lock().unwrap().iter().map(|(_, assignment)| assignment.generation.0).collect();
    assert_eq!(generations, [2, 2, 2, 3, 4], "{generations:?}");
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_pauses_resumes_and_aborts_and_is_told_when_that_makes_no_sense() {
    let (hub, log) = fleet(9).await;
    let first = begin(&hub, 1, json!([100])).await;
    hub.until(&format!("/rollouts/{first}"), |rollout| rollout["state"] == "completed").await;
    let second = begin(&hub, 2, json!([30, 60, 100])).await;
    let path = format!("/rollouts/{second}");
    let paused = hub.ok(Method::POST, &format!("{path}/pause"), json!({"reason": "lunch"})).await;
    assert_eq!((&paused["state"], &paused["stop_reason"]), (&json!("paused"), &json!("lunch")));
    let (status, problem) = hub.json(Method::POST, &format!("{path}/pause"), json!({})).await;
    assert_eq!(status, StatusCode::CONFLICT, "{problem:#}");
    let body = json!({"line": "card-fraud", "version": 1});
    let (status, problem) = hub.json(Method::POST, "/rollouts", body).await;
    assert_eq!(status, StatusCode::CONFLICT, "{problem:#}");
    assert_eq!(hub.ok(Method::POST, &format!("{path}/resume"), Value::Null).await["state"], "running");
    hub.until(&path, |rollout| {
        rollout["members"].as_array().unwrap().iter().any(|member| member["state"] == "committed")
    })
    .await;
    hub.json(Method::POST, &format!("{path}/abort"), json!({"reason": "changed my mind"})).await;
    let end = hub.until(&path, |rollout| ["stopped", "completed"].contains(&rollout["state"].as_str().unwrap())).await;
    if end["state"] == "stopped" {
        assert!(end["members"].as_array().unwrap().iter().all(|member| member["committed"] == 1), "{end:#}");
    }
    assert!(got(&log, 2) >= 1);
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_cannot_run_the_release_is_shown_with_what_it_lacks_and_the_others_go_on() {
    let (hub, _) = fleet_with(9, &[2]).await;
    let id = begin(&hub, 1, json!([100])).await;
    let done = hub.until(&format!("/rollouts/{id}"), |rollout| rollout["state"] == "completed").await;
    assert_eq!(done["unfit"], 1, "{done:#}");
    let poor = done["members"].as_array().unwrap().iter().find(|member| member["device"] == "edge-2").unwrap();
    assert_eq!((&poor["state"], &poor["detail"]), (&json!("unfit"), &json!("it needs engine gpu; here are tract")));
    let device = hub.get("/devices/edge-2").await.1;
    assert_eq!(device["metadata"], json!({"root": 1, "timestamp": 9, "snapshot": 8, "targets": 2}));
    let reasons = json!(["it needs engine gpu; here are tract"]);
    let lack = json!({"line": "card-fraud", "role": "primary", "version": 1, "reasons": reasons});
    assert_eq!(device["unfit"], json!([lack]));
    let metrics = hub.send(Method::GET, "/metrics", "", "").await;
    let metrics = String::from_utf8(metrics.body.to_vec()).unwrap();
    assert!(metrics.contains("hub_unfit_devices{line=\"card-fraud\",role=\"primary\"} 1"), "{metrics}");
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_challenger_and_a_flag_reach_devices_by_newer_assignments_and_leave_them_again() {
    let (hub, log) = fleet(9).await;
    let first = begin(&hub, 1, json!([100])).await;
    hub.until(&format!("/rollouts/{first}"), |rollout| rollout["state"] == "completed").await;
    let body = json!({"line": "card-fraud", "version": 2, "role": "challenger-b", "share": 250,
                      "policy": {"strategy": "all"}});
    let begun = hub.ok(Method::POST, "/rollouts", body).await;
    assert_eq!((&begun["role"], &begun["share"]), (&json!("challenger-b"), &json!(250)));
    let newest = |device: &str| {
        let log = log.lock().unwrap();
        log.iter().rev().find(|(it, _)| it.as_str() == device).map(|(_, assignment)| assignment.clone()).unwrap()
    };
    let roles = |device: &str| newest(device).lines.iter().map(|wish| wish.role.to_string()).collect::<Vec<_>>();
    until(|| roles("edge-3") == ["challenger-b", "primary"]).await;
    let path = format!("/rollouts/{}", begun["id"]);
    let shared = hub.ok(Method::POST, &format!("{path}/share"), json!({"share": 500})).await;
    assert_eq!(shared["share"], 500);
    hub.ok(Method::PUT, "/flags/new-form", json!({"value": "on", "device": "edge-3"})).await;
    until(|| newest("edge-3").flags == [("new-form".to_owned(), "on".to_owned())]).await;
    assert_eq!(hub.get("/devices/edge-3").await.1["flags"], json!({"new-form": "on"}));
    assert!(newest("edge-1").flags.is_empty());
    hub.ok(Method::POST, &format!("{path}/end"), json!({"reason": "it lost"})).await;
    until(|| ["edge-1", "edge-2", "edge-3"].iter().all(|device| roles(device) == ["primary"])).await;
    hub.until(&path, |rollout| rollout["state"] == "stopped").await;
    hub.stop().await;
}

/// Waits for what devices are told.
async fn until(condition: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !condition() {
        assert!(std::time::Instant::now() < deadline, "it never came");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_that_makes_no_sense_is_refused_in_words() {
    let hub = TestHub::start().await;
    hub.line(json!({})).await;
    for (body, status, word) in [
        (json!({"line": "card-fraud", "version": 7}), StatusCode::UNPROCESSABLE_ENTITY, "not published"),
        (json!({"line": "nobody", "version": 1}), StatusCode::NOT_FOUND, "nobody"),
        (
            json!({"line": "card-fraud", "version": 1, "policy": {"percent": [50]}}),
            StatusCode::UNPROCESSABLE_ENTITY,
            "percent",
        ),
        (json!({"line": "card-fraud", "version": 1, "waves": 3}), StatusCode::BAD_REQUEST, "waves"),
        (
            json!({"line": "card-fraud", "version": 1, "role": "observer"}),
            StatusCode::UNPROCESSABLE_ENTITY,
            "challenger-<name>",
        ),
        (
            json!({"line": "card-fraud", "version": 1, "role": "shadow", "share": 5}),
            StatusCode::UNPROCESSABLE_ENTITY,
            "shadow has no share",
        ),
        (
            json!({"line": "card-fraud", "version": 1, "selector": "lyon"}),
            StatusCode::UNPROCESSABLE_ENTITY,
            "key=value",
        ),
    ] {
        let (found, problem) = hub.json(Method::POST, "/rollouts", body).await;
        assert_eq!(found, status, "{problem:#}");
        assert!(problem.to_string().contains(word), "{problem:#}");
    }
    assert_eq!(hub.get("/rollouts/1").await.0, StatusCode::NOT_FOUND);
    assert_eq!(hub.get("/rollouts").await.1["items"], json!([]));
    hub.stop().await;
}
