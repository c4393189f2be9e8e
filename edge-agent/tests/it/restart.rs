use std::time::{Duration, Instant};

use edge_agent::sources::ReplayConfig;
use serde_json::{Value, json};

use crate::support::{Running, config, event, results};

#[tokio::test]
async fn after_a_restart_ids_counts_and_windows_are_as_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let agent = Running::start(config(&folder)).await;
    agent.post("/v1/events", &Value::Array((0..100).map(event).collect())).await;
    let before = agent.status().await;
    agent.stop().await;
    let agent = Running::start(config(&folder)).await;
    let after = agent.status().await;
    assert_eq!(before["incarnation"], after["incarnation"]);
    assert_eq!(after["events"]["accepted"], json!(100));
    assert_eq!(before["windows"]["events"], after["windows"]["events"]);
    assert_eq!(after["windows"]["recovery"]["snapshot"], json!(100), "a clean stop leaves a whole snapshot");
    let again = results(&agent.post("/v1/events", &event(50)).await);
    assert_eq!((&again[0]["status"], &again[0]["accepted"]), (&json!("duplicate"), &json!(51)));
    // The events wait for a hub in closed batches.
    assert_eq!(after["outbox"]["batches"], json!(2));
    agent.stop().await;
}

#[tokio::test]
async fn a_file_is_played_to_its_end_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("events.csv");
    let lines: String =
        (0..2000).map(|n| format!("t-{n},{},{},1.5\n", 1_522_540_800_000_000_i64 + n * 1_000_000, n % 5)).collect();
    std::fs::write(&file, format!("event_id,event_time,customer_id,amount\n{lines}")).unwrap();
    let mut config = config(&folder);
    config.sources.replay = Some(ReplayConfig { file, ..ReplayConfig::default() });
    let agent = Running::start(config.clone()).await;
    let deadline = Instant::now() + Duration::from_secs(30);
    while agent.status().await["replays"][0]["finished"] != json!(true) {
        assert!(Instant::now() < deadline, "{}", agent.status().await);
        tokio::task::yield_now().await;
    }
    assert_eq!(agent.status().await["events"]["accepted"], json!(2000));
    agent.stop().await;
    let agent = Running::start(config).await;
    let status = agent.status().await;
    assert_eq!((&status["replays"][0]["finished"], &status["events"]["accepted"]), (&json!(true), &json!(2000)));
    agent.stop().await;
}
