//! Scripted stories.

use tributary_wire::{Micros, UpdaterState, VersionNumber};

use super::*;

#[test]
fn a_good_package_is_fetched_asked_about_tried_and_committed() {
    let mut device = Device::new();
    assert_eq!(device.state(), UpdaterState::Idle);
    device.until_committed(1);
    device.until_committed(2);
    assert_eq!(device.state(), UpdaterState::Committed);
    assert_eq!(device.disk.previous, Some(release(1)));
}

#[test]
fn a_package_that_fails_its_probation_is_undone_and_reported_until_a_newer_generation() {
    let mut device = Device::new();
    device.until_committed(1);
    device.until_trial(2);
    device.evidence(BAD);
    device.serve(true);
    assert_eq!(device.serving, Some(release(1).sha256), "back before the disk has answered");
    device.settle();
    let report = device.updater.report("tract");
    assert_eq!(report.state, UpdaterState::RolledBack);
    let (undone, reason) = report.undone.unwrap();
    assert_eq!(undone.version, VersionNumber(2));
    assert!(reason.contains("5 of 10"), "{reason}");
    device.restart();
    device.settle();
    assert_eq!(device.state(), UpdaterState::RolledBack, "a restart does not forget it");
    device.until_committed(3);
}

#[test]
fn a_restart_during_the_trial_undoes_it() {
    let mut device = Device::new();
    device.until_committed(1);
    device.until_trial(2);
    device.restart();
    device.settle();
    assert_eq!((device.state(), device.committed()), (UpdaterState::RolledBack, Some(1)));
    assert_eq!(device.serving, Some(release(1).sha256));
}

#[test]
fn an_agent_that_is_told_to_stop_during_a_trial_begins_it_anew() {
    let mut device = Device::new();
    device.until_committed(1);
    device.until_trial(2);
    device.tell(Input::Stopping);
    device.persist();
    device.restart();
    device.work();
    assert_eq!((device.state(), device.serving), (UpdaterState::Staged, Some(release(1).sha256)));
    device.settle();
    assert_eq!((device.state(), device.committed()), (UpdaterState::Committed, Some(2)));
}

#[test]
fn a_trial_begun_anew_after_a_stop_is_still_undone_by_a_crash() {
    let mut device = Device::new();
    device.until_committed(1);
    device.until_trial(2);
    device.tell(Input::Stopping);
    device.persist();
    device.restart();
    device.until_trial_again();
    device.restart();
    device.settle();
    assert_eq!((device.state(), device.committed()), (UpdaterState::RolledBack, Some(1)));
}

#[test]
fn a_trial_without_traffic_goes_on_and_its_time_runs_from_the_first_prediction() {
    let mut device = Device::new();
    device.until_trial(1);
    device.advance(10_000);
    assert_eq!(device.updater.next_wake(), None);
    device.evidence(TrialReport { predictions: 1, ..GOOD });
    device.advance(59);
    assert_eq!(device.state(), UpdaterState::Trial);
    device.advance(1);
    device.persist();
    assert_eq!(device.state(), UpdaterState::RolledBack);
    let (_, reason) = device.updater.report("tract").undone.unwrap();
    assert!(reason.contains("timed out after 1 of 10"), "{reason}");
}

#[test]
fn an_online_device_waits_for_the_hub_and_repeats_its_question() {
    let mut device = Device::new();
    device.tell(Input::Online(true));
    device.assign(1, false, 3600 * Micros::SECOND);
    device.persist();
    device.fetch();
    device.persist();
    for _ in 0..5 {
        let before = device.reports;
        device.advance(10);
        assert!(device.updater.asks() && device.reports > before);
    }
    assert_eq!(device.state(), UpdaterState::Staged);
    device.assign(1, false, 3600 * Micros::SECOND);
    device.persist();
    device.persist();
    assert_eq!(device.state(), UpdaterState::Trial, "a newer word about the same release is an answer too");
}

#[test]
fn an_offline_device_goes_on_after_the_declared_wait() {
    let mut device = Device::new();
    device.assign(1, false, 3600 * Micros::SECOND);
    device.persist();
    device.fetch();
    device.persist();
    device.advance(299);
    assert_eq!(device.state(), UpdaterState::Staged);
    device.advance(1);
    device.persist();
    assert_eq!(device.state(), UpdaterState::Trial);
}

#[test]
fn a_stop_that_arrives_while_the_device_asks_keeps_the_package_from_its_trial() {
    let mut device = Device::new();
    device.until_committed(1);
    device.assign(2, false, 3600 * Micros::SECOND);
    device.persist();
    device.fetch();
    device.persist();
    device.assign(1, true, 3600 * Micros::SECOND);
    device.settle();
    assert_eq!((device.state(), device.committed()), (UpdaterState::Committed, Some(1)));
    assert!(!device.files.contains(&release(2).sha256), "and its file is collected");
}

