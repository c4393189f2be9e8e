//! Version numbers that a thief raised to the end, so that nothing rightful is ever newer: new keys begin them anew
//! (specification 1.0.34, section 5.3.11).

use super::*;

const END: u64 = u64::MAX - 1;

/// The offline keys replace these; what the thief had raised is as it was.
fn mended(rightful: &Forge, replace: impl FnOnce(&mut Forge)) -> Forge {
    let mut mended = Forge { root_version: 2, ..rightful.clone() };
    mended.next();
    replace(&mut mended);
    mended
}

fn replace_online_keys(forge: &mut Forge) {
    (forge.snapshot, forge.timestamp) = (Signers::one(31), Signers::one(32));
}

#[tokio::test]
async fn timestamp() {
    let (mut forge, repository, mut device) = world().await;
    let rightful = forge.clone();
    forge.timestamp_version = END;
    forge.publish_below(&repository);
    device.chain.refresh(NOW).await.unwrap();
    mended(&rightful, |_| ()).publish_below(&repository);
    let error = device.chain.refresh(NOW).await.unwrap_err();
    assert!(matches!(error, ChainError::Rollback { ref role, .. } if role == "timestamp"), "{error}");
    mended(&rightful, replace_online_keys).publish(&repository);
    let found = device.restart(&repository).chain.refresh(NOW).await.unwrap();
    assert_eq!((found.root, found.timestamp), (2, 2));
}

#[tokio::test]
async fn snapshot() {
    let (mut forge, repository, mut device) = world().await;
    let rightful = forge.clone();
    forge.snapshot_version = END;
    forge.timestamp_version = 2;
    forge.publish_below(&repository);
    assert_eq!(device.chain.refresh(NOW).await.unwrap().snapshot, END);
    let later = Forge { timestamp_version: 3, ..mended(&rightful, |_| ()) };
    later.publish_below(&repository);
    let error = device.chain.refresh(NOW).await.unwrap_err();
    assert!(matches!(error, ChainError::Rollback { ref role, .. } if role.contains("snapshot")), "{error}");
    mended(&rightful, replace_online_keys).publish(&repository);
    let mut device = device.restart(&repository);
    let found = device.chain.refresh(NOW).await.unwrap();
    assert_eq!((found.root, found.snapshot, found.timestamp), (2, 2, 2));
    device.fetch(PACKAGE).await.unwrap();
}

/// It takes the targets key and the online keys. A new targets key alone does not mend it: the snapshot that devices
/// believe says how far the targets had come.
#[tokio::test]
async fn targets() {
    let (mut forge, repository, mut device) = world().await;
    let rightful = forge.clone();
    forge.next();
    forge.targets_version = END;
    forge.publish_below(&repository);
    assert_eq!(device.chain.refresh(NOW).await.unwrap().targets, END);
    let mut half = mended(&rightful, |forge| forge.targets = Signers::one(30));
    half.next();
    half.publish(&repository);
    let mut device = device.restart(&repository);
    let error = device.chain.refresh(NOW).await.unwrap_err();
    assert!(matches!(error, ChainError::Rollback { ref role, .. } if role.contains("targets")), "{error}");
    replace_online_keys(&mut half);
    half.root_version = 3;
    half.publish(&repository);
    let mut device = device.restart(&repository);
    let found = device.chain.refresh(NOW).await.unwrap();
    assert_eq!((found.root, found.targets), (3, 3));
    device.fetch(PACKAGE).await.unwrap();
}
