//! What became of keys and releases between the fetch of a package and its trial.

use tributary_wire::{Micros, UpdaterState};

use super::*;

/// Version 1 committed, version 2 staged, and the hub's word for it given, while this speaks against it.
fn doubted(doubt: Doubt) -> Device {
    let mut device = Device::new();
    device.until_committed(1);
    device.doubt = Some(doubt);
    device.assign(2, false, 36_000 * Micros::SECOND);
    device.work();
    assert_eq!(device.state(), UpdaterState::Staged);
    device.confirm();
    device
}

#[test]
fn a_staged_package_whose_release_is_taken_back_goes_back_to_the_fetch_and_is_given_up_there() {
    let mut device = doubted(Doubt::TakenBack("it is not listed any more".into()));
    device.persist();
    assert_eq!((device.state(), device.serving), (UpdaterState::Fetching, Some(release(1).sha256)));
    assert!(device.updater.report("").error.unwrap().contains("not listed"), "said while it is tried again");
    for _ in 0..2 {
        device.advance(60);
        assert_eq!(device.fetches.pop_front(), Some(release(2)));
        let failure = FetchFailure::Damaged;
        device.tell(Input::FetchFailed { sha256: release(2).sha256, failure, reason: "it is not listed".into() });
    }
    device.work();
    assert_eq!((device.state(), device.committed()), (UpdaterState::RolledBack, Some(1)));
    assert!(device.updater.report("").undone.unwrap().1.contains("not listed"));
    assert!(!device.files.contains(&release(2).sha256));
}

#[test]
fn stored_metadata_that_cannot_tell_is_brought_up_to_date_by_a_fetch_and_the_trial_begins() {
    let mut device = doubted(Doubt::Unclear("snapshot metadata expired".into()));
    for _ in 0..5 {
        device.work();
        assert_eq!((device.state(), device.serving), (UpdaterState::Fetching, Some(release(1).sha256)));
        // Fetched at once, and doubted again: no more often than a fetch that fails.
        device.advance(60);
        device.work();
        device.confirm();
    }
    device.doubt = None;
    device.settle();
    assert_eq!((device.state(), device.committed()), (UpdaterState::Committed, Some(2)));
}

#[test]
fn a_package_that_no_trusted_assignment_orders_stays_staged_and_says_why() {
    let mut device = doubted(Doubt::Unordered("its key is trusted no more".into()));
    device.work();
    let asked = |device: &Device| device.updater.vouching.is_some();
    assert_eq!((device.state(), asked(&device)), (UpdaterState::Staged, false));
    assert!(device.updater.report("").error.unwrap().contains("trusted no more"));
    let wake = device.updater.next_wake().unwrap();
    assert!(wake > device.now.monotonic, "no busy loop");
    // The same without a network, after the wait for it.
    device.tell(Input::Online(false));
    device.advance(400);
    device.work();
    assert_eq!((device.state(), device.serving), (UpdaterState::Staged, Some(release(1).sha256)));
    assert!(device.updater.next_wake().unwrap() > device.now.monotonic, "no busy loop");
    device.doubt = None;
    device.settle();
    assert_eq!((device.state(), device.committed()), (UpdaterState::Committed, Some(2)));
}

#[test]
fn a_word_that_comes_after_the_hub_came_back_or_the_assignment_expired_begins_nothing() {
    let mut device = Device::new();
    device.until_committed(1);
    device.tell(Input::Online(false));
    device.assign(2, false, 1000 * Micros::SECOND);
    device.work();
    device.now.monotonic += Duration::from_secs(301);
    let asked = device.updater.handle(device.now, Input::Woken);
    assert_eq!(asked, [Action::Vouch(release(2))]);
    assert_eq!(device.updater.handle(device.now, Input::Woken), [], "asked once");
    // Whoever is online asks the hub first.
    let sha256 = release(2).sha256;
    let mut online = device.updater.clone();
    online.handle(device.now, Input::Online(true));
    online.handle(device.now, Input::Vouched { sha256, word: Ok(()) });
    assert!(matches!(online.record().candidate, Candidate::Staged { .. }));
    device.now.wall.0 += 2000 * Micros::SECOND;
    device.updater.handle(device.now, Input::Vouched { sha256, word: Ok(()) });
    assert_eq!(device.updater.record().candidate, Candidate::None, "it expired before its installation began");
    assert!(device.updater.report("").error.unwrap().contains("expired"));
}
