//! Patches: made for what devices hold, served to those that may have them, gone when nobody needs them.

use std::time::{Duration, Instant};

use bytes::Bytes;
use cloud_hub::publish::files::{self, Content, Reader};
use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use tributary_release::delta::{Outcome, PatchIndex, Way, apply, choose, index_path};
use tributary_wire::{
    DeviceId, LineReport, MetadataVersions, PackageRef, Report, Role, Sha256, TrialReport, UpdaterState, VersionNumber,
};

use crate::offline;
use crate::repository::{line, publish, upload};
use crate::support::{DEADLINE, TestHub, package};

/// What `edge-1` runs, as it reports it.
async fn runs(hub: &TestHub, version: u32, sha256: Sha256) {
    let trusted = MetadataVersions { root: 1, timestamp: 1, snapshot: 1, targets: 1 };
    let Report::V2(mut report) = Report::decode(&offline::report(trusted)).unwrap() else { panic!("another version") };
    report.base.lines.push(LineReport {
        line: line(),
        role: Role::primary(),
        state: UpdaterState::Committed,
        committed: Some(PackageRef { version: VersionNumber(version), sha256 }),
        previous: None,
        candidate: None,
        undone: None,
        error: None,
        engine: "tract".to_owned(),
        trial: TrialReport::default(),
    });
    let mut catalog = hub.hub.catalog.write().await.unwrap();
    let query = "insert into devices (id, first_seen, last_seen, report) values ('edge-1', 0, 0, $1)
                 on conflict (id) do update set report = excluded.report";
    sqlx::query(query).bind(Report::V2(report).encode()).execute(&mut *catalog).await.unwrap();
    catalog.commit().await.unwrap();
}

