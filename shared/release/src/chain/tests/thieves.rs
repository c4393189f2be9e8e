//! What a thief of each key can and cannot do, and how he is shut out.

use super::*;

#[tokio::test]
async fn a_thief_of_the_timestamp_key_can_only_freeze() {
    let (mut forge, repository, mut device) = world().await;
    forge.timestamp_version = 2;
    // A snapshot of his own needs the snapshot's key.
    forge.snapshot_version = 2;
    let files = BTreeMap::from([("targets.json".to_owned(), (1, repository.get("1.targets.json").unwrap()))]);
    let snapshot = forge.snapshot_file(&files, &forge.timestamp.keys);
    repository.put("2.snapshot.json", snapshot.clone());
    repository.put("timestamp.json", forge.timestamp_file(&snapshot, &forge.timestamp.keys));
    let error = device.chain.refresh(NOW).await.unwrap_err();
    assert!(matches!(error, ChainError::Signatures { ref role, .. } if role == "snapshot"), "{error}");
}

#[tokio::test]
async fn a_thief_of_the_snapshot_key_alone_can_do_nothing() {
    let (mut forge, repository, mut device) = world().await;
    forge.next();
    forge.publish_below(&repository);
    device.chain.refresh(NOW).await.unwrap();
    // Older targets in a snapshot of his: the timestamp, which he cannot sign, names the rightful one.
    let files = BTreeMap::from([("targets.json".to_owned(), (1, repository.get("1.targets.json").unwrap()))]);
    let snapshot = forge.snapshot_file(&files, &forge.snapshot.keys);
    repository.put("2.snapshot.json", snapshot.clone());
    assert_eq!(device.chain.refresh(NOW).await.unwrap().targets, 2, "what is stored is what the timestamp names");
    let mut fresh = Device::new(device.root.clone(), &repository);
    let error = fresh.chain.refresh(NOW).await.unwrap_err();
    assert!(matches!(error, ChainError::Mismatch { .. }), "{error}");
    forge.timestamp_version = 3;
    repository.put("timestamp.json", forge.timestamp_file(&snapshot, &forge.snapshot.keys));
    for device in [&mut device, &mut fresh] {
        let error = device.chain.refresh(NOW).await.unwrap_err();
        assert!(matches!(error, ChainError::Signatures { ref role, .. } if role == "timestamp"), "{error}");
    }
}

#[tokio::test]
async fn a_thief_of_both_online_keys_cannot_list_a_package() {
    let (mut forge, repository, mut device) = world().await;
    forge.next();
    forge.delegated.get_mut(LINE).unwrap().files.insert(PACKAGE.into(), (b"evil".to_vec(), None));
    // He signs the line's file with what he has; snapshot and timestamp over it are good.
    forge.impostors.insert(LINE.into(), forge.snapshot.keys.clone());
    forge.publish_below(&repository);
    let error = device.fetch(PACKAGE).await.unwrap_err();
    assert!(matches!(error, ChainError::Signatures { ref role, .. } if role == LINE), "{error}");
    // The top-level targets he cannot change either: his name there needs the offline key.
    forge.next();
    forge.targets.keys = thief();
    forge.publish_below(&repository);
    let error = device.fetch(PACKAGE).await.unwrap_err();
    assert!(matches!(error, ChainError::Signatures { ref role, .. } if role == "targets"), "{error}");
}

#[tokio::test]
async fn a_thief_of_a_line_key_ships_that_line_and_no_other() {
    let (mut forge, repository, mut device) = world().await;
    let mut other = forge.delegated[LINE].clone();
    other.signers = Signers::one(21);
    other.paths = vec!["models/forecast/*".into()];
    other.files.clear();
    forge.delegated.insert("models/forecast".into(), other);
    forge.next();
    let stolen = forge.delegated.get_mut(LINE).unwrap();
    stolen.files.insert("models/card-fraud/v2.tpk".into(), (b"evil".to_vec(), None));
    stolen.files.insert("models/forecast/v1.tpk".into(), (b"evil".to_vec(), None));
    stolen.files.insert("agent/agent".into(), (b"evil".to_vec(), None));
    forge.publish_below(&repository);
    assert!(device.fetch("models/card-fraud/v2.tpk").await.is_ok(), "his line is his");
    for path in ["models/forecast/v1.tpk", "agent/agent"] {
        assert!(matches!(device.fetch(path).await, Err(ChainError::NotListed { .. })), "{path}");
    }
}

#[tokio::test]
async fn a_thief_of_a_line_key_cannot_keep_the_line_by_a_fast_forward() {
    let (mut forge, repository, mut device) = world().await;
    forge.next();
    forge.delegated.get_mut(LINE).unwrap().version = u64::MAX - 1;
    forge.publish_below(&repository);
    device.fetch(PACKAGE).await.unwrap();
    // The targets key names another key for the line; the snapshot gets one too, so that versions start anew.
    let line = forge.delegated.get_mut(LINE).unwrap();
    (line.signers, line.version) = (Signers::one(22), 2);
    forge.next();
    forge.publish_below(&repository);
    let error = device.fetch(PACKAGE).await.unwrap_err();
    assert!(matches!(error, ChainError::Rollback { ref role, .. } if role.contains(LINE)), "{error}");
    (forge.root_version, forge.snapshot, forge.timestamp) = (2, Signers::one(31), Signers::one(32));
    forge.next();
    forge.publish(&repository);
    let mut device = device.restart(&repository);
    assert_eq!(device.fetch(PACKAGE).await.unwrap().length, 11);
}

