use std::time::Duration;

use tributary_wire::link::{BlobKind, BlobProblem, BlobStep, DownV1, Held, Holds};

use super::delivery::{Delivered, Delivery, End, Parcel};

const SECOND: Duration = Duration::from_secs(1);

fn parcel(kind: BlobKind, version: u32) -> Parcel {
    Parcel { kind, version, bytes: (0..300_u32).map(|at| (at * version) as u8).collect() }
}

fn holds(version: u32, state: Held) -> Holds {
    Holds { kind: BlobKind::Model, version, rollback: 0, state }
}

/// Answers every message as a node does, until it has all.
fn send(delivery: &mut Delivery, now: Duration) -> u32 {
    let (mut taken, mut messages) = (0, 0);
    while taken < 300 {
        messages += 1;
        let blob = match delivery.due(now).expect("something to send") {
            DownV1::Offer { blob, .. } => blob,
            DownV1::Part { blob, offset, bytes } => {
                assert_eq!(offset, taken);
                taken += bytes.len() as u32;
                blob
            }
            other => panic!("{other:?}"),
        };
        let step = if taken == 300 { BlobStep::Complete } else { BlobStep::Next(taken) };
        assert_eq!(delivery.answered(now, blob, step), None);
    }
    messages
}

#[test]
fn a_blob_is_offered_sent_and_done_with_once_it_is_confirmed() {
    let mut delivery = Delivery::default();
    assert_eq!(delivery.due(SECOND), None);
    assert_eq!(delivery.next_wake(), None);
    delivery.bring(parcel(BlobKind::Model, 3));
    assert_eq!(send(&mut delivery, SECOND), 4);
    assert_eq!(delivery.due(SECOND * 9), None, "the node starts it");
    delivery.begin();
    assert_eq!(delivery.holds(SECOND * 9, &holds(3, Held::Trial)), None);
    assert_eq!(delivery.progress().map(|progress| progress.sent), Some(300));
    let end = Delivered { kind: BlobKind::Model, version: 3, end: End::Confirmed };
    assert_eq!(delivery.holds(SECOND * 10, &holds(3, Held::Confirmed)), Some(end));
    assert_eq!(delivery.due(SECOND * 1000), None);
}

#[test]
fn what_is_lost_comes_again_and_a_restart_asks_where_to_go_on() {
    let mut delivery = Delivery::default();
    delivery.bring(parcel(BlobKind::Firmware, 3));
    let Some(DownV1::Offer { blob, .. }) = delivery.due(SECOND) else { panic!("no offer") };
    assert_eq!(delivery.due(SECOND * 2), None);
    assert!(matches!(delivery.due(SECOND * 3), Some(DownV1::Offer { .. })));
    delivery.answered(SECOND * 3, blob, BlobStep::Next(128));
    assert!(matches!(delivery.due(SECOND * 3), Some(DownV1::Part { offset: 128, .. })));
    // The answer to the second offer changes nothing: that part is on its way.
    delivery.answered(SECOND * 3, blob, BlobStep::Next(128));
    assert_eq!(delivery.due(SECOND * 3), None);
    assert!(matches!(delivery.due(SECOND * 4), Some(DownV1::Part { offset: 128, .. })));
    delivery.begin();
    let Some(DownV1::Offer { blob: other, .. }) = delivery.due(SECOND * 4) else { panic!("no offer") };
    delivery.answered(SECOND * 4, blob, BlobStep::Refused(BlobProblem::Signature));
    delivery.answered(SECOND * 4, other, BlobStep::Next(0));
    assert!(matches!(delivery.due(SECOND * 4), Some(DownV1::Part { offset: 0, .. })));
}

#[test]
fn a_blob_that_does_not_pass_is_tried_three_times_and_a_wrong_one_once() {
    let mut delivery = Delivery::default();
    delivery.bring(parcel(BlobKind::Model, 3));
    delivery.bring(parcel(BlobKind::Firmware, 8));
    for again in 0..3 {
        send(&mut delivery, SECOND);
        let end = delivery.holds(SECOND, &holds(2, Held::Reverted { version: 3 }));
        assert_eq!(end.map(|end| end.end), (again == 2).then_some(End::Reverted), "{again}");
    }
    let Some(DownV1::Offer { blob, kind: BlobKind::Firmware, .. }) = delivery.due(SECOND) else { panic!("no offer") };
    assert_eq!(delivery.answered(SECOND, blob, BlobStep::Refused(BlobProblem::Busy)), None);
    assert_eq!(delivery.next_wake(), Some(SECOND * 11));
    let Some(DownV1::Offer { blob, .. }) = delivery.due(SECOND * 11) else { panic!("no offer") };
    let end = delivery.answered(SECOND * 11, blob, BlobStep::Refused(BlobProblem::Older));
    assert_eq!(end.map(|end| end.end), Some(End::Refused(BlobProblem::Older)));
}

#[test]
fn a_newer_one_takes_the_place_of_one_that_is_not_there_yet() {
    let mut delivery = Delivery::default();
    delivery.bring(parcel(BlobKind::Model, 3));
    delivery.due(SECOND);
    delivery.bring(parcel(BlobKind::Model, 4));
    assert_eq!(delivery.progress().map(|progress| progress.version), Some(4));
    assert!(matches!(delivery.due(SECOND), Some(DownV1::Offer { .. })));
    delivery.bring(parcel(BlobKind::Model, 4));
    assert_eq!(delivery.due(SECOND), None, "it is on its way");
}
