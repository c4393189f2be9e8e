use std::sync::Arc as StdArc;
use std::time::Instant;

use ::parquet::arrow::ArrowWriter;
use arrow::array::{Float64Array, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use tempfile::TempDir;

use super::*;
use crate::testing::{Rig, Running, START};

const HEADER: &str = "event_id,event_time,customer_id,amount,more\n";

fn csv(folder: &TempDir, lines: &str) -> PathBuf {
    let path = folder.path().join("events.csv");
    std::fs::write(&path, format!("{HEADER}{lines}")).unwrap();
    path
}

fn play(running: &Running, config: ReplayConfig) -> ReplayStatus {
    let stored = running.store.load().unwrap().sources.into_iter().find(|(name, _)| *name == config.name);
    let replay = Replay::new(config);
    running.runtime.block_on(replay.clone().run(running.serving.clone(), stored.map(|(_, s)| s), Shutdown::new()));
    replay.status()
}

fn config(file: PathBuf) -> ReplayConfig {
    ReplayConfig { file, ..ReplayConfig::default() }
}

fn lines(numbers: std::ops::Range<i64>) -> String {
    numbers.map(|n| format!("t-{n},{},{},{}.5,x\n", START.0 + n * 60_000_000, n % 3, n)).collect()
}

fn write_parquet(path: &std::path::Path, rows: std::ops::Range<i64>) {
    let numbers: Vec<i64> = rows.collect();
    let batch = RecordBatch::try_from_iter([
        ("transaction_id", StdArc::new(Int64Array::from(numbers.clone())) as arrow::array::ArrayRef),
        (
            "event_time",
            StdArc::new(TimestampMicrosecondArray::from_iter_values(numbers.iter().map(|n| START.0 + n * 60_000_000))),
        ),
        ("customer_id", StdArc::new(Int32Array::from_iter_values(numbers.iter().map(|n| (*n % 3) as i32)))),
        (
            "amount",
            StdArc::new(Float64Array::from_iter_values(
                numbers.iter().map(|n| if *n == 5 { f64::NAN } else { *n as f64 }),
            )),
        ),
    ])
    .unwrap();
    let mut writer = ArrowWriter::try_new(std::fs::File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

#[test]
fn bad_rows_are_counted_with_file_and_row_and_the_rest_goes_on() {
    let rig = Rig::new();
    let running = rig.start();
    let bad = "t-x,yesterday,1,1.0,x\nt-y,2018-04-01T00:10:00Z,one,1.0,x\nt-z,2018-04-01T00:10:00Z,1,NaN,x\nshort\n";
    let file = csv(&rig.folder, &format!("{}{bad}{}", lines(0..5), lines(5..10)));
    let status = play(&running, config(file.clone()));
    assert_eq!((status.accepted, status.refused, status.rows, status.finished), (10, 4, 14, true));
    assert_eq!(status.error, None);
    let message = status.last_refusal.unwrap();
    assert!(message.contains("events.csv"), "{message}");
    let source = &running.serving.shown().sources[0].1;
    assert_eq!((source.accepted, source.refused, source.offset, source.finished), (10, 4, 14, true));
    running.stop();
    // The named row is the right one.
    let view = crate::testing::view();
    let mut rows = reader::open(&config(file), &view, 5).unwrap();
    let problem = rows.next().unwrap().unwrap().unwrap_err();
    assert!(problem.contains("yesterday"), "{problem}");
}

#[test]
fn a_restart_goes_on_exactly_behind_the_last_stored_row() {
    let rig = Rig::new();
    let running = rig.start();
    let file = csv(&rig.folder, &lines(0..600));
    // The first run sees a shorter file: as if the process had died in between.
    let progress = Progress { of: file.display().to_string(), offset: 250, malformed: 0, finished: false };
    let mut rows = reader::open(&config(file.clone()), &crate::testing::view(), 0).unwrap();
    let events = (0..250).map(|_| rows.next().unwrap().unwrap().unwrap()).collect();
    let submission = Submission {
        source: "replay".into(),
        rules: crate::testing::replay_rules(),
        events,
        progress: Some(progress),
        durable: true,
    };
    running.runtime.block_on(running.serving.submit(submission)).unwrap();
    rig.disk.crash(None);
    running.stop();
    let running = rig.start();
    let status = play(&running, config(file.clone()));
    assert_eq!((status.accepted, status.duplicates, status.rows, status.finished), (350, 0, 600, true));
    assert_eq!(running.serving.shown().accepted, 600);
    let again = play(&running, config(file));
    assert_eq!((again.accepted, again.finished), (0, true));
    running.stop();
}

#[test]
fn parquet_plays_with_its_own_column_names_and_only_this_devices_share() {
    let rig = Rig::new();
    let running = rig.start();
    let file = rig.folder.path().join("transactions.parquet");
    write_parquet(&file, 0..3000);
    let share = Some(Share { entity: "customer_id".into(), index: 2, of: 3 });
    let status = play(&running, ReplayConfig { id: "transaction_id".into(), share, ..config(file) });
    assert_eq!(status.error, None);
    assert_eq!((status.accepted, status.refused, status.total, status.rows), (999, 1, Some(3000), 3000));
    assert!(status.last_refusal.unwrap().contains("event 5: value \"amount\" is NaN"));
    running.stop();
}

#[test]
fn a_truncated_parquet_file_and_missing_columns_are_named_and_the_agent_goes_on() {
    let rig = Rig::new();
    let running = rig.start();
    let file = rig.folder.path().join("cut.parquet");
    write_parquet(&file, 0..3000);
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    let status = play(&running, ReplayConfig { id: "transaction_id".into(), ..config(file.clone()) });
    let error = status.error.unwrap();
    assert!(error.contains("cut.parquet") && !status.finished, "{error}");
    std::fs::write(&file, &bytes).unwrap();
    let error = play(&running, config(file)).error.unwrap();
    assert!(error.contains("column \"event_id\" is missing; there are transaction_id"), "{error}");
    let error = play(&running, config("nowhere.csv".into())).error.unwrap();
    assert!(error.contains("nowhere.csv"), "{error}");
    let error = play(&running, config("file.xlsx".into())).error.unwrap();
    assert!(error.contains("ending"), "{error}");
    assert!(running.submit(vec![crate::testing::event(1)]).is_ok());
    running.stop();
}

#[test]
fn damage_inside_a_parquet_file_is_named_by_row_and_what_came_before_is_kept() {
    let rig = Rig::new();
    let running = rig.start();
    let file = rig.folder.path().join("damaged.parquet");
    write_parquet(&file, 0..3000);
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[4..2000].fill(0xff);
    std::fs::write(&file, &bytes).unwrap();
    let status = play(&running, ReplayConfig { id: "transaction_id".into(), ..config(file) });
    let error = status.error.unwrap();
    assert!(error.contains("damaged.parquet: row "), "{error}");
    running.stop();
}

#[test]
fn json_lines_are_read_nested_or_flat() {
    let rig = Rig::new();
    let running = rig.start();
    let file = rig.folder.path().join("events.jsonl");
    let text = concat!(
        "{\"event_id\": 17, \"event_time\": \"2018-04-01T00:00:00Z\", \"customer_id\": 1, \"amount\": 2.5, \"other\": 1}\n",
        "{\"id\": \"n\", \"time\": 1522540860000000, \"entities\": {\"customer_id\": 1}, \"values\": {\"amount\": 1}}\n",
        "{\"event_id\": \n",
        "{\"event_id\": \"m\", \"event_time\": \"2018-04-01T00:02:00Z\", \"customer_id\": 1}\n",
    );
    std::fs::write(&file, text).unwrap();
    let status = play(&running, config(file));
    assert_eq!((status.accepted, status.refused, status.finished), (2, 2, true));
    assert!(running.store.answer("17").unwrap().is_some());
    running.stop();
}

#[test]
fn a_chosen_speed_is_kept() {
    let rig = Rig::new();
    let running = rig.start();
    let file = csv(&rig.folder, &lines(0..5));
    let begun = Instant::now();
    // Four minutes of events at 1200 times their speed.
    let status = play(&running, ReplayConfig { speed: 1200.0, ..config(file) });
    assert_eq!(status.accepted, 5);
    assert!(begun.elapsed() >= Duration::from_millis(100), "{:?}", begun.elapsed());
    running.stop();
}

#[test]
fn one_time_from_the_far_future_neither_stops_a_paced_replay_nor_spoils_the_rest() {
    let rig = Rig::new();
    let running = rig.start();
    let file = csv(&rig.folder, &format!("{}t-far,9998-01-01T00:00:00Z,1,1.5,x\n{}", lines(0..3), lines(3..6)));
    let status = play(&running, ReplayConfig { speed: 12_000.0, ..config(file) });
    assert_eq!((status.accepted, status.refused, status.finished), (6, 1, true));
    assert_eq!(status.position, Some(Micros(START.0 + 5 * 60_000_000)));
    assert!(status.last_refusal.unwrap().contains("event t-far: time 9998-01-01T00:00:00Z is in the future"));
    running.stop();
}

#[test]
fn a_parquet_column_of_another_type_is_read_where_it_fits_and_named_where_not() {
    let rig = Rig::new();
    let running = rig.start();
    let file = rig.folder.path().join("texts.parquet");
    let batch = RecordBatch::try_from_iter([
        ("event_id", StdArc::new(StringArray::from(vec!["a", "b"])) as arrow::array::ArrayRef),
        ("event_time", StdArc::new(Int64Array::from(vec![START.0, START.0 + 1]))),
        ("customer_id", StdArc::new(Int32Array::from(vec![1, 2]))),
        ("amount", StdArc::new(StringArray::from(vec!["1.5", "much"]))),
    ])
    .unwrap();
    let mut writer = ArrowWriter::try_new(std::fs::File::create(&file).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let status = play(&running, config(file));
    assert_eq!((status.accepted, status.refused, status.finished), (1, 1, true));
    let refusal = status.last_refusal.unwrap();
    assert!(refusal.contains("row 2: `amount` should be Float64, found \"much\""), "{refusal}");
    running.stop();
}
