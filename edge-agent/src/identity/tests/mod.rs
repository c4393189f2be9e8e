//! Enrolment and renewal against a hub that answers over real HTTPS.

mod crash;
pub(crate) mod hub;
mod renewal;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use hub::{DAY, Hub, authority, device, now, shown};
use tributary_identity::{Authority, DeviceClock, Enrolled, Key, KeyFile, Ports};
use tributary_process::http::Endpoint;
use tributary_release::chain::forge::Forge;
use tributary_wire::{DeviceId, Micros};

use super::answer::{self, AnswerError};
use super::files::{HubFile, Stored};
use super::*;

/// An identity in this folder without a hub to ask: issued now, for a hub at these ports of 127.0.0.1.
pub(crate) fn identity(state_dir: &Path, authority: &Authority, id: &DeviceId, ports: Ports) -> Arc<Identity> {
    let key = KeyFile::generate().unwrap();
    let own = authority.issue_device(&key.request(id).unwrap(), id, now(), 90 * DAY).unwrap();
    let folder = Folder::of(state_dir);
    let stored = Stored {
        key: Arc::new(key),
        hub: HubFile { called: "127.0.0.1".into(), ports, renew_after: Micros(now().0 + 60 * 86_400_000_000) },
        chain: vec![own],
        authorities: vec![authority.certificate().clone()],
        root: Some(root(1)),
    };
    folder.keep(folder.number().unwrap(), &stored).unwrap();
    open(state_dir)
}

/// A root of trust with this version.
pub(crate) fn root(version: u64) -> String {
    let forge = Forge { root_version: version, ..Forge::default() };
    String::from_utf8(forge.root_file(&forge.root.keys)).unwrap()
}

pub(crate) fn open(state_dir: &Path) -> Arc<Identity> {
    let folder = Folder::of(state_dir);
    Identity::open(folder.clone(), &crate::config::Hub::default(), Time::open(folder)).unwrap().expect("an identity")
}

fn enrolment(hub: &Hub) -> Enrolment {
    Enrolment { hub: hub.endpoint(), token: hub.token(), device: device(), again: false }
}

async fn enrolled(hub: &Hub, state_dir: &Path) -> Done {
    let folder = Folder::of(state_dir);
    enrol(&folder, &Time::open(folder.clone()), &enrolment(hub)).await.unwrap()
}

async fn refused(hub: &Hub, state_dir: &Path, enrolment: &Enrolment) -> EnrolError {
    let folder = Folder::of(state_dir);
    let error = enrol(&folder, &Time::open(folder.clone()), enrolment).await.unwrap_err();
    let _ = hub;
    error
}

#[cfg(unix)]
fn mode(path: &Path) -> u32 {
    std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(path).unwrap().permissions()) & 0o777
}

#[tokio::test]
async fn an_enrolled_device_has_a_private_key_knows_its_hub_and_is_known_there() {
    let (hub, state) = (Hub::start().await, tempfile::tempdir().unwrap());
    let done = enrolled(&hub, state.path()).await;
    assert_eq!((&done.device, hub.shelf().requests.len()), (&device(), 1));
    assert_eq!(hub.shelf().shown, [None], "the token speaks, no certificate");
    let folder = state.path().join("identity");
    assert_eq!(mode(&folder.join("1/key.pem")), 0o600);
    assert_eq!(mode(&folder), 0o700);
    assert!(!folder.join("pending.pem").exists());

    let identity = open(state.path());
    let current = identity.current();
    assert_eq!((&current.device, current.serial()), (&done.device, &done.serial));
    assert_eq!(current.reach.https, hub.address.to_string());
    assert_eq!(current.reach.quic.as_deref(), Some("127.0.0.1:14567"));
    assert_eq!(current.root, Some(root(1)));
    assert!(identity.time().floor() >= Micros(now().0 - 60_000_000), "the hub's time is a floor");
    assert_eq!(identity.web().get::<Option<String>>("/api/v1/who").await.unwrap().as_deref(), Some("edge-1"));

    // What is set is stronger than what the hub said; the empty text turns a transport off.
    let set = crate::config::Hub { quic: Some(String::new()), tls: Some("hub:1".into()), ..Default::default() };
    let folder = Folder::of(state.path());
    let identity = Identity::open(folder.clone(), &set, Time::open(folder)).unwrap().unwrap();
    assert_eq!((&identity.current().reach.quic, identity.current().reach.tls.as_deref()), (&None, Some("hub:1")));
}

