//! Each role's end, alone: whichever file is too old, nothing new is believed until it is signed anew.

use super::*;

const PAST: Micros = Micros(NOW.0 - 1_000_000);

#[tokio::test]
async fn each_role_that_expires_alone_stops_what_is_new_and_is_mended_by_signing_it_anew() {
    for role in ["root", "targets", "snapshot", "timestamp", LINE] {
        let (mut forge, repository, mut device) = world().await;
        forge.root_version = 2;
        forge.next();
        forge.expired.insert(role.to_owned(), PAST);
        forge.publish(&repository);
        let error = device.fetch(PACKAGE).await.unwrap_err();
        let told = matches!(&error, ChainError::Expired { role: found, expires } if found == role && *expires == PAST);
        assert!(told, "{role}: {error}");
        assert!(device.chain.target(PACKAGE, NOW).await.is_err(), "{role}");
        forge.root_version = 3;
        forge.next();
        forge.expired.clear();
        forge.publish(&repository);
        assert_eq!(device.fetch(PACKAGE).await.unwrap().length, 11, "{role}");
    }
}

/// What is stored of the line's role counts as little as what comes: a trial that waits does not begin.
#[tokio::test]
async fn a_stored_role_of_a_line_that_expires_alone_vouches_for_nothing() {
    let (mut forge, repository, mut device) = world().await;
    forge.next();
    forge.expired.insert(LINE.to_owned(), Micros(NOW.0 + 1_000_000));
    forge.publish_below(&repository);
    device.fetch(PACKAGE).await.unwrap();
    repository.asked();
    device.chain.stored_target(PACKAGE, NOW).await.unwrap();
    let error = device.chain.stored_target(PACKAGE, Micros(NOW.0 + 2_000_000)).await.unwrap_err();
    assert!(matches!(error, ChainError::Expired { ref role, .. } if role == LINE), "{error}");
    assert_eq!(repository.asked(), Vec::<String>::new());
}

/// A device that slept for years begins from a root that expired long ago, and is led to the present one.
#[tokio::test]
async fn an_expired_root_leads_to_its_successors() {
    let (mut forge, repository, _) = world().await;
    forge.expired.insert("root".into(), PAST);
    let root = forge.root_file(&forge.root.keys);
    forge.expired.clear();
    forge.root_version = 2;
    forge.publish(&repository);
    let mut device = Device::new(root, &repository);
    assert_eq!(device.chain.refresh(NOW).await.unwrap().root, 2);
    device.fetch(PACKAGE).await.unwrap();
}
