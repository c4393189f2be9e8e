//! The disk fails at every single step, before it and after it.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::identity::files::{Disk, RealDisk};

/// From step `fail_at` on nothing works any more; that step itself is done or not.
#[derive(Debug)]
struct FailingDisk {
    steps: AtomicUsize,
    fail_at: usize,
    done: bool,
}

impl FailingDisk {
    fn step(&self, work: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let step = self.steps.fetch_add(1, Ordering::Relaxed);
        if step < self.fail_at || (step == self.fail_at && self.done) {
            work()?;
        }
        if step < self.fail_at { Ok(()) } else { Err(io::Error::other("power cut")) }
    }
}

impl Disk for FailingDisk {
    fn folder(&self, path: &Path) -> io::Result<()> {
        self.step(|| RealDisk.folder(path))
    }
    fn write(&self, path: &Path, bytes: &[u8], private: bool) -> io::Result<()> {
        self.step(|| RealDisk.write(path, bytes, private))
    }
    fn sync(&self, path: &Path) -> io::Result<()> {
        self.step(|| RealDisk.sync(path))
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.step(|| RealDisk.remove(path))
    }
}

fn failing(state_dir: &Path, fail_at: usize, done: bool) -> (Folder, Arc<FailingDisk>) {
    let disk = Arc::new(FailingDisk { steps: AtomicUsize::new(0), fail_at, done });
    (Folder::on(state_dir, disk.clone()), disk)
}

#[tokio::test]
async fn enrolment_cut_at_any_step_leaves_no_identity_or_a_whole_one_and_can_be_repeated() {
    let hub = Hub::start().await;
    let (mut fail_at, mut failed, mut whole) = (0, 0, 0);
    loop {
        let mut over = false;
        for done in [false, true] {
            let state = tempfile::tempdir().unwrap();
            let (folder, disk) = failing(state.path(), fail_at, done);
            let time = Time::of(DeviceClock::new(Micros(0)));
            let asked = hub.shelf().requests.len();
            let result = enrol(&folder, &time, &enrolment(&hub)).await;
            over = disk.steps.load(Ordering::Relaxed) <= fail_at;
            // The machine starts again.
            let folder = Folder::of(state.path());
            match folder.load().unwrap() {
                Some((_, stored)) => {
                    whole += 1;
                    assert!(stored.chain[0].belongs_to(&*stored.key).unwrap());
                    open(state.path());
                }
                None => {
                    assert!(result.is_err());
                    failed += 1;
                    enrol(&folder, &time, &enrolment(&hub)).await.unwrap();
                    open(state.path());
                    let requests = hub.shelf().requests[asked..].to_vec();
                    if let [first, second] = requests.as_slice() {
                        assert_eq!(public_key(first), public_key(second), "the same device asks again");
                    }
                }
            }
        }
        if over {
            break;
        }
        fail_at += 1;
    }
    assert!(failed >= 10 && whole >= 4, "{failed} without, {whole} with an identity, {fail_at} steps");
}

#[tokio::test]
async fn a_rotation_cut_at_any_step_leaves_the_old_identity_or_the_new_one() {
    let hub = Hub::start().await;
    let (mut fail_at, mut old, mut new) = (0, 0, 0);
    loop {
        let mut over = false;
        for done in [false, true] {
            let state = tempfile::tempdir().unwrap();
            let first = enrolled(&hub, state.path()).await.serial;
            let (folder, disk) = failing(state.path(), fail_at, done);
            let time = Time::of(DeviceClock::new(Micros(0)));
            let identity = Identity::open(folder, &Default::default(), time).unwrap().unwrap();
            let renewed = identity.renew(true).await;
            over = disk.steps.load(Ordering::Relaxed) <= fail_at;
            let after = open(state.path());
            if *after.current().serial() == first {
                assert!(renewed.is_err());
                old += 1;
            } else {
                new += 1;
            }
            // Either way it works, and is renewed; what was begun is finished.
            let serial = after.renew(false).await.unwrap();
            assert_eq!(*open(state.path()).current().serial(), serial);
            assert!(!state.path().join("identity/pending.pem").exists());
        }
        if over {
            break;
        }
        fail_at += 1;
    }
    assert!(old >= 10 && new >= 4, "{old} old, {new} new, {fail_at} steps");
}
