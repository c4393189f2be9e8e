//! What the hub signs and serves is what the device's own client believes: the same chain that runs in the agent walks
//! the hub's repository, over HTTPS with a device's certificate, through everything that people and the hub do to it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cloud_hub::publish::{Applying, Purpose, apply, draft_line, roles, store};
use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use tributary_process::config::HumanDuration;
use tributary_process::http::Client;
use tributary_release::chain::{Chain, ChainError, ChainLimits, Fetched, MetadataFiles, Source, SourceError};
use tributary_release::{
    ASSIGNMENT_KEYS, CUSTOM, PackageCustom, SigningKey, VerifyingKeys, digest, hashed_path, package_path,
};
use tributary_wire::{LineName, Micros, VersionNumber};

use crate::offline::{self, Offline, in_a_year};
use crate::support::{DEADLINE, Enrolled, TestHub, package};

/// A hub as a device reaches it; a test puts another one in its place.
#[derive(Clone)]
struct Served(Arc<Mutex<Client>>);

impl Served {
    async fn get(&self, path: &str) -> Result<Option<Vec<u8>>, SourceError> {
        let client = self.0.lock().unwrap().clone();
        let answer = client.send(Method::GET, &format!("/api/v1/repository/{path}"), "", Bytes::new()).await?;
        match answer.status {
            StatusCode::OK => Ok(Some(answer.body.to_vec())),
            StatusCode::NOT_FOUND => Ok(None),
            status => Err(format!("{path}: {status}").into()),
        }
    }
}

impl Source for Served {
    fn metadata<'a>(&'a self, name: &'a str, _: u64) -> Fetched<'a> {
        Box::pin(async move { self.get(&format!("metadata/{name}")).await })
    }

    fn target<'a>(&'a self, path: &'a str, _: u64) -> Fetched<'a> {
        Box::pin(async move { self.get(&format!("targets/{path}")).await })
    }
}

#[derive(Default)]
struct Memory(Mutex<BTreeMap<String, Vec<u8>>>);

impl MetadataFiles for Memory {
    fn load(&self, name: &str) -> std::io::Result<Option<Vec<u8>>> {
        Ok(self.0.lock().unwrap().get(name).cloned())
    }

    fn store(&self, files: &[(String, Vec<u8>)]) -> std::io::Result<()> {
        self.0.lock().unwrap().extend(files.iter().cloned());
        Ok(())
    }
}

fn line() -> LineName {
    LineName::new("card-fraud").unwrap()
}

async fn chain(hub: &TestHub, device: &Enrolled) -> (Chain, Served) {
    let root = store::version(hub.hub.catalog.reader(), "root", 1).await.unwrap().unwrap().bytes;
    let source = Served(Arc::new(Mutex::new(hub.https(Some(device)))));
    let files = Arc::new(Memory::default());
    (Chain::open(&root, Arc::new(source.clone()), files, ChainLimits::default()).unwrap(), source)
}

