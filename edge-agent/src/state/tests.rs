use std::collections::BTreeMap;

use edge_agent_core::outbox::Freed;
use tributary_wire::{Batch, BatchBody, BatchHeaderV1, BodyEncoding, ClockState, Micros, SequenceNumber, Stamp};

use super::*;
use crate::testing::{Rig, event, view};

pub(crate) fn stamp() -> Stamp {
    Stamp { boot: 1, monotonic: 0, wall: Micros(1), clock: ClockState::Unsynchronised }
}

/// Reads a batch as the hub would.
pub(crate) fn open(bytes: &[u8]) -> (BatchHeaderV1, BatchBody) {
    let (header, body) = Batch::decode(bytes).unwrap();
    Batch::check_body(&header, body).unwrap();
    let plain = match header.encoding {
        BodyEncoding::Plain => body.to_vec(),
        BodyEncoding::Zstd => zstd::bulk::decompress(body, header.body_bytes as usize).unwrap(),
    };
    let body = BatchBody::decode(&plain, header.rows).unwrap();
    (header, body)
}

/// Every batch of a stream.
pub(crate) fn all(store: &Store, stream: &str) -> Vec<(BatchHeaderV1, BatchBody)> {
    let stream = tributary_wire::StreamName::new(stream).unwrap();
    let (mut found, mut after) = (Vec::new(), SequenceNumber(0));
    while let Some((number, bytes)) = store.outbox_next(&stream, after).unwrap() {
        found.push(open(&bytes));
        after = number;
    }
    found
}

fn sketch() -> SketchRecord {
    SketchRecord {
        line: "fraud".into(),
        version: 1,
        window_start: Micros(0),
        window_end: Micros(1),
        sketch: vec![7; 100],
    }
}

pub(crate) fn rows(from: u64, to: u64) -> Vec<(Accepted, Answer)> {
    (from..to)
        .map(|number| {
            let answer = Answer {
                number,
                wall: Micros(number as i64),
                version: 1,
                output: 0.5,
                decision: true,
                degraded: None,
                marks: 0,
                latency_us: 1,
                challenger: None,
            };
            let accepted = Accepted {
                number,
                wall: Micros(1),
                source: "api".into(),
                event: event(number),
                observations: Vec::new(),
                sampled: Default::default(),
            };
            (accepted, answer)
        })
        .collect()
}

pub(crate) fn batch(rows: &[(Accepted, Answer)]) -> Vec<ClosedBatch> {
    let mut open = OpenBatch::default();
    rows.iter().for_each(|(row, _)| open.push(row.clone(), 0));
    open.close(&view())
}

fn commit_batches(store: &Store, numbers: std::ops::Range<u64>) -> Committed {
    let mut dropped = Committed::default();
    for number in numbers {
        let rows = rows(number, number + 1);
        let commit = Commit { accepted: &rows, batches: batch(&rows), ..Commit::default() };
        let committed = store.commit(&commit, stamp()).unwrap();
        dropped.dropped += committed.dropped;
    }
    dropped
}

#[test]
fn a_commit_survives_a_crash_whole_and_an_unfinished_one_leaves_nothing() {
    for fuse in 0..200 {
        let rig = Rig::new();
        let store = rig.store().unwrap();
        commit_batches(&store, 1..4);
        rig.disk.fail_after(fuse);
        let rows = rows(4, 5);
        let result = store.commit(&Commit { accepted: &rows, batches: batch(&rows), ..Commit::default() }, stamp());
        rig.disk.crash(Some(fuse));
        drop(store);
        let store = rig.store().unwrap();
        let loaded = store.load().unwrap();
        let there = store.answer("e-4").unwrap().is_some();
        assert!(there || result.is_err(), "fuse {fuse}: what was said to be durable is gone");
        assert_eq!(loaded.next, if there { 5 } else { 4 }, "fuse {fuse}");
        let numbers: Vec<u64> = all(&store, "events").iter().map(|(header, _)| header.sequence.0).collect();
        assert_eq!(numbers, (1..loaded.next).collect::<Vec<_>>(), "fuse {fuse}");
        if result.is_ok() {
            return;
        }
    }
    panic!("the fuse never lasted for a whole commit");
}

