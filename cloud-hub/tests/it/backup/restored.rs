//! What a restored hub finds again, and what it says is lost.

use hyper::{Method, StatusCode};
use rumqttc::mqttbytes::v5::Packet;
use serde_json::json;
use tributary_wire::{Assignment, Held, Report, ReportV1, ReportV2, SequenceNumber, SignedAssignment, StreamName};

use super::{backup, does, restored, rows, text, tries};
use crate::devices::{Device, batch, report};
use crate::support::TestHub;

/// A hub whose device has sent ten batches (and a message that cannot be read) before the backup and as many after it.
async fn before_and_after(more: &[&str]) -> (tempfile::TempDir, tempfile::TempDir, std::path::PathBuf) {
    let hub = TestHub::start().await;
    let mut device = Device::connected(&hub, "edge-1").await;
    device.publish("batch", b"nonsense".to_vec()).await;
    for sequence in 1..=10 {
        device.publish("batch", batch(sequence, &[sequence as i64 * 2, sequence as i64 * 2 + 1])).await;
    }
    device.acknowledged(10).await;
    let (folder, path) = backup(&hub, more);
    device.publish("batch", b"more nonsense".to_vec()).await;
    for sequence in 11..=20 {
        device.publish("batch", batch(sequence, &[sequence as i64 * 2, sequence as i64 * 2 + 1])).await;
    }
    device.acknowledged(20).await;
    hub.until("/quarantine", |page| page["items"].as_array().is_some_and(|items| items.len() == 2)).await;
    let log = hub.get("/audit?action=backup").await.1;
    assert_eq!(log["items"][0]["action"], "backup.create", "{log:#}");
    (hub.stop().await, folder, path)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_stored_after_the_backup_is_found_again_in_the_lake_and_answered_as_a_duplicate() {
    let (old, _folder, path) = before_and_after(&[]).await;
    let old_data = old.path().join("hub");
    let (code, said) = tries(&["restore", text(&path), "--data", text(&old_data)]);
    assert!(code == 1 && said.contains("is not empty"), "{said}");
    let data = old.path().join("other");
    let (code, said) = tries(&["restore", text(&path), "--data", text(&data)]);
    assert!(code == 1 && said.contains("--lake") && said.contains("--without-lake-files"), "{said}");
    assert!(!data.exists(), "what cannot be restored leaves nothing behind");

    let (hub, said) = restored(&path, &["--old-data", text(&old_data)]).await;
    assert_eq!((&said["lost_lake_files"], said["newer_lake_files"].as_u64() > Some(0)), (&json!(0), true), "{said:#}");
    assert_eq!(rows(&hub, "events").await, 40);
    let status = hub.get("/restore").await.1;
    assert_eq!(status["taken_in"]["batches"], 10, "{status:#}");
    assert_eq!(status["taken_in"]["rows"], 20, "{status:#}");
    assert_eq!((&status["taken_in"]["quarantined"], &status["taken_in"]["set_aside"]), (&json!(1), &json!(0)));
    let kept = hub.get("/quarantine").await.1;
    assert_eq!(kept["items"].as_array().unwrap().len(), 2, "{kept:#}");
    // Nothing else lies in the lake, and nothing was taken away.
    let compared = hub.hub.lake.compare().unwrap();
    assert_eq!((compared.unregistered.len(), compared.missing.len()), (0, 0));
    let mut device = Device::connected(&hub, "edge-1").await;
    for sequence in 15..=21 {
        device.publish("batch", batch(sequence, &[sequence as i64 * 2, sequence as i64 * 2 + 1])).await;
    }
    device.acknowledged(21).await;
    assert_eq!((rows(&hub, "events").await, hub.hub.ingest.status().duplicates), (42, 6));
    let audit = hub.get("/audit/verify").await.1;
    assert_eq!(audit["whole"], true, "{audit:#}");
    let actions = hub.get("/audit").await.1.to_string();
    for action in ["hub.restore", "catalog.take-in", "access.end-all"] {
        assert!(actions.contains(action), "{action}: {actions}");
    }
    // A second start takes nothing in again.
    let folder = hub.stop().await;
    let hub = TestHub::start_bare(folder, |_| {}).await;
    assert_eq!(rows(&hub, "events").await, 42);
    hub.stop().await;
}

fn holds_from(first: u64, number: u64) -> Vec<u8> {
    let base: ReportV1 = Report::decode(&report(number)).unwrap().base().clone();
    let held = vec![Held { stream: StreamName::new("events").unwrap(), first: SequenceNumber(first) }];
    Report::V2(ReportV2 {
        base,
        metadata: None,
        unfit: Vec::new(),
        withheld: Default::default(),
        held,
        audit: None,
        nodes: Vec::new(),
    })
    .encode()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_lost_with_the_lake_is_counted_and_does_not_hold_up_what_comes_later() {
    let (old, folder, path) = before_and_after(&["--with-lake"]).await;
    drop(old);
    let lake = folder.path().join("lake");
    let said = does(&["backup", "verify", text(&path), "--lake", text(&lake)]);
    assert!(said.contains("is whole"), "{said}");
    let (hub, said) = restored(&path, &["--lake", text(&lake)]).await;
    assert_eq!((&said["lost_lake_files"], &said["newer_lake_files"]), (&json!(0), &json!(0)), "{said:#}");
    assert_eq!(rows(&hub, "events").await, 20);
    let mut device = Device::connected(&hub, "edge-1").await;
    // The device got receipts for 11 to 20 and holds them no more.
    device.publish("report", holds_from(21, 5)).await;
    for sequence in 21..=30 {
        device.publish("batch", batch(sequence, &[sequence as i64 * 2, sequence as i64 * 2 + 1])).await;
    }
    let ack = device
        .until(|packet| {
            let Packet::Publish(publish) = packet else { return None };
            let Ok(tributary_wire::Ack::V1(ack)) = tributary_wire::Ack::decode(&publish.payload) else { return None };
            ack.streams.into_iter().find(|ack| ack.through.0 >= 30)
        })
        .await;
    assert!(ack.scattered.is_empty());
    assert_eq!(rows(&hub, "events").await, 40);
    let status = hub.until("/restore", |status| status["lost"] != json!([])).await;
    assert_eq!(status["lost"], json!([{"device": "edge-1", "stream": "events", "batches": 10}]), "{status:#}");
    let alerts = hub.get("/alerts").await.1.to_string();
    assert!(alerts.contains("batches-lost"), "{alerts}");
    assert_eq!(hub.hub.ingest.status().conflicts, 0);
    hub.stop().await;
}

/// A device that was never assigned anything by a hub that reads the newest reports, and so never says what it holds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loss_that_a_device_cannot_tell_of_does_not_keep_it_from_hearing_of_what_comes_later() {
    let (old, folder, path) = before_and_after(&["--with-lake"]).await;
    drop(old);
    let (hub, _) = restored(&path, &["--lake", text(&folder.path().join("lake"))]).await;
    let mut device = Device::connected(&hub, "edge-1").await;
    device.publish("report", report(5)).await;
    for sequence in 21..=340 {
        device.publish("batch", batch(sequence, &[sequence as i64 * 2, sequence as i64 * 2 + 1])).await;
        if sequence % 20 == 0 {
            named(&mut device, sequence).await;
        }
    }
    assert_eq!(rows(&hub, "events").await, 20 + 640);
    // A receipt was lost: what comes again in the midst of all that is named again.
    device.publish("batch", batch(300, &[600, 601])).await;
    named(&mut device, 300).await;
    hub.stop().await;
}

/// Waits for a receipt that names a number beyond the hole.
async fn named(device: &mut Device, sequence: u64) {
    let names = |packet: &Packet| {
        let Packet::Publish(publish) = packet else { return None };
        let Ok(tributary_wire::Ack::V1(ack)) = tributary_wire::Ack::decode(&publish.payload) else { return None };
        ack.streams.into_iter().find(|ack| ack.through.0 == 10 && ack.scattered.contains(&SequenceNumber(sequence)))
    };
    device.until(names).await;
}

/// An agent of today says what it holds as soon as it was told that the hub reads it, which it is told before anything
/// is rolled out to it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_nothing_is_rolled_out_to_is_told_all_the_same_what_a_restored_hub_reads() {
    let (old, folder, path) = before_and_after(&["--with-lake"]).await;
    drop(old);
    let (hub, _) = restored(&path, &["--lake", text(&folder.path().join("lake"))]).await;
    let mut device = Device::connected(&hub, "edge-1").await;
    hub.until("/restore", |status| status["state"] == "done").await;
    let Ok(Report::V1(mut base)) = Report::decode(&report(5)) else { panic!("another version") };
    base.reads = 3;
    device.publish("report", Report::V1(base).encode()).await;
    let assigned = device.until(|packet| {
        let Packet::Publish(publish) = packet else { return None };
        publish.topic.ends_with(b"down/assignment").then(|| publish.payload.clone())
    });
    let signed = SignedAssignment::decode(&assigned.await).unwrap();
    let assignment = Assignment::decode(&signed.payload).unwrap();
    assert!(matches!(assignment, Assignment::V3(_)) && assignment.desired().lines.is_empty(), "{assignment:?}");
    let log = hub.get("/audit?action=assignment").await.1.to_string();
    assert!(log.contains("it is to know what this hub reads"), "{log}");
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hub_goes_on_without_a_lost_lake_when_told_so() {
    let (old, _folder, path) = before_and_after(&[]).await;
    drop(old);
    let (hub, said) = restored(&path, &["--without-lake-files"]).await;
    assert_eq!(said["lost_rows"], 20, "{said:#}");
    assert_eq!(rows(&hub, "events").await, 0);
    let alerts = hub.get("/alerts").await.1.to_string();
    assert!(!alerts.contains("lake-files-missing") && alerts.contains("hub-restored"), "{alerts}");
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_end_unless_they_are_kept_and_revocations_are_made_again() {
    let hub = TestHub::start().await;
    let enrolled = hub.enrol("edge-7").await;
    let other = hub.made(json!({"name": "ana", "role": "admin"})).await;
    let (_folder, path) = backup(&hub, &[]);
    let first = hub.token();
    hub.ok(Method::POST, "/devices/edge-7/revoke", json!({"reason": "stolen"})).await;
    let export = hub.folder.path().join("audit.jsonl");
    std::fs::write(&export, hub.send(Method::GET, "/audit/export", "", "").await.body).unwrap();
    let _old = hub.stop().await;

    let (hub, said) = restored(&path, &["--revocations", text(&export)]).await;
    assert_eq!((&said["revoked"], &said["tokens_ended"]), (&json!(1), &json!(3)), "{said:#}");
    for token in [&first, &other] {
        let refused = hub.with_token(token).send(Method::GET, "/api/v1/devices", "", "".into()).await.unwrap();
        assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    }
    assert_ne!(hub.token(), first, "the first start has made a new one");
    let refused = hub.hub.identity.device(&enrolled.certificate, hub.hub.now()).unwrap_err().to_string();
    assert!(refused.contains("is revoked"), "{refused}");
    hub.stop().await;

    let (hub, said) = restored(&path, &["--keep-tokens"]).await;
    assert_eq!((&said["revoked"], &said["tokens_ended"]), (&json!(0), &json!(0)), "{said:#}");
    assert_eq!(hub.token(), first);
    assert!(hub.hub.identity.device(&enrolled.certificate, hub.hub.now()).is_ok());
    hub.stop().await;

    let wrong = std::fs::read_to_string(&export).unwrap().replace("stolen", "broken");
    std::fs::write(&export, wrong).unwrap();
    let data = tempfile::tempdir().unwrap();
    let (code, said) = tries(&["restore", text(&path), "--data", text(data.path()), "--revocations", text(&export)]);
    assert!(code == 1 && said.contains("the export is not whole"), "{said}");
}
