//! One suite, which every ledger passes: what is entered is read back, races change nothing, and a new life finds all.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cloud_hub_lake::{StreamColumn, StreamSchema};
use tributary_process::disk::SimDisk;
use tributary_wire::{FieldType, Incarnation, LossReason};

use super::*;
use crate::catalog::Catalog;

const NOW: Micros = Micros(1_000);

/// Where a ledger lies, and how it begins its next life.
trait Home {
    type Ledger: Ledger;
    async fn begin() -> (Self, Self::Ledger)
    where
        Self: Sized;
    async fn next_life(&mut self, ledger: Self::Ledger) -> Self::Ledger;
    /// Open alerts: kind and subject.
    async fn alerts(&self, ledger: &Self::Ledger) -> Vec<(String, String)>;
    /// Records given up, with the first and the last number.
    async fn gaps(&self, ledger: &Self::Ledger) -> Vec<(u64, u64, u64)>;
}

struct Folder(tempfile::TempDir);

impl Home for Folder {
    type Ledger = Catalog;

    async fn begin() -> (Self, Catalog) {
        let folder = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(&folder.path().join("catalog.db")).await.unwrap();
        (Self(folder), catalog)
    }

    async fn next_life(&mut self, ledger: Catalog) -> Catalog {
        ledger.close().await;
        Catalog::open(&self.0.path().join("catalog.db")).await.unwrap()
    }

    async fn alerts(&self, ledger: &Catalog) -> Vec<(String, String)> {
        let query = "select kind, subject from alerts where state <> 'resolved' order by kind, subject";
        sqlx::query_as(query).fetch_all(ledger.reader()).await.unwrap()
    }

    async fn gaps(&self, ledger: &Catalog) -> Vec<(u64, u64, u64)> {
        let query = "select first_sequence, last_sequence, records from gaps order by number";
        let rows: Vec<(i64, i64, i64)> = sqlx::query_as(query).fetch_all(ledger.reader()).await.unwrap();
        rows.into_iter().map(|(first, last, records)| (first as u64, last as u64, records as u64)).collect()
    }
}

struct Simulated(SimDisk);

impl Home for Simulated {
    type Ledger = MemoryLedger;

    async fn begin() -> (Self, MemoryLedger) {
        let disk = SimDisk::new();
        let ledger = MemoryLedger::create(Arc::new(disk.until_crash()), PathBuf::from("/ledger")).unwrap();
        (Self(disk), ledger)
    }

    async fn next_life(&mut self, ledger: MemoryLedger) -> MemoryLedger {
        self.0.crash(None);
        ledger.reopen(Arc::new(self.0.until_crash())).unwrap()
    }

    async fn alerts(&self, ledger: &MemoryLedger) -> Vec<(String, String)> {
        ledger.alerts()
    }

    async fn gaps(&self, ledger: &MemoryLedger) -> Vec<(u64, u64, u64)> {
        ledger.gaps().iter().map(|gap| (gap.first.0, gap.last.0, gap.lost.records)).collect()
    }
}

fn of(device: &str) -> Numbering {
    Numbering {
        device: DeviceId::new(device).unwrap(),
        incarnation: Incarnation(1),
        stream: StreamName::new("events").unwrap(),
    }
}

fn hash(of: u8) -> Sha256 {
    Sha256([of; 32])
}

fn answer(of: &Numbering, (first, last): (u64, u64), body: u8, state: State) -> Answer {
    let lost = Lost { reason: LossReason::DiskBudget, records: last - first + 1, span: None };
    Answer {
        of: of.clone(),
        sequence: SequenceNumber(first),
        last: SequenceNumber(last),
        hash: hash(body),
        rows: u64::from(state == State::Stored),
        state,
        received: NOW,
        lost: if state == State::Gap { vec![lost] } else { Vec::new() },
        replays: false,
    }
}

fn answers(answers: Vec<Answer>, through: u64) -> Entry {
    let through = answers.iter().map(|a| (a.of.clone(), SequenceNumber(through))).collect();
    Entry { answers, through, ..Entry::default() }
}