#[tokio::test]
async fn a_second_enrolment_needs_the_word_for_it_and_then_replaces_the_first() {
    let (hub, state) = (Hub::start().await, tempfile::tempdir().unwrap());
    let first = enrolled(&hub, state.path()).await;
    let error = refused(&hub, state.path(), &enrolment(&hub)).await;
    assert!(matches!(&error, EnrolError::Already { serial, .. } if *serial == first.serial), "{error}");
    assert!(error.to_string().contains("--again"));
    let folder = Folder::of(state.path());
    let again = Enrolment { again: true, device: DeviceId::new("edge-2").unwrap(), ..enrolment(&hub) };
    enrol(&folder, &Time::open(folder.clone()), &again).await.unwrap();
    assert_eq!(open(state.path()).current().device.as_str(), "edge-2");
    let requests = hub.shelf().requests.clone();
    assert_ne!(requests[0], requests[1], "another key");
    assert!(!folder.path().join("1").exists(), "nothing is left of the old one");
    // Nor is a damaged identity an obstacle to another one.
    std::fs::write(folder.path().join("2/certificate.pem"), "nonsense").unwrap();
    assert!(matches!(refused(&hub, state.path(), &enrolment(&hub)).await, EnrolError::Files(_)));
    enrol(&folder, &Time::open(folder.clone()), &again).await.unwrap();
    open(state.path());
}

#[tokio::test]
async fn another_hub_another_name_and_an_absent_hub_each_have_their_words_and_leave_nothing() {
    let (hub, other) = (Hub::start().await, Hub::start().await);
    let state = tempfile::tempdir().unwrap();
    let none = |state: &tempfile::TempDir| Folder::of(state.path()).load().unwrap().is_none();

    let wrong = Enrolment { token: other.token(), ..enrolment(&hub) };
    let error = refused(&hub, state.path(), &wrong).await;
    assert!(matches!(error, EnrolError::OtherHub { .. }), "{error}");
    assert!(hub.shelf().shown.is_empty(), "the token was not shown to it");

    let localhost = Endpoint::Tls(format!("localhost:{}", hub.address.port()));
    let error = refused(&hub, state.path(), &Enrolment { hub: localhost, ..enrolment(&hub) }).await;
    assert!(matches!(error, EnrolError::Name { .. }) && error.to_string().contains("identity.names"), "{error}");

    let plain = Endpoint::Tcp(hub.address.to_string());
    let error = refused(&hub, state.path(), &Enrolment { hub: plain, ..enrolment(&hub) }).await;
    assert!(matches!(error, EnrolError::Plain { .. }), "{error}");

    let nobody = Endpoint::Tls("127.0.0.1:1".into());
    let error = refused(&hub, state.path(), &Enrolment { hub: nobody, ..enrolment(&hub) }).await;
    assert!(matches!(error, EnrolError::Unreachable(_)), "{error}");

    hub.shelf().refuse = Some((403, "the token k1 was used 1 of 1 times"));
    let error = refused(&hub, state.path(), &enrolment(&hub)).await;
    assert!(error.to_string().contains("used 1 of 1"), "{error}");
    hub.shelf().refuse = Some((503, "not now"));
    assert!(matches!(refused(&hub, state.path(), &enrolment(&hub)).await, EnrolError::Hub(_)));
    assert!(none(&state));

    // A hub whose certificate is over, and one whose certificate is of the future, by a clock that may be right.
    let past = Micros(now().0 - 10 * 86_400_000_000);
    let (own, key) = hub.shelf().authority.issue_hub(&["127.0.0.1".into()], past, DAY).unwrap();
    let root = hub.shelf().authority.certificate().clone();
    hub.show(&tributary_identity::tls::Shown::from_pem(&[own, root], &key).unwrap());
    let error = refused(&hub, state.path(), &enrolment(&hub)).await;
    assert!(matches!(error, EnrolError::Clock { problem: "over", .. }), "{error}");
}

