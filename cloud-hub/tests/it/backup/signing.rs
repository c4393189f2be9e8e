//! What a restored hub signs, and for whom.

use hyper::{Method, StatusCode};
use rumqttc::mqttbytes::v5::Packet;
use serde_json::{Value, json};
use tributary_release::digest;
use tributary_wire::{
    Assignment, AssignmentV1, AuditHead, Generation, LineName, LineReport, MetadataVersions, PackageRef, Report,
    ReportV2, Role, Sha256, SignedAssignment, TrialReport, UpdaterState, VersionNumber,
};

use super::{backup, restored, text};
use crate::devices::{Device, report};
use crate::support::{TestHub, package};

async fn release(hub: &TestHub, version: u32) {
    let bytes = package("card-fraud", version);
    let sent = hub.send(Method::POST, "/lines/card-fraud/versions", "application/octet-stream", bytes).await;
    assert_eq!(sent.status, StatusCode::CREATED, "{:?}", sent.body);
    hub.ok(Method::POST, &format!("/lines/card-fraud/versions/{version}/publish"), Value::Null).await;
}

async fn roll_out(hub: &TestHub, version: u32) -> String {
    let body = json!({"line": "card-fraud", "version": version, "reason": "a test", "policy": {"strategy": "all"}});
    format!("/rollouts/{}", hub.ok(Method::POST, "/rollouts", body).await["id"])
}

/// A report of a device that runs this version and follows this generation.
fn runs(number: u64, version: u32, generation: u64) -> Vec<u8> {
    let mut base = Report::decode(&report(number)).unwrap().base().clone();
    base.reads = 3;
    base.generation = Generation(generation);
    let package = PackageRef { version: VersionNumber(version), sha256: digest(&package("card-fraud", version)) };
    base.lines = vec![LineReport {
        line: LineName::new("card-fraud").unwrap(),
        role: Role::primary(),
        state: UpdaterState::Committed,
        committed: Some(package),
        previous: None,
        candidate: None,
        undone: None,
        error: None,
        engine: "tract".to_owned(),
        trial: TrialReport::default(),
    }];
    let metadata = Some(MetadataVersions { root: 1, timestamp: 500, snapshot: 400, targets: 1 });
    let audit = Some(AuditHead { number: 10_000, hash: Sha256([1; 32]) });
    Report::V2(ReportV2 {
        base,
        metadata,
        unfit: Vec::new(),
        withheld: Default::default(),
        held: Vec::new(),
        audit,
        nodes: Vec::new(),
    })
    .encode()
}

async fn assigned(device: &mut Device) -> AssignmentV1 {
    let packet = device.until(|packet| {
        let Packet::Publish(publish) = packet else { return None };
        publish.topic.ends_with(b"down/assignment").then(|| publish.payload.clone())
    });
    let signed = SignedAssignment::decode(&packet.await).unwrap();
    Assignment::decode(&signed.payload).unwrap().desired().clone()
}

/// Waits while the device's client, which works only when it is asked to, goes on.
async fn until(hub: &TestHub, device: &mut Device, path: &str, done: impl Fn(&Value) -> bool) -> Value {
    tokio::select! {
        found = hub.until(path, done) => found,
        () = device.idle() => unreachable!("a client never ends"),
    }
}

fn version(assignment: &AssignmentV1) -> u32 {
    assignment.lines[0].release.version.0
}

async fn timestamp(hub: &TestHub) -> u64 {
    let roles = hub.get("/signing").await.1;
    let role = roles["roles"].as_array().unwrap().iter().find(|role| role["role"] == "timestamp").cloned();
    role.unwrap()["version"].as_u64().unwrap()
}