fn file(name: &str) -> FileEntry {
    FileEntry {
        number: 0,
        path: format!("events/day=1970-01-01/{name}.parquet"),
        stream: StreamName::new("events").unwrap(),
        day: 0,
        rows: 3,
        bytes: 100,
        min_time: Micros(1),
        max_time: Micros(2),
    }
}

fn kept(id: &str, body: u8, bytes: u64) -> Kept {
    let named = Some((of("edge-1"), 9));
    let (device, path) = (of("edge-1").device, format!("edge-1/{id}.batch"));
    Kept { id: id.into(), device, named, reason: "schema", detail: "why".into(), hash: hash(body), bytes, path }
}

fn columns(names: &[&str]) -> StreamSchema {
    let column =
        |name: &&str| StreamColumn { name: (*name).into(), kind: FieldType::Int, unit: "EUR".into(), nullable: true };
    StreamSchema { columns: names.iter().map(column).collect() }
}

async fn what_is_entered_is_read_back_also_in_the_next_life<H: Home>() {
    let (mut home, mut ledger) = H::begin().await;
    let edge = of("edge-1");
    assert_eq!(ledger.progress(&edge).await.unwrap(), (SequenceNumber(0), vec![]));
    let stream = edge.stream.clone();
    let mut first = answers(vec![answer(&edge, (1, 1), 1, State::Stored), answer(&edge, (5, 7), 5, State::Gap)], 1);
    first.files = vec![file("a"), file("b")];
    first.schemas.insert(stream.clone(), (columns(&["x"]), 0));
    let files = ledger.enter(&first, NOW).await.unwrap();
    assert_eq!(files.iter().map(|file| file.number).collect::<Vec<_>>(), [1, 2]);
    let mut second = answers(vec![answer(&edge, (3, 3), 3, State::Quarantined)], 1);
    second.files = vec![file("c")];
    second.schemas.insert(stream.clone(), (columns(&["x", "y"]), 1));
    second.kept = vec![kept("one", 3, 40)];
    assert_eq!(ledger.enter(&second, NOW).await.unwrap()[0].number, 3);
    for _ in 0..2 {
        assert_eq!(ledger.progress(&edge).await.unwrap(), (SequenceNumber(1), vec![(3, 3), (5, 7)]));
        assert_eq!(ledger.answered(&edge, SequenceNumber(1)).await.unwrap(), Some((hash(1), State::Stored)));
        assert_eq!(ledger.answered(&edge, SequenceNumber(3)).await.unwrap(), Some((hash(3), State::Quarantined)));
        assert_eq!(ledger.answered(&edge, SequenceNumber(5)).await.unwrap(), Some((hash(5), State::Gap)));
        assert_eq!(ledger.answered(&edge, SequenceNumber(6)).await.unwrap(), None, "inside a gap");
        assert_eq!(ledger.answered(&of("edge-2"), SequenceNumber(1)).await.unwrap(), None);
        assert_eq!(ledger.schemas().await.unwrap(), [(stream.clone(), columns(&["x", "y"]))]);
        let numbered = |(number, name): (i64, &str)| FileEntry { number, ..file(name) };
        assert_eq!(ledger.files().await.unwrap(), [(1, "a"), (2, "b"), (3, "c")].map(numbered));
        assert_eq!(ledger.kept_paths().await.unwrap(), ["edge-1/one.batch"]);
        assert_eq!(home.gaps(&ledger).await, [(5, 7, 3)]);
        ledger = home.next_life(ledger).await;
    }
}