#[tokio::test]
async fn an_answer_that_is_not_for_this_device_and_key_is_refused_and_leaves_nothing() {
    let (hub, state) = (Hub::start().await, tempfile::tempdir().unwrap());
    let foreign = {
        let key = KeyFile::generate().unwrap();
        let issued = hub.shelf().authority.issue_device(&key.request(&device()).unwrap(), &device(), now(), DAY);
        issued.unwrap().to_pem()
    };
    let spoils: Vec<(&str, hub::Spoil)> = vec![
        ("is for device edge-9", Box::new(|answer| answer.device = DeviceId::new("edge-9").unwrap())),
        ("another key", Box::new(move |answer| answer.certificate = foreign)),
        ("PEM", Box::new(|answer| answer.certificate.clear())),
        ("X.509", Box::new(|answer| answer.certificate = answer.certificate.replace("MII", "AAA"))),
        ("PEM", Box::new(|answer| answer.authorities = "none".into())),
        ("and is none", Box::new(|answer| answer.authorities = answer.certificate.clone())),
        ("no port", Box::new(|answer| answer.ports.https = 0)),
        ("root of trust", Box::new(|answer| answer.root = Some("{}".into()))),
        ("set the clock", Box::new(|answer| answer.now = Micros(now().0 + 400 * 86_400_000_000))),
    ];
    for (expected, spoil) in spoils {
        hub.shelf().spoil = Some(spoil);
        let error = refused(&hub, state.path(), &enrolment(&hub)).await;
        let words = crate::words::in_words(&error);
        assert!(matches!(error, EnrolError::Answer(_)) && words.contains(expected), "{expected}: {words}");
        assert!(Folder::of(state.path()).load().unwrap().is_none());
    }
    hub.shelf().spoil = Some(Box::new(|answer| answer.root = Some("x".repeat(answer::MAX_ANSWER_BYTES))));
    assert!(matches!(refused(&hub, state.path(), &enrolment(&hub)).await, EnrolError::Hub(_)), "too long");
    // All these attempts were made with one key.
    let requests = hub.shelf().requests.clone();
    assert!(requests.len() > 5);
    let keys: std::collections::BTreeSet<_> = requests.iter().map(|request| public_key(request)).collect();
    assert_eq!(keys.len(), 1);
}

