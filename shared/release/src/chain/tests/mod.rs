//! The attacks that the specification names (section 1.5.2), each tried against a device. Slow retrieval, and endless data
//! in a package, are the download's matter and are tried there.

mod expiry;
mod fast_forward;
mod fuzz;
mod thieves;

use std::sync::Mutex;

use super::forge::{Forge, MemoryRepository, Signers};
use super::*;
use crate::SigningKey;

const NOW: Micros = Micros(1_800_000_000_000_000);
const LINE: &str = "models/card-fraud";
const PACKAGE: &str = "models/card-fraud/v1.tpk";

/// A device: the root it was given, and what it stores.
struct Device {
    root: Vec<u8>,
    store: Arc<MemoryRepository>,
    chain: Chain,
}

/// A published repository with one package, and a device that has seen it.
async fn world() -> (Forge, Arc<MemoryRepository>, Device) {
    let mut forge = Forge::with_line("card-fraud", 20);
    forge.delegated.get_mut(LINE).unwrap().files.insert(PACKAGE.into(), (b"package one".to_vec(), None));
    let repository = Arc::new(MemoryRepository::default());
    forge.publish(&repository);
    let mut device = Device::new(forge.root_file(&forge.root.keys), &repository);
    device.chain.refresh(NOW).await.unwrap();
    (forge, repository, device)
}

impl Device {
    fn new(root: Vec<u8>, repository: &Arc<MemoryRepository>) -> Self {
        let store = Arc::new(MemoryRepository::default());
        let chain = Chain::open(&root, repository.clone(), store.clone(), ChainLimits::default()).unwrap();
        Self { root, store, chain }
    }

    /// Another life of the process, with what was stored.
    fn restart(self, repository: &Arc<MemoryRepository>) -> Self {
        let chain = Chain::open(&self.root, repository.clone(), self.store.clone(), ChainLimits::default()).unwrap();
        Self { chain, ..self }
    }

    async fn fetch(&mut self, path: &str) -> Result<Target, ChainError> {
        self.chain.refresh(NOW).await?;
        self.chain.target(path, NOW).await
    }
}

fn thief() -> Vec<SigningKey> {
    vec![SigningKey::generate([99; 32])]
}

#[tokio::test]
async fn what_was_signed_by_its_roles_is_believed_and_only_news_are_fetched() {
    let (mut forge, repository, mut device) = world().await;
    let target = device.fetch(PACKAGE).await.unwrap();
    assert_eq!((target.length, target.sha256), (11, crate::digest(b"package one")));
    repository.asked();
    device.chain.refresh(NOW).await.unwrap();
    assert_eq!(repository.asked(), ["2.root.json", "timestamp.json"], "nothing is new");
    forge.next();
    forge.publish_below(&repository);
    let found = device.chain.refresh(NOW).await.unwrap();
    assert_eq!(found, MetadataVersions { root: 1, timestamp: 2, snapshot: 2, targets: 2 });
    let names = ["2.root.json", "timestamp.json", "2.snapshot.json", "2.targets.json"];
    assert_eq!(repository.asked(), names);
    assert!(matches!(device.fetch("models/card-fraud/v9.tpk").await, Err(ChainError::NotListed { .. })));
}

#[tokio::test]
async fn stored_metadata_serves_without_a_network_until_it_expires() {
    let (_, repository, mut device) = world().await;
    device.fetch(PACKAGE).await.unwrap();
    repository.asked();
    let mut device = device.restart(&repository);
    device.chain.recall(NOW).await.unwrap();
    assert_eq!(repository.asked(), Vec::<String>::new());
    let expired = Micros(4_000_000_000_000_001);
    assert!(matches!(device.chain.recall(expired).await, Err(ChainError::Expired { .. })));
    assert!(matches!(device.chain.target(PACKAGE, expired).await, Err(ChainError::NotRefreshed)));
}

#[tokio::test]
async fn arbitrary_package() {
    let (mut forge, repository, mut device) = world().await;
    // Somebody who holds no key of the line lists another package.
    forge.next();
    forge.delegated.get_mut(LINE).unwrap().files.insert(PACKAGE.into(), (b"evil".to_vec(), None));
    forge.impostors.insert(LINE.into(), thief());
    forge.publish_below(&repository);
    let error = device.fetch(PACKAGE).await.unwrap_err();
    assert!(matches!(error, ChainError::Signatures { ref role, found: 0, needed: 1 } if role == LINE), "{error}");
}

#[tokio::test]
async fn rollback_also_across_a_restart() {
    let (mut forge, repository, mut device) = world().await;
    let old = repository.get("timestamp.json").unwrap();
    forge.next();
    forge.publish_below(&repository);
    device.chain.refresh(NOW).await.unwrap();
    repository.put("timestamp.json", old);
    let mut device = device.restart(&repository);
    let error = device.chain.refresh(NOW).await.unwrap_err();
    assert!(matches!(error, ChainError::Rollback { ref role, trusted: 2, found: 1 } if role == "timestamp"), "{error}");
}

