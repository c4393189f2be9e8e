//! What is stored of the last assignment is lost between two lives.

use tributary_release::sign_assignment;
use tributary_wire::{Assignment, Generation, UpdaterState};

use super::{Device, Handle, PROBATION, assignment, desired, key, package};

/// Nothing else on the disk tells of an assignment without wishes.
#[test]
fn a_replayed_assignment_is_not_taken_where_the_stored_one_has_rotted() {
    let device = Device::new();
    let life = device.start();
    let release = device.hub.publish(1, package(1, PROBATION));
    let first = assignment(1, release.clone(), false);
    life.assign(&first);
    life.until_state(UpdaterState::Committed, Some(1));
    let mut nothing = desired(3, release, false);
    nothing.lines.clear();
    let nothing = sign_assignment(&key(), &Assignment::V1(nothing)).encode();
    life.handle.assigned(nothing.clone());
    let is_of_third = |handle: &Handle| handle.generation() == Generation(3) && handle.lines()[0].committed.is_none();
    life.until("the end of what it ran", is_of_third);
    life.running.store.blob_put("update/assignment", b"rotten").unwrap();
    life.stop();

    let life = device.start();
    assert_eq!(life.handle.generation(), Generation(2), "the third is welcome again, none before it");
    assert!(life.handle.problem().is_some_and(|problem| problem.contains("cannot be read")));
    life.handle.online(true);
    // In the order in which they come.
    life.handle.assigned(first.encode());
    life.handle.assigned(nothing);
    life.until("the third once more", |handle| is_of_third(handle) && handle.problem().is_none());
    assert_eq!(life.serving(), None);
    life.stop();

    // The number by itself rots: a changed one must not count, and the assignment is there.
    let life = device.start();
    let mut number = life.running.store.blob_get("update/generation").unwrap().unwrap();
    number[1] ^= 0x40;
    life.running.store.blob_put("update/generation", &number).unwrap();
    life.stop();
    let life = device.start();
    assert_eq!((life.handle.generation(), life.handle.problem()), (Generation(3), None));
    life.stop();
}
