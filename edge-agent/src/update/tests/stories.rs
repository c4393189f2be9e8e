use std::time::Duration;

use tributary_release::{Probation, SigningKey, sign_assignment};
use tributary_wire::{Assignment, DeviceId, Role, UpdaterState, VersionNumber};

use super::{Device, Handle, Life, PROBATION, assignment, audited, package, third};
use crate::testing;

/// Brings a device to a committed version 1.
fn committed(device: &Device) -> Life {
    let life = device.start();
    life.assign(&assignment(1, device.hub.publish(1, package(1, PROBATION)), false));
    life.until_state(UpdaterState::Committed, Some(1));
    life
}

#[test]
fn a_release_is_fetched_tried_and_committed_while_every_event_is_answered() {
    let device = Device::new();
    let life = committed(&device);
    assert_eq!(life.serving(), Some(1));
    life.assign(&assignment(2, device.hub.publish(2, package(2, PROBATION)), false));
    life.until_state(UpdaterState::Committed, Some(2));
    assert_eq!(life.serving(), Some(2));
    life.stop();

    // The committed package is in place before the next life serves its first event, without the hub.
    let life = device.start();
    assert_eq!(life.serving(), Some(2));
    life.stop();
}

#[test]
fn a_package_that_fails_its_probation_is_undone_and_the_previous_one_answers_again() {
    let device = Device::new();
    let life = committed(&device);
    let unreachable = Probation { output_mean_low: 0.9, ..PROBATION };
    life.assign(&assignment(2, device.hub.publish(2, package(2, unreachable)), false));
    life.until_state(UpdaterState::RolledBack, Some(1));
    assert_eq!(life.serving(), Some(1));
    let (undone, reason) = life.handle.lines()[0].undone.clone().unwrap();
    assert_eq!(undone.version, VersionNumber(2));
    assert!(reason.contains("mean output"), "{reason}");
    life.stop();
}

#[test]
fn a_process_that_dies_during_a_trial_comes_back_with_the_committed_package() {
    let device = Device::new();
    let life = committed(&device);
    let endless = Probation { min_predictions: u64::MAX, ..PROBATION };
    life.assign(&assignment(2, device.hub.publish(2, package(2, endless)), false));
    life.until_state(UpdaterState::Trial, Some(1));
    life.until("version 2 in place", |_| life.serving() == Some(2));
    life.crash();

    let life = device.start();
    assert_eq!(life.serving(), Some(1));
    life.until_state(UpdaterState::RolledBack, Some(1));
    assert!(life.handle.lines()[0].undone.as_ref().unwrap().1.contains("restarted"));
    life.stop();
}

#[test]
fn a_download_that_is_cut_goes_on_where_it_was_also_in_the_next_life() {
    let device = Device::new();
    let life = device.start();
    device.hub.cut(&[vec![1000, 500], vec![0; 10_000]].concat());
    let release = device.hub.publish(1, package(1, PROBATION));
    life.handle.online(true);
    life.handle.assigned(assignment(1, release.clone(), false).encode());
    life.until("a third attempt", |_| device.hub.starts().len() > 2);
    life.crash();
    device.hub.cut(&[]);

    let life = device.start();
    life.assign(&assignment(1, release, false));
    life.until_state(UpdaterState::Committed, Some(1));
    let starts = device.hub.starts();
    assert_eq!(starts[..2], [0, 1000]);
    assert!(starts[2..].iter().all(|start| *start == 1500), "{starts:?}");
    life.stop();
}

#[test]
fn a_package_with_one_byte_changed_never_serves_and_is_given_up() {
    let device = Device::new();
    let life = committed(&device);
    let release = device.hub.publish(2, package(2, PROBATION));
    device.hub.spoil(&release);
    life.handle.online(true);
    life.handle.assigned(assignment(2, release, false).encode());
    life.until_state(UpdaterState::RolledBack, Some(1));
    assert!(life.handle.lines()[0].undone.as_ref().unwrap().1.contains("hash"));
    assert_eq!(life.serving(), Some(1));
    life.stop();
}

