use std::time::Duration;

use bytes::Bytes;
use edge_agent::sources::TimeDomain;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tributary_process::clock::wall_now;

use crate::support::{Running, config, event, results};

fn with(change: impl Fn(&mut Value)) -> Value {
    let mut event = event(5);
    change(&mut event);
    event
}

#[tokio::test]
async fn every_wrong_event_gets_its_reason_and_the_right_one_beside_them_is_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let agent = Running::start(config(&folder)).await;
    let cases = [
        (with(|e| e["values"]["amount"] = json!("much")), "wrong-type", "\"amount\" should be double, found text"),
        (with(|e| e["values"] = json!({})), "missing-field", "\"amount\" is missing"),
        (with(|e| e["values"]["extra"] = json!(1)), "unknown-field", "\"extra\""),
        (with(|e| e["entities"]["customer_id"] = json!("seven")), "wrong-type", "\"customer_id\" should be int"),
        (with(|e| e["entities"] = json!({})), "missing-field", "\"customer_id\" is missing"),
        (with(|e| e["time"] = json!("today")), "malformed", "neither RFC 3339"),
        (with(|e| e["id"] = json!("")), "malformed", "event id"),
        (with(|e| e["surprise"] = json!(1)), "malformed", "unknown field `surprise`"),
        (json!(7), "malformed", "should be an object"),
        (with(|e| e["time"] = json!(i64::MAX)), "time-out-of-range", "outside the years"),
    ];
    let mut body: Vec<Value> = cases.iter().map(|(event, ..)| event.clone()).collect();
    body.push(event(200));
    body.push(with(|e| e["time"] = json!(1)));
    let response = agent.post("/v1/events", &Value::Array(body)).await;
    assert_eq!(response.status, StatusCode::OK, "one was accepted");
    let answers = results(&response);
    for ((_, reason, part), answer) in cases.iter().zip(&answers) {
        assert_eq!((&answer["status"], &answer["reason"]), (&json!("refused"), &json!(reason)), "{answer}");
        assert!(answer["error"].as_str().unwrap().contains(part), "{answer}");
    }
    assert_eq!(answers[10]["status"], json!("accepted"));
    assert_eq!(answers[11]["reason"], json!("behind-watermark"));
    let response = agent.post("/v1/events", &with(|e| e["time"] = json!(1))).await;
    assert_eq!(response.status, StatusCode::UNPROCESSABLE_ENTITY, "all were refused");
    agent.stop().await;
}

#[tokio::test]
async fn a_live_source_refuses_the_future() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&folder);
    config.sources.api.time = TimeDomain::Live;
    let agent = Running::start(config).await;
    let answers = results(&agent.post("/v1/events", &with(|e| e["time"] = json!(wall_now() + 3_600_000_000))).await);
    assert_eq!(answers[0]["reason"], json!("future"));
    assert!(answers[0]["error"].as_str().unwrap().contains("300s ahead are tolerated"), "{answers:?}");
    let answers = results(&agent.post("/v1/events", &with(|e| e["time"] = json!(wall_now()))).await);
    assert_eq!(answers[0]["status"], json!("accepted"));
    agent.stop().await;
}

#[tokio::test]
async fn numbers_that_are_none_and_broken_json_are_refused_as_a_whole() {
    let folder = tempfile::tempdir().unwrap();
    let agent = Running::start(config(&folder)).await;
    for body in ["{\"id\":\"a\",\"time\":1,\"values\":{\"amount\":NaN}}", "{\"id\":", "", "[1e999]"] {
        let response = agent.post_bytes("/v1/events", body.into()).await;
        assert_eq!(response.status, StatusCode::BAD_REQUEST, "{body}");
        let problem: Value = response.json().unwrap();
        assert_eq!(problem["type"], json!("json"), "{problem}");
    }
    let response = agent.post("/v1/events", &json!([])).await;
    assert_eq!(response.status, StatusCode::BAD_REQUEST);
    let response = agent.post("/v1/events?durable=perhaps", &event(0)).await;
    assert_eq!(response.status, StatusCode::BAD_REQUEST);
    let response = agent.post("/v1/nothing", &event(0)).await;
    assert_eq!(response.status, StatusCode::NOT_FOUND);
    agent.stop().await;
}