/// Asks until the answer is as wanted.
async fn until(hub: &TestHub, version: u32, wanted: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let start = Instant::now();
    loop {
        let (_, patches) = hub.get(&format!("/patches/card-fraud/{version}")).await;
        let patches = patches.as_array().unwrap().clone();
        if wanted(&patches) {
            return patches;
        }
        assert!(start.elapsed() < DEADLINE, "{patches:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn read(hub: &TestHub, reader: &Reader, path: &str) -> Option<Vec<u8>> {
    let found = files::open(&hub.hub, reader, path).await.unwrap()?;
    let bytes = match found.content {
        Content::Bytes(bytes) => bytes.to_vec(),
        Content::File(path) => std::fs::read(path).unwrap(),
    };
    assert_eq!(found.length, bytes.len() as u64);
    Some(bytes)
}

async fn hub() -> TestHub {
    let quick = |config: &mut cloud_hub::Config| config.patches.interval.0 = Duration::from_millis(20);
    TestHub::start_in(tempfile::tempdir().unwrap(), quick).await
}

#[tokio::test]
async fn a_release_gets_patches_from_what_is_in_the_field_and_they_lead_to_it() {
    let hub = hub().await;
    hub.line(json!({})).await;
    let (old, new) = (upload(&hub, 1).await, upload(&hub, 2).await);
    for version in [1, 2] {
        assert_eq!(publish(&hub, version).await.0, StatusCode::CREATED);
    }
    runs(&hub, 1, old).await;
    let patches = until(&hub, 2, |patches| patches.len() == 2).await;
    assert!(patches.iter().all(|patch| patch["state"] == "made"), "{patches:?}");
    assert_eq!((&patches[0]["from"], &patches[1]["from"]), (&Value::Null, &json!(1)));
    assert!(patches[1]["length"].as_i64() < patches[0]["length"].as_i64(), "{patches:?}");

    let index = read(&hub, &Reader::Everyone, &index_path(&new)).await.unwrap();
    let index = PatchIndex::decode(&index).unwrap();
    let (before, after) = (package("card-fraud", 1), package("card-fraud", 2));
    let expected = Outcome { length: after.len() as u64, sha256: new };
    for held in [&[old][..], &[]] {
        let Way::Patch(entry) = choose(held, &index, expected.length, &[]) else { panic!("{index:?}") };
        assert_eq!(entry.from, held.first().copied());
        let answer = hub.send(Method::GET, &format!("/repository/{}", entry.path(&new)), "", Bytes::new()).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(tributary_release::digest(&answer.body), entry.sha256);
        let mut made = Vec::new();
        apply(held.first().map(|_| &before[..]), &answer.body[..], &mut made, &expected).unwrap();
        assert!(made == after);
    }

    // A device gets them once it is assigned the release.
    let device = Reader::Device(DeviceId::new("edge-1").unwrap());
    assert_eq!(read(&hub, &device, &index_path(&new)).await, None);
    assert_eq!(read(&hub, &Reader::Everyone, &format!("patches/{new}/other.aligned")).await, None);
    assert_eq!(read(&hub, &Reader::Everyone, &index_path(&Sha256([7; 32]))).await, None);
    hub.ok(Method::POST, "/rollouts", json!({"line": "card-fraud", "version": 2})).await;
    let start = Instant::now();
    while read(&hub, &device, &index_path(&new)).await.is_none() {
        assert!(start.elapsed() < DEADLINE);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    // Once it runs it, nobody needs the patch any more, and its file is gone too.
    runs(&hub, 2, new).await;
    until(&hub, 2, |patches| patches.len() == 1).await;
    let folder = hub.hub.data().join("patches").join(new.to_string());
    let start = Instant::now();
    while std::fs::read_dir(&folder).unwrap().count() != 1 {
        assert!(start.elapsed() < DEADLINE);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    hub.stop().await;
}

/// The interval of this hub never comes: a rollout makes it look.
#[tokio::test]
async fn a_rollout_assigns_nobody_before_its_patches_are_made_unless_it_is_told_to() {
    let rare = |config: &mut cloud_hub::Config| config.patches.interval.0 = Duration::from_secs(86_400);
    let hub = TestHub::start_in(tempfile::tempdir().unwrap(), rare).await;
    hub.line(json!({})).await;
    let old = upload(&hub, 1).await;
    for version in [2, 3] {
        upload(&hub, version).await;
    }
    for version in [1, 2, 3] {
        assert_eq!(publish(&hub, version).await.0, StatusCode::CREATED);
    }
    runs(&hub, 1, old).await;
    // Not even the newest version, so nobody has looked at it before.
    let order = json!({"line": "card-fraud", "version": 2, "policy": {"strategy": "all", "patch_wait_s": 3600}});
    let begun = hub.ok(Method::POST, "/rollouts", order).await;
    assert_eq!(begun["devices"], 0, "{begun}");
    let start = Instant::now();
    loop {
        // In this order: who is assigned was assigned when the patches that are seen then were there.
        let (_, rollout) = hub.get(&format!("/rollouts/{}", begun["id"])).await;
        let (_, patches) = hub.get("/patches/card-fraud/2").await;
        let made = patches.as_array().unwrap().len();
        if rollout["devices"] == 1 {
            assert_eq!(made, 2, "{patches}");
            break;
        }
        let waiting = rollout["waiting"].to_string();
        assert!(waiting == "[]" || waiting.contains("patch(es) to the release"), "{waiting}");
        assert!(start.elapsed() < DEADLINE, "{rollout} {patches}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let abort = format!("/rollouts/{}/abort", begun["id"]);
    hub.ok(Method::POST, &abort, json!({})).await;
    let order = json!({"line": "card-fraud", "version": 3, "policy": {"strategy": "all", "patch_wait_s": 0}});
    let begun = hub.ok(Method::POST, "/rollouts", order).await;
    assert_eq!(begun["devices"], 1, "{begun}");
    hub.stop().await;
}

#[tokio::test]
async fn what_a_crash_left_is_cleared_away_and_what_is_lost_is_made_again() {
    let hub = hub().await;
    hub.line(json!({})).await;
    let new = upload(&hub, 1).await;
    publish(&hub, 1).await;
    let made = until(&hub, 1, |patches| patches.len() == 1).await;
    let folder = hub.hub.data().join("patches").join(new.to_string());
    let file = folder.join(format!("full.{}", made[0]["format"].as_str().unwrap()));
    std::fs::write(&file, b"torn").unwrap();
    let stray = hub.hub.data().join("patches").join("0".repeat(64));
    std::fs::create_dir(&stray).unwrap();
    std::fs::write(stray.join("x.aligned"), b"of no row").unwrap();
    let start = Instant::now();
    while stray.exists() || std::fs::read(&file).map_or(true, |bytes| bytes == b"torn") {
        assert!(start.elapsed() < DEADLINE);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (status, problem) = hub.get("/patches/card-fraud/9").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(problem["detail"].as_str().unwrap().contains("no version 9"), "{problem}");
    hub.stop().await;
}