/// What stands in a signing request for the key: requests of one key differ in their signatures.
fn public_key(request: &str) -> String {
    let (authority, device) = (authority(), device());
    let issued = authority.issue_device(request, &device, now(), DAY).unwrap();
    let der = issued.der().as_ref();
    // The uncompressed point of P-256 behind its header.
    let at = der.windows(4).position(|window| window == [0x03, 0x42, 0x00, 0x04]).unwrap();
    der[at..at + 68].iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_with_the_same_key() {
    let (hub, state) = (Hub::start().await, tempfile::tempdir().unwrap());
    hub.shelf().lose = 1;
    let error = refused(&hub, state.path(), &enrolment(&hub)).await;
    assert!(matches!(error, EnrolError::Unreachable(_) | EnrolError::Hub(_)), "{error}");
    enrolled(&hub, state.path()).await;
    let requests = hub.shelf().requests.clone();
    assert_eq!(public_key(&requests[0]), public_key(&requests[1]));
    open(state.path());
}

#[tokio::test]
async fn a_device_that_wakes_up_in_1970_is_enrolled_and_gets_in() {
    let (hub, state) = (Hub::start().await, tempfile::tempdir().unwrap());
    let woken = || Time::of(DeviceClock::with_system(Micros(0), || Micros(0)));
    let folder = Folder::of(state.path());
    enrol(&folder, &woken(), &enrolment(&hub)).await.unwrap();
    // With the floor that enrolment left, and with one from before the hub's certificate was made.
    let kept = Time::of(DeviceClock::with_system(folder.floor(), || Micros(0)));
    for time in [kept, woken()] {
        let identity = Identity::open(folder.clone(), &Default::default(), time.clone()).unwrap().unwrap();
        identity.web().get::<Option<String>>("/api/v1/who").await.unwrap();
        assert!(time.floor() > tributary_identity::BUILT, "the hub's certificate was signed later than that");
    }
}

#[tokio::test]
async fn a_clock_is_held_against_the_hubs_and_what_is_wrong_with_it_is_told() {
    let (hub, state) = (Hub::start().await, tempfile::tempdir().unwrap());
    enrolled(&hub, state.path()).await;
    let skew = Arc::new(AtomicI64::new(0));
    let ours = skew.clone();
    let clock = DeviceClock::with_system(Micros(0), move || Micros(now().0 + ours.load(Ordering::Relaxed)));
    let time = Time::of(clock);
    let over = time.over(Arc::new(tributary_process::clock::SystemClock::start()));
    assert!(time.view().ahead.is_none() && !over.is_synchronised() && time.view().problem.is_none());
    let shutdown = tributary_process::shutdown::Shutdown::default();
    let web = crate::identity::Web::Secure(open(state.path()));
    let comparing = compare(web, time.clone(), DAY, shutdown.clone());
    let watching = async {
        while time.view().ahead.is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        shutdown.give();
    };
    let both = async { tokio::join!(comparing, watching) };
    tokio::time::timeout(Duration::from_secs(60), both).await.expect("the hub's answer");
    time.hub_says(now(), Duration::ZERO);
    assert!(over.is_synchronised() && time.view().synchronised && time.view().problem.is_none());
    // It jumps after it was compared.
    for (skewed, word) in [(3600, "ahead of"), (-3600, "behind")] {
        skew.store(skewed * Micros::SECOND, Ordering::Relaxed);
        let view = time.view();
        assert!(view.problem.as_ref().is_some_and(|problem| problem.contains(word)), "{view:?}");
        assert!(!over.is_synchronised() && (view.ahead.unwrap() / Micros::SECOND - skewed).abs() < 60);
    }
    // A device that has none is not told so again and again.
    skew.store(-now().0, Ordering::Relaxed);
    assert!(time.view().unset && time.view().problem.is_none() && !time.view().synchronised);
}

#[test]
fn the_floor_of_time_outlives_the_process_and_is_not_written_for_every_step() {
    let state = tempfile::tempdir().unwrap();
    let folder = Folder::of(state.path());
    let time = Time::open(folder.clone());
    let far = Micros(now().0 + 43_200_000_000);
    time.raise(far);
    time.raise(Micros(far.0 + 1));
    assert_eq!((folder.floor(), time.floor()), (far, Micros(far.0 + 1)));
    let again = Time::open(folder);
    assert_eq!(again.floor(), far);
    assert!(again.now() >= far);
}

#[test]
fn whatever_a_hub_answers_or_a_disk_holds_is_taken_or_refused_without_a_panic() {
    let (key, device) = (Arc::new(KeyFile::generate().unwrap()), device());
    let sound = authority().issue_device(&key.request(&device).unwrap(), &device, now(), DAY).unwrap().to_pem();
    let key = std::panic::AssertUnwindSafe(key);
    bolero::check!().for_each(|bytes: &[u8]| {
        let _ = HubFile::read(bytes);
        if let Ok(answer) = answer::read(bytes) {
            let _ = answer::check(&answer, &device, key.clone(), "hub", Micros(0));
        }
        // A sound frame around anything gets deeper than anything alone.
        let text = String::from_utf8_lossy(bytes).into_owned();
        let number = |at: usize| bytes.get(at).copied().unwrap_or(0);
        let answer = Enrolled {
            device: device.clone(),
            certificate: if number(0) < 200 { sound.clone() } else { text.clone() },
            authorities: text.clone(),
            renew_after: Micros(i64::from(number(1)) << (number(2) % 64)),
            now: Micros(i64::from(number(3)) << (number(4) % 64)),
            ports: Ports { host: Some(text.clone()), https: number(5).into(), tls: Some(0), quic: None },
            root: Some(text).filter(|_| number(6) > 100),
        };
        match answer::check(&answer, &device, key.clone(), "hub", answer.now) {
            Ok(stored) => assert!(stored.hub.ports.https != 0 && stored.hub.ports.tls.is_none()),
            Err(AnswerError::Device { .. } | AnswerError::OtherKey) => assert!(number(0) >= 200),
            Err(_) => {}
        }
    });
}

#[test]
fn addresses_of_both_families_get_their_ports() {
    let (state, authority) = (tempfile::tempdir().unwrap(), authority());
    let ports = |host: &str| Ports { host: Some(host.into()), https: 1, tls: Some(2), quic: None };
    for (host, https) in [("hub.example", "hub.example:1"), ("::1", "[::1]:1"), ("[fe80::1]", "[fe80::1]:1")] {
        let identity = identity(state.path(), &authority, &device(), ports(host));
        assert_eq!(identity.current().reach.https, https);
        assert_eq!(identity.current().reach.quic, None);
    }
    let _ = shown(&authority, &["localhost"]);
}
