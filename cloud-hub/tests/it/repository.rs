//! The signed repository: what people and the hub sign, what is refused, and what is served.

use bytes::Bytes;
use cloud_hub::publish::roles::{self, RoleName, TargetsContent, read_targets};
use cloud_hub::publish::{ApplyError, Applying, PublishError, Purpose, apply, draft_line, store};
use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use tributary_release::{CUSTOM, PackageCustom, SigningKey, hashed_path, package_path};
use tributary_wire::{LineName, Micros, Sha256, VersionNumber};

use crate::offline::{self, Offline, in_a_year};
use crate::support::{TestHub, package};

pub fn line() -> LineName {
    LineName::new("card-fraud").unwrap()
}

pub async fn versions(hub: &TestHub) -> Vec<(String, i64)> {
    let all = store::all(hub.hub.catalog.reader()).await.unwrap();
    all.into_iter().map(|stored| (stored.role, stored.version)).collect()
}

pub async fn content(hub: &TestHub, role: &str) -> TargetsContent {
    read_targets(&store::newest(hub.hub.catalog.reader(), role).await.unwrap().unwrap().bytes).unwrap()
}

pub async fn upload(hub: &TestHub, version: u32) -> Sha256 {
    let package = package("card-fraud", version);
    let sha256 = tributary_release::digest(&package);
    let sent = hub.send(Method::POST, "/lines/card-fraud/versions", "application/octet-stream", package).await;
    assert_eq!(sent.status, StatusCode::CREATED);
    sha256
}

pub async fn publish(hub: &TestHub, version: u32) -> (StatusCode, Value) {
    hub.json(Method::POST, &format!("/lines/card-fraud/versions/{version}/publish"), Value::Null).await
}

#[tokio::test]
async fn without_a_repository_or_a_role_for_the_line_nothing_is_published() {
    let hub = TestHub::without_repository().await;
    hub.line(json!({})).await;
    upload(&hub, 1).await;
    let (status, answer) = publish(&hub, 1).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(answer["detail"].as_str().unwrap().contains("cloud-hub keys init"), "{answer}");
    Offline::new(&hub.hub.keys).begin(&hub.hub).await;
    let (status, answer) = publish(&hub, 1).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(answer["detail"].as_str().unwrap().contains("models/card-fraud"), "{answer}");
    let (_, version) = hub.get("/lines/card-fraud/versions/1").await;
    assert_eq!((&version["published"], &version["release"]), (&json!(false), &Value::Null));
    hub.stop().await;
}

#[tokio::test]
async fn a_release_of_an_unattended_line_its_metadata_and_its_entry_are_one_step() {
    let hub = TestHub::without_repository().await;
    offline::unattended(&hub.hub, "card-fraud").await;
    let expected = [("models/card-fraud", 1), ("root", 1), ("snapshot", 1), ("targets", 1), ("timestamp", 1)];
    assert_eq!(versions(&hub).await, expected.map(|(role, version)| (role.to_owned(), version)));
    hub.line(json!({})).await;
    let sha256 = upload(&hub, 1).await;
    let (status, release) = publish(&hub, 1).await;
    assert_eq!((status, &release["state"]), (StatusCode::CREATED, &json!("published")), "{release}");
    let expected = [("models/card-fraud", 2), ("root", 1), ("snapshot", 2), ("targets", 1), ("timestamp", 2)];
    assert_eq!(versions(&hub).await, expected.map(|(role, version)| (role.to_owned(), version)));
    let targets = content(&hub, "models/card-fraud").await.targets;
    assert_eq!(
        (targets.len(), &targets[0].path, targets[0].sha256),
        (1, &package_path(&line(), VersionNumber(1)), sha256)
    );
    let custom: PackageCustom = serde_json::from_value(targets[0].custom.clone().unwrap()[CUSTOM].clone()).unwrap();
    assert_eq!((custom.version, custom.published.0), (VersionNumber(1), release["published"].as_i64().unwrap()));
    let (status, again) = publish(&hub, 1).await;
    assert_eq!((status, again), (StatusCode::OK, release));
    assert_eq!(content(&hub, "models/card-fraud").await.version, 2, "asking again signs nothing");
    let (_, audit) = hub.get("/audit?action=metadata").await;
    assert!(audit["items"].as_array().unwrap().iter().any(|entry| entry["action"] == "metadata.sign"), "{audit:#}");
    hub.stop().await;
}