#[test]
fn batches_count_from_one_and_are_freed_only_by_receipts_for_what_was_given_out() {
    let rig = Rig::new();
    let store = rig.store().unwrap();
    commit_batches(&store, 1..6);
    let events = tributary_wire::StreamName::new("events").unwrap();
    assert_eq!(store.outbox_free(&events, SequenceNumber(5), &[]).unwrap(), 0, "nothing was given out yet");
    for after in 0..3 {
        assert_eq!(store.outbox_next(&events, SequenceNumber(after)).unwrap().unwrap().0, SequenceNumber(after + 1));
    }
    assert_eq!(store.outbox_free(&events, SequenceNumber(1), &[SequenceNumber(3)]).unwrap(), 2);
    assert_eq!(store.outbox_next_number(&events, SequenceNumber(0)).unwrap(), Some(SequenceNumber(2)));
    assert_eq!(store.outbox_next_number(&events, SequenceNumber(2)).unwrap(), Some(SequenceNumber(4)));
    let held = |store: &Store| {
        let all = store.outbox_held();
        all.into_iter().find(|held| held.stream.as_str() == "events").map(|held| held.first.0)
    };
    assert_eq!(held(&store), Some(2), "what lies beyond a number that is held says nothing");
    // Numbers go on, also when all were freed and the process began anew.
    drop(store);
    let store = rig.store().unwrap();
    commit_batches(&store, 6..7);
    assert_eq!(all(&store, "events").last().unwrap().0.sequence, SequenceNumber(6));
    assert_eq!(held(&store), Some(2));
    assert_eq!(store.outbox_free(&events, SequenceNumber(6), &[]).unwrap(), 4);
    assert_eq!(held(&store), Some(7), "all are gone: the next one that will be");
}

#[test]
fn the_budget_costs_the_oldest_that_never_travelled_and_says_so_in_a_gap() {
    let mut rig = Rig::new();
    rig.budget = 8000;
    let store = rig.store().unwrap();
    let events = tributary_wire::StreamName::new("events").unwrap();
    commit_batches(&store, 1..3);
    // Number 1 travels, so it stays whatever happens.
    store.outbox_next(&events, SequenceNumber(0)).unwrap().unwrap();
    store.commit(&Commit { sketches: vec![sketch()], ..Commit::default() }, stamp()).unwrap();
    let dropped = commit_batches(&store, 3..60).dropped;
    assert!(dropped > 0);
    assert_eq!(store.outgoing().dropped, dropped);
    assert!(store.outbox_size().1 <= 8000);
    assert_eq!(all(&store, "sketches").len(), 1, "sketches outlive raw records");
    let batches = all(&store, "events");
    assert_eq!(batches[0].0.sequence, SequenceNumber(1));
    // Every number is either there or inside a gap, once.
    let (mut next, mut missing) = (1, 0);
    for (header, body) in &batches {
        assert_eq!(header.sequence.0, next);
        next = match body.gap() {
            None => next + 1,
            Some((to, lost)) => {
                missing += lost.iter().map(|lost| lost.records).sum::<u64>();
                to.0 + 1
            }
        };
    }
    assert_eq!(next, 60);
    let observations: u64 = all(&store, "observations")
        .iter()
        .filter_map(|(_, body)| body.gap())
        .flat_map(|(_, lost)| lost)
        .map(|lost| lost.records)
        .sum();
    assert_eq!(missing + observations, dropped);
}

#[test]
fn a_full_disk_is_an_error_that_says_so_and_leaves_the_state_as_it_was() {
    let rig = Rig::new();
    let store = rig.store().unwrap();
    commit_batches(&store, 1..4);
    rig.disk.set_capacity(Some(rig.disk.used()));
    let rows = rows(4, 20_000);
    let error = store.commit(&Commit { accepted: &rows, ..Commit::default() }, stamp()).unwrap_err();
    assert!(error.is_disk_full(), "{error:?}");
    rig.disk.set_capacity(None);
    store.reopen().unwrap();
    assert_eq!(store.load().unwrap().next, 4);
    commit_batches(&store, 4..6);
    assert_eq!(store.load().unwrap().next, 6);
}

#[test]
fn what_is_stored_after_a_sync_that_failed_survives_a_power_cut() {
    let mut failed_syncs = 0;
    for after in 0..120 {
        let rig = Rig::new();
        let store = rig.store().unwrap();
        commit_batches(&store, 1..4);
        rig.disk.fail_once(after, io::ErrorKind::Other);
        // Many pages first, which the small commits behind them build on and do not touch.
        let mut until = 400;
        while store.load().unwrap().next < 410 {
            let many = rows(store.load().unwrap().next, until);
            match store.commit(&Commit { accepted: &many, ..Commit::default() }, stamp()) {
                Ok(_) => until += 1,
                Err(_) => {
                    failed_syncs += u32::from(store.in_doubt.load(Ordering::Acquire));
                    while store.reopen().is_err() {}
                    until = until.max(store.load().unwrap().next + 1);
                }
            }
        }
        let next = store.load().unwrap().next;
        for seed in [None, Some(after), Some(after + 1000)] {
            rig.disk.crash(seed);
            let store = rig.store().unwrap_or_else(|error| panic!("operation {after}, {seed:?}: {error:?}"));
            assert_eq!(store.load().unwrap().next, next, "operation {after}, {seed:?}");
        }
    }
    assert!(failed_syncs > 0, "no sync was met");
}

