//! The decisions of the link one by one, and bytes from outside.

use proptest::prelude::*;
use tributary_wire::Micros;
use tributary_wire::link::*;

const TIMING: Timing = Timing { resend: 100, slowest: 400, idle: 20 };

fn all_due(sender: &mut Sender, now: u64) -> Vec<u32> {
    std::iter::from_fn(|| sender.due(now)).collect()
}

fn with_records(count: u32) -> Sender {
    let mut sender = Sender::new(TIMING);
    for _ in 0..count {
        sender.number();
    }
    sender
}

#[test]
fn a_sender_sends_a_window_and_no_more() {
    let mut sender = with_records(40);
    assert_eq!(all_due(&mut sender, 0), (1..=16).collect::<Vec<_>>());
    sender.stored(0, 3, 0);
    assert_eq!(all_due(&mut sender, 0), [17, 18, 19]);
    assert_eq!(sender.next_wake(0), Some(100));
}

#[test]
fn waits_double_up_to_the_slowest() {
    let mut sender = with_records(1);
    let mut times = Vec::new();
    for now in 0..1500 {
        if sender.due(now).is_some() {
            times.push(now);
        }
    }
    assert_eq!(times, [0, 100, 300, 700, 1100]);
    sender.stored(1500, 1, 0);
    assert_eq!(sender.next_wake(1500), None);
}

#[test]
fn a_record_sent_before_one_that_arrived_is_sent_again_at_once() {
    let mut sender = with_records(4);
    assert_eq!(all_due(&mut sender, 0), [1, 2, 3, 4]);
    // 3 arrived: 1 and 2 are lost, of 4 nothing is known yet.
    sender.stored(1, 0, 0b10);
    assert_eq!(all_due(&mut sender, 1), [1, 2]);
    // That 3 arrived says nothing about the second try.
    sender.stored(2, 0, 0b10);
    assert_eq!(all_due(&mut sender, 2), []);
    sender.stored(3, 4, 0);
    assert_eq!((sender.oldest(), sender.next()), (5, 5));
}

#[test]
fn a_line_that_loses_does_not_idle_and_one_that_is_only_slow_is_not_filled() {
    let mut sender = with_records(4);
    assert_eq!(all_due(&mut sender, 0), [1, 2, 3, 4]);
    // An answer took 30; 1 and 2 are lost, of 4 nothing is known.
    sender.stored(30, 0, 0b10);
    assert_eq!(all_due(&mut sender, 30), [1, 2, 4]);
    assert_eq!(sender.next_wake(30), Some(50));
    assert_eq!(all_due(&mut sender, 49), []);
    assert_eq!(sender.due(50), Some(1), "nothing else is due");
    sender.number();
    assert_eq!(all_due(&mut sender, 50), [5, 2, 4], "a new one goes before what only fills the line");
    // For a while nothing says that it loses: then waits are long again.
    let late = (51..1000).filter(|now| !all_due(&mut sender, *now).is_empty()).filter(|now| *now > 430);
    assert!(late.count() < 12);

    // On a slow line without gaps a record goes again only after the long wait, however fast the answer before was.
    let mut sender = with_records(2);
    sender.due(0);
    sender.stored(5, 1, 0);
    sender.due(5);
    sender.stored(6, 1, 0);
    assert_eq!((sender.due(104), sender.next_wake(104), sender.due(105)), (None, Some(105), Some(2)));
}

#[test]
fn overwritten_records_are_never_sent_and_the_receiver_counts_them() {
    let mut sender = with_records(30);
    sender.forget(20);
    assert_eq!(all_due(&mut sender, 0), (21..=30).collect::<Vec<_>>());
    let mut receiver = Receiver::default();
    assert_eq!(receiver.take(22, 1), Reception::New);
    assert_eq!((receiver.acknowledged(), receiver.lost()), ((20, 0), 20));
    receiver.store(22);
    assert_eq!(receiver.acknowledged(), (20, 1));
    assert_eq!(receiver.take(21, 0), Reception::New);
    receiver.store(21);
    assert_eq!((receiver.acknowledged(), receiver.lost()), ((22, 0), 20));
}

