//! Two roles of a line that are ordered the same release at once.

use tributary_wire::UpdaterState;

use super::{Device, PROBATION, package, third};

#[test]
fn one_release_for_two_roles_is_fetched_once() {
    let device = Device::new();
    let mut origins = None;
    let life = device.start_with(|parts| origins = Some(parts.origins.clone()));
    let release = device.hub.publish(1, package(1, PROBATION));
    let signed = third(1, release.clone(), Some(release), 5_000).encode();
    life.handle.online(true);
    life.handle.assigned(signed.clone());
    life.until("both roles", |handle| {
        if handle.asks() {
            handle.assigned(signed.clone());
        }
        let committed = |state| state == UpdaterState::Committed;
        handle.lines().len() == 2 && handle.lines().iter().all(|line| committed(line.state))
    });
    assert_eq!(device.hub.starts(), [0]);
    let failures = origins.unwrap().status().view().failures;
    assert!(failures.is_empty(), "an honest hub is blamed: {failures:?}");
    life.stop();
}
