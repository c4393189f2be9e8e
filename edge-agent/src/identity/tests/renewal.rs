//! Certificates after the first.

use std::time::Duration;

use tributary_process::shutdown::Shutdown;

use super::*;

#[tokio::test]
async fn a_renewal_keeps_the_key_and_a_rotation_changes_it() {
    let (hub, state) = (Hub::start().await, tempfile::tempdir().unwrap());
    let first = enrolled(&hub, state.path()).await.serial;
    let identity = open(state.path());
    let changed = identity.changed();
    let second = identity.renew(false).await.unwrap();
    assert_ne!(first, second);
    assert_eq!((identity.current().serial(), changed.has_changed().unwrap()), (&second, true));
    let third = identity.renew(true).await.unwrap();
    // The new one is shown at once, and lies on disk.
    identity.web().get::<Option<String>>("/api/v1/who").await.unwrap();
    assert_eq!(*open(state.path()).current().serial(), third);
    let fourth = identity.renew(false).await.unwrap();
    let keys: Vec<_> = hub.shelf().requests.iter().map(|request| public_key(request)).collect();
    assert_eq!(keys[0], keys[1]);
    assert_ne!(keys[1], keys[2]);
    assert_eq!(keys[2], keys[3]);
    let shown: Vec<_> =
        [None, Some(&first), Some(&second), Some(&third)].map(|serial| serial.map(|s| s.to_string())).into();
    assert_eq!(hub.shelf().shown, shown, "each one is asked for with the one before");
    assert_ne!(third, fourth);
}

#[tokio::test]
async fn an_expired_certificate_is_good_for_one_more() {
    let (hub, state) = (Hub::start().await, tempfile::tempdir().unwrap());
    enrolled(&hub, state.path()).await;
    let identity = open(state.path());
    // The identity grows old: issued a hundred days ago for ninety.
    hub.shelf().age = 89 * DAY;
    hub.shelf().spoil = None;
    identity.renew(false).await.unwrap();
    let old = identity.current();
    hub.shelf().age = Duration::ZERO;
    let time = Time::of(DeviceClock::new(Micros(now().0 + 5 * 86_400_000_000)));
    let folder = Folder::of(state.path());
    let expired = Identity::open(folder, &Default::default(), time.clone()).unwrap().unwrap();
    assert!(expired.current().certificate.not_after() < time.now());
    expired.renew(false).await.unwrap();
    assert!(expired.current().certificate.not_after() > time.now());
    assert_ne!(expired.current().serial(), old.serial());
}

#[tokio::test]
async fn the_task_renews_when_it_is_time_and_tells_when_it_cannot() {
    let (hub, state) = (Hub::start().await, tempfile::tempdir().unwrap());
    // Nearly over from the start: renewal is due at once, and less than half of the time for it is left.
    hub.shelf().age = 85 * DAY;
    hub.shelf().refuse = None;
    let first = enrolled(&hub, state.path()).await.serial;
    hub.shelf().refuse = Some((403, "the certificate is revoked"));
    let identity = open(state.path());
    let (renewal, requests) = Renewal::channel();
    let shutdown = Shutdown::new();
    let task = tokio::spawn(renew(identity.clone(), requests, shutdown.clone()));
    until(|| identity.view().problem.is_some()).await;
    let view = identity.view();
    assert!(view.problem.as_ref().unwrap().contains("revoked"), "{view:?}");
    assert!(view.next_attempt.unwrap() > now(), "there is a wait before the next attempt");
    // An order is carried out all the same, and says what came of it.
    let failed = renewal.rotate().await.unwrap_err();
    assert!(crate::words::in_words(&failed).contains("revoked"), "{failed}");
    (hub.shelf().refuse, hub.shelf().age) = (None, Duration::ZERO);
    let second = renewal.rotate().await.unwrap();
    assert_ne!(first, second);
    until(|| identity.view().problem.is_none()).await;
    assert_eq!(identity.view().serial, second);
    shutdown.give();
    task.await.unwrap();
    assert!(matches!(renewal.rotate().await, Err(RenewError::Stopping)));
}

#[tokio::test]
async fn a_hub_that_was_broken_into_cannot_put_a_root_of_trust_into_devices() {
    let (hub, state) = (Hub::start().await, tempfile::tempdir().unwrap());
    enrolled(&hub, state.path()).await;
    let identity = open(state.path());
    let before = identity.current().root.clone();
    hub.shelf().root = super::root(2);
    identity.renew(false).await.unwrap();
    assert_eq!(identity.current().root, before);
    assert_eq!(open(state.path()).current().root, before);
}

#[tokio::test]
async fn a_certificate_put_in_place_by_another_process_is_not_overwritten() {
    let (hub, state) = (Hub::start().await, tempfile::tempdir().unwrap());
    enrolled(&hub, state.path()).await;
    let (one, other) = (open(state.path()), open(state.path()));
    let newest = other.renew(false).await.unwrap();
    let error = one.renew(false).await.unwrap_err();
    assert!(crate::words::in_words(&error).contains("another process"), "{error}");
    assert_eq!(*open(state.path()).current().serial(), newest);
}

#[tokio::test]
async fn ports_and_authorities_follow_the_hub() {
    let (hub, state) = (Hub::start().await, tempfile::tempdir().unwrap());
    enrolled(&hub, state.path()).await;
    let identity = open(state.path());
    hub.shelf().ports.quic = Some(4433);
    let extra = authority();
    let pem = extra.certificate().to_pem();
    hub.shelf().spoil = Some(Box::new(move |answer| answer.authorities.push_str(&pem)));
    identity.renew(false).await.unwrap();
    assert_eq!(identity.current().reach.quic.as_deref(), Some("127.0.0.1:4433"));
    // A hub that now shows a certificate of the new authority is believed.
    hub.show(&shown(&extra, &["127.0.0.1"]));
    identity.web().get::<Option<String>>("/api/v1/who").await.unwrap();
}

async fn until(condition: impl Fn() -> bool) {
    for _ in 0..2000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it never came");
}
