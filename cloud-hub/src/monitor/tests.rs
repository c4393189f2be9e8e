//! The monitor on a catalog in memory, fed with seeded fleets.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Float32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use cloud_hub_core::alert::AlertInput;
use cloud_hub_core::drift::Settings;
use cloud_hub_core::quality::Area;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use sqlx::SqlitePool;
use sqlx::sqlite::SqlitePoolOptions;
use tributary_stats::{Prediction, Reference, Sketch, Sketcher};
use tributary_wire::{LineName, Micros, VersionNumber};

use super::findings::{self, QualityFindings};
use super::quality::Joined;
use super::records::{Labelled, Observed};
use super::{alerts, quality, records, verdict, windows};

const DAY: i64 = Micros::DAY;
const NOW: Micros = Micros(5);

async fn catalog() -> SqlitePool {
    // One connection: every other would see a memory of its own.
    let pool = SqlitePoolOptions::new().max_connections(1).connect("sqlite::memory:").await.unwrap();
    sqlx::migrate!("./migrations").run(&pool).await.unwrap();
    pool
}

fn line() -> LineName {
    LineName::new("card-fraud").unwrap()
}

/// A feature of the fraud kind: its level depends on the weekday, and every day is a little different.
fn value(rng: &mut SmallRng, day: i64, wobble: f32, shift: f32) -> f32 {
    let noise: f32 = (0..12).map(|_| rng.random::<f32>()).sum::<f32>() - 6.0;
    noise + wobble + shift + if day.rem_euclid(7) < 2 { 0.8 } else { 0.0 }
}

fn references(rng: &mut SmallRng) -> Vec<Reference> {
    let (mut values, mut days) = (Vec::new(), Vec::new());
    for day in 0..21 {
        let wobble = rng.random_range(-0.1..0.1);
        values.extend((0..400).map(|_| value(rng, day, wobble, 0.0)));
        days.extend([day; 400]);
    }
    ["amount", "output"].map(|name| Reference::build(name, &values, &days, 20)).to_vec()
}

fn device_sketches(
    rng: &mut SmallRng,
    references: &[Reference],
    days: std::ops::Range<i64>,
    shift: f32,
) -> Vec<Sketch> {
    let (output, inputs) = references.split_last().unwrap();
    let mut sketcher = Sketcher::new("card-fraud", 1, "primary", inputs, output, DAY);
    for day in days {
        let wobble = rng.random_range(-0.1..0.1);
        for i in 0..200 {
            let features = [value(rng, day, wobble, shift)];
            let output = Some(features[0]);
            let time = day * DAY + i;
            let prediction =
                Prediction { time, features: &features, output, decision: false, error: false, latency_us: 90 };
            sketcher.record(&prediction);
        }
    }
    sketcher.close_all()
}

async fn feed(pool: &SqlitePool, rng: &mut SmallRng, references: &[Reference], days: std::ops::Range<i64>, shift: f32) {
    let mut catalog = pool.acquire().await.unwrap();
    for device in ["edge-1", "edge-2", "edge-3"] {
        let sketches = device_sketches(rng, references, days.clone(), shift);
        let named: Vec<_> = sketches.into_iter().map(|sketch| (device.to_owned(), sketch)).collect();
        assert!(windows::absorb(&mut catalog, &named).await.unwrap().is_empty());
    }
}

async fn judge(pool: &SqlitePool, references: &[Reference], settings: &Settings) -> (usize, Option<verdict::Stale>) {
    let mut catalog = pool.acquire().await.unwrap();
    let version = VersionNumber(1);
    let new = windows::judge_new(&mut catalog, (&line(), version), settings, references, NOW).await.unwrap();
    (new.len(), verdict::look(&mut catalog, (&line(), version), settings, NOW).await.unwrap())
}