#[test]
fn a_program_that_dies_after_a_sync_that_failed_leaves_nothing_to_the_next_power_cut() {
    for pretend in [false, true] {
        let mut lost = 0;
        for after in 0..60 {
            let disk = simdisk::SimDisk::new();
            let store = simdisk::open(&disk, StoreOptions::default()).unwrap();
            commit_batches(&store, 1..4);
            disk.fail_once(after, io::ErrorKind::Other);
            let _ = (4..20).try_for_each(|number| {
                store.commit(&Commit { accepted: &rows(number, number + 1), ..Commit::default() }, stamp()).map(|_| ())
            });
            disk.kill();
            drop(store);
            if pretend {
                simdisk::pretend_closed(&disk);
            }
            let store = simdisk::open(&disk, StoreOptions::default()).unwrap();
            let next = store.load().unwrap().next;
            disk.crash(None);
            drop(store);
            let again = simdisk::open(&disk, StoreOptions::default()).and_then(|store| store.load());
            lost += u32::from(again.map_or(true, |loaded| loaded.next != next));
        }
        assert_eq!(lost > 0, pretend, "{lost} lost something");
    }
}

#[test]
fn blobs_and_report_numbers_survive() {
    let rig = Rig::new();
    let store = rig.store().unwrap();
    store.blob_put("update/a", b"1").unwrap();
    store.blob_put("update/b", b"2").unwrap();
    store.blob_put("other", b"3").unwrap();
    store.blob_delete("update/b").unwrap();
    assert_eq!((store.next_report_number().unwrap(), store.next_report_number().unwrap()), (1, 2));
    let incarnation = store.incarnation();
    rig.disk.crash(None);
    drop(store);
    let store = rig.store().unwrap();
    assert_eq!(store.blob_keys("update/").unwrap(), ["update/a"]);
    assert_eq!(store.blob_get("update/a").unwrap().as_deref(), Some(b"1".as_slice()));
    assert_eq!(store.blob_get("none").unwrap(), None);
    assert_eq!(store.next_report_number().unwrap(), 3);
    assert_eq!(store.incarnation(), incarnation);
}

#[test]
fn ids_and_events_are_forgotten_by_number_and_age() {
    let rig = Rig::new();
    let store = rig.store().unwrap();
    let rows = rows(1, 101);
    let sweep = Sweep {
        forget_through: 10,
        forget_before: Micros(21),
        trim_through: 50,
        trim_before: event(30).time,
        budget_through: 5,
    };
    let commit = Commit { accepted: &rows, sweep: Some(sweep), ..Commit::default() };
    let committed = store.commit(&commit, stamp()).unwrap();
    let kept: BTreeMap<u64, String> = store.remembered(0, 1000).unwrap().into_iter().collect();
    assert_eq!(kept.keys().next(), Some(&21), "walls are the numbers here");
    assert!(store.answer("e-20").unwrap().is_none());
    assert!(store.answer("e-21").unwrap().is_some());
    let loaded = store.load().unwrap();
    assert_eq!(loaded.first_kept, Some(30));
    assert_eq!(loaded.lost_through, committed.lost_through);
    assert_eq!(loaded.lost_through, Some(event(28).time), "29 was a late one");
}

#[test]
fn a_column_that_the_view_lost_still_travels() {
    let mut rows = rows(1, 3);
    rows[0].0.event.values.push(("old".into(), tributary_features::Value::Text("x".into())));
    let rig = Rig::new();
    let store = rig.store().unwrap();
    store.commit(&Commit { accepted: &rows, batches: batch(&rows), ..Commit::default() }, stamp()).unwrap();
    let BatchBody::Records { schema, .. } = &all(&store, "events")[0].1 else { panic!("records") };
    let names: Vec<&str> = schema.iter().map(|field| field.name.as_str()).collect();
    assert_eq!(names, ["accepted", "event_id", "event_time", "source", "inclusion", "customer_id", "amount", "old"]);
}