#[test]
fn a_release_that_the_role_of_its_line_has_not_signed_is_not_even_fetched() {
    let device = Device::new();
    let life = device.start();
    let release = device.hub.publish(1, package(1, PROBATION));
    device.hub.sign_line_with(Some(vec![SigningKey::generate([9; 32])]));
    let signed = assignment(1, release, false);
    life.handle.assigned(signed.encode());
    let told = |handle: &Handle| handle.lines()[0].error.clone().unwrap_or_default();
    life.until("the reason", |handle| told(handle).contains("has 0 valid signatures"));
    assert_eq!(device.hub.starts(), [0; 0]);
    // Whoever stood between is gone.
    device.hub.sign_line_with(None);
    life.assign(&signed);
    life.until_state(UpdaterState::Committed, Some(1));
    life.stop();
}

/// Whoever has the hub's assignment key chooses among what the lines' roles have signed, until the offline keys announce
/// another one.
#[test]
fn a_thief_of_the_assignment_key_installs_nothing_of_his_own_and_is_shut_out_by_the_chain() {
    let device = Device::new();
    let life = committed(&device);
    let his = super::release(9, b"his own package");
    life.handle.assigned(assignment(2, his, false).encode());
    life.until_state(UpdaterState::RolledBack, Some(1));
    let (_, why) = life.handle.lines()[0].undone.clone().unwrap();
    assert!(why.contains("v9.tpk is not listed"), "{why}");
    assert_eq!((life.serving(), device.hub.starts().len()), (Some(1), 1));

    let rightful = SigningKey::generate([8; 32]);
    device.hub.announce(&rightful);
    let release = device.hub.publish(2, package(2, PROBATION));
    let inner = assignment(3, release.clone(), false);
    let inner = Assignment::decode(&inner.payload).unwrap();
    // Its key is not known yet: the chain is asked, and with the new key comes the end of the old one.
    life.assign(&sign_assignment(&rightful, &inner));
    life.until_state(UpdaterState::Committed, Some(2));
    life.handle.assigned(assignment(4, release, false).encode());
    life.until("a problem", |handle| handle.problem().is_some_and(|problem| problem.contains("trusted keys")));
    assert_eq!((life.handle.generation().0, life.serving()), (3, Some(2)));
    life.stop();
}

#[test]
fn another_package_under_an_assigned_version_is_given_up_unfetched() {
    let device = Device::new();
    let life = device.start();
    let mut release = device.hub.publish(1, package(1, PROBATION));
    release.sha256.0[0] ^= 1;
    life.handle.assigned(assignment(1, release, false).encode());
    life.until_state(UpdaterState::RolledBack, None);
    assert!(life.handle.lines()[0].undone.as_ref().unwrap().1.contains("the assignment says"));
    assert_eq!(device.hub.starts(), [0; 0]);
    life.stop();
}

#[test]
fn assignments_of_strangers_for_others_and_unreadable_ones_change_nothing_and_are_shown() {
    let device = Device::new();
    let life = committed(&device);
    let release = device.hub.publish(2, package(2, PROBATION));
    let signed = assignment(2, release, false);
    let inner = Assignment::decode(&signed.payload).unwrap().desired().clone();

    life.handle.assigned(b"nonsense".to_vec());
    life.until("a problem", |handle| handle.problem().is_some_and(|problem| problem.contains("does not decode")));
    let stranger = sign_assignment(&SigningKey::generate([9; 32]), &Assignment::V1(inner.clone()));
    life.handle.assigned(stranger.encode());
    life.until("a problem", |handle| handle.problem().is_some_and(|problem| problem.contains("trusted keys")));
    let other = tributary_wire::AssignmentV1 { device: DeviceId::new("edge-2").unwrap(), ..inner };
    life.handle.assigned(sign_assignment(&super::key(), &Assignment::V1(other)).encode());
    life.until("a problem", |handle| handle.problem().is_some_and(|problem| problem.contains("edge-2")));
    assert_eq!((life.handle.generation().0, life.serving()), (1, Some(1)));

    life.assign(&signed);
    life.until_state(UpdaterState::Committed, Some(2));
    assert_eq!(life.handle.problem(), None);
    life.stop();
}