#[test]
fn a_newer_assignment_that_wants_nothing_takes_the_package_away() {
    let mut device = Device::new();
    device.until_committed(1);
    device.unassign();
    assert_eq!(device.serves.back(), Some(&None), "the fallback answers before the disk has");
    device.restart();
    device.settle();
    assert_eq!((device.state(), device.committed(), device.serving), (UpdaterState::Idle, None, None));
    device.until_committed(2);
}

#[test]
fn an_order_back_to_the_previous_package_needs_no_second_trial() {
    let mut device = Device::new();
    device.until_committed(1);
    device.until_committed(2);
    device.assign(1, true, 3600 * Micros::SECOND);
    for _ in 0..8 {
        device.persist();
        device.fetch();
        device.serve(true);
    }
    assert_eq!((device.state(), device.committed()), (UpdaterState::Committed, Some(1)));
    assert_eq!(device.disk.previous, None, "what was ordered away is not kept to fall back to");
}

#[test]
fn a_lower_version_without_leave_and_an_expired_assignment_are_refused_and_named() {
    let mut device = Device::new();
    device.until_committed(2);
    device.assign(1, false, 3600 * Micros::SECOND);
    device.settle();
    assert_eq!(device.committed(), Some(2));
    assert!(device.updater.report("").error.unwrap().contains("below the committed 2"));
    device.assign(3, false, -1);
    device.settle();
    assert_eq!((device.state(), device.committed()), (UpdaterState::Committed, Some(2)));
    assert!(device.updater.report("").error.unwrap().contains("expired"));
}

#[test]
fn a_refused_package_is_undone_a_damaged_one_after_three_downloads_an_unreachable_one_never() {
    let tries = |failure: FetchFailure| {
        let mut device = Device::new();
        device.tell(Input::Online(true));
        device.assign(1, false, 36_000 * Micros::SECOND);
        device.persist();
        let mut tries = 0;
        while tries < 10 && device.state() == UpdaterState::Fetching {
            if device.fetches.pop_front().is_some() {
                tries += 1;
                device.tell(Input::FetchFailed {
                    sha256: release(1).sha256,
                    failure: failure.clone(),
                    reason: "so".into(),
                });
            }
            device.persist();
            device.advance(300);
        }
        tries
    };
    assert_eq!(tries(FetchFailure::Refused), 1);
    assert_eq!(tries(FetchFailure::Unfit(vec!["it needs more".into()])), 1);
    assert_eq!(tries(FetchFailure::Damaged), 3);
    assert_eq!(tries(FetchFailure::Unreachable), 10);
}

#[test]
fn a_committed_package_that_cannot_serve_gives_way_to_the_previous_one_and_then_to_the_fallback() {
    let mut device = Device::new();
    device.until_committed(1);
    device.until_committed(2);
    device.restart();
    while !device.serves.is_empty() || !device.persists.is_empty() {
        device.serve(false);
        device.persist();
    }
    assert_eq!((device.serving, device.committed()), (None, None));
    assert!(device.updater.report("").undone.unwrap().1.contains("broken"));
    device.settle();
    assert_eq!(device.committed(), None, "what does not work here is not tried again");
}

#[test]
fn an_expired_assignment_that_is_signed_anew_goes_on() {
    let mut device = Device::new();
    device.tell(Input::Online(true));
    device.assign(1, false, Micros::SECOND);
    device.advance(10);
    device.work();
    assert!(device.updater.report("").error.unwrap().contains("expired"));
    device.expires = Micros(device.now.wall.0 + 3600 * Micros::SECOND);
    device.settle();
    assert_eq!((device.state(), device.committed()), (UpdaterState::Committed, Some(1)));
}

#[test]
fn a_trial_without_enough_traffic_times_out() {
    let mut device = Device::new();
    device.until_committed(1);
    device.until_trial(2);
    device.evidence(TrialReport { predictions: 3, ..GOOD });
    device.advance(60);
    device.persist();
    assert_eq!(device.state(), UpdaterState::RolledBack);
}

#[test]
fn a_full_disk_never_lets_a_trial_begin_and_is_tried_again() {
    let mut device = Device::new();
    device.until_committed(1);
    device.assign(2, false, 3600 * Micros::SECOND);
    device.persists.clear();
    device.tell(Input::PersistFailed);
    assert!(device.fetches.is_empty());
    device.advance(5);
    assert_eq!(device.persists.len(), 1, "the newest record stands for all");
    device.settle();
    assert_eq!(device.committed(), Some(2));
}