#[test]
fn what_a_receipt_freed_stays_freed_when_the_disk_fails_behind_it() {
    for after in 0..30 {
        let rig = Rig::new();
        let store = rig.store().unwrap();
        commit_batches(&store, 1..4);
        let stream = tributary_wire::StreamName::new("events").unwrap();
        let last = SequenceNumber(all(&store, "events").len() as u64);
        rig.disk.fail_once(after, io::ErrorKind::Other);
        let _ = store.outbox_free(&stream, last, &[]);
        let many = rows(4, 400);
        let _ = store.commit(&Commit { accepted: &many, ..Commit::default() }, stamp());
        while store.reopen().is_err() {}
        assert!(all(&store, "events").is_empty(), "operation {after}");
    }
}

#[test]
fn a_disk_that_fails_at_one_stream_of_a_receipt_stops_none_of_the_others() {
    let rig = Rig::new();
    let store = rig.store().unwrap();
    commit_batches(&store, 1..4);
    store.commit(&Commit { sketches: vec![sketch()], ..Commit::default() }, stamp()).unwrap();
    let streams = ["events", "sketches"];
    let freed = streams.map(|stream| Freed {
        stream: tributary_wire::StreamName::new(stream).unwrap(),
        through: SequenceNumber(all(&store, stream).len() as u64),
        scattered: Vec::new(),
        quarantined: Vec::new(),
    });
    rig.disk.fail_once(0, io::ErrorKind::Other);
    store.commit(&Commit { accepted: &rows(4, 400), ..Commit::default() }, stamp()).unwrap_err();
    let (gone, all_of_them) = crate::link::free(&store, &freed);
    assert!(gone == 0 && all_of_them.is_err(), "the state cannot be written before it is opened anew");
    store.reopen().unwrap();
    assert!(streams.iter().all(|stream| all(&store, stream).is_empty()));
}

#[test]
fn states_that_begin_without_a_clock_are_told_apart_and_come_before_those_with_one() {
    let begun = |wall, boot| {
        let options = StoreOptions { wall: Micros(wall), boot, ..StoreOptions::default() };
        Store::open_with(|| Ok(redb::backends::InMemoryBackend::new()), options).unwrap().incarnation()
    };
    let without = [1, 2].map(|boot| begun(0, boot));
    assert_ne!(without[0], without[1]);
    // 2024-01-01.
    assert!(without.iter().all(|number| *number < begun(1_704_067_200_000_000, 1)));
}

#[test]
fn a_second_process_is_kept_out_and_an_empty_file_is_never_begun_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.redb");
    let store = Store::open(&path, StoreOptions::default()).unwrap();
    let Err(refused) = Store::open(&path, StoreOptions::default()) else { panic!("two opened one state") };
    assert!(crate::words::in_words(&refused).contains("already open"), "{refused:?}");
    drop(store);
    drop(Store::open(&path, StoreOptions::default()).unwrap());
    // What once was a state and lost its content must not pass for a new one.
    std::fs::write(&path, "").unwrap();
    let Err(refused) = Store::open(&path, StoreOptions::default()) else { panic!("an empty file was taken for new") };
    assert!(refused.is_broken() && crate::words::in_words(&refused).contains("is empty"), "{refused:?}");
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
}

#[test]
fn a_state_that_lost_its_incarnation_is_damaged_and_never_a_new_one() {
    let rig = Rig::new();
    let store = rig.store().unwrap();
    let lose =
        |transaction: &WriteTransaction| Ok(transaction.open_table(tables::META)?.remove("incarnation")?.is_some());
    assert!(store.write(lose).unwrap());
    drop(store);
    assert!(rig.store().is_err_and(|error| error.is_broken()));
    let rig = Rig::new();
    let store = rig.store().unwrap();
    assert!(store.write(|transaction| Ok(transaction.delete_table(tables::META)?)).unwrap());
    drop(store);
    assert!(rig.store().is_err_and(|error| error.is_broken()));
}

#[test]
fn damage_anywhere_in_the_file_is_an_error_and_never_a_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.redb");
    let store = Store::open(&path, StoreOptions::default()).unwrap();
    store.commit(&Commit { accepted: &rows(1, 200), ..Commit::default() }, stamp()).unwrap();
    drop(store);
    let whole = std::fs::read(&path).unwrap();
    let mut broken = 0;
    for at in (0..whole.len()).step_by(whole.len() / 40).chain([0, 9, 64, 70, 128, 200, 320]) {
        for length in [1, 512] {
            let mut bytes = whole.clone();
            let end = (at + length).min(bytes.len());
            bytes[at..end].iter_mut().for_each(|byte| *byte ^= 0xff);
            std::fs::write(&path, &bytes).unwrap();
            let opened = Store::open(&path, StoreOptions::default());
            broken += u32::from(opened.is_err_and(|error| error.is_broken()));
        }
    }
    assert!(broken > 0);
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    assert!(Store::open(&path, StoreOptions::default()).is_err_and(|error| error.is_broken()));
}