#[test]
fn an_order_back_is_followed_at_once_and_the_withdrawn_package_is_removed() {
    let device = Device::new();
    let life = committed(&device);
    let first = device.hub.publish(1, package(1, PROBATION));
    let second = device.hub.publish(2, package(2, PROBATION));
    life.assign(&assignment(2, second.clone(), false));
    life.until_state(UpdaterState::Committed, Some(2));
    life.handle.assigned(assignment(3, first, true).encode());
    life.until_state(UpdaterState::Committed, Some(1));
    assert_eq!(life.serving(), Some(1));
    let left = device.rig.folder.path().join("packages").join(format!("{}.tpk", second.sha256));
    life.until("its file gone", |_| !left.exists());
    life.stop();
}

#[test]
fn a_release_comes_over_https_with_the_certificate_of_the_device() {
    let device = Device::enrolled();
    let life = committed(&device);
    assert_eq!(life.serving(), Some(1));
    assert_eq!(device.hub.starts(), [0]);
    life.stop();
}

#[test]
fn a_hub_whose_audit_log_became_shorter_is_found_out_and_obeyed() {
    let device = Device::new();
    let life = device.start();
    let release = device.hub.publish(1, package(1, PROBATION));
    life.handle.assigned(audited(1, release.clone(), 7).encode());
    life.until("the head", |handle| handle.audit().is_some_and(|head| head.number == 7));
    assert_eq!(life.handle.audit_problem(), None);
    life.stop();

    // It is remembered over a restart, and said; what is assigned counts all the same.
    let life = device.start();
    assert_eq!(life.handle.audit().map(|head| head.number), Some(7));
    life.handle.assigned(audited(2, release.clone(), 5).encode());
    life.until("the problem", |handle| handle.audit_problem().is_some());
    assert!(life.handle.audit_problem().unwrap().contains("became shorter"));
    assert_eq!((life.handle.generation().0, life.handle.problem()), (2, None));
    life.handle.assigned(audited(3, release, 8).encode());
    life.until("a longer log", |handle| handle.audit_problem().is_none());
    life.stop();
}

#[test]
fn a_challenger_answers_once_it_is_committed_and_flags_and_shares_survive_a_restart() {
    let device = Device::new();
    let life = committed(&device);
    assert_eq!((life.handle.hub_reads(), life.handle.flags().len()), (1, 0));
    let second = device.hub.publish(2, package(2, PROBATION));
    let signed = third(2, device.hub.publish(1, package(1, PROBATION)), Some(second.clone()), 10_000);
    let answered_by = |life: &Life, expected: (u32, Option<&str>)| {
        life.running.runtime.block_on(async {
            for n in 0..3000 {
                let answer = life.running.serving.predict(testing::event(1_000_000 + n)).await.unwrap().unwrap();
                if (answer.version, answer.challenger.as_deref()) == expected {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            panic!("never answered by {expected:?}");
        });
    };
    let challenger = Role::new("challenger-b").unwrap();
    life.handle.assigned(signed.encode());
    life.until("the challenger", |handle| {
        if handle.asks() {
            handle.assigned(signed.encode());
        }
        handle.lines().iter().any(|line| line.role == challenger && line.state == UpdaterState::Committed)
    });
    answered_by(&life, (2, Some("challenger-b")));
    assert_eq!(life.handle.flags()["new-form"], "on");
    assert_eq!((life.handle.hub_reads(), life.serving()), (3, Some(1)));
    life.stop();

    let life = device.start();
    answered_by(&life, (2, Some("challenger-b")));
    assert_eq!((life.handle.hub_reads(), life.handle.flags()["new-form"].as_str()), (3, "on"));
    // The role is gone from a newer assignment: the primary answers everybody.
    life.handle.assigned(third(3, device.hub.publish(1, package(1, PROBATION)), None, 0).encode());
    life.until("the end of the role", |handle| handle.lines().len() == 1);
    answered_by(&life, (1, None));
    // Shares that cannot be are refused, and nothing changes.
    let over = third(4, device.hub.publish(1, package(1, PROBATION)), Some(second), 10_001);
    life.handle.assigned(over.encode());
    life.until("the refusal", |handle| handle.problem().is_some_and(|problem| problem.contains("10001 of 10000")));
    life.stop();
}