#[tokio::test]
async fn without_change_there_is_no_alert_whatever_the_window_and_the_seed() {
    for (seed, window_days) in [(1, 1), (2, 1), (3, 7), (4, 7), (5, 3)] {
        let pool = catalog().await;
        let mut rng = SmallRng::seed_from_u64(seed);
        let references = references(&mut rng);
        let settings = Settings { window_days, min_predictions: 100, ..Settings::default() };
        feed(&pool, &mut rng, &references, 30..80, 0.0).await;
        let (judged, stale) = judge(&pool, &references, &settings).await;
        assert_eq!(judged, 49 / window_days as usize, "the first day is left out");
        assert_eq!(stale, None, "seed {seed}, windows of {window_days} days");
        let mut catalog = pool.acquire().await.unwrap();
        assert!(alerts::list(&mut catalog, None, None, 10).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_changed_input_opens_one_alert_and_its_end_resolves_it() {
    let pool = catalog().await;
    let mut rng = SmallRng::seed_from_u64(9);
    let references = references(&mut rng);
    let settings = Settings::default();
    feed(&pool, &mut rng, &references, 0..15, 0.0).await;
    assert_eq!(judge(&pool, &references, &settings).await, (2, None));
    feed(&pool, &mut rng, &references, 15..22, 1.5).await;
    assert_eq!(judge(&pool, &references, &settings).await, (1, None), "one window is not enough");
    feed(&pool, &mut rng, &references, 22..29, 1.5).await;
    let (judged, stale) = judge(&pool, &references, &settings).await;
    let stale = stale.unwrap();
    assert_eq!((judged, stale.opened.len()), (1, 1));
    assert!(stale.reason.contains("2 consecutive windows"), "{}", stale.reason);
    assert_eq!(judge(&pool, &references, &settings).await.1.unwrap().opened.len(), 0, "told once");
    feed(&pool, &mut rng, &references, 29..36, 0.0).await;
    assert_eq!(judge(&pool, &references, &settings).await, (1, None));
    let mut catalog = pool.acquire().await.unwrap();
    let alerts = alerts::list(&mut catalog, None, None, 10).await.unwrap();
    assert_eq!(alerts.iter().map(|alert| alert.state.as_str()).collect::<Vec<_>>(), ["resolved"]);
}

#[tokio::test]
async fn a_window_waits_for_slow_devices_but_not_for_dead_ones() {
    let pool = catalog().await;
    let mut rng = SmallRng::seed_from_u64(10);
    let references = references(&mut rng);
    let settings = Settings { window_days: 2, min_predictions: 100, ..Settings::default() };
    let mut catalog = pool.acquire().await.unwrap();
    let mut send = Vec::new();
    for (device, days) in [("fast", 0..6), ("slow", 0..4), ("dead", 0..1)] {
        let sketches = device_sketches(&mut rng, &references, days, 0.0);
        send.extend(sketches.into_iter().map(|sketch| (device.to_owned(), sketch)));
    }
    windows::absorb(&mut catalog, &send).await.unwrap();
    drop(catalog);
    assert_eq!(judge(&pool, &references, &settings).await.0, 1, "days 1 and 2; the slow device has not sent day 4");
    let mut catalog = pool.acquire().await.unwrap();
    let found: Vec<cloud_hub_core::drift::Findings> =
        findings::load(&mut catalog, (&line(), VersionNumber(1)), "inputs", 10).await.unwrap();
    assert_eq!((found[0].start, found[0].end, found[0].predictions), (DAY, 3 * DAY, 800));
}

#[tokio::test]
async fn parts_of_a_window_add_up_and_foreign_bins_are_refused() {
    let pool = catalog().await;
    let mut rng = SmallRng::seed_from_u64(11);
    let one = references(&mut rng);
    feed(&pool, &mut rng, &one, 0..3, 0.0).await;
    let other = references(&mut rng);
    let mut catalog = pool.acquire().await.unwrap();
    let foreign: Vec<_> =
        device_sketches(&mut rng, &other, 0..1, 0.0).into_iter().map(|s| ("odd".to_owned(), s)).collect();
    let refused = windows::absorb(&mut catalog, &foreign).await.unwrap();
    assert!(refused.len() == 1 && refused[0].starts_with("odd: input 0"), "{refused:?}");
    let (parts, bytes): (i64, Vec<u8>) = sqlx::query_as("select parts, sketch from sketches where start_time = 0")
        .fetch_one(&mut *catalog)
        .await
        .unwrap();
    assert_eq!((parts, Sketch::decode(&bytes).unwrap().predictions), (3, 600));
}

fn labelled_day(rng: &mut SmallRng, positives: usize, lift: f32) -> Joined {
    let labels: Vec<bool> = (0..600).map(|i| i < positives).collect();
    let score = |rng: &mut SmallRng, label: &bool| value(rng, 3, 0.0, if *label { lift } else { 0.0 });
    let scores = labels.iter().map(|label| score(rng, label)).collect();
    Joined { observations: 600, scores, labels, ..Joined::default() }
}

/// Days of labelled observations through the same steps as the watch: store, ask what is due, judge.
async fn quality_run(lifts: &[f32], trained: Option<Area>) -> (SqlitePool, Option<usize>) {
    let pool = catalog().await;
    let mut rng = SmallRng::seed_from_u64(12);
    let settings = Settings::default();
    let version = VersionNumber(1);
    let mut days: Vec<Joined> = Vec::new();
    let mut alarm = None;
    for (day, lift) in lifts.iter().enumerate() {
        let mut catalog = pool.acquire().await.unwrap();
        days.push(labelled_day(&mut rng, 20, *lift));
        let joined = [(("card-fraud".to_owned(), 1), days[day].clone())].into();
        quality::store_day(&mut catalog, day as i64, &joined).await.unwrap();
        for (first, last) in quality::due(&mut catalog, (&line(), version), &settings.quality).await.unwrap() {
            let mut whole = Joined::default();
            for day in &days[first as usize..=last as usize] {
                whole.scores.extend(&day.scores);
                whole.labels.extend(&day.labels);
            }
            let window = (first, last);
            quality::judge_window(&mut catalog, (&line(), version), &settings.quality, trained, window, &whole, NOW)
                .await
                .unwrap();
        }
        let stale = verdict::look(&mut catalog, (&line(), version), &settings, NOW).await.unwrap();
        if stale.is_some() && alarm.is_none() {
            alarm = Some(day);
        }
    }
    (pool, alarm)
}

#[tokio::test]
async fn unchanged_agreement_with_labels_never_alarms() {
    let (pool, alarm) = quality_run(&[1.7; 60], None).await;
    assert_eq!(alarm, None);
    let (_, alarm) = quality_run(&[1.7; 60], Some(Area::from_counts(0.885, 100, 3_000))).await;
    assert_eq!(alarm, None);
    let mut catalog = pool.acquire().await.unwrap();
    let windows: Vec<QualityFindings> =
        findings::load(&mut catalog, (&line(), VersionNumber(1)), "quality", 100).await.unwrap();
    assert_eq!(windows.len(), 20, "three days hold fifty positives");
    assert!(windows[0].findings.skipped.as_deref().is_some_and(|reason| reason.contains("baseline")));
}

#[tokio::test]
async fn a_model_that_lost_its_way_is_found_within_two_windows() {
    let lifts: Vec<f32> = [1.7; 30].into_iter().chain([0.6; 30]).collect();
    for trained in [None, Some(Area::from_counts(0.885, 100, 3_000))] {
        let (pool, alarm) = quality_run(&lifts, trained).await;
        assert!(alarm.is_some_and(|day| (30..=38).contains(&day)), "{alarm:?}");
        let mut catalog = pool.acquire().await.unwrap();
        let open = alerts::unresolved(&mut catalog, "quality", "card-fraud/1").await.unwrap().unwrap();
        assert!(open.detail.contains("auc"), "{}", open.detail);
        verdict::retire(&mut catalog, (&line(), VersionNumber(1)), NOW).await.unwrap();
        assert_eq!(alerts::unresolved(&mut catalog, "quality", "card-fraud/1").await.unwrap(), None);
    }
}

#[test]
fn the_label_known_last_counts_and_only_primary_packages_are_judged() {
    let seen = |id: &str, role: &str, version| Observed {
        event_id: id.to_owned(),
        time: 0,
        line: "card-fraud".to_owned(),
        version,
        role: role.to_owned(),
        output: Some(0.7),
        decision: true,
        inclusion: if id == "a" { 0.25 } else { 1.0 },
    };
    let label = |id: &str, label, known_at| Labelled { event_id: id.to_owned(), label, time: None, known_at };
    let observed = [seen("a", "primary", 1), seen("b", "primary", 1), seen("a", "shadow", 2), seen("c", "primary", 0)];
    let keys = std::collections::HashMap::from([("a".to_owned(), vec![7])]);
    let joined = quality::join(observed, [label("a", true, 2), label("a", false, 1), label("z", true, 1)], &keys);
    assert_eq!(joined.len(), 1);
    let version = &joined[&("card-fraud".to_owned(), 1)];
    assert_eq!((version.observations, version.alarms, version.hits), (2, 1, 1));
    assert_eq!(version.labels, [true]);
    assert_eq!(version.clusters, [[7]]);
    let expected = quality::Estimates { observations: 5.0, labelled: 4.0, positives: 4.0, alarms: 4.0, hits: 4.0 };
    assert_eq!((version.estimates, version.weights.as_slice()), (expected, &[4.0][..]));
}

#[tokio::test]
async fn a_few_bad_customers_are_not_a_change() {
    // The frauds of a window come from two stolen cards, one of which the model cannot know yet: the area is low, but
    // two cards say little about all.
    let mut rng = SmallRng::seed_from_u64(13);
    let mut joined = labelled_day(&mut rng, 60, 0.0);
    (0..60).for_each(|row| joined.scores[row] = if row % 2 == 0 { -1.0 } else { 1.0 });
    let trained = Some(Area::from_counts(0.885, 60, 3_000));
    for (clusters, alarms) in
        [(Vec::new(), true), (vec![(0..600).map(|row| if row < 60 { row % 2 } else { row }).collect()], false)]
    {
        joined.clusters = clusters;
        let pool = catalog().await;
        let mut catalog = pool.acquire().await.unwrap();
        let (settings, of) = (Settings::default().quality, (&line(), VersionNumber(1)));
        let found = quality::judge_window(&mut catalog, of, &settings, trained, (0, 0), &joined, NOW).await.unwrap();
        assert_eq!(found.signals[0].drifted, alarms, "{found:?}");
    }
}

#[test]
fn columns_are_read_by_name_and_damaged_sketches_are_left_out_with_the_reason() {
    let times = || Arc::new(TimestampMicrosecondArray::from(vec![7]).with_timezone("UTC")) as ArrayRef;
    let text = |value: &str| Arc::new(StringArray::from(vec![value.to_owned()])) as ArrayRef;
    let observed = RecordBatch::try_from_iter([
        ("event_id", text("a")),
        ("event_time", times()),
        ("line", text("card-fraud")),
        ("version", Arc::new(Int64Array::from(vec![3])) as ArrayRef),
        ("role", text("primary")),
        ("output", Arc::new(Float32Array::from(vec![Some(0.5)])) as ArrayRef),
        ("decision", Arc::new(BooleanArray::from(vec![true])) as ArrayRef),
    ])
    .unwrap();
    let read = records::observations(&observed).unwrap();
    assert_eq!((read[0].time, read[0].version, read[0].output), (7, 3, Some(0.5)));
    let error = records::labels(&observed).unwrap_err().to_string();
    assert_eq!(error, "column label of stream labels: it is missing");
    let damaged = RecordBatch::try_from_iter([
        ("device", text("edge-1")),
        ("line", text("card-fraud")),
        ("version", Arc::new(Int64Array::from(vec![3])) as ArrayRef),
        ("sketch", Arc::new(BinaryArray::from_vec(vec![b"nonsense"])) as ArrayRef),
    ])
    .unwrap();
    let (good, refused) = records::sketches(&damaged).unwrap();
    assert!(good.is_empty() && refused[0].starts_with("edge-1: not a sketch"), "{refused:?}");
}

#[tokio::test]
async fn a_silenced_alert_stays_quiet_until_its_time_and_then_is_told_again() {
    let pool = catalog().await;
    let mut catalog = pool.acquire().await.unwrap();
    let cause = ("drift", "card-fraud/1", "warning");
    let detail = serde_json::json!({});
    let id = alerts::seen(&mut catalog, cause, &detail, Micros(10)).await.unwrap().unwrap();
    assert_eq!(alerts::seen(&mut catalog, cause, &detail, Micros(20)).await.unwrap(), None);
    let alert = alerts::get(&mut catalog, &id).await.unwrap().unwrap();
    alerts::change(&mut catalog, &alert, AlertInput::Silence { until: Micros(50) }, Micros(30)).await.unwrap();
    assert_eq!(alerts::seen(&mut catalog, cause, &detail, Micros(40)).await.unwrap(), None);
    assert_eq!(alerts::seen(&mut catalog, cause, &detail, Micros(60)).await.unwrap(), Some(id.clone()));
    assert_eq!(alerts::get(&mut catalog, &id).await.unwrap().unwrap().times, 4);
}
