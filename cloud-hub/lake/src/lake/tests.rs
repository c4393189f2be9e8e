use super::*;
use crate::columns::to_records;
use arrow::array::AsArray;
use arrow::datatypes::{Float64Type, Int64Type};
use tributary_process::disk::{RealDisk, SimDisk};
use tributary_wire::{Column, DeviceId, Field, FieldType, Incarnation, LossReason, Lost, Sensitivity, SequenceNumber};

fn field(name: &str, kind: FieldType) -> Field {
    Field { name: name.into(), kind, unit: String::new(), nullable: true, sensitivity: Sensitivity::Keep }
}

fn events() -> StreamName {
    StreamName::new("events").unwrap()
}

fn portion(sequence: u64, times: &[i64], extra: Option<(&str, Column)>) -> Portion {
    let mut fields = vec![field("accepted", FieldType::Int), field("event_time", FieldType::Time)];
    let mut columns = vec![
        Column::Int(times.iter().map(|t| Some(*t)).collect()),
        Column::Time(times.iter().map(|t| Some(Micros(*t))).collect()),
    ];
    if let Some((name, column)) = extra {
        fields.push(field(name, column.kind()));
        columns.push(column);
    }
    let key = BatchKey {
        device: DeviceId::new("edge-1").unwrap(),
        incarnation: Incarnation(1),
        stream: events(),
        sequence: SequenceNumber(sequence),
    };
    let records = to_records(&key, Micros(5), &fields, columns).unwrap();
    Portion { key, hash: Sha256([sequence as u8; 32]), ingest_time: Micros(5), records }
}

fn schema_of(fields: &[Field]) -> StreamSchema {
    StreamSchema { columns: StreamSchema::default().additions(fields).unwrap() }
}

/// Writes, commits and registers as the catalog would.
fn store(lake: &Lake, schema: &StreamSchema, portions: &[Portion], number: &mut i64) -> Vec<FileEntry> {
    lake.set_schema(&events(), schema.clone());
    let mut entries = Vec::new();
    for written in lake.write(&events(), schema, portions, Vec::new()).unwrap() {
        *number += 1;
        entries.push(FileEntry { number: *number, ..written.entry });
    }
    lake.register(entries.clone());
    entries
}

fn lake() -> (SimDisk, Lake) {
    let disk = SimDisk::new();
    let lake = Lake::open(Arc::new(disk.clone()), "/lake").unwrap();
    (disk, lake)
}

#[test]
fn rows_lie_in_files_by_day_and_are_read_back_with_the_columns_asked_for() {
    let (_, lake) = lake();
    let first = schema_of(&[field("accepted", FieldType::Int), field("event_time", FieldType::Time)]);
    let mut number = 0;
    let portions = [portion(1, &[1, Micros::DAY + 1, 2], None), portion(2, &[Micros::DAY + 2], None)];
    let entries = store(&lake, &first, &portions, &mut number);
    assert_eq!(entries.iter().map(|e| (e.day, e.rows)).collect::<Vec<_>>(), [(0, 2), (1, 2)]);
    assert!(entries[1].path.starts_with("events/day=1970-01-02/"));

    // A later batch brings a new column; older files give it empty.
    let more = schema_of(&[
        field("accepted", FieldType::Int),
        field("event_time", FieldType::Time),
        field("amount", FieldType::Double),
    ]);
    store(&lake, &more, &[portion(3, &[3], Some(("amount", Column::Double(vec![Some(9.5)]))))], &mut number);
    let scan = lake.scan(&events(), 0..=0, Some(&["accepted", "amount"])).unwrap();
    let mut rows = Vec::new();
    for records in scan {
        let records = records.unwrap();
        let amounts = records.column(1).as_primitive::<Float64Type>();
        let accepted = records.column(0).as_primitive::<Int64Type>();
        rows.extend(accepted.iter().zip(amounts.iter()));
    }
    assert_eq!(rows, [(Some(1), None), (Some(2), None), (Some(3), Some(9.5))]);
    assert_eq!(lake.files_after(&events(), 2).len(), 1);
    let missing = lake.scan(&events(), 0..=0, Some(&["amonut"])).err().unwrap();
    assert!(missing.to_string().starts_with("stream events has no column \"amonut\"; it has accepted, event_time"));
}

#[test]
fn a_footer_lists_the_batches_and_how_much_of_each_is_there() {
    let (_, lake) = lake();
    let schema = schema_of(&[field("accepted", FieldType::Int), field("event_time", FieldType::Time)]);
    let entries = store(&lake, &schema, &[portion(7, &[1, Micros::DAY], None)], &mut 0);
    let (footer, rows) = lake.footer(&entries[1].path).unwrap();
    assert_eq!((footer.day, rows), (1, 1));
    assert_eq!((footer.batches[0].sequence, footer.batches[0].rows, footer.batches[0].of), (SequenceNumber(7), 1, 2));
}

