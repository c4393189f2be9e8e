//! From labels to alert and retraining, over the lake and the web API.

use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use tributary_fraud::{Generator, GeneratorConfig};
use tributary_process::config::HumanDuration;
use tributary_release::Package;
use tributary_stats::{Prediction, Sketcher};
use tributary_wire::{Column, Field, FieldType, Micros, Sensitivity, StreamName};

use crate::support::{TestHub, package};

const DAYS: u32 = 60;
const CHANGE: u32 = 30;

async fn start() -> TestHub {
    TestHub::start_in(tempfile::tempdir().unwrap(), |config| {
        config.monitor.settle = HumanDuration(std::time::Duration::from_millis(100));
    })
    .await
}

fn config(change: bool) -> GeneratorConfig {
    GeneratorConfig { days: DAYS, change_day: change.then_some(CHANGE), ..GeneratorConfig::default() }
}

fn field(name: &str, kind: FieldType) -> Field {
    Field { name: name.to_owned(), kind, unit: String::new(), nullable: false, sensitivity: Sensitivity::Keep }
}

/// What devices would have observed: a model that knows the old kinds of fraud and none of the new one.
async fn observe(hub: &TestHub, config: GeneratorConfig) {
    let payments: Vec<_> = Generator::new(config).collect();
    let same = |text: &str| Column::Text(vec![Some(text.to_owned()); payments.len()]);
    // Golden-ratio steps: spread evenly over 0 to 1, the same every time.
    let noise = |id: i64| (id as f64 * 0.618_033_988_749_895).fract() as f32;
    let output: Vec<f32> = payments
        .iter()
        .map(|payment| noise(payment.id) * 0.6 + if payment.fraud && payment.scenario != 4 { 0.35 } else { 0.0 })
        .collect();
    let fields = vec![
        field("event_id", FieldType::Text),
        field("event_time", FieldType::Time),
        field("line", FieldType::Text),
        field("version", FieldType::Int),
        field("role", FieldType::Text),
        field("output", FieldType::Float),
        field("decision", FieldType::Bool),
    ];
    let columns = vec![
        Column::Text(payments.iter().map(|payment| Some(payment.event_id().to_string())).collect()),
        Column::Time(payments.iter().map(|payment| Some(payment.time)).collect()),
        same("card-fraud"),
        Column::Int(vec![Some(1); payments.len()]),
        same("primary"),
        Column::Float(output.iter().map(|output| Some(*output)).collect()),
        Column::Bool(output.iter().map(|output| Some(*output > 0.7)).collect()),
    ];
    hub.hub.ingest.submit(&StreamName::new("observations").unwrap(), fields, columns, None).await.unwrap();
}

/// Up to where windows are judged, in days of the generator. How many windows that makes depends on when labels came.
fn judged_through(quality: &Value) -> i64 {
    let last = quality["windows"].as_array().and_then(|windows| windows.last());
    let end = last.and_then(|window| window["end"].as_i64()).unwrap_or_default();
    (end - GeneratorConfig::default().start.0) / Micros::DAY
}