#[tokio::test]
async fn the_release_of_an_attended_line_waits_for_a_persons_signature() {
    let hub = TestHub::without_repository().await;
    let key = SigningKey::generate([40; 32]);
    let mut offline = Offline::new(&hub.hub.keys);
    offline.delegate("card-fraud", std::slice::from_ref(&key));
    offline.begin(&hub.hub).await;
    hub.line(json!({})).await;
    let sha256 = upload(&hub, 1).await;
    let (status, release) = publish(&hub, 1).await;
    assert_eq!((status, &release["state"]), (StatusCode::CREATED, &json!("waiting")));
    let file = format!("/repository/targets/{}", hashed_path(&package_path(&line(), VersionNumber(1)), &sha256));
    assert_eq!(hub.get(&file).await.0, StatusCode::NOT_FOUND);
    let (status, refused) = hub.json(Method::POST, "/rollouts", json!({"line": "card-fraud", "version": 1})).await;
    assert!(
        status.is_client_error() && refused["detail"].as_str().unwrap().contains("not yet in signed metadata"),
        "{refused}"
    );

    let draft = draft_line(&mut hub.hub.catalog.reader().acquire().await.unwrap(), &line(), in_a_year()).await.unwrap();
    let unsigned = apply(&hub.hub, std::slice::from_ref(&draft), Applying::default()).await.unwrap_err();
    assert!(matches!(&unsigned, ApplyError::Role(roles::RoleError::Threshold { .. })), "{unsigned}");
    let signed = roles::sign(&draft, std::slice::from_ref(&key)).unwrap();
    let applied = apply(&hub.hub, &[signed], Applying::default()).await.unwrap();
    assert_eq!(applied.published, ["card-fraud/1"]);
    let (_, version) = hub.get("/lines/card-fraud/versions/1").await;
    assert_eq!((&version["published"], &version["release"]), (&json!(true), &json!("published")));
    let served = hub.send(Method::GET, &file, "", Bytes::new()).await;
    assert_eq!((served.status, tributary_release::digest(&served.body)), (StatusCode::OK, sha256));

    // A file that no longer names what is in the field says so, or is refused.
    let role = RoleName::Delegated("models/card-fraud".to_owned());
    let empty = TargetsContent { version: 2, expires: in_a_year(), targets: vec![], delegations: vec![] };
    let empty = roles::sign_delegated(&role, &empty, &[key]).unwrap();
    let refused = apply(&hub.hub, std::slice::from_ref(&empty), Applying::default()).await.unwrap_err();
    assert!(
        matches!(&refused, ApplyError::Drops { dropped, .. } if dropped == &["models/card-fraud/v1.tpk"]),
        "{refused}"
    );
    assert_eq!(hub.get("/lines/card-fraud/versions/1").await.1["release"], "published", "nothing of it was kept");
    let applied = apply(&hub.hub, &[empty], Applying { withdraw: true }).await.unwrap();
    assert_eq!(applied.withdrawn, ["card-fraud/1"]);
    let (status, refused) = publish(&hub, 1).await;
    assert!(status == StatusCode::CONFLICT && refused["detail"].as_str().unwrap().contains("withdrawn"), "{refused}");
    hub.stop().await;
}

