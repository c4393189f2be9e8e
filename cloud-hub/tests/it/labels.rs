//! Labels by API and file.

use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::TestHub;

#[tokio::test(flavor = "multi_thread")]
async fn labels_are_durable_when_the_answer_comes_and_wrong_rows_are_named() {
    let hub = TestHub::start().await;
    let one = hub.ok(Method::POST, "/labels", json!({"event_id": "t1", "label": true})).await;
    assert_eq!((&one["stored"], &one["refused"]), (&json!(1), &json!(0)));
    let csv = "event_id,label,event_time,known_at\nt2,0,1700000000000000,1700600000000000\nt3,perhaps,,\nt1,0,,2026-01-01T00:00:00Z\n";
    let stored = hub.send(Method::POST, "/labels", "text/csv", csv).await;
    let stored: Value = stored.json().unwrap();
    assert_eq!(
        (&stored["stored"], &stored["refused"], &stored["errors"][0]["at"]),
        (&json!(2), &json!(1), &json!("line 3"))
    );
    let stats = hub.get("/labels/stats").await.1;
    // t1's true label became known later (now) than the false one of the file.
    assert_eq!(stats, json!({"labels": 3, "events": 2, "positives": 1, "unknown": 2}));

    let folder = hub.stop().await;
    let hub = TestHub::start_in(folder, |_| {}).await;
    assert_eq!(hub.get("/labels/stats").await.1["labels"], 3, "a restart loses nothing");
    let streams = hub.get("/lake/streams").await.1;
    let labels = streams.as_array().unwrap().iter().find(|stream| stream["stream"] == "labels").unwrap();
    assert_eq!((&labels["rows"], &labels["batches"]), (&json!(3), &json!(2)));
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_only_wrong_labels_is_refused() {
    let hub = TestHub::start().await;
    let (status, problem) = hub.json(Method::POST, "/labels", json!([{"event_id": "t1", "label": "yes"}])).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(problem["errors"][0]["at"], "rows[0]");
    let csv = hub.send(Method::POST, "/labels", "text/csv", "id\n1\n").await;
    assert_eq!(csv.status, StatusCode::BAD_REQUEST);
    let other = hub.send(Method::POST, "/labels", "application/xml", "<labels/>").await;
    assert_eq!(other.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    hub.stop().await;
}
