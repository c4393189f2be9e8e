//! Files that change on the disk.

use tributary_wire::{Micros, UpdaterState};

use super::*;

#[test]
fn a_committed_package_whose_file_rots_gives_way_to_the_previous_one_and_is_fetched_again() {
    let mut device = Device::new();
    device.until_committed(1);
    device.until_committed(2);
    device.files.remove(&release(2).sha256);
    device.restart();
    while !device.serves.is_empty() || !device.persists.is_empty() {
        device.serve(true);
        device.persist();
    }
    assert_eq!((device.serving, device.committed()), (Some(release(1).sha256), Some(1)));
    let report = device.updater.report("");
    assert!(report.undone.is_none() && report.error.unwrap().contains("broken"), "said, and held against nobody");
    // Neither the end of the assignment nor a hub that does not answer keeps it from coming back, nor is anybody kept awake.
    device.advance(7200);
    assert_eq!(device.updater.next_wake(), None, "it is being fetched");
    device.work();
    assert_eq!((device.serving, device.committed()), (Some(release(2).sha256), Some(2)));
    assert_eq!(device.disk.previous, Some(release(1)));
    assert_eq!(device.disk.lost, None);
}

#[test]
fn a_rotten_package_that_the_hub_orders_away_is_not_fetched_again() {
    let mut device = Device::new();
    device.until_committed(1);
    device.until_committed(2);
    device.files.remove(&release(2).sha256);
    device.restart();
    device.serve(true);
    device.assign(1, true, 3600 * Micros::SECOND);
    device.settle();
    assert_eq!((device.state(), device.committed()), (UpdaterState::Committed, Some(1)));
    assert!(!device.files.contains(&release(2).sha256));
}

#[test]
fn a_rotten_package_comes_back_beside_a_release_that_was_given_up() {
    let mut device = Device::new();
    device.until_committed(1);
    device.until_committed(2);
    device.until_trial(3);
    device.evidence(BAD);
    device.work();
    device.files.remove(&release(2).sha256);
    device.restart();
    device.settle();
    assert_eq!((device.state(), device.committed()), (UpdaterState::RolledBack, Some(2)));
    assert_eq!(device.disk.undone.as_ref().map(|undone| &undone.release), Some(&release(3)), "and 3 stays given up");
}
