//! What a device cannot run.

use tributary_release::{Package, Requirements};
use tributary_wire::{UpdaterState, VersionNumber};

use super::{Device, PROBATION, assignment, package};

#[test]
fn a_package_that_this_device_cannot_run_is_not_fetched_and_the_reasons_are_told() {
    let device = Device::new();
    let life = device.start();
    let requires =
        Requirements { operators: vec!["Bernoulli9".into()], agent: "9.0.0".into(), ..Requirements::default() };
    let release = device.hub.publish_needing(1, package(1, PROBATION), requires);
    life.handle.assigned(assignment(1, release, false).encode());
    life.until_state(UpdaterState::RolledBack, None);
    let (_, why) = life.handle.lines()[0].undone.clone().unwrap();
    assert!(why.contains("needs agent 9.0.0") && why.contains("lacks the operators Bernoulli9"), "{why}");
    assert_eq!(device.hub.starts(), [0; 0]);
    life.stop();
}

#[test]
fn what_does_not_fit_beside_the_committed_package_does_not_fit_after_a_restart_either() {
    let device = Device::new();
    let all = crate::capabilities::gather(None).memory_bytes.unwrap();
    let requires = Requirements { memory_bytes: all / 10 * 6, ..Requirements::default() };
    let mut heavy = Package::read(&package(1, PROBATION)).unwrap();
    heavy.manifest.requires.memory_bytes = requires.memory_bytes;
    let first = device.hub.publish_needing(1, heavy.write().unwrap(), requires.clone());
    let second = device.hub.publish_needing(2, package(2, PROBATION), requires);
    let life = device.start();
    life.assign(&assignment(1, first, false));
    life.until_state(UpdaterState::Committed, Some(1));
    let starts = device.hub.starts();
    life.handle.assigned(assignment(2, second, false).encode());
    life.until_state(UpdaterState::RolledBack, Some(1));
    life.stop();

    let life = device.start();
    life.until("it was looked at again", |handle| !handle.unfit().is_empty());
    assert_eq!(life.handle.lines()[0].committed.map(|package| package.version), Some(VersionNumber(1)));
    assert_eq!(device.hub.starts(), starts, "nothing of it is fetched");
    life.stop();
}
