//! Releases that an operator takes back, as devices see it.

use cloud_hub::publish::roles::{self, RoleName, TargetsContent};
use cloud_hub::publish::{Applying, Purpose, apply, draft_line};
use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use tributary_release::SigningKey;
use tributary_wire::Micros;

use super::Machine;
use super::device::Device;
use crate::offline::{self, Offline, in_a_year};
use crate::repository::{content, line, publish, upload};
use crate::support::TestHub;

async fn withdraw(hub: &TestHub, version: u32, body: Value) -> (StatusCode, Value) {
    hub.json(Method::POST, &format!("/lines/card-fraud/versions/{version}/withdraw"), body).await
}

async fn lists(device: &mut Device, hub: &TestHub) -> Vec<u32> {
    device.believes(hub).await;
    let mut listed = Vec::new();
    for version in 1..=3 {
        if device.lists(hub, &format!("models/card-fraud/v{version}.tpk")).await {
            listed.push(version);
        }
    }
    listed
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_of_an_unattended_line_is_taken_back_for_good_and_a_new_key_does_not_sign_it_again() {
    let hub = TestHub::without_repository().await;
    let mut offline = offline::unattended(&hub.hub, "card-fraud").await;
    hub.line(json!({})).await;
    for version in 1..=3 {
        upload(&hub, version).await;
    }
    for version in 1..=2 {
        publish(&hub, version).await;
    }
    let mut device = Device::enrolled(&hub).await;
    assert_eq!(lists(&mut device, &hub).await, [1, 2]);

    let why = json!({"reason": "nobody here made it"});
    let (status, refused) = withdraw(&hub, 3, why.clone()).await;
    assert!(status == StatusCode::NOT_FOUND && refused["detail"].as_str().unwrap().contains("never published"));
    for reason in ["", "  ", &"x".repeat(501)] {
        let (status, refused) = withdraw(&hub, 2, json!({"reason": reason})).await;
        assert_eq!((status, &refused["errors"][0]["at"]), (StatusCode::UNPROCESSABLE_ENTITY, &json!("reason")));
    }
    let (status, done) = withdraw(&hub, 2, why.clone()).await;
    assert_eq!((status, &done["release"]["state"]), (StatusCode::OK, &json!("withdrawn")), "{done}");
    assert_eq!(lists(&mut device, &hub).await, [1], "not signed by the role of the line any more");
    let (_, audit) = hub.get("/audit?action=release.withdraw").await;
    let entry = &audit["items"][0];
    assert_eq!((&entry["subject"], &entry["to"]["reason"]), (&json!("card-fraud/2"), &why["reason"]), "{audit:#}");
    let signed = content(&hub, "models/card-fraud").await.version;
    assert_eq!(withdraw(&hub, 2, why).await, (status, done));
    assert_eq!(content(&hub, "models/card-fraud").await.version, signed, "asking again signs nothing");
    let (status, refused) = publish(&hub, 2).await;
    assert!(status == StatusCode::CONFLICT && refused["detail"].as_str().unwrap().contains("withdrawn"), "{refused}");

    // The key leaked: a new one signs what is left.
    let key = hub.hub.keys.make(&Purpose::Line(line())).unwrap();
    offline.delegate("card-fraud", &[key]);
    offline.apply_targets(&hub.hub, Applying::default()).await.unwrap();
    publish(&hub, 3).await;
    assert_eq!(lists(&mut device, &hub).await, [1, 3]);
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_still_wanted_is_withdrawn_only_by_who_says_so_and_is_told_who_wants_it() {
    let hub = TestHub::without_repository().await;
    offline::unattended(&hub.hub, "card-fraud").await;
    hub.line(json!({})).await;
    for version in 1..=2 {
        upload(&hub, version).await;
        publish(&hub, version).await;
    }
    hub.ok(Method::POST, "/rollouts", json!({"line": "card-fraud", "version": 2})).await;
    let mut catalog = hub.hub.catalog.write().await.unwrap();
    for query in [
        "insert into devices (id, first_seen, last_seen) values ('edge-1', 0, 0)",
        "insert into wishes (device, line, role, version, length, sha256, allow_lower, rollout)
         select 'edge-1', line, 'primary', version, length, sha256, 0, 1 from releases where version = 2",
    ] {
        sqlx::query(query).execute(&mut *catalog).await.unwrap();
    }
    catalog.commit().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::online(folder.path(), &hub);
    let order = "model withdraw card-fraud 2 --reason leaked";
    machine.refuses(order, 5, "still wanted by rollout 1 (running), device edge-1").await;
    assert_eq!(content(&hub, "models/card-fraud").await.targets.len(), 2);
    let said = machine.does(&format!("{order} --even-if-wanted")).await;
    assert!(said.contains("is withdrawn") && said.contains("device edge-1"), "{said}");
    let said = machine.does("model releases card-fraud").await;
    assert!(said.contains("withdrawn") && said.contains("published"), "{said}");
    // Nothing wants the other one.
    machine.does("model withdraw card-fraud 1 --reason old").await;
    assert!(content(&hub, "models/card-fraud").await.targets.is_empty());
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_of_an_attended_line_is_taken_back_by_its_key_alone() {
    let hub = TestHub::without_repository().await;
    let key = SigningKey::generate([40; 32]);
    let mut offline = Offline::new(&hub.hub.keys);
    offline.delegate("card-fraud", std::slice::from_ref(&key));
    offline.begin(&hub.hub).await;
    hub.line(json!({})).await;
    for version in 1..=2 {
        upload(&hub, version).await;
    }
    publish(&hub, 1).await;
    let draft = async || draft_line(&mut hub.hub.catalog.reader().acquire().await.unwrap(), &line(), in_a_year()).await;
    let signed = roles::sign(&draft().await.unwrap(), std::slice::from_ref(&key)).unwrap();
    apply(&hub.hub, &[signed], Applying::default()).await.unwrap();
    let (status, refused) = withdraw(&hub, 1, json!({"reason": "leaked"})).await;
    let detail = refused["detail"].as_str().unwrap();
    assert!(status == StatusCode::CONFLICT && detail.contains("--withdraw models/card-fraud/v1.tpk"), "{refused}");

    // One that waits needs no signature to be taken back, and a draft from before does not bring it back.
    publish(&hub, 2).await;
    let before = roles::sign(&draft().await.unwrap(), std::slice::from_ref(&key)).unwrap();
    assert_eq!(withdraw(&hub, 2, json!({"reason": "leaked"})).await.0, StatusCode::OK);
    let refused = apply(&hub.hub, &[before], Applying::default()).await.unwrap_err().to_string();
    assert!(refused.contains("models/card-fraud/v2.tpk") && refused.contains("never comes back"), "{refused}");
    assert_eq!(draft().await.map(|draft| roles::read_targets(&draft).unwrap().targets.len()).unwrap(), 1);
    let role = RoleName::Delegated("models/card-fraud".to_owned());
    let leap = TargetsContent {
        version: 2_000_000,
        expires: Micros(in_a_year().0),
        ..content(&hub, "models/card-fraud").await
    };
    let leap = roles::sign_delegated(&role, &leap, &[key]).unwrap();
    let refused = apply(&hub.hub, &[leap], Applying::default()).await.unwrap_err().to_string();
    assert!(refused.contains("has version 2000000, and version 1 is in force: at most 1000001"), "{refused}");
    hub.stop().await;
}
