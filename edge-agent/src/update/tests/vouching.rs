//! What the hub takes back, or signs beside, while a package waits for its trial.

use tributary_wire::{ReleaseRef, SignedAssignment, UpdaterState};

use super::{Device, Handle, Life, PROBATION, assignment, package};

/// A device that has committed version 1 and asks whether version 2 may be tried.
fn asking(device: &Device) -> (Life, ReleaseRef, SignedAssignment) {
    let life = device.start();
    life.assign(&assignment(1, device.hub.publish(1, package(1, PROBATION)), false));
    life.until_state(UpdaterState::Committed, Some(1));
    let release = device.hub.publish(2, package(2, PROBATION));
    let signed = assignment(2, release.clone(), false);
    life.handle.assigned(signed.encode());
    life.until("the question", Handle::asks);
    (life, release, signed)
}

/// The device learns of newer metadata while it waits.
fn refresh(life: &Life) {
    life.running.runtime.block_on(life.trust.refresh()).unwrap();
}

#[test]
fn a_release_that_is_withdrawn_before_its_trial_is_never_tried() {
    let device = Device::new();
    let (life, release, signed) = asking(&device);
    let downloads = device.hub.starts().len();
    device.hub.withdraw(&release);
    refresh(&life);
    life.handle.assigned(signed.encode());
    life.until_state(UpdaterState::RolledBack, Some(1));
    let (_, why) = life.handle.lines()[0].undone.clone().unwrap();
    assert!(why.contains("v2.tpk is not listed"), "{why}");
    assert_eq!((life.serving(), device.hub.starts().len()), (Some(1), downloads));
    life.stop();
}

#[test]
fn a_release_that_stands_in_newer_metadata_too_is_tried_without_another_download() {
    let device = Device::new();
    let (life, _, signed) = asking(&device);
    let downloads = device.hub.starts().len();
    device.hub.publish(3, package(3, PROBATION));
    refresh(&life);
    life.assign(&signed);
    life.until("the trial", |handle| {
        if handle.asks() {
            handle.assigned(signed.encode());
        }
        handle.lines()[0].committed.is_some_and(|package| package.version.0 == 2)
    });
    assert_eq!((life.serving(), device.hub.starts().len()), (Some(2), downloads));
    life.stop();
}