#[tokio::test]
async fn what_is_not_signed_as_it_must_be_is_not_stored() {
    let hub = TestHub::without_repository().await;
    let mut offline = offline::unattended(&hub.hub, "card-fraud").await;
    let before = versions(&hub).await;
    let refused = async |files: &[Vec<u8>]| apply(&hub.hub, files, Applying::default()).await.unwrap_err();

    let mut next = Offline::new(&hub.hub.keys);
    next.root.version = 3;
    let error = refused(&[next.signed_root()]).await;
    assert!(matches!(error, ApplyError::Publish(PublishError::Version { expected: 2, exactly: true, found: 3, .. })));
    next.root.version = 2;
    let one = roles::sign(&roles::build_root(&next.root).unwrap(), &next.root_keys[..1]).unwrap();
    assert!(refused(&[one]).await.to_string().contains("needs 2"));
    // A quorum of new keys that the old ones did not sign.
    let strangers: Vec<_> = (21..24).map(|seed| SigningKey::generate([seed; 32])).collect();
    next.root.root.keys = strangers.iter().map(|key| roles::PublicKey::new(key.verifying_key(), "")).collect();
    let theirs = roles::sign(&roles::build_root(&next.root).unwrap(), &strangers).unwrap();
    assert!(refused(&[theirs]).await.to_string().contains("root 1"));

    let same = offline.signed_targets();
    assert!(matches!(refused(&[same]).await, ApplyError::Publish(PublishError::Version { found: 1, .. })));
    offline.targets.version = 2;
    let forged = roles::sign(&roles::build_targets(&RoleName::Targets, &offline.targets).unwrap(), &strangers).unwrap();
    assert!(matches!(refused(&[forged]).await, ApplyError::Role(roles::RoleError::Threshold { .. })));
    let expires = std::mem::replace(&mut offline.targets.expires, Micros(Micros::SECOND));
    assert!(matches!(refused(&[offline.signed_targets()]).await, ApplyError::Expired { .. }));
    offline.targets.expires = expires;
    // A number after which there would be none for ever, however well it is signed.
    let sensible = std::mem::replace(&mut offline.targets.version, i64::MAX as u64);
    let leap = refused(&[offline.signed_targets()]).await;
    assert!(matches!(leap, ApplyError::Leap { known: 1, most: 1_000_001, .. }), "{leap}");
    let leap = leap.to_string();
    assert!(leap.contains("has version 9223372036854775807") && leap.contains("writes version 2"), "{leap}");
    offline.targets.version = sensible;
    let delegations = std::mem::take(&mut offline.targets.delegations);
    assert!(matches!(refused(&[offline.signed_targets()]).await, ApplyError::Drops { .. }));
    offline.targets.delegations = delegations;
    let stranger = roles::PublicKey::new(strangers[0].verifying_key(), "");
    let own = std::mem::replace(&mut offline.targets.targets, vec![roles::Target::assignment_keys(&[stranger]).0]);
    assert!(matches!(refused(&[offline.signed_targets()]).await, ApplyError::Assignments { .. }));
    offline.targets.targets = own;

    let other = RoleName::Delegated("models/other".to_owned());
    let empty = TargetsContent { version: 1, expires: in_a_year(), targets: vec![], delegations: vec![] };
    let other = roles::sign_delegated(&other, &empty, &strangers).unwrap();
    assert!(matches!(refused(&[other]).await, ApplyError::NotDelegated { .. }));
    let timestamp = store::newest(hub.hub.catalog.reader(), "timestamp").await.unwrap().unwrap().bytes;
    assert!(matches!(refused(&[timestamp]).await, ApplyError::Online { .. }));
    assert!(matches!(refused(&[]).await, ApplyError::Nothing));
    assert!(matches!(refused(&[b"{}".to_vec()]).await, ApplyError::Role(_)));
    assert_eq!(versions(&hub).await, before);
    hub.stop().await;
}

#[tokio::test]
async fn a_person_cannot_sign_a_package_that_is_not_the_registered_one() {
    let hub = TestHub::without_repository().await;
    let key = SigningKey::generate([40; 32]);
    let mut offline = Offline::new(&hub.hub.keys);
    offline.delegate("card-fraud", std::slice::from_ref(&key));
    offline.begin(&hub.hub).await;
    hub.line(json!({})).await;
    upload(&hub, 1).await;
    publish(&hub, 1).await;
    let draft = draft_line(&mut hub.hub.catalog.reader().acquire().await.unwrap(), &line(), in_a_year()).await.unwrap();
    let good = read_targets(&draft).unwrap();
    let role = RoleName::Delegated("models/card-fraud".to_owned());
    let mut hash = good.clone();
    hash.targets[0].sha256 = Sha256([1; 32]);
    let mut length = good.clone();
    length.targets[0].length += 1;
    let mut other = good.clone();
    other.targets[0].path = package_path(&line(), VersionNumber(2));
    let mut lighter = good.clone();
    lighter.targets[0].custom.as_mut().unwrap()[CUSTOM]["requires"]["memory_bytes"] = json!(1);
    let mut bare = good.clone();
    bare.targets[0].custom = None;
    for (content, words) in [
        (hash, "hash"),
        (length, "bytes"),
        (other, "beside it stands version 1"),
        (lighter, "manifest"),
        (bare, "stands beside"),
    ] {
        let signed = roles::sign_delegated(&role, &content, std::slice::from_ref(&key)).unwrap();
        let error = apply(&hub.hub, &[signed], Applying::default()).await.unwrap_err();
        assert!(matches!(error, ApplyError::Target { .. }) && error.to_string().contains(words), "{words}: {error}");
    }
    hub.stop().await;
}

