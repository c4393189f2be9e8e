//! What goes first, what is said of it, and that nothing is half gone when the disk refuses.

use tributary_wire::{DroppedRecords, LossReason, Lost, Micros, SequenceNumber, Stamp, StreamName};

use super::tables::OUTBOX;
use super::tests::{all, batch, rows, stamp};
use super::*;
use crate::testing::{Rig, event};

fn observed(number: u64, remarkable: bool) -> Vec<(Accepted, Answer)> {
    let mut rows = rows(number, number + 1);
    let observation = Observation {
        line: "fraud".into(),
        version: 1,
        role: "primary".into(),
        snapshot: None,
        features: (0..40).map(|at| (number * 40 + at) as f32).collect(),
        output: 0.5,
        decision: true,
        threshold: 0.5,
        latency_us: 1,
        marks: 0,
        degraded: None,
    };
    rows[0].0.observations = vec![observation];
    rows[0].0.sampled.remarkable = remarkable;
    rows
}

/// One event and one observation per commit; every fourth observation is remarkable.
fn fill(store: &Store, numbers: std::ops::Range<u64>) {
    for number in numbers {
        let rows = observed(number, number.is_multiple_of(4));
        let commit = Commit { accepted: &rows, batches: batch(&rows), ..Commit::default() };
        store.commit(&commit, Stamp { wall: Micros(number as i64), ..stamp() }).unwrap();
    }
}

fn keep(store: &Store, bytes: u64, age: Option<i64>) {
    store.keep(Keeping { bytes, age });
}

fn give_up(store: &Store, wall: i64) -> u64 {
    let mut dropped = 0;
    while store.holds_too_much(Micros(wall)) {
        dropped += store.give_up(Stamp { wall: Micros(wall), ..stamp() }).unwrap();
    }
    dropped
}

/// Numbers of batches that are there, and what gaps say; every number is in one or the other.
fn found(store: &Store, stream: &str) -> (Vec<u64>, Vec<Lost>) {
    let (mut there, mut lost, mut next) = (Vec::new(), Vec::new(), 1);
    for (header, body) in all(store, stream) {
        assert_eq!(header.sequence.0, next, "{stream}");
        match body.gap() {
            None => there.push(header.sequence.0),
            Some((to, gap)) => {
                lost.extend(gap);
                next = to.0;
            }
        }
        next += 1;
    }
    (there, lost)
}

fn count(store: &Store, stream: &str, reason: LossReason) -> u64 {
    let is = |it: &&DroppedRecords| it.stream.as_str() == stream && it.reason == reason;
    store.dropped().iter().find(is).map_or(0, |it| it.records)
}

#[test]
fn ordinary_observations_go_first_then_remarkable_ones_then_events() {
    let rig = Rig::new();
    let store = rig.store().unwrap();
    store.hub_reads(3);
    fill(&store, 1..41);
    let full = store.outgoing().bytes;
    keep(&store, full - full / 8, None);
    let dropped = give_up(&store, 50);
    let (there, lost) = found(&store, "observations");
    let first_ordinary = there.iter().copied().find(|number| !number.is_multiple_of(4)).unwrap();
    assert!(first_ordinary > 4 && there.contains(&4), "the oldest ordinary ones go: {there:?}");
    assert_eq!(found(&store, "events").0.len(), 40);
    assert_eq!(count(&store, "observations", LossReason::DiskBudget), dropped);
    assert_eq!(lost.iter().map(|lost| lost.records).sum::<u64>(), dropped);
    assert_eq!(lost[0].span.unwrap().0, event(1).time);
}

#[test]
fn gaps_beside_each_other_become_one_and_say_from_when_the_records_were() {
    let rig = Rig::new();
    let store = rig.store().unwrap();
    store.hub_reads(3);
    fill(&store, 1..41);
    // The ordinary ones first, in ten gaps between the others, then those too.
    keep(&store, u64::MAX, Some(10));
    assert!(give_up(&store, 31) > 0);
    keep(&store, 1, None);
    give_up(&store, 41);
    assert_eq!(store.outgoing().batches, 2, "one gap for each stream");
    let (there, lost) = found(&store, "observations");
    assert_eq!(there, Vec::<u64>::new());
    let spans = (event(1).time, event(20).time.max(event(18).time));
    let age = Lost { reason: LossReason::Age, records: 20, span: Some(spans) };
    assert!(lost.contains(&age), "{lost:?}");
    assert_eq!(lost.iter().map(|lost| lost.records).sum::<u64>(), 40);
    let dropped = [
        ("observations", LossReason::Age),
        ("observations", LossReason::DiskBudget),
        ("events", LossReason::DiskBudget),
    ];
    assert_eq!(dropped.map(|(stream, reason)| count(&store, stream, reason)), [20, 20, 40]);
    // What was given up is still known after a restart.
    let before = store.dropped();
    drop(store);
    let store = rig.store().unwrap();
    assert_eq!((store.dropped(), store.outgoing().dropped), (before, 80));
}

#[test]
fn a_hub_that_reads_no_times_is_told_counts() {
    let rig = Rig::new();
    let store = rig.store().unwrap();
    fill(&store, 1..4);
    keep(&store, u64::MAX, Some(10));
    give_up(&store, 100);
    let (_, body) = all(&store, "observations").remove(0);
    let tributary_wire::BatchBody::Gap { dropped, .. } = body else { panic!("{body:?}") };
    assert_eq!(dropped[0].records, 3);
}

