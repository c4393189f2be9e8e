//! Backups that are none, and what is in the way of making one.

use std::fs;
use std::time::Duration;

use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use tributary_process::config::HumanDuration;

use super::{backup, does, text, tries};
use crate::support::{DEADLINE, TestHub, package};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_that_was_cut_or_changed_is_refused_by_the_name_of_its_member() {
    let hub = TestHub::start().await;
    hub.line(json!({})).await;
    let sent =
        hub.send(Method::POST, "/lines/card-fraud/versions", "application/octet-stream", package("card-fraud", 1));
    assert!(sent.await.status.is_success());
    let (folder, path) = backup(&hub, &[]);
    let said = does(&["backup", "verify", text(&path)]);
    assert!(said.contains("is whole"), "{said}");
    let listed: Value = serde_json::from_str(&does(&["--json", "backup", "list", text(folder.path())])).unwrap();
    assert_eq!((listed.as_array().unwrap().len(), &listed[0]["problem"]), (1, &Value::Null), "{listed:#}");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "there are keys inside");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");

    let whole = fs::read(&path).unwrap();
    let other = folder.path().join("other");
    let data = folder.path().join("data");
    let refused = |bytes: &[u8], words: &str| {
        fs::write(&other, bytes).unwrap();
        for arguments in
            [&["backup", "verify", text(&other)][..], &["restore", text(&other), "--data", text(&data)][..]]
        {
            let (code, said) = tries(arguments);
            assert!(code == 1 && said.contains(words), "{words}: {said}");
        }
        assert!(!data.exists(), "checked before anything is written");
    };
    refused(&whole[..whole.len() - 4], "its end");
    refused(&whole[..whole.len() / 2], "is not a whole backup: ");
    refused(b"nothing of the kind", "is not a whole backup");
    // The same archive with one member changed, packed anew by hand.
    let plain = zstd_decode(&whole);
    let at = plain.windows(4).rposition(|four| four == b"PK-1").or(find(&plain, b"PRIVATE KEY")).unwrap();
    let mut changed = plain.clone();
    changed[at] ^= 1;
    refused(&zstd_encode(&changed), "its hash is");
    let mut newer = plain.clone();
    let at = find(&newer, b"\"version\": 1").unwrap();
    newer[at + 11] = b'9';
    refused(&zstd_encode(&newer), "made by a newer program");
    hub.stop().await;
}

fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes.windows(needle.len()).position(|window| window == needle)
}

fn zstd_decode(bytes: &[u8]) -> Vec<u8> {
    zstd::decode_all(bytes).unwrap()
}

fn zstd_encode(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_in_the_way_of_a_backup_is_named() {
    let hub = TestHub::start().await;
    let data = hub.hub.data().to_owned();
    let (code, said) = tries(&["backup", text(&data.join("here")), "--data-dir", text(&data)]);
    assert!(code == 1 && said.contains("inside the data folder"), "{said}");
    let (code, said) = tries(&["backup", text(hub.folder.path()), "--data-dir", text(hub.folder.path())]);
    assert!(code == 1 && said.contains("has no catalog.db"), "{said}");
    let (code, said) = tries(&["backup"]);
    assert!(code == 2 && said.contains("name a folder or a file"), "{said}");
    let file = hub.folder.path().join("taken");
    fs::write(&file, "x").unwrap();
    let (code, said) = tries(&["backup", text(&file), "--data-dir", text(&data)]);
    assert!(code == 1 && said.contains("is there already"), "{said}");
    let (status, refused) = hub.json(Method::POST, "/backups", json!({})).await;
    assert!(status == StatusCode::CONFLICT && refused.to_string().contains("backup.folder"), "{refused:#}");
    assert_eq!(hub.get("/restore").await.0, StatusCode::NOT_FOUND);
    // A package that is gone is no reason to have no backup, but it is told.
    hub.line(json!({})).await;
    let sent =
        hub.send(Method::POST, "/lines/card-fraud/versions", "application/octet-stream", package("card-fraud", 1));
    assert!(sent.await.status.is_success());
    let folder = hub.stop().await;
    let packages = fs::read_dir(data.join("packages")).unwrap();
    packages.for_each(|entry| fs::remove_file(entry.unwrap().path()).unwrap());
    let said = does(&["backup", text(folder.path()), "--data-dir", text(&data)]);
    assert!(said.contains("warning: the catalog names packages/"), "{said}");
    // A folder whose restoring was broken off is no hub.
    fs::write(data.join("restoring"), "").unwrap();
    let (code, said) = tries(&["serve", "--set", &format!("data_dir={}", data.display())]);
    assert!(code == 1 && said.contains("was broken off"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backups_are_made_by_themselves_counted_and_only_so_many_are_kept() {
    let backups = tempfile::tempdir().unwrap();
    let folder = backups.path().to_owned();
    let hub = TestHub::start_in(tempfile::tempdir().unwrap(), |config| {
        config.backup.folder = folder.clone();
        config.backup.keep = 2;
        config.backup.pause = HumanDuration(Duration::ZERO);
    })
    .await;
    let made = hub.until("/backups", |page| page["items"].as_array().is_some_and(|items| !items.is_empty())).await;
    assert_eq!(made["items"][0]["problem"], Value::Null, "{made:#}");
    for _ in 0..2 {
        let (status, answer) = ask(&hub).await;
        assert_eq!(status, StatusCode::CREATED, "{answer:#}");
    }
    let kept = hub.get("/backups").await.1;
    assert_eq!(kept["items"].as_array().unwrap().len(), 2, "{kept:#}");
    let metrics = String::from_utf8(hub.send(Method::GET, "/metrics", "", "").await.body.to_vec()).unwrap();
    assert!(metrics.contains("hub_backups_made_total 3") && metrics.contains("hub_backup_last_bytes"), "{metrics}");
    let log = hub.get("/audit?action=backup").await.1;
    let by_hand = &log["items"][0];
    assert!(by_hand["who"].as_str().unwrap().starts_with("token:"), "{log:#}");
    assert_eq!(log["items"][2]["who"], "hub", "{log:#}");

    // Left as it is, the pause keeps whoever asks from asking again and again.
    let folder = backups.path().to_owned();
    let hub = TestHub::start_in(hub.stop().await, |config| config.backup.folder = folder).await;
    assert_eq!(ask(&hub).await.0, StatusCode::CREATED);
    let (status, refused) = ask(&hub).await;
    let words = refused["detail"].as_str().unwrap();
    assert!(status == StatusCode::TOO_MANY_REQUESTS && words.contains("backup.pause"), "{refused:#}");
    hub.stop().await;
}

/// Asks for a backup. One has its name before the last of its work is done; until then the next is refused as well.
async fn ask(hub: &TestHub) -> (StatusCode, Value) {
    let asked = async {
        loop {
            let answer = hub.json(Method::POST, "/backups", json!({})).await;
            if answer.0 != StatusCode::CONFLICT {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, asked).await.expect("no other backup is being made")
}