fn judged(quality: &Value) -> usize {
    quality["windows"].as_array().map_or(0, Vec::len)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_labels_prove_wrong_is_an_alert_and_starts_a_run() {
    let hub = start().await;
    hub.line(json!({"retrain": "on-drift", "cool_down": "1h"})).await;
    observe(&hub, config(true)).await;
    hub.payments(config(true)).await;
    let alerts = hub.until("/alerts?state=open", |alerts| !alerts["items"].as_array().unwrap().is_empty()).await;
    let alert = &alerts["items"][0];
    assert_eq!((&alert["kind"], &alert["subject"]), (&json!("quality"), &json!("card-fraud/1")), "{alert:#}");
    assert!(alert["detail"]["reason"].as_str().unwrap().contains("auc"), "{alert:#}");
    let runs = hub.until("/runs", |runs| !runs["items"].as_array().unwrap().is_empty()).await;
    assert_eq!(runs["items"][0]["origin"], "drift", "{runs:#}");
    let quality = hub.until("/lines/card-fraud/quality", |quality| judged(quality) > 8).await;
    let day = &quality["days"][3];
    assert!(day["auc"].as_f64().unwrap() > 0.7 && day["labelled"] == day["observations"], "{day:#}");
    let dropped: Vec<bool> =
        quality["windows"].as_array().unwrap().iter().map(|window| window["dropped"].as_bool().unwrap()).collect();
    assert!(!dropped[0] && *dropped.last().unwrap(), "{quality:#}");

    let id = alert["id"].as_str().unwrap();
    let (status, problem) = hub.json(Method::POST, &format!("/alerts/{id}/silence"), json!({})).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{problem:#}");
    let silenced = hub.ok(Method::POST, &format!("/alerts/{id}/silence"), json!({"seconds": 3600})).await;
    assert_eq!(silenced["state"], "silenced");
    let (status, _) = hub.json(Method::POST, "/alerts/nobody/silence", json!({"seconds": 1})).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_days_without_a_change_raise_no_alert_and_start_no_run_also_after_a_restart() {
    let hub = start().await;
    hub.line(json!({"retrain": "on-drift"})).await;
    observe(&hub, config(false)).await;
    hub.payments(config(false)).await;
    let before = hub.until("/lines/card-fraud/quality", |quality| judged_through(quality) >= 30).await;
    let folder = hub.stop().await;
    let hub = TestHub::start_in(folder, |_| {}).await;
    let after = hub.until("/lines/card-fraud/quality", |quality| judged_through(quality) >= 50).await;
    let kept = &after["windows"].as_array().unwrap()[..judged(&before)];
    assert_eq!(before["windows"].as_array().unwrap(), kept, "what was judged stays");
    assert_eq!(hub.get("/alerts").await.1["items"], json!([]));
    assert_eq!(hub.get("/runs").await.1["items"], json!([]));
    let (status, problem) = hub.get("/lines/card-fraud/quality?from=yesterday").await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{problem:#}");
    assert_eq!(hub.get("/lines/nobody/drift").await.0, StatusCode::NOT_FOUND);
    hub.stop().await;
}

/// Sketches of some days as devices send them; values follow the package's reference (0 to 39), `shifted` all are high.
async fn sketch(hub: &TestHub, days: std::ops::Range<i64>, shifted: bool) {
    let package = Package::read(&package("card-fraud", 1)).unwrap();
    let (output, inputs) = package.reference.split_last().unwrap();
    let mut sketcher = Sketcher::new("card-fraud", 1, "primary", inputs, output, Micros::DAY);
    for day in days {
        for i in 0..400 {
            let value = if shifted { 30.0 + (i % 10) as f32 } else { (i % 40) as f32 };
            let features = vec![value; inputs.len()];
            let time = day * Micros::DAY + i;
            let output = Some((i % 40) as f32);
            let decision =
                Prediction { time, features: &features, output, decision: false, error: false, latency_us: 80 };
            sketcher.record(&decision);
        }
    }
    let sketches = sketcher.close_all();
    let fields = vec![
        field("line", FieldType::Text),
        field("version", FieldType::Int),
        field("window_start", FieldType::Time),
        field("window_end", FieldType::Time),
        field("sketch", FieldType::Bytes),
    ];
    let columns = vec![
        Column::Text(vec![Some("card-fraud".to_owned()); sketches.len()]),
        Column::Int(vec![Some(1); sketches.len()]),
        Column::Time(sketches.iter().map(|sketch| Some(Micros(sketch.window.start))).collect()),
        Column::Time(sketches.iter().map(|sketch| Some(Micros(sketch.window.end))).collect()),
        Column::Bytes(sketches.iter().map(|sketch| Some(sketch.encode())).collect()),
    ];
    hub.hub.ingest.submit(&StreamName::new("sketches").unwrap(), fields, columns, None).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn inputs_that_left_the_reference_are_an_alert_after_two_weeks_and_not_before() {
    let hub = start().await;
    hub.line(json!({"retrain": "manual"})).await;
    let bytes = package("card-fraud", 1);
    let sent = hub.send(Method::POST, "/lines/card-fraud/versions", "application/octet-stream", bytes).await;
    assert_eq!(sent.status, StatusCode::CREATED);
    let windows = |drift: &Value| drift[0]["windows"].as_array().map_or(0, Vec::len);
    sketch(&hub, 20_000..20_015, false).await;
    let drift = hub.until("/lines/card-fraud/drift", |drift| windows(drift) == 2).await;
    assert_eq!(drift[0]["windows"][0]["predictions"], 2_800, "{drift:#}");
    sketch(&hub, 20_015..20_022, true).await;
    let drift = hub.until("/lines/card-fraud/drift", |drift| windows(drift) == 3).await;
    assert_eq!(drift[0]["drifted"], json!([]), "one week is not enough");
    assert_eq!(hub.get("/alerts").await.1["items"], json!([]));
    sketch(&hub, 20_022..20_029, true).await;
    let alerts = hub.until("/alerts", |alerts| !alerts["items"].as_array().unwrap().is_empty()).await;
    assert_eq!(
        (&alerts["items"][0]["kind"], &alerts["items"][0]["subject"]),
        (&json!("drift"), &json!("card-fraud/1"))
    );
    let drift = hub.get("/lines/card-fraud/drift").await.1;
    assert!(drift[0]["drifted"].as_array().unwrap().iter().all(|signal| signal["kind"] == "input"), "{drift:#}");
    assert_eq!(hub.get("/runs").await.1["items"], json!([]), "the line says manual");
    hub.stop().await;
}