async fn a_number_that_is_taken_makes_the_whole_entry_a_race_and_nothing_changes<H: Home>() {
    let (home, ledger) = H::begin().await;
    let (edge, other) = (of("edge-1"), of("edge-2"));
    ledger.enter(&answers(vec![answer(&edge, (2, 2), 2, State::Stored)], 0), NOW).await.unwrap();
    for body in [2, 7] {
        // The same body or another one: planning again tells which.
        let again = vec![answer(&other, (1, 1), 1, State::Stored), answer(&edge, (2, 2), body, State::Stored)];
        let mut entry = answers(again, 2);
        (entry.files, entry.kept) = (vec![file("a")], vec![kept("one", 3, 40)]);
        entry.cloned = vec![(edge.clone(), SequenceNumber(2))];
        assert!(matches!(ledger.enter(&entry, NOW).await, Err(LedgerError::Raced)));
    }
    assert_eq!(ledger.progress(&other).await.unwrap(), (SequenceNumber(0), vec![]));
    assert_eq!(ledger.progress(&edge).await.unwrap(), (SequenceNumber(0), vec![(2, 2)]));
    assert_eq!(ledger.answered(&edge, SequenceNumber(2)).await.unwrap(), Some((hash(2), State::Stored)));
    assert!(ledger.files().await.unwrap().is_empty() && ledger.kept_paths().await.unwrap().is_empty());
    assert!(home.alerts(&ledger).await.is_empty());
    let twice = vec![answer(&other, (1, 1), 1, State::Stored), answer(&other, (1, 1), 2, State::Stored)];
    assert!(matches!(ledger.enter(&answers(twice, 1), NOW).await, Err(LedgerError::Raced)));
}

async fn a_gap_over_numbers_that_are_there_leaves_them_as_they_are<H: Home>() {
    let (home, ledger) = H::begin().await;
    let edge = of("edge-1");
    ledger.enter(&answers(vec![answer(&edge, (3, 3), 3, State::Stored)], 0), NOW).await.unwrap();
    ledger.enter(&answers(vec![answer(&edge, (1, 5), 1, State::Gap)], 5), NOW).await.unwrap();
    assert_eq!(ledger.progress(&edge).await.unwrap(), (SequenceNumber(5), vec![]));
    assert_eq!(ledger.answered(&edge, SequenceNumber(3)).await.unwrap(), Some((hash(3), State::Stored)));
    assert_eq!(ledger.answered(&edge, SequenceNumber(4)).await.unwrap(), None);
    assert_eq!(home.gaps(&ledger).await, [(1, 5, 5)]);
}

async fn what_is_aside_is_counted_by_device_until_it_is_replayed<H: Home>() {
    let (mut home, ledger) = H::begin().await;
    let edge = of("edge-1");
    let mut entry = answers(vec![answer(&edge, (1, 1), 3, State::Quarantined)], 1);
    entry.kept = vec![kept("one", 3, 40), kept("two", 4, 2)];
    ledger.enter(&entry, NOW).await.unwrap();
    let again =
        Entry { kept: vec![kept("three", 4, 2)], again: vec![(edge.device.clone(), hash(3))], ..Entry::default() };
    ledger.enter(&again, NOW).await.unwrap();
    assert_eq!(ledger.kept_bytes(&edge.device).await.unwrap(), 42, "the same message again takes nothing");
    assert_eq!(ledger.kept_bytes(&of("edge-2").device).await.unwrap(), 0);
    let stored = Answer { replays: true, ..answer(&edge, (1, 1), 3, State::Stored) };
    let replay = Entry { replayed: vec!["one".into()], ..answers(vec![stored], 1) };
    ledger.enter(&replay, NOW).await.unwrap();
    assert_eq!(ledger.answered(&edge, SequenceNumber(1)).await.unwrap(), Some((hash(3), State::Stored)));
    // A second replay of it finds the number taken.
    assert!(matches!(ledger.enter(&replay, NOW).await, Err(LedgerError::Raced)));
    let ledger = home.next_life(ledger).await;
    assert_eq!(ledger.kept_bytes(&edge.device).await.unwrap(), 2);
    assert!(ledger.is_kept(&edge.device, &hash(3)).await.unwrap(), "it was, so it is not kept again");
    assert!(!ledger.is_kept(&edge.device, &hash(5)).await.unwrap());
}

async fn alerts_come_with_their_entry_and_one_by_one<H: Home>() {
    let (home, ledger) = H::begin().await;
    let edge = of("edge-1");
    let entry = Entry {
        cloned: vec![(edge.clone(), SequenceNumber(2)), (edge.clone(), SequenceNumber(3))],
        overfull: vec![edge.device.clone()],
        ..Entry::default()
    };
    ledger.enter(&entry, NOW).await.unwrap();
    let raise = || Raise { kind: "disk", subject: "hub", severity: "critical", detail: json!({}) };
    ledger.raise(raise(), NOW).await.unwrap();
    ledger.raise(raise(), NOW).await.unwrap();
    ledger.probe().await.unwrap();
    let open = |kind: &str, subject: &str| (kind.to_owned(), subject.to_owned());
    let own = [open("cloned-state", "edge-1"), open("disk", "hub"), open("quarantine-full", "edge-1")];
    assert_eq!(home.alerts(&ledger).await, own);
    ledger.resolve("disk", "hub", NOW).await.unwrap();
    ledger.resolve("disk", "hub", NOW).await.unwrap();
    assert_eq!(home.alerts(&ledger).await, [own[0].clone(), own[2].clone()]);
}

