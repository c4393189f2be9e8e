use std::sync::atomic::{AtomicI64, Ordering};

use tributary_identity::DeviceClock;
use tributary_process::clock::SystemClock;
use tributary_release::chain::forge::{Forge, MemoryRepository, Signers};
use tributary_release::{SigningKey, digest, hashed_path};

use super::*;

const NOW: Micros = Micros(1_800_000_000_000_000);

/// A repository that announces the assignment key of this seed.
fn repository(seed: u8) -> (Forge, Arc<MemoryRepository>) {
    let mut forge = Forge::with_line("card-fraud", 20);
    announce(&mut forge, &[seed]);
    let repository = Arc::new(MemoryRepository::default());
    forge.publish(&repository);
    (forge, repository)
}

fn announce(forge: &mut Forge, seeds: &[u8]) {
    let keys = VerifyingKeys::new(seeds.iter().map(|seed| key(*seed).verifying_key())).to_json();
    forge.files.insert(ASSIGNMENT_KEYS.into(), (keys.into_bytes(), None));
}

fn key(seed: u8) -> SigningKey {
    SigningKey::generate([seed; 32])
}

fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock::start())
}

fn time(now: Micros) -> Time {
    Time::of(DeviceClock::new(now))
}

async fn open(forge: &Forge, source: &Arc<MemoryRepository>, files: &Arc<MemoryRepository>, now: Micros) -> Trust {
    let root = forge.root_file(&forge.root.keys);
    Trust::open(Some(&root), source.clone(), files.clone(), time(now), clock()).await.unwrap()
}

#[tokio::test]
async fn assignment_keys_come_by_the_chain_outlive_a_restart_without_network_and_are_revoked_by_it() {
    let (mut forge, repository) = repository(1);
    let files = Arc::new(MemoryRepository::default());
    let trust = open(&forge, &repository, &files, NOW).await;
    assert!(trust.assignment_keys().ids().is_empty());
    trust.refresh().await.unwrap();
    assert!(trust.assignment_keys().get(key(1).id()).is_some());
    repository.asked();
    // Years later, with everything expired: what was verified is still who may say what to run.
    let later = Micros(5_000_000_000_000_000);
    let trust = open(&forge, &repository, &files, later).await;
    assert!(trust.assignment_keys().get(key(1).id()).is_some());
    assert_eq!(repository.asked(), Vec::<String>::new());

    announce(&mut forge, &[2]);
    forge.next();
    forge.publish_below(&repository);
    let trust = open(&forge, &repository, &files, NOW).await;
    trust.refresh().await.unwrap();
    assert!(trust.assignment_keys().get(key(1).id()).is_none(), "a stolen key is taken back offline");
    assert!(trust.assignment_keys().get(key(2).id()).is_some());
    forge.files.clear();
    forge.next();
    forge.publish_below(&repository);
    trust.refresh().await.unwrap();
    assert!(trust.assignment_keys().ids().is_empty());
}

/// Whoever holds a stolen key and stands before the repository lets the metadata through and keeps the file back.
#[tokio::test]
async fn a_revoked_key_counts_no_more_though_the_file_of_the_new_ones_does_not_come() {
    let (mut forge, repository) = repository(1);
    let files = Arc::new(MemoryRepository::default());
    let trust = open(&forge, &repository, &files, NOW).await;
    trust.refresh().await.unwrap();
    let first = files.get(KEPT_KEYS).unwrap();
    let file = |forge: &Forge| {
        let (keys, _) = &forge.files[ASSIGNMENT_KEYS];
        (format!("targets/{}", hashed_path(ASSIGNMENT_KEYS, &digest(keys))), keys.clone())
    };
    let count = |trust: &Trust| [1, 2].map(|seed| trust.assignment_keys().get(key(seed).id()).is_some());
    // What is held is what is announced: its file is not needed.
    repository.remove(&file(&forge).0);
    forge.next();
    forge.publish_below(&repository);
    repository.remove(&file(&forge).0);
    trust.refresh().await.unwrap();
    assert_eq!((count(&trust), trust.problem()), ([true, false], None));

    announce(&mut forge, &[2]);
    forge.next();
    forge.publish_below(&repository);
    let (path, bytes) = file(&forge);
    repository.remove(&path);
    let error = trust.refresh().await.unwrap_err();
    assert!(error.is_temporary(), "{error}");
    assert_eq!(count(&trust), [false, false]);
    assert!(trust.problem().unwrap().contains("has not come"), "{:?}", trust.problem());
    // Nor after a restart, when the metadata that announced them has expired.
    for now in [NOW, Micros(5_000_000_000_000_000)] {
        assert_eq!(count(&open(&forge, &repository, &files, now).await), [false, false]);
    }

    // The power failed after the metadata was durable, and before the keys were let go of.
    files.put(KEPT_KEYS, first);
    let trust = open(&forge, &repository, &files, NOW).await;
    assert_eq!(count(&trust), [false, false]);
    assert!(trust.problem().unwrap().contains("has not come"), "{:?}", trust.problem());
    repository.put(&path, bytes);
    trust.refresh().await.unwrap();
    assert_eq!((count(&trust), trust.problem()), ([false, true], None));
    let trust = open(&forge, &repository, &files, NOW).await;
    assert_eq!((count(&trust), trust.problem()), ([false, true], None));
}

