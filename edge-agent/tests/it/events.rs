use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Running, config, event, results};

#[tokio::test]
async fn one_event_or_many_are_accepted_and_decided_by_the_declared_fallback() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&folder);
    (config.fallback.output, config.fallback.decision) = (0.25, true);
    let agent = Running::start(config).await;
    let response = agent.post("/v1/events", &event(0)).await;
    assert_eq!(response.status, StatusCode::OK);
    let one = &results(&response)[0];
    assert_eq!((&one["id"], &one["status"], &one["durable"]), (&json!("e-0"), &json!("accepted"), &json!(true)));
    assert_eq!((&one["version"], &one["output"], &one["decision"]), (&json!(0), &json!(0.25), &json!(true)));
    assert_eq!(one["degraded"], json!("fallback: no package is in place"));
    let many = results(&agent.post("/v1/events?durable=false", &json!([event(1), event(0)])).await);
    assert_eq!((&many[0]["status"], &many[0]["durable"]), (&json!("accepted"), &json!(false)));
    assert_eq!((&many[1]["status"], &many[1]["accepted"]), (&json!("duplicate"), &json!(1)));
    agent.stop().await;
}

#[tokio::test]
async fn predictions_leave_no_trace() {
    let folder = tempfile::tempdir().unwrap();
    let agent = Running::start(config(&folder)).await;
    let response = agent.post("/v1/predict", &json!([event(0), {"id": "x"}])).await;
    let answers = results(&response);
    assert_eq!((&answers[0]["status"], &answers[1]["status"]), (&json!("predicted"), &json!("refused")));
    assert_eq!(agent.status().await["events"]["accepted"], json!(0));
    agent.stop().await;
}

#[tokio::test]
async fn status_health_metrics_and_accepted_ids_say_how_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let agent = Running::start(config(&folder)).await;
    agent.post("/v1/events", &json!([event(0), event(1), {"id": "bad", "time": 0, "values": {}}])).await;
    let status = agent.status().await;
    assert_eq!(status["device"], json!("device"));
    assert_eq!(status["events"]["accepted"], json!(2));
    assert_eq!(status["events"]["refused"], json!({"missing-field": 1}));
    assert_eq!(status["sources"][0]["name"], json!("api"));
    assert_eq!(status["health"], json!({"ok": true, "problems": []}));
    let health: Value = agent.unix.get("/v1/health").await.unwrap();
    assert_eq!(health["ok"], json!(true));
    let metrics = agent.unix.send(Method::GET, "/metrics", "", bytes::Bytes::new()).await.unwrap();
    let text = String::from_utf8(metrics.body.to_vec()).unwrap();
    assert!(text.contains("edge_agent_events_accepted_total{source=\"api\"} 2"), "{text}");
    let page: Value = agent.unix.get("/v1/accepted?limit=1").await.unwrap();
    assert_eq!((&page["total"], &page["events"][0]["id"], &page["next"]), (&json!(2), &json!("e-0"), &json!(1)));
    let page: Value = agent.unix.get("/v1/accepted?after=1").await.unwrap();
    assert_eq!(page["events"], json!([{"accepted": 2, "id": "e-1"}]));
    agent.stop().await;
}
