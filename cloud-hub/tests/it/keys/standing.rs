//! What the hub says about the repository, and what another implementation says about the hub's files.

use std::fs;
use std::time::{Duration, Instant};

use cloud_hub::publish::roles::{self, RoleName};
use cloud_hub::publish::{ceremony, warnings};
use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use tributary_wire::{Assignment, LineName, MetadataVersions, Micros, SignedAssignment};

use super::with_a_version;
use crate::offline;
use crate::support::{DEADLINE, TestHub};

#[tokio::test(flavor = "multi_thread")]
async fn tough_reads_and_accepts_what_the_hub_serves() {
    use tough::schema::{Root, Signed, Snapshot, Targets, Timestamp};
    let hub = TestHub::without_repository().await;
    let line = LineName::new("card-fraud").unwrap();
    ceremony::simple(&hub.hub, [7; 32], std::slice::from_ref(&line)).await.unwrap();
    with_a_version(&hub).await;
    hub.ok(Method::POST, "/lines/card-fraud/versions/1/publish", json!({})).await;
    let (_, standing) = hub.get("/signing").await;
    let mut files = Vec::new();
    for role in [
        RoleName::Root,
        RoleName::Targets,
        RoleName::Snapshot,
        RoleName::Timestamp,
        "models/card-fraud".parse().unwrap(),
    ] {
        let rows = standing["roles"].as_array().unwrap();
        let row = rows.iter().find(|row| row["role"] == role.as_str()).unwrap();
        let path = format!("/repository/metadata/{}", role.file_name(row["version"].as_u64().unwrap()));
        let answer = hub.send(Method::GET, &path, "", "").await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        files.push(answer.body.to_vec());
    }
    let root: Signed<Root> = serde_json::from_slice(&files[0]).unwrap();
    root.signed.verify_role(&root).unwrap();
    let targets: Signed<Targets> = serde_json::from_slice(&files[1]).unwrap();
    root.signed.verify_role(&targets).unwrap();
    root.signed.verify_role(&serde_json::from_slice::<Signed<Snapshot>>(&files[2]).unwrap()).unwrap();
    root.signed.verify_role(&serde_json::from_slice::<Signed<Timestamp>>(&files[3]).unwrap()).unwrap();
    let of_line: Signed<Targets> = serde_json::from_slice(&files[4]).unwrap();
    targets.signed.delegations.unwrap().verify_role(&of_line, "models/card-fraud").unwrap();
    assert_eq!(of_line.signed.targets.len(), 1);
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn people_hear_before_anything_expires_and_no_more_once_it_is_signed_again() {
    let hub = TestHub::without_repository().await;
    let custody = ceremony::simple(&hub.hub, [7; 32], &[]).await.unwrap();
    let alerts = async || {
        let (_, page) = hub.get("/alerts?state=open").await;
        let alert = |alert: &Value| format!("{} {} {}", alert["kind"], alert["subject"], alert["severity"]);
        let mut open: Vec<String> = page["items"].as_array().unwrap().iter().map(alert).collect();
        open.sort();
        open.retain(|alert| alert.contains("metadata-expires"));
        open.iter().map(|alert| alert.replace('"', "")).collect::<Vec<_>>()
    };
    let now = hub.hub.now();
    let in_days = |days: i64| Micros(now.0 + days * Micros::DAY);
    warnings::look(&hub.hub, now).await.unwrap();
    assert!(alerts().await.is_empty());
    // The hub itself signs on; but if it could not, that shows too.
    warnings::look(&hub.hub, in_days(300)).await.unwrap();
    let of_people = async || {
        let mut open = alerts().await;
        open.retain(|alert| alert.contains("root") || alert.contains("targets"));
        open
    };
    assert_eq!(of_people().await, ["metadata-expires root warning", "metadata-expires targets warning"]);
    assert!(alerts().await.contains(&"metadata-expires timestamp critical".to_owned()));
    warnings::look(&hub.hub, in_days(340)).await.unwrap();
    assert_eq!(of_people().await, ["metadata-expires root critical", "metadata-expires targets critical"]);

    let targets = cloud_hub::publish::store::newest(hub.hub.catalog.reader(), "targets").await.unwrap().unwrap();
    let mut next = roles::read_targets(&targets.bytes).unwrap();
    (next.version, next.expires) = (2, in_days(800));
    let next = roles::build_targets(&RoleName::Targets, &next).unwrap();
    let next = roles::sign(&next, std::slice::from_ref(&custody.targets.1)).unwrap();
    let body = json!({"files": [String::from_utf8(next).unwrap()]});
    hub.ok(Method::POST, "/signing/files", body).await;
    warnings::look(&hub.hub, in_days(340)).await.unwrap();
    assert_eq!(of_people().await, ["metadata-expires root critical"]);
    warnings::look(&hub.hub, now).await.unwrap();
    assert!(alerts().await.is_empty());
    hub.stop().await;
}

/// Generation, number of the snapshot and end of the assignment that was signed last.
async fn assigned(hub: &TestHub) -> (u64, u64, Micros) {
    let query = "select signed from assignments where device = 'edge-1'";
    let signed: Vec<u8> = sqlx::query_scalar(query).fetch_one(hub.hub.catalog.reader()).await.unwrap();
    let assignment = Assignment::decode(&SignedAssignment::decode(&signed).unwrap().payload).unwrap();
    let Assignment::V3(newest) = &assignment else { panic!("{assignment:?}") };
    (newest.desired.generation.0, newest.snapshot, newest.desired.expires)
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_are_told_of_other_keys_without_a_rollout_and_the_end_of_everything_signed_is_counted_down() {
    let hub = TestHub::without_repository().await;
    let line = LineName::new("card-fraud").unwrap();
    let custody = ceremony::simple(&hub.hub, [7; 32], &[line]).await.unwrap();
    with_a_version(&hub).await;
    hub.ok(Method::POST, "/lines/card-fraud/versions/1/publish", json!({})).await;
    let mut catalog = hub.hub.catalog.write().await.unwrap();
    let query = "insert into devices (id, first_seen, last_seen, report, report_at) values ('edge-1', 0, $1, $2, $1)";
    let report = offline::report(MetadataVersions::default());
    sqlx::query(query).bind(hub.hub.now().0).bind(report).execute(&mut *catalog).await.unwrap();
    catalog.commit().await.unwrap();
    let order = json!({"line": "card-fraud", "version": 1, "policy": {"strategy": "all", "patch_wait_s": 0}});
    hub.ok(Method::POST, "/rollouts", order).await;
    let (generation, snapshot, end) = assigned(&hub).await;

    let left = async |role: &str| {
        let text = hub.send(Method::GET, "/metrics", "", "").await;
        let text = String::from_utf8(text.body.to_vec()).unwrap();
        let found =
            text.lines().find_map(|line| line.strip_prefix(&format!("hub_signed_left_seconds{{role=\"{role}\"}} ")));
        found.unwrap_or_else(|| panic!("no {role} in {text}")).parse::<i64>().unwrap()
    };
    const DAY: i64 = 86_400;
    for (role, days) in [
        ("root", 365),
        ("targets", 365),
        ("models/card-fraud", 30),
        ("snapshot", 7),
        ("timestamp", 1),
        ("assignments", 30),
    ] {
        let found = left(role).await;
        assert!((days * DAY - 3_600..=days * DAY).contains(&found), "{role}: {found}");
    }
    let (_, standing) = hub.get("/signing").await;
    let row = standing["roles"].as_array().unwrap().iter().find(|row| row["role"] == "assignments").unwrap();
    assert_eq!(row["expires"], end.0, "{row:#}");

    let targets = cloud_hub::publish::store::newest(hub.hub.catalog.reader(), "targets").await.unwrap().unwrap();
    let mut next = roles::read_targets(&targets.bytes).unwrap();
    next.version = 2;
    let next = roles::build_targets(&RoleName::Targets, &next).unwrap();
    let next = roles::sign(&next, std::slice::from_ref(&custody.targets.1)).unwrap();
    hub.ok(Method::POST, "/signing/files", json!({"files": [String::from_utf8(next).unwrap()]})).await;
    let start = Instant::now();
    while assigned(&hub).await.0 == generation {
        assert!(start.elapsed() < DEADLINE, "nobody was told");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(assigned(&hub).await.1 > snapshot, "the device has to look at the repository");
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn roots_that_have_expired_are_taken_together_with_one_that_has_not() {
    let hub = TestHub::without_repository().await;
    let custody = ceremony::simple(&hub.hub, [7; 32], &[]).await.unwrap();
    let first = cloud_hub::publish::store::newest(hub.hub.catalog.reader(), "root").await.unwrap().unwrap();
    let now = hub.hub.now();
    let root = |version: u64, days: i64| {
        let mut next = roles::read_root(&first.bytes).unwrap();
        (next.version, next.expires) = (version, Micros(now.0 + days * Micros::DAY));
        let next = roles::sign(&roles::build_root(&next).unwrap(), &custody.root_keys()).unwrap();
        String::from_utf8(next).unwrap()
    };
    let refused = async |files: Vec<String>, words: &str| {
        let (status, problem) = hub.json(Method::POST, "/signing/files", json!({"files": files})).await;
        let detail = problem["detail"].as_str().unwrap_or_default();
        assert!(status.is_client_error() && detail.contains(words), "{status} {problem:#}");
    };
    let (second, third) = (root(2, -400), root(3, -30));
    refused(vec![second.clone()], "root 2 expired at").await;
    refused(vec![second.clone(), third.clone()], "root 3 expired at").await;
    refused(vec![second.clone(), root(4, 300)], "version 4, expected 3").await;
    // In whatever order they are sent.
    let done = hub.ok(Method::POST, "/signing/files", json!({"files": [root(4, 300), second, third]})).await;
    let taken = [2, 3, 4].map(|version| json!({"role": "root", "version": version}));
    assert_eq!(done["applied"], json!(taken), "{done:#}");
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_says_what_is_wrong_and_keeps_secrets() {
    let hub = TestHub::without_repository().await;
    assert_eq!(hub.get("/signing").await.1, json!({"roles": []}));
    let refused = async |path: &str, body: Value, words: &str| {
        let (status, problem) = hub.json(Method::POST, path, body).await;
        let detail = problem["detail"].as_str().unwrap_or_default();
        assert!(status.is_client_error() && detail.contains(words), "{path}: {status} {problem:#}");
    };
    refused("/signing/keys", json!({"role": "root"}), "no keys for \"root\"").await;
    refused("/signing/keys", json!({"role": "models/Bad Name"}), "Bad Name").await;
    refused("/signing/files", json!({"files": []}), "no file").await;
    refused("/signing/files", json!({"files": ["{}"]}), "expected").await;
    let made = hub.ok(Method::POST, "/signing/keys", json!({"role": "models/card-fraud"})).await;
    let again = hub.ok(Method::POST, "/signing/keys", json!({"role": "models/card-fraud"})).await;
    let further = hub.ok(Method::POST, "/signing/keys", json!({"role": "models/card-fraud", "further": true})).await;
    assert_eq!(made, again);
    assert_ne!(made["id"], further["id"]);
    // Two who ask at once get the same key, and there is an end to further ones.
    let ask = || hub.ok(Method::POST, "/signing/keys", json!({"role": "models/other"}));
    let (one, other) = tokio::join!(ask(), ask());
    assert_eq!(one, other);
    for _ in 1..16 {
        hub.ok(Method::POST, "/signing/keys", json!({"role": "models/other", "further": true})).await;
    }
    refused("/signing/keys", json!({"role": "models/other", "further": true}), "holds 16 keys for models/other").await;
    hub.line(json!({})).await;
    let (_, keys) = hub.get("/signing/keys").await;
    let of_line = keys["items"].as_array().unwrap().iter().filter(|key| key["role"] == "models/card-fraud");
    assert_eq!(of_line.count(), 2);
    let secret = fs::read_to_string(hub.hub.data().join("keys/lines/card-fraud.key")).unwrap();
    assert!(!keys.to_string().contains(secret.lines().nth(1).unwrap()));
    let stored = hub.send(Method::POST, "/signing/contents", "application/octet-stream", "image").await;
    let stored: Value = stored.json().unwrap();
    assert_eq!((&stored["length"], &stored["sha256"]), (&json!(5), &json!(tributary_release::digest(b"image"))));
    let empty = hub.send(Method::POST, "/signing/contents", "application/octet-stream", "").await;
    assert_eq!(empty.status, StatusCode::BAD_REQUEST);
    let (_, entries) = hub.get("/audit?action=key.make").await;
    assert_eq!(entries["items"].as_array().unwrap().len(), 2 + 16);
    hub.stop().await;
}