#[test]
fn an_acknowledgement_of_what_was_never_sent_changes_nothing() {
    let mut sender = with_records(2);
    sender.stored(0, 9, u32::MAX);
    sender.stored(0, u32::MAX, u32::MAX);
    assert_eq!((sender.oldest(), all_due(&mut sender, 0)), (1, vec![1, 2]));
}

#[test]
fn nothing_is_acknowledged_before_it_is_stored_and_nothing_is_taken_twice() {
    let mut receiver = Receiver::default();
    assert_eq!(receiver.take(1, 0), Reception::New);
    assert_eq!(receiver.take(2, 1), Reception::New);
    assert_eq!(receiver.take(1, 0), Reception::Again);
    assert_eq!(receiver.acknowledged(), (0, 0));
    receiver.store(2);
    assert_eq!(receiver.acknowledged(), (0, 1));
    receiver.give_back(1);
    receiver.give_back(2);
    assert_eq!((receiver.take(1, 0), receiver.take(2, 1)), (Reception::New, Reception::Again));
    receiver.store(1);
    assert_eq!(receiver.acknowledged(), (2, 0));
    assert_eq!(receiver.take(2, 1), Reception::Again);
    for (number, behind) in [(0, 0), (40, 16), (u32::MAX, 0), (67, 0)] {
        let reception = receiver.take(number, behind);
        assert_eq!(reception == Reception::New, number == 67, "{number} {behind}: {reception:?}");
    }
}

#[test]
fn a_receiver_that_was_restarted_goes_on_within_a_session() {
    let mut receiver = Receiver::resume(100, 3);
    assert_eq!((receiver.take(100, 3), receiver.take(97, 0)), (Reception::New, Reception::New));
    assert_eq!((receiver.acknowledged(), receiver.lost()), ((96, 0), 0));
}

#[test]
fn versions_are_agreed_on_or_not() {
    assert_eq!(negotiate(1, 1), Some(1));
    assert_eq!(negotiate(1, 200), Some(LINK_VERSION));
    assert_eq!(negotiate(LINK_VERSION + 1, 200), None);
    assert_eq!(negotiate(0, 0), None);
    assert_eq!(negotiate(3, 1), None);
}

#[test]
fn the_shortest_exchange_sets_the_clock_and_a_step_is_followed() {
    let mut clock = ClockOffset::default();
    assert_eq!(clock.wall(0), None);
    // The node started at 5 s of the agent's clock.
    clock.answered(Micros(10_000_000), 5_030_000, Micros(10_060_000));
    clock.answered(Micros(20_000_000), 15_000_900, Micros(20_001_000));
    clock.answered(Micros(30_000_000), 25_000_000, Micros(30_050_000));
    assert_eq!((clock.wall(1_000_000), clock.error()), (Some(Micros(5_999_600)), Some(500)));
    // Somebody set the agent's clock an hour ahead.
    clock.answered(Micros(3_640_000_000), 35_010_000, Micros(3_640_020_000));
    assert_eq!(clock.wall(35_010_000), Some(Micros(3_640_010_000)));
    // Nonsense is not looked at.
    for (asked, uptime, now) in
        [(9, 0, 8), (0, 0, i64::MAX), (i64::MIN, 5, 0), (i64::MIN, u64::MAX, i64::MIN), (i64::MIN, 1 << 62, i64::MIN)]
    {
        clock.answered(Micros(asked), uptime, Micros(now));
    }
    assert_eq!(clock.wall(35_010_000), Some(Micros(3_640_010_000)));
}

#[test]
fn a_blob_comes_in_order_and_whole_or_not_at_all() {
    let bytes: Vec<u8> = (0..300_u16).map(|n| n as u8).collect();
    let checksum = blob_checksum(&bytes);
    assert_eq!(BlobReceiver::new(1, 300, checksum, 299).unwrap_err(), BlobProblem::Room { room: 299 });
    let mut blob = BlobReceiver::new(1, 300, checksum, 300).unwrap();
    assert!(blob.is(1, 300, checksum) && !blob.is(1, 300, 0));
    for (offset, part) in [(128, &bytes[128..256]), (0, &bytes[..129]), (0, &[])] {
        assert_eq!(blob.expects(1, offset, part), None, "a hole, too long, or nothing");
    }
    for offset in [0, 128, 256_u32] {
        let part = &bytes[offset as usize..(offset as usize + 128).min(300)];
        assert_eq!(blob.expects(2, offset, part), None);
        blob.part(blob.expects(1, offset, part).unwrap());
        assert_eq!(blob.expects(1, offset, part), None, "a repeated part");
    }
    assert_eq!(blob.step(), BlobStep::Complete);
    let mut changed = BlobReceiver::new(1, 2, checksum, 300).unwrap();
    changed.part(&[1, 2]);
    assert!(matches!(changed.step(), BlobStep::Refused(BlobProblem::Checksum { .. })));
    assert_eq!(changed.expects(1, 2, &[3]), None, "past its end");
}