/// Two devices got version 1 before the backup; after it version 2 was published, and edge-1 runs it.
async fn lost_after_version_2() -> (tempfile::TempDir, tempfile::TempDir, std::path::PathBuf) {
    let hub = TestHub::start().await;
    hub.line(json!({})).await;
    release(&hub, 1).await;
    let mut devices = Vec::new();
    for name in ["edge-1", "edge-2"] {
        let mut device = Device::connected(&hub, name).await;
        device.publish("report", runs(1, 1, 0)).await;
        let path = format!("/devices/{name}");
        let first = assigned(&mut device).await;
        assert_eq!((first.lines.len(), first.generation.0), (0, 1), "it learns what this hub reads");
        device.publish("report", runs(2, 1, 1)).await;
        until(&hub, &mut device, &path, |known| known["report"]["generation"] == 1).await;
        devices.push(device);
    }
    let rollout = roll_out(&hub, 1).await;
    for device in &mut devices {
        let first = assigned(device).await;
        assert_eq!((version(&first), first.generation.0), (1, 2));
        device.publish("report", runs(3, 1, 2)).await;
    }
    let (first, second) = devices.split_at_mut(1);
    tokio::select! {
        _ = hub.until(&rollout, |rollout| rollout["state"] == "completed") => {}
        () = first[0].idle() => {}
        () = second[0].idle() => {}
    }
    let (folder, path) = backup(&hub, &[]);
    release(&hub, 2).await;
    roll_out(&hub, 2).await;
    let second = assigned(&mut devices[0]).await;
    assert_eq!((version(&second), second.generation.0), (2, 3));
    (hub.stop().await, folder, path)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_go_on_above_what_devices_report_and_an_unknown_package_is_left_alone() {
    let (old, _folder, path) = lost_after_version_2().await;
    drop(old);
    let (hub, _) = restored(&path, &["--without-lake-files"]).await;
    let mut first = Device::connected(&hub, "edge-1").await;
    // It followed the lost hub to generation 7 and runs what this one does not know.
    first.publish("report", runs(9, 2, 7)).await;
    let status = until(&hub, &mut first, "/restore", |status| status["packages"] != json!([])).await;
    assert_eq!((&status["state"], &status["waits_for"], &status["enough"]), (&json!("waiting"), &json!(2), &json!(2)));
    assert_eq!((&status["packages"][0]["version"], &status["packages"][0]["state"]), (&json!(2), &json!("unknown")));
    assert!(status["audit_entries_lost"].as_i64().unwrap() > 9_000, "{status:#}");
    hub.until("/alerts", |alerts| alerts.to_string().contains("unknown-package")).await;
    assert!(timestamp(&hub).await <= 501);
    hub.hub.config.publish.check().unwrap();

    // The number is taken: no new version may have it, and an upload of another package under it is refused.
    release(&hub, 3).await;
    let rollout = roll_out(&hub, 3).await;
    let mut second = Device::connected(&hub, "edge-2").await;
    second.publish("report", runs(9, 1, 7)).await;
    // Now both have reported: rollouts go on, for the one whose package is known.
    let third = assigned(&mut second).await;
    assert!(third.generation.0 > 7, "{third:?}");
    assert_eq!(version(&third), 3);
    let status = hub.get("/restore").await.1;
    assert_eq!((&status["state"], &status["reported"]), (&json!("done"), &json!(2)), "{status:#}");
    let members = hub.get(&rollout).await.1["members"].to_string();
    assert!(members.contains("edge-2") && !members.contains("edge-1"), "{members}");

    let (code, _) = hub.json(Method::POST, "/restore/continue", json!({"reason": "again"})).await;
    assert_eq!(code, StatusCode::CONFLICT, "it has gone on already");
    // The package is sent again: the device is part of the fleet again, and goes from there.
    release(&hub, 2).await;
    first.publish("report", runs(10, 2, 7)).await;
    let third = assigned(&mut first).await;
    assert!(third.generation.0 > 7 && version(&third) >= 2, "{third:?}");
    let status = hub.get("/restore").await.1;
    assert_eq!(status["packages"][0]["state"], "known", "{status:#}");
    // Another hub gives it an assignment that this one has not signed.
    first.publish("report", runs(11, 2, third.generation.0 + 40)).await;
    until(&hub, &mut first, "/alerts", |alerts| alerts.to_string().contains("another-hub")).await;
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_package_whose_file_survived_is_taken_in_again_and_an_operator_may_overrule_one_that_did_not() {
    let (old, _folder, path) = lost_after_version_2().await;
    let (hub, _) = restored(&path, &["--without-lake-files", "--old-data", text(&old.path().join("hub"))]).await;
    let mut device = Device::connected(&hub, "edge-1").await;
    device.publish("report", runs(9, 2, 7)).await;
    until(&hub, &mut device, "/lines/card-fraud/versions", |page| {
        page["items"].as_array().is_some_and(|all| all.len() == 2)
    })
    .await;
    let status = hub.get("/restore").await.1;
    assert_eq!(status["packages"], json!([]), "{status:#}");
    hub.ok(Method::POST, "/restore/continue", json!({"reason": "edge-2 is in storage"})).await;
    device.publish("report", runs(10, 2, 7)).await;
    let kept = assigned(&mut device).await;
    assert_eq!((version(&kept), kept.lines[0].allow_lower), (2, false), "its wish follows what it runs");
    assert!(kept.generation.0 > 7);
    hub.stop().await;

    let (hub, _) = restored(&path, &["--without-lake-files"]).await;
    let mut device = Device::connected(&hub, "edge-1").await;
    device.publish("report", runs(9, 2, 7)).await;
    until(&hub, &mut device, "/restore", |status| status["packages"] != json!([])).await;
    hub.ok(Method::POST, "/restore/continue", json!({"reason": "edge-2 is in storage"})).await;
    let refused = hub.json(Method::POST, "/restore/packages/card-fraud/5/overrule", json!({"reason": "x"})).await;
    assert_eq!(refused.0, StatusCode::NOT_FOUND);
    let refused = hub.json(Method::POST, "/restore/packages/card-fraud/2/overrule", json!({"reason": " "})).await;
    assert_eq!(refused.0, StatusCode::UNPROCESSABLE_ENTITY);
    hub.ok(Method::POST, "/restore/packages/card-fraud/2/overrule", json!({"reason": "its file is lost"})).await;
    release(&hub, 3).await;
    roll_out(&hub, 3).await;
    let third = assigned(&mut device).await;
    assert_eq!((version(&third), third.generation.0 > 7), (3, true));
    let log = hub.get("/audit?action=restore").await.1.to_string();
    for action in ["restore.overrule", "restore.continue", "restore.unknown-package"] {
        assert!(log.contains(action), "{action}: {log}");
    }
    hub.stop().await;
}