macro_rules! suite {
    ($name:ident, $home:ident) => {
        mod $name {
            #[tokio::test]
            async fn what_is_entered_is_read_back_also_in_the_next_life() {
                super::what_is_entered_is_read_back_also_in_the_next_life::<super::$home>().await;
            }

            #[tokio::test]
            async fn a_number_that_is_taken_makes_the_whole_entry_a_race_and_nothing_changes() {
                super::a_number_that_is_taken_makes_the_whole_entry_a_race_and_nothing_changes::<super::$home>().await;
            }

            #[tokio::test]
            async fn a_gap_over_numbers_that_are_there_leaves_them_as_they_are() {
                super::a_gap_over_numbers_that_are_there_leaves_them_as_they_are::<super::$home>().await;
            }

            #[tokio::test]
            async fn what_is_aside_is_counted_by_device_until_it_is_replayed() {
                super::what_is_aside_is_counted_by_device_until_it_is_replayed::<super::$home>().await;
            }

            #[tokio::test]
            async fn alerts_come_with_their_entry_and_one_by_one() {
                super::alerts_come_with_their_entry_and_one_by_one::<super::$home>().await;
            }
        }
    };
}

suite!(sqlite, Folder);
suite!(memory, Simulated);

/// Whatever step of a commit the power goes at, the next life has all of the entry or nothing of it.
#[tokio::test]
async fn a_power_cut_in_a_commit_leaves_the_old_or_the_new() {
    let (mut whole, mut nothing) = (0, 0);
    for step in 0..8 {
        for seed in 0..16 {
            let disk = SimDisk::new();
            let ledger = MemoryLedger::create(Arc::new(disk.until_crash()), Path::new("/ledger")).unwrap();
            let edge = of("edge-1");
            ledger.enter(&answers(vec![answer(&edge, (1, 1), 1, State::Stored)], 1), NOW).await.unwrap();
            disk.fail_after(step);
            let mut entry = answers(vec![answer(&edge, (2, 2), 2, State::Stored)], 2);
            entry.files = vec![file("a")];
            let said = ledger.enter(&entry, NOW).await;
            disk.crash(Some(seed));
            let ledger = ledger.reopen(Arc::new(disk.until_crash())).unwrap();
            let (through, beyond) = ledger.progress(&edge).await.unwrap();
            let files = ledger.files().await.unwrap().len();
            assert!((through.0, files) == (1, 0) || (through.0, files) == (2, 1), "{through:?} {files}");
            assert!(beyond.is_empty());
            assert!(said.is_err() || files == 1, "it was said to be durable");
            *(if files == 1 { &mut whole } else { &mut nothing }) += 1;
        }
    }
    assert!(whole > 20 && nothing > 20, "{whole} {nothing}");
}

#[tokio::test]
async fn a_disk_that_refuses_changes_nothing_until_it_takes_something_again() {
    let disk = SimDisk::new();
    let ledger = MemoryLedger::create(Arc::new(disk.until_crash()), Path::new("/ledger")).unwrap();
    let (edge, used) = (of("edge-1"), disk.used());
    disk.set_capacity(Some(used));
    let entry = answers(vec![answer(&edge, (1, 1), 1, State::Stored)], 1);
    assert!(matches!(ledger.enter(&entry, NOW).await, Err(LedgerError::Catalog(_))));
    assert!(ledger.probe().await.is_err());
    assert_eq!(ledger.progress(&edge).await.unwrap().0, SequenceNumber(0));
    disk.set_capacity(None);
    ledger.enter(&entry, NOW).await.unwrap();
    assert_eq!(ledger.progress(&edge).await.unwrap().0, SequenceNumber(1));
}