#[tokio::test]
async fn a_target_is_asked_for_afresh_and_without_network_only_what_is_stored_and_good_will_do() {
    let (mut forge, repository) = repository(1);
    let path = "models/card-fraud/v1.tpk";
    let role = forge.delegated.get_mut("models/card-fraud").unwrap();
    role.files.insert(path.into(), (b"package".to_vec(), None));
    forge.next();
    forge.publish_below(&repository);
    let files = Arc::new(MemoryRepository::default());
    let trust = open(&forge, &repository, &files, NOW).await;
    assert_eq!(trust.target(path, 2).await.unwrap().length, 7);
    assert!(matches!(trust.target(path, 3).await, Err(TrustError::Behind { needed: 3, found: 2 })));

    let nowhere = Arc::new(crate::update::tests::origins(crate::identity::Web::Nowhere));
    let root = forge.root_file(&forge.root.keys);
    let offline = |now| Trust::open(Some(&root), nowhere.clone(), files.clone(), time(now), clock());
    let trust = offline(NOW).await.unwrap();
    assert_eq!(trust.target(path, 2).await.unwrap().length, 7);
    assert!(matches!(trust.target(path, 3).await, Err(TrustError::Behind { .. })));
    assert_eq!(trust.problem(), None);
    let trust = offline(Micros(5_000_000_000_000_000)).await.unwrap();
    let error = trust.target(path, 2).await.unwrap_err();
    assert!(matches!(error, TrustError::Chain(ChainError::Expired { .. })) && error.is_temporary(), "{error}");
}

/// A device without a clock: it knows how long it has been up.
#[derive(Default)]
struct Uptime(AtomicI64);

impl Clock for Uptime {
    fn wall(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }

    fn monotonic(&self) -> u64 {
        self.wall() as u64
    }
}

#[tokio::test]
async fn metadata_expires_by_uptime_alone_and_bounds_what_a_hub_may_say_of_the_time() {
    let (forge, repository) = repository(1);
    let (up, root) = (Arc::new(Uptime::default()), forge.root_file(&forge.root.keys));
    let time = Time::of(DeviceClock::over(NOW, up.clone()));
    time.raise(Micros(NOW.0 + 1));
    assert_eq!(time.floor(), NOW, "nothing vouches for it yet");
    let files = Arc::new(MemoryRepository::default());
    let trust = Trust::open(Some(&root), repository, files, time.clone(), up.clone()).await.unwrap();
    trust.refresh().await.unwrap();
    let expires = trust.expires().unwrap();
    time.raise(Micros(expires.0 + 1));
    assert_eq!(time.floor(), NOW);
    time.raise(Micros(NOW.0 + 1));
    assert_eq!((time.floor(), trust.problem()), (Micros(NOW.0 + 1), None));
    up.0.store(expires.since(NOW), Ordering::Relaxed);
    assert!(trust.problem().unwrap().contains("expired"), "{:?}", trust.problem());
    assert!(trust.refresh().await.is_err());
}

#[tokio::test]
async fn a_repository_that_is_not_believed_is_a_problem_until_it_is_again() {
    let (mut forge, repository) = repository(1);
    let trust = open(&forge, &repository, &Arc::default(), NOW).await;
    trust.refresh().await.unwrap();
    assert_eq!(trust.problem(), None);
    let rightful = forge.timestamp.clone();
    forge.timestamp = Signers::one(99);
    forge.next();
    forge.publish_below(&repository);
    assert!(trust.refresh().await.is_err());
    assert!(trust.problem().unwrap().contains("timestamp"), "{:?}", trust.problem());
    forge.timestamp = rightful;
    forge.publish_below(&repository);
    trust.refresh().await.unwrap();
    assert_eq!(trust.problem(), None);
}

#[tokio::test]
async fn without_a_root_nothing_is_believed_and_that_is_said() {
    let (_, repository) = repository(1);
    let trust = Trust::open(None, repository, Arc::<MemoryRepository>::default(), time(NOW), clock()).await.unwrap();
    assert!(matches!(trust.refresh().await, Err(TrustError::NoRoot)));
    assert!(trust.problem().unwrap().contains("trust.root"));
    let broken = Trust::open(
        Some(b"{}"),
        Arc::<MemoryRepository>::default(),
        Arc::<MemoryRepository>::default(),
        time(NOW),
        clock(),
    );
    assert!(matches!(broken.await, Err(TrustError::Chain(ChainError::Malformed { .. }))));
}