#[test]
fn what_was_written_survives_a_crash_and_what_failed_leaves_nothing() {
    let (disk, lake) = lake();
    let schema = schema_of(&[field("accepted", FieldType::Int), field("event_time", FieldType::Time)]);
    let mut number = 0;
    let entries = store(&lake, &schema, &[portion(1, &[1], None)], &mut number);
    disk.crash(None);
    assert_eq!(lake.read(&entries[0]).unwrap().num_rows(), 1);

    disk.set_capacity(Some(disk.used()));
    let error = lake.write(&events(), &schema, &[portion(2, &[2], None)], Vec::new()).unwrap_err();
    assert!(matches!(&error, LakeError::Storage { source, .. } if source.kind() == std::io::ErrorKind::StorageFull));
    assert_eq!(lake.compare().unwrap(), Differences::default());
}

/// Of two files with the same batch the later name counts when a catalog is made again.
#[test]
fn a_new_file_sorts_behind_all_that_are_there_also_when_the_clock_was_set_back() {
    let (disk, lake) = lake();
    let lake = lake.naming(|| Ulid::from_parts(2_000, 0));
    let (schema, mut number) =
        (schema_of(&[field("accepted", FieldType::Int), field("event_time", FieldType::Time)]), 0);
    let first = store(&lake, &schema, &[portion(1, &[1], None)], &mut number);
    let again = Lake::open(Arc::new(disk), "/lake").unwrap().naming(|| Ulid::from_parts(1_000, 0));
    assert_eq!(again.compare().unwrap().unregistered, [first[0].path.clone()]);
    let second = store(&again, &schema, &[portion(2, &[2], None)], &mut number);
    assert!(second[0].path > first[0].path, "{second:?} {first:?}");
}

#[test]
fn a_cut_or_damaged_file_is_named_and_nothing_panics() {
    let folder = tempfile::tempdir().unwrap();
    let lake = Lake::open(Arc::new(RealDisk), folder.path().join("lake")).unwrap();
    let schema = schema_of(&[field("accepted", FieldType::Int), field("event_time", FieldType::Time)]);
    let times: Vec<i64> = (1..500).collect();
    let entry = store(&lake, &schema, &[portion(1, &times, None)], &mut 0).remove(0);
    let path = folder.path().join("lake").join(&entry.path);
    let whole = std::fs::read(&path).unwrap();
    for length in [0, 3, 8, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&path, &whole[..length]).unwrap();
        let error = lake.read(&entry).unwrap_err();
        assert!(matches!(&error, LakeError::Damaged { path: named, .. } if *named == path), "{length}: {error}");
        assert!(error.to_string().contains("is not a whole Parquet file"));
    }
    // One bit changed anywhere is an error that names the file, whichever it is: never a panic, never other records.
    std::fs::write(&path, &whole).unwrap();
    lake.read(&entry).unwrap();
    for place in (0..whole.len()).step_by(7).chain(whole.len() - 40..whole.len()) {
        let mut bytes = whole.clone();
        bytes[place] ^= 1 << (place % 8);
        std::fs::write(&path, bytes).unwrap();
        let error = lake.read(&entry).expect_err(&format!("byte {place} of {}", whole.len()));
        assert!(error.to_string().contains(&entry.path), "{place}: {error}");
    }
    std::fs::remove_file(&path).unwrap();
    assert!(lake.read(&entry).unwrap_err().to_string().starts_with("could not open"));
}

#[test]
fn numbers_without_rows_stand_in_a_footer_also_where_there_are_no_rows_at_all() {
    let (_, lake) = lake();
    let schema = schema_of(&[field("accepted", FieldType::Int), field("event_time", FieldType::Time)]);
    let lost = Lost { reason: LossReason::Age, records: 3, span: Some((Micros(1), Micros(2))) };
    let rowless = vec![Rowless {
        device: DeviceId::new("edge-1").unwrap(),
        incarnation: Incarnation(1),
        sequence: SequenceNumber(8),
        last: SequenceNumber(11),
        hash: Sha256([3; 32]),
        gap: true,
        lost: vec![lost],
        received: Micros(2 * Micros::DAY),
    }];
    lake.set_schema(&events(), schema.clone());
    let portions = [portion(7, &[1, Micros::DAY], None)];
    let beside = lake.write(&events(), &schema, &portions, rowless.clone()).unwrap();
    let alone = lake.write(&events(), &schema, &[], rowless.clone()).unwrap();
    let footer = |written: &Written| lake.describe(&written.entry.path).unwrap().1.rowless;
    assert_eq!((beside.len(), footer(&beside[0]), footer(&beside[1])), (2, rowless.clone(), vec![]));
    assert_eq!((alone.len(), alone[0].entry.rows, alone[0].entry.day), (1, 0, 2));
    assert_eq!(footer(&alone[0]), rowless);
    lake.register(alone.iter().map(|written| FileEntry { number: 1, ..written.entry.clone() }));
    let rows: usize = lake.scan(&events(), 0..=9, None).unwrap().map(|records| records.unwrap().num_rows()).sum();
    assert_eq!(rows, 0, "readers see no rows");
}

/// Files of earlier builds say nothing of numbers without rows.
#[test]
fn a_footer_of_an_earlier_build_is_read() {
    let text = r#"{"stream":"events","day":0,"min_time":1,"max_time":2,"batches":[]}"#;
    let footer: Footer = serde_json::from_str(text).unwrap();
    assert_eq!(footer.rowless, []);
    assert_eq!(serde_json::to_string(&footer).unwrap(), text, "and one without any is written as before");
}