#[tokio::test]
async fn a_stolen_targets_key_is_revoked_by_a_new_root() {
    let (mut forge, repository, mut device) = world().await;
    let stolen = forge.targets.clone();
    forge.targets = Signers::one(40);
    forge.root_version = 2;
    forge.next();
    forge.publish(&repository);
    device.chain.refresh(NOW).await.unwrap();
    forge.next();
    forge.targets = stolen;
    forge.publish_below(&repository);
    let error = device.chain.refresh(NOW).await.unwrap_err();
    assert!(matches!(error, ChainError::Signatures { ref role, .. } if role == "targets"), "{error}");
}

#[tokio::test]
async fn one_root_key_is_not_enough() {
    let (mut forge, repository, mut device) = world().await;
    let rightful = forge.root.keys.clone();
    forge.root_version = 2;
    forge.targets = Signers { keys: thief(), threshold: 1 };
    for keys in [vec![rightful[0].clone()], vec![rightful[0].clone(), rightful[0].clone()], thief()] {
        repository.put("2.root.json", forge.root_file(&keys));
        let error = device.chain.refresh(NOW).await.unwrap_err();
        assert!(matches!(error, ChainError::Signatures { .. } | ChainError::Malformed { .. }), "{error}");
        assert_eq!(device.chain.versions().root, 1);
    }
    // New custodians of their own making do not help: the old ones have to agree.
    forge.root = Signers { keys: (60..63).map(|seed| SigningKey::generate([seed; 32])).collect(), threshold: 2 };
    repository.put("2.root.json", forge.root_file(&forge.root.keys));
    assert!(matches!(device.chain.refresh(NOW).await, Err(ChainError::Signatures { .. })));
    let both = [&rightful[..2], &forge.root.keys[..2]].concat();
    repository.put("2.root.json", forge.root_file(&both));
    forge.next();
    forge.publish_below(&repository);
    assert_eq!(device.chain.refresh(NOW).await.unwrap().root, 2, "rotation by the old and the new quorum");
}

/// Whoever has two of the three is the root: devices follow him, and no file of the rightful holders brings them back.
/// Only a root that is given to a device by hand does, and then nothing that it stored of his stands in the way.
#[tokio::test]
async fn two_root_keys_are_the_root_and_only_a_new_one_given_by_hand_ends_it() {
    let (forge, repository, mut device) = world().await;
    let rightful = forge.root.keys.clone();
    let his = Signers { keys: thief(), threshold: 1 };
    let (root, targets) = (his.clone(), his.clone());
    let mut stolen = Forge { root_version: 2, root, targets, snapshot: his.clone(), timestamp: his, ..forge.clone() };
    stolen.next();
    stolen.delegated.get_mut(LINE).unwrap().signers = Signers { keys: thief(), threshold: 1 };
    stolen.delegated.get_mut(LINE).unwrap().files.insert(PACKAGE.into(), (b"evil".to_vec(), None));
    let both = [&rightful[..2], &thief()[..]].concat();
    repository.put("2.root.json", stolen.root_file(&both));
    stolen.publish_below(&repository);
    assert_eq!(device.fetch(PACKAGE).await.unwrap().length, 4, "the package is his");
    // The rightful holders take another way at the same number, or at the next: the device has left them.
    for version in [2, 3] {
        let back = Forge { root_version: version, ..forge.clone() };
        let ours = Arc::new(MemoryRepository::default());
        back.publish(&ours);
        let mut device = Device {
            root: device.root.clone(),
            store: device.store.clone(),
            chain: Chain::open(&device.root, ours.clone(), device.store.clone(), ChainLimits::default()).unwrap(),
        };
        let error = device.chain.refresh(NOW).await.unwrap_err();
        assert!(matches!(error, ChainError::Signatures { .. }), "{version}: {error}");
    }
    // A root of new keys, brought by an enrolment, over what was stored.
    let mut anew = Forge { root_version: 1, ..forge.clone() };
    anew.root = Signers { keys: (60..63).map(|seed| SigningKey::generate([seed; 32])).collect(), threshold: 2 };
    (anew.targets, anew.snapshot, anew.timestamp) = (Signers::one(40), Signers::one(41), Signers::one(42));
    let ours = Arc::new(MemoryRepository::default());
    anew.publish(&ours);
    let root = anew.root_file(&anew.root.keys);
    let chain = Chain::open(&root, ours.clone(), device.store.clone(), ChainLimits::default()).unwrap();
    let mut device = Device { root, store: device.store.clone(), chain };
    assert_eq!(device.fetch(PACKAGE).await.unwrap().length, 11);
    assert_eq!(device.chain.versions().root, 1);
}