#[test]
fn a_budget_below_one_batch_keeps_only_what_travels() {
    let mut rig = Rig::new();
    rig.budget = 10;
    let store = rig.store().unwrap();
    fill(&store, 1..4);
    assert_eq!(store.outgoing().batches, 2);
    // The gap travels; what comes next cannot lengthen it any more.
    let events = StreamName::new("events").unwrap();
    store.outbox_next(&events, SequenceNumber(0)).unwrap().unwrap();
    fill(&store, 4..6);
    assert_eq!(found(&store, "events"), (vec![], store_lost(&[3, 2])));
    assert!(!store.holds_too_much(Micros(100)), "what remains cannot be given up");
    assert_eq!(store.outgoing().dropped, 10);
}

fn store_lost(records: &[u64]) -> Vec<Lost> {
    records.iter().map(|records| Lost { reason: LossReason::DiskBudget, records: *records, span: None }).collect()
}

#[test]
fn what_travelled_is_never_given_up() {
    let rig = Rig::new();
    let store = rig.store().unwrap();
    fill(&store, 1..9);
    let observations = StreamName::new("observations").unwrap();
    for after in 0..3 {
        store.outbox_next(&observations, SequenceNumber(after)).unwrap().unwrap();
    }
    keep(&store, 0, Some(0));
    give_up(&store, 100);
    assert_eq!(found(&store, "observations").0, [1, 2, 3]);
}

/// Puts other bytes, or none, in the place of a batch, as a disk does that does not keep what was written.
fn spoil(store: &Store, number: u64, spoil: impl FnOnce(Vec<u8>) -> Option<Vec<u8>>) {
    let work = |transaction: &WriteTransaction| {
        let mut table = transaction.open_table(OUTBOX)?;
        let stored = table.remove(("events", number))?.map(|stored| stored.value().to_vec());
        if let Some(spoilt) = stored.and_then(spoil) {
            table.insert(("events", number), spoilt.as_slice())?;
        }
        Ok(())
    };
    store.write(work).unwrap();
}

fn flip(mut bytes: Vec<u8>, at: usize) -> Vec<u8> {
    bytes[at] ^= 1;
    bytes
}

#[test]
fn what_the_disk_did_not_keep_is_told_as_a_gap_and_the_stream_goes_on() {
    let rig = Rig::new();
    let store = rig.store().unwrap();
    store.hub_reads(3);
    fill(&store, 1..8);
    let events = StreamName::new("events").unwrap();
    let seventh = store.outbox_next(&events, SequenceNumber(6)).unwrap().unwrap().1;
    spoil(&store, 2, |bytes| Some(flip(bytes, 9)));
    spoil(&store, 3, |bytes| Some(flip(bytes.clone(), bytes.len() - 1)));
    spoil(&store, 4, |_| None);
    spoil(&store, 5, |_| Some(seventh));
    // A disk that refuses at this moment counts nothing.
    rig.disk.fail_after(0);
    store.outbox_next(&events, SequenceNumber(1)).unwrap_err();
    rig.disk.mend();
    store.reopen().unwrap();
    assert_eq!(store.outgoing().dropped, 0);

    let corrupt = |number: u64| {
        let time = event(number).time;
        Lost { reason: LossReason::Corrupt, records: 1, span: Some((time, time)) }
    };
    let expected = (vec![1, 6, 7], [2, 3, 4, 5].map(corrupt).to_vec());
    assert_eq!(found(&store, "events"), expected, "each for itself: it may have travelled as it was");
    assert_eq!(count(&store, "events", LossReason::Corrupt), 4);
    // A gap is what it was, too, and what it stands for counts once.
    let gap = store.outbox_next(&events, SequenceNumber(1)).unwrap();
    spoil(&store, 2, |_| None);
    assert_eq!(store.outbox_next(&events, SequenceNumber(1)).unwrap(), gap);
    drop(store);
    let store = rig.store().unwrap();
    store.hub_reads(3);
    assert_eq!(found(&store, "events"), expected);
    assert_eq!((count(&store, "events", LossReason::Corrupt), store.outgoing().dropped), (4, 4));
    assert_eq!(found(&store, "observations").0.len(), 7);
    assert_eq!(store.outbox_free(&events, SequenceNumber(7), &[]).unwrap(), 7);
}

#[test]
fn no_flipped_bit_of_a_batch_passes() {
    let rig = Rig::new();
    let store = rig.store().unwrap();
    fill(&store, 1..2);
    let events = StreamName::new("events").unwrap();
    let (number, bytes) = store.outbox_next(&events, SequenceNumber(0)).unwrap().unwrap();
    let whole = |bytes: &[u8]| super::giving_up::whole(Some(bytes), store.incarnation(), &events, number);
    assert_eq!(whole(&bytes).unwrap(), bytes);
    for bit in 0..8 * bytes.len() {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(whole(&flipped).is_err(), "bit {bit}");
    }
}

#[test]
fn a_disk_that_is_full_at_the_moment_of_dropping_changes_nothing_until_there_is_room() {
    for room in 0..6 {
        let rig = Rig::new();
        let store = rig.store().unwrap();
        fill(&store, 1..200);
        let before = store.outgoing();
        keep(&store, before.bytes / 2, None);
        rig.disk.set_capacity(Some(rig.disk.used()));
        rig.disk.fail_after(room * 4);
        let failed = store.give_up(stamp());
        rig.disk.set_capacity(None);
        rig.disk.fail_after(1 << 40);
        if failed.is_err() {
            assert!(store.is_suspect());
            store.reopen().unwrap();
            assert_eq!(store.outgoing(), before, "room {room}");
        }
        let done = failed.unwrap_or(0) + give_up(&store, 300);
        assert_eq!(store.outgoing().dropped, done);
        let there = found(&store, "observations").0.len() + found(&store, "events").0.len();
        assert_eq!(there as u64 + done, 2 * 199);
    }
}