async fn publish(hub: &TestHub, version: u32) -> Vec<u8> {
    let bytes = package("card-fraud", version);
    hub.send(Method::POST, "/lines/card-fraud/versions", "application/octet-stream", bytes.clone()).await;
    hub.ok(Method::POST, &format!("/lines/card-fraud/versions/{version}/publish"), Value::Null).await;
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn the_devices_client_follows_everything_that_the_hub_and_people_sign() {
    let hub = TestHub::without_repository().await;
    let mut offline = offline::unattended(&hub.hub, "card-fraud").await;
    hub.line(json!({})).await;
    let (mut chain, _) = chain(&hub, &hub.enrol("edge-1").await).await;
    let now = || hub.hub.now();
    chain.refresh(now()).await.unwrap();
    let path = |version| package_path(&line(), VersionNumber(version));
    let unknown = chain.target(&path(1), now()).await.unwrap_err();
    assert!(matches!(unknown, ChainError::NotListed { .. }), "{unknown:?}");

    let bytes = publish(&hub, 1).await;
    chain.refresh(now()).await.unwrap();
    let target = chain.target(&path(1), now()).await.unwrap();
    assert_eq!((target.length, target.sha256), (bytes.len() as u64, digest(&bytes)));
    let custom: PackageCustom = serde_json::from_value(target.custom.unwrap()[CUSTOM].clone()).unwrap();
    assert_eq!((custom.line, custom.version), (line(), VersionNumber(1)));
    let file = format!("/repository/targets/{}", hashed_path(&path(1), &target.sha256));
    assert_eq!(hub.send(Method::GET, &file, "", "").await.body, bytes);

    // Every key of the hub is replaced, and a root key too.
    let keys = &hub.hub.keys;
    let public = |key: &SigningKey| roles::PublicKey::new(key.verifying_key(), "");
    offline.root.version = 2;
    offline.root.snapshot.keys = vec![public(&keys.make(&Purpose::Snapshot).unwrap())];
    offline.root.timestamp.keys = vec![public(&keys.make(&Purpose::Timestamp).unwrap())];
    offline.root.root.keys[2] = public(&SigningKey::generate([77; 32]));
    offline.delegate("card-fraud", &[keys.make(&Purpose::Line(line())).unwrap()]);
    let assignment = keys.make(&Purpose::Assignment).unwrap();
    offline.targets.targets = vec![roles::Target::assignment_keys(&[public(&assignment)]).0];
    offline.targets.version = 2;
    apply(&hub.hub, &[offline.signed_root(), offline.signed_targets()], Applying::default()).await.unwrap();
    let trusted = chain.refresh(now()).await.unwrap();
    assert_eq!((trusted.root, trusted.targets), (2, 2));
    chain.target(&path(1), now()).await.unwrap();
    let announced = chain.small_target(ASSIGNMENT_KEYS, None, now()).await.unwrap();
    let announced = VerifyingKeys::from_json(std::str::from_utf8(&announced).unwrap(), "keys".as_ref()).unwrap();
    assert_eq!(announced.ids(), [keys.assignment().id()]);

    publish(&hub, 2).await;
    chain.refresh(now()).await.unwrap();
    chain.target(&path(2), now()).await.unwrap();
    // What stands still is refused when its timestamp has expired, and only then.
    let later = Micros(now().0 + 25 * 3_600 * Micros::SECOND);
    assert!(matches!(chain.refresh(later).await, Err(ChainError::Expired { .. })));
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_becomes_attended_is_believed_only_with_its_persons_signature() {
    let hub = TestHub::without_repository().await;
    let mut offline: Offline = offline::unattended(&hub.hub, "card-fraud").await;
    hub.line(json!({})).await;
    let (mut chain, _) = chain(&hub, &hub.enrol("edge-1").await).await;
    let now = || hub.hub.now();
    let path = |version| package_path(&line(), VersionNumber(version));
    publish(&hub, 1).await;
    chain.refresh(now()).await.unwrap();
    chain.target(&path(1), now()).await.unwrap();

    let key = SigningKey::generate([60; 32]);
    offline.delegate("card-fraud", std::slice::from_ref(&key));
    offline.apply_targets(&hub.hub, Applying::default()).await.unwrap();
    chain.refresh(now()).await.unwrap();
    chain.target(&path(1), now()).await.expect_err("what the hub signed counts no longer");
    publish(&hub, 2).await;
    let mut catalog = hub.hub.catalog.reader().acquire().await.unwrap();
    let draft = draft_line(&mut catalog, &line(), in_a_year()).await.unwrap();
    drop(catalog);
    apply(&hub.hub, &[roles::sign(&draft, &[key]).unwrap()], Applying::default()).await.unwrap();
    chain.refresh(now()).await.unwrap();
    for version in [1, 2] {
        chain.target(&path(version), now()).await.unwrap();
    }
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_follows_a_hub_that_was_restored_from_a_backup() {
    let hub = TestHub::without_repository().await;
    offline::unattended(&hub.hub, "card-fraud").await;
    hub.line(json!({})).await;
    publish(&hub, 1).await;
    let device = hub.enrol("edge-1").await;
    let folder = hub.stop().await;
    let backup = tempfile::tempdir().unwrap();
    let copied = std::process::Command::new("cp").arg("-a").arg(folder.path().join("hub")).arg(backup.path()).status();
    assert!(copied.unwrap().success());

    let hub = TestHub::start_bare(folder, |_| {}).await;
    let (mut chain, source) = chain(&hub, &device).await;
    for version in 2..=4 {
        publish(&hub, version).await;
    }
    let trusted = chain.refresh(hub.hub.now()).await.unwrap();
    chain.target(&package_path(&line(), VersionNumber(4)), hub.hub.now()).await.unwrap();
    hub.stop().await;

    let soon = |config: &mut cloud_hub::Config| {
        config.publish.interval = HumanDuration(Duration::from_millis(50));
    };
    let hub = TestHub::start_bare(backup, soon).await;
    *source.0.lock().unwrap() = hub.https(Some(&device));
    chain.refresh(hub.hub.now()).await.expect_err("the backup is older than what the device trusts");
    let mut catalog = hub.hub.catalog.write().await.unwrap();
    let query = "insert into devices (id, first_seen, last_seen, report) values ('edge-1', 0, 0, $1)
                 on conflict (id) do update set report = excluded.report";
    sqlx::query(query).bind(offline::report(trusted)).execute(&mut *catalog).await.unwrap();
    catalog.commit().await.unwrap();
    let start = Instant::now();
    while let Err(error) = chain.refresh(hub.hub.now()).await {
        assert!(start.elapsed() < DEADLINE, "{error:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let after = chain.versions();
    assert!(after.snapshot > trusted.snapshot && after.timestamp > trusted.timestamp, "{trusted:?} {after:?}");
    chain.target(&package_path(&line(), VersionNumber(1)), hub.hub.now()).await.unwrap();
    hub.stop().await;
}