#[tokio::test]
async fn too_many_events_and_a_full_queue_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&folder);
    config.limits.events_per_request = 10;
    config.limits.queue_events = 5;
    let agent = Running::start(config).await;
    let many = |n: i64| Value::Array((0..n).map(event).collect());
    let response = agent.post("/v1/events", &many(11)).await;
    assert_eq!(response.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(
        response.json::<Value>().unwrap()["detail"].as_str().unwrap().contains("11 events in one request; at most 10")
    );
    let response = agent.post("/v1/events", &many(6)).await;
    assert_eq!(response.status, StatusCode::PAYLOAD_TOO_LARGE, "it could never fit");
    assert_eq!(agent.post("/v1/events", &many(5)).await.status, StatusCode::OK);
    agent.stop().await;
}

#[tokio::test]
async fn a_body_of_100_mb_is_refused_before_it_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let agent = Running::start(config(&folder)).await;
    let mut stream = TcpStream::connect(agent.address).await.unwrap();
    let head = "POST /v1/events HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100000000\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let answer = read_head(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert!(answer.contains("100000000 bytes; at most 4194304"), "{answer}");
    // Chunked, nothing is announced: the limit holds while it streams.
    let mut stream = TcpStream::connect(agent.address).await.unwrap();
    let head = "POST /v1/events HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut reading, mut writing) = stream.into_split();
    let sending = tokio::spawn(async move {
        let chunk = [b"10000\r\n".as_slice(), &[b' '; 0x10000], b"\r\n"].concat();
        for _ in 0..1600 {
            // The agent may close as soon as it has heard enough.
            if writing.write_all(&chunk).await.is_err() {
                break;
            }
        }
    });
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while !String::from_utf8_lossy(&answer).contains("body-too-large") {
        match tokio::time::timeout(Duration::from_secs(30), reading.read(&mut buffer)).await.unwrap() {
            Ok(0) | Err(_) => break,
            Ok(read) => answer.extend_from_slice(&buffer[..read]),
        }
    }
    assert!(String::from_utf8_lossy(&answer).starts_with("HTTP/1.1 413"), "{}", String::from_utf8_lossy(&answer));
    drop(reading);
    sending.await.unwrap();
    let memory = tributary_process::resources::memory();
    assert!(memory.resident < 500 << 20, "{memory:?}");
    assert_eq!(agent.post("/v1/events", &event(0)).await.status, StatusCode::OK);
    agent.stop().await;
}

async fn read_head(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while !String::from_utf8_lossy(&answer).contains("\"detail\"") {
        let read = tokio::time::timeout(Duration::from_secs(30), stream.read(&mut buffer)).await.unwrap().unwrap();
        assert!(read > 0, "{}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&buffer[..read]);
    }
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn another_host_name_is_refused_on_tcp_and_fine_on_the_unix_socket() {
    let folder = tempfile::tempdir().unwrap();
    let agent = Running::start(config(&folder)).await;
    for (host, status) in [("evil.example", "403"), ("localhost:1", "200"), ("[::1]", "200"), ("", "403")] {
        let mut stream = TcpStream::connect(agent.address).await.unwrap();
        let head = format!("GET /v1/health HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{host:?}: {answer}");
    }
    // No web page reaches a Unix socket, whatever it is called.
    let response = agent.unix.send(Method::GET, "/v1/health", "", Bytes::new()).await.unwrap();
    assert_eq!(response.status, StatusCode::OK);
    agent.stop().await;
}

#[tokio::test]
async fn settings_and_files_that_cannot_work_are_named_at_start() {
    let folder = tempfile::tempdir().unwrap();
    let mut broken = config(&folder);
    broken.view = Some(folder.path().join("none.toml"));
    let error = Running::try_start(broken).await.err().unwrap();
    assert!(error.to_string().contains("none.toml"), "{error}");
    let mut none = config(&folder);
    none.view = None;
    let error = Running::try_start(none).await.err().unwrap();
    assert!(error.to_string().contains("no feature view"), "{error}");
    let agent = Running::start(config(&folder)).await;
    let error = Running::try_start(config(&folder)).await.err().unwrap();
    assert!(error.to_string().contains("state.redb"), "a second agent on the same state: {error}");
    agent.stop().await;
}