#[tokio::test]
async fn keys_of_snapshot_timestamp_line_and_assignments_are_rotated() {
    let hub = TestHub::without_repository().await;
    let mut offline = offline::unattended(&hub.hub, "card-fraud").await;
    let public = |key: &SigningKey| roles::PublicKey::new(key.verifying_key(), "hub");
    let keys = &hub.hub.keys;
    let (snapshot, timestamp) = (keys.make(&Purpose::Snapshot).unwrap(), keys.make(&Purpose::Timestamp).unwrap());
    offline.root.version = 2;
    offline.root.snapshot.keys = vec![public(&snapshot)];
    offline.root.timestamp.keys = vec![public(&timestamp)];
    let applied = apply(&hub.hub, &[offline.signed_root()], Applying::default()).await.unwrap();
    let signed: Vec<_> = applied.signed.iter().map(|role| (role.role.as_str(), role.version)).collect();
    assert_eq!(signed, [("snapshot", 2), ("timestamp", 2)]);
    let newest = async |role: &str| store::newest(hub.hub.catalog.reader(), role).await.unwrap().unwrap().bytes;
    let root = newest("root").await;
    roles::verify(&root, &RoleName::Snapshot, &newest("snapshot").await).unwrap();
    roles::verify(&root, &RoleName::Timestamp, &newest("timestamp").await).unwrap();

    let (of_line, assignment) = (keys.make(&Purpose::Line(line())).unwrap(), keys.make(&Purpose::Assignment).unwrap());
    offline.delegate("card-fraud", std::slice::from_ref(&of_line));
    offline.targets.targets = vec![roles::Target::assignment_keys(&[public(&assignment)]).0];
    let applied = offline.apply_targets(&hub.hub, Applying::default()).await.unwrap();
    let signed: Vec<_> = applied.signed.iter().map(|role| (role.role.as_str(), role.version)).collect();
    assert_eq!(signed, [("models/card-fraud", 3), ("snapshot", 3), ("timestamp", 3)]);
    assert_eq!(hub.hub.keys.assignment().id(), assignment.id());
    let role = RoleName::Delegated("models/card-fraud".to_owned());
    roles::verify(&newest("targets").await, &role, &newest("models/card-fraud").await).unwrap();

    // A root that revokes the targets key needs targets signed by the new one.
    let key = SigningKey::generate([50; 32]);
    offline.root.version = 3;
    offline.root.targets.keys = vec![public(&key)];
    let alone = apply(&hub.hub, &[offline.signed_root()], Applying::default()).await.unwrap_err();
    assert!(matches!(alone, ApplyError::Targets { .. }), "{alone}");
    offline.targets_key = key;
    offline.targets.version += 1;
    let both = [offline.signed_targets(), offline.signed_root()];
    let applied = apply(&hub.hub, &both, Applying::default()).await.unwrap();
    assert_eq!(applied.applied.iter().map(|role| role.role.as_str()).collect::<Vec<_>>(), ["root", "targets"]);

    // After a restart the announced key still signs assignments.
    let folder = hub.stop().await;
    let hub = TestHub::start_bare(folder, |_| {}).await;
    assert_eq!(hub.hub.keys.assignment().id(), assignment.id());
    hub.stop().await;
}

#[tokio::test]
async fn after_a_restored_backup_the_hub_signs_above_what_devices_report() {
    let hub = TestHub::without_repository().await;
    offline::unattended(&hub.hub, "card-fraud").await;
    hub.line(json!({})).await;
    upload(&hub, 1).await;
    let trusted = tributary_wire::MetadataVersions { root: 1, timestamp: 90, snapshot: 40, targets: 1 };
    let report = offline::report(trusted);
    let insert = "insert into devices (id, first_seen, last_seen, report) values ('edge-1', 0, 0, $1)";
    let mut catalog = hub.hub.catalog.write().await.unwrap();
    sqlx::query(insert).bind(report).execute(&mut *catalog).await.unwrap();
    catalog.commit().await.unwrap();
    publish(&hub, 1).await;
    let expected = [("models/card-fraud", 41), ("root", 1), ("snapshot", 41), ("targets", 1), ("timestamp", 91)];
    assert_eq!(versions(&hub).await, expected.map(|(role, version)| (role.to_owned(), version)));
    hub.stop().await;
}

#[tokio::test]
async fn what_gets_old_is_signed_again_without_anybody_asking() {
    let lives = |config: &mut cloud_hub::Config| {
        let seconds = |seconds| tributary_process::config::HumanDuration(std::time::Duration::from_secs(seconds));
        config.publish.interval = tributary_process::config::HumanDuration(std::time::Duration::from_millis(50));
        (config.publish.timestamp, config.publish.snapshot) = (seconds(2), seconds(4));
    };
    let hub = TestHub::start_in(tempfile::tempdir().unwrap(), lives).await;
    let start = std::time::Instant::now();
    let newest = async |role: &str| {
        let all = versions(&hub).await;
        all.into_iter().find(|(name, _)| name == role).unwrap().1
    };
    while newest("timestamp").await < 4 || newest("snapshot").await < 2 {
        assert!(start.elapsed() < crate::support::DEADLINE, "{:?}", versions(&hub).await);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(newest("models/card-fraud").await, 1, "it lives for a month");
    let lists = store::newest(hub.hub.catalog.reader(), "timestamp").await.unwrap().unwrap();
    let lists: Value = serde_json::from_slice(&lists.bytes).unwrap();
    assert!(lists["signed"]["meta"]["snapshot.json"]["version"].as_i64().unwrap() >= 2);
    hub.stop().await;
}