#[tokio::test]
async fn rollback_of_one_role_by_a_thief_of_the_online_keys() {
    let (mut forge, repository, mut device) = world().await;
    forge.next();
    forge.publish_below(&repository);
    device.chain.refresh(NOW).await.unwrap();
    // Snapshot and timestamp go on, but name the old targets.
    forge.targets_version = 1;
    forge.snapshot_version = 3;
    forge.timestamp_version = 3;
    forge.publish_below(&repository);
    let error = device.restart(&repository).chain.refresh(NOW).await.unwrap_err();
    assert!(matches!(error, ChainError::Rollback { ref role, .. } if role.contains("targets.json")), "{error}");
}

#[tokio::test]
async fn freeze_is_noticed_once_metadata_is_expired() {
    let (_, _, mut device) = world().await;
    // A mirror that keeps sending the same files is noticed when the short-lived ones expire.
    let later = Micros(4_000_000_000_000_001);
    let error = device.chain.refresh(later).await.unwrap_err();
    assert!(matches!(error, ChainError::Expired { .. }), "{error}");
}

#[tokio::test]
async fn mix_and_match() {
    let (mut forge, repository, mut device) = world().await;
    forge.next();
    forge.publish_below(&repository);
    // The new snapshot beside targets of the older publication.
    repository.put("2.targets.json", repository.get("1.targets.json").unwrap());
    let error = device.chain.refresh(NOW).await.unwrap_err();
    assert!(matches!(error, ChainError::Mismatch { .. }), "{error}");
}

#[tokio::test]
async fn endless_data() {
    let (_, repository, mut device) = world().await;
    repository.put("timestamp.json", vec![b' '; 20_000]);
    let error = device.chain.refresh(NOW).await.unwrap_err();
    let ChainError::Source { file, source } = error else { panic!("{error}") };
    assert_eq!((file.as_str(), source.to_string().contains("20000 bytes")), ("timestamp.json", true));
}

#[tokio::test]
async fn wrong_length_and_wrong_hash() {
    let (mut forge, repository, mut device) = world().await;
    forge.files.insert("assignments/keys.json".into(), (b"the keys".to_vec(), None));
    forge.next();
    forge.publish_below(&repository);
    device.chain.refresh(NOW).await.unwrap();
    let path = "assignments/keys.json";
    assert_eq!(device.chain.small_target(path, None, NOW).await.unwrap(), b"the keys");
    let held = device.chain.small_target(path, Some(b"the keys".to_vec()), NOW).await.unwrap();
    assert_eq!(held, b"the keys");
    let stored = format!("targets/{}", crate::hashed_path(path, &crate::digest(b"the keys")));
    for wrong in [&b"the key"[..], b"the keyz", b"the keys!"] {
        repository.put(&stored, wrong.to_vec());
        let error = device.chain.small_target(path, Some(wrong.to_vec()), NOW).await.unwrap_err();
        assert!(matches!(error, ChainError::Mismatch { .. } | ChainError::Source { .. }), "{error}");
    }
}

/// A store that fails, or forgets what came after the cut.
struct Broken {
    inner: Arc<MemoryRepository>,
    left: Mutex<usize>,
}

impl MetadataFiles for Broken {
    fn load(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        self.inner.load(name)
    }

    fn store(&self, files: &[(String, Vec<u8>)]) -> io::Result<()> {
        for file in files {
            let mut left = self.left.lock().unwrap();
            *left = left.checked_sub(1).ok_or_else(|| io::Error::other("disk full"))?;
            self.inner.store(std::slice::from_ref(file))?;
        }
        Ok(())
    }
}

#[tokio::test]
async fn a_cut_after_any_stored_file_leaves_a_store_that_goes_on_and_never_back() {
    for cut in 0..6 {
        let (mut forge, repository, device) = world().await;
        let old = repository.get("timestamp.json").unwrap();
        forge.next();
        forge.root_version = 2;
        forge.publish(&repository);
        let broken = Arc::new(Broken { inner: device.store.clone(), left: Mutex::new(cut) });
        let mut chain = Chain::open(&device.root, repository.clone(), broken, ChainLimits::default()).unwrap();
        let refreshed = chain.refresh(NOW).await;
        assert!(cut >= 5 || matches!(refreshed, Err(ChainError::Store(_))), "cut {cut}: {refreshed:?}");
        assert!(refreshed.is_ok() || chain.target(PACKAGE, NOW).await.is_err(), "nothing is believed that is not kept");
        let mut device = device.restart(&repository);
        assert_eq!(device.chain.refresh(NOW).await.unwrap().timestamp, 2, "cut {cut}");
        device.fetch(PACKAGE).await.unwrap();
        repository.put("timestamp.json", old);
        let error = device.restart(&repository).chain.refresh(NOW).await.unwrap_err();
        assert!(matches!(error, ChainError::Rollback { .. }), "cut {cut}: {error}");
    }
}