#[test]
fn a_part_over_its_limit_is_refused() {
    let samples = [1; 2 * RAW_SAMPLES + 2];
    let raw = RawPart { window: 1, axis: 0, part: 0, of: 1, samples: &samples };
    let message = Up::V1(UpV1::Record { session: 1, number: 1, behind: 0, uptime: 0, record: Record::Raw(raw) });
    let mut line = Deframer::default();
    let mut frame = [0; MAX_FRAME];
    let length = encode(&message, &mut frame).unwrap();
    let bytes = frame[..length].iter().find_map(|byte| line.push(*byte).map(|read| read.unwrap().to_vec())).unwrap();
    assert_eq!(Up::decode(&bytes).unwrap_err().to_string(), "raw part of 130 bytes is over the limit of 128");
    let samples = [1; MAX_MESSAGE];
    let raw = RawPart { samples: &samples, ..raw };
    let message = Up::V1(UpV1::Record { session: 1, number: 1, behind: 0, uptime: 0, record: Record::Raw(raw) });
    assert_eq!(encode(&message, &mut frame), Err(TooLong));
}

/// Whatever comes over a line is a message or an error.
fn read_line(bytes: &[u8]) -> (usize, usize) {
    let (mut line, mut good, mut bad) = (Deframer::default(), 0, 0);
    for byte in bytes {
        match line.push(*byte) {
            Some(Ok(message)) => {
                let _ = (Up::decode(message), Down::decode(message));
                good += 1;
            }
            Some(Err(_)) => bad += 1,
            None => {}
        }
    }
    (good, bad)
}

#[test]
fn no_bytes_on_a_line_make_a_decoder_panic() {
    bolero::check!().for_each(|bytes: &[u8]| {
        read_line(bytes);
        let _ = (Up::decode(bytes), Down::decode(bytes));
    });
}

proptest! {
    #[test]
    fn a_frame_after_any_garbage_is_read(garbage in proptest::collection::vec(any::<u8>(), 0..600), asked: i64) {
        let mut bytes = garbage;
        bytes.push(0);
        let (before, _) = read_line(&bytes);
        let mut frame = [0; MAX_FRAME];
        let length = encode(&Down::V1(DownV1::Time { asked }), &mut frame).unwrap();
        bytes.extend(&frame[..length]);
        prop_assert_eq!(read_line(&bytes).0, before + 1);
    }

    #[test]
    fn any_message_of_any_length_survives_its_frame(samples in proptest::collection::vec(prop_oneof![Just(0), any::<u8>()], 0..=128)) {
        let raw = RawPart { window: 0, axis: 0, part: 0, of: 0, samples: &samples };
        let message = Up::V1(UpV1::Record { session: 0, number: 0, behind: 0, uptime: 0, record: Record::Raw(raw) });
        let mut frame = [0; MAX_FRAME];
        let length = encode(&message, &mut frame).unwrap();
        prop_assert!(!frame[..length - 1].contains(&0));
        let mut line = Deframer::default();
        let read = frame[..length].iter().find_map(|byte| line.push(*byte).map(|read| read.unwrap().to_vec())).unwrap();
        prop_assert_eq!(Up::decode(&read).unwrap(), message);
    }

    #[test]
    fn a_changed_byte_is_found(place: prop::sample::Index, change in 1_u8.., asked: i64) {
        let mut frame = [0; MAX_FRAME];
        let length = encode(&Down::V1(DownV1::Time { asked }), &mut frame).unwrap();
        let mut bytes = frame[..length].to_vec();
        bytes[place.index(length)] ^= change;
        bytes.push(0);
        prop_assert_eq!(read_line(&bytes).0, 0);
    }
}
