//! What holds for every route: strict bodies, problems, limits, idempotency, revisions, pages.

use bytes::Bytes;
use hyper::header::HeaderName;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use tributary_process::http::Client;

use crate::support::TestHub;

#[tokio::test(flavor = "multi_thread")]
async fn wrong_requests_get_problems_that_name_what_was_wrong() {
    let hub = TestHub::start().await;
    hub.line(json!({})).await;
    let cases = [
        ("PUT", "/devices/edge-1", "{\"labels\": ", 400, "not JSON"),
        ("PUT", "/devices/edge-1", r#"{"lables": {}}"#, 400, "unknown field `lables`"),
        ("PUT", "/devices/edge-1", r#"{"labels": {"a": 1}}"#, 400, "invalid type: integer `1`, expected a string"),
        ("PUT", "/devices/Edge%201", r#"{}"#, 400, "does not match"),
        ("PUT", "/lines/card-fraud", r#"{"view": "card-risk", "trainig": {}}"#, 400, "unknown field `trainig`"),
        ("PUT", "/lines/card-fraud", r#"{"view": "none"}"#, 404, "no feature view none"),
        ("PUT", "/lines/card-fraud", r#"{}"#, 400, "missing field `view`"),
        ("PUT", "/lines/card-fraud", r#"{"view": "card-risk", "rollout": {"percent": [50]}}"#, 422, "rollout.percent"),
        ("POST", "/runs", r#"{"line": "card-fraud", "dataset": 7}"#, 422, "no dataset 7"),
        ("POST", "/runs", r#"{"line": "other"}"#, 404, "no model line other"),
        ("POST", "/runs", r#"{"line": "card-fraud", "from": "yesterday"}"#, 400, "yesterday"),
        ("POST", "/datasets", r#"{"line": "card-fraud"}"#, 422, "no events yet"),
        ("PUT", "/lines/card-fraud/aliases/champion", r#"{"version": 3}"#, 404, "no version 3"),
        ("GET", "/runs/1", "", 404, "no run 1"),
        ("GET", "/runs/first", "", 400, "first"),
        ("GET", "/devices?limit=0", "", 400, "limit 0"),
        ("GET", "/devices?limt=1", "", 400, "limt"),
        ("GET", "/devices?cursor=zz", "", 400, "cursor"),
        ("GET", "/repository/packages/abc", "", 404, "packages/abc"),
        ("GET", "/nowhere", "", 404, "/api/v1/nowhere"),
        ("DELETE", "/devices", "", 405, "method"),
    ];
    for (method, path, body, status, words) in cases {
        let response = hub.send(method.parse().unwrap(), path, "application/json", body).await;
        let problem: Value = response.json().unwrap();
        assert_eq!(response.status.as_u16(), status, "{method} {path} {body}: {problem:#}");
        assert_eq!(response.headers["content-type"], "application/problem+json", "{path}");
        assert!(problem.to_string().replace("\\\"", "\"").contains(words), "{path} {body}: {problem:#}");
        assert_eq!(problem["status"], status);
        assert_eq!(problem["instance"], format!("/api/v1{}", path.split('?').next().unwrap()));
        assert!(problem["type"].as_str().unwrap().starts_with("/problems/"));
        assert!(response.headers.contains_key("x-request-id"));
    }
    let wrong_kind = hub.send(Method::PUT, "/devices/edge-1", "text/html", "<p>").await;
    assert_eq!(wrong_kind.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_a_hundred_megabytes_is_refused_and_the_hub_goes_on() {
    let hub = TestHub::start().await;
    let body = vec![b'['; 100_000_000];
    let response = hub.send(Method::POST, "/labels", "application/json", body).await;
    assert_eq!(response.status, StatusCode::PAYLOAD_TOO_LARGE);
    let problem: Value = response.json().unwrap();
    assert!(problem["detail"].as_str().unwrap().contains("16777216 bytes"), "{problem:#}");
    assert_eq!(hub.get("/health").await.1["status"], "ok");
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_post_with_an_idempotency_key_takes_effect_once() {
    let hub = TestHub::start().await;
    hub.line(json!({})).await;
    let key = [("idempotency-key", "k-1")];
    let body = json!({"line": "card-fraud", "reason": "first"});
    let first = hub.with_headers((Method::POST, "/runs"), &key, body.clone()).await;
    let again = hub.with_headers((Method::POST, "/runs"), &key, body).await;
    assert_eq!((first.0, &first.2), (again.0, &again.2));
    assert_eq!(again.1["idempotency-replayed"], "true");
    assert_eq!(hub.get("/runs").await.1["items"].as_array().unwrap().len(), 1);
    let other = hub.with_headers((Method::POST, "/runs"), &key, json!({"line": "card-fraud", "seed": 2})).await;
    assert_eq!(other.0, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(other.2["detail"].as_str().unwrap().contains("used for another request"));
    // A refusal is an answer too: it is the same the second time.
    let key = [("idempotency-key", "k-2")];
    let refused = hub.with_headers((Method::POST, "/runs"), &key, json!({"line": "none"})).await;
    let again = hub.with_headers((Method::POST, "/runs"), &key, json!({"line": "none"})).await;
    assert_eq!((refused.0, &refused.2), (again.0, &again.2));
    // A hub that stopped between effect and answer left the key without one: nothing is done a second time.
    let mut catalog = hub.hub.catalog.write().await.unwrap();
    sqlx::query("update idempotency_keys set status = 0").execute(&mut *catalog).await.unwrap();
    catalog.commit().await.unwrap();
    let interrupted = hub.with_headers((Method::POST, "/runs"), &key, json!({"line": "none"})).await;
    assert_eq!(interrupted.0, StatusCode::CONFLICT);
    assert!(interrupted.2["detail"].as_str().unwrap().contains("was interrupted"), "{:#}", interrupted.2);
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn idempotency_keys_belong_to_a_token_and_strangers_have_none() {
    let hub = TestHub::start().await;
    hub.line(json!({})).await;
    let keyed = |client: Client| client.with_header(HeaderName::from_static("idempotency-key"), "k-1".parse().unwrap());
    let stranger = keyed(hub.nobody());
    for path in ["/api/v1/session", "/api/v1/enrolments"] {
        let body = Bytes::from(json!({"token": "tributary-api.x.y"}).to_string());
        let answer = stranger.send(Method::POST, path, "application/json", body).await.unwrap();
        assert!(answer.status.is_client_error(), "{path}: {}", answer.status);
    }
    let kept = sqlx::query_scalar::<_, i64>("select count(*) from idempotency_keys");
    assert_eq!(kept.fetch_one(hub.hub.catalog.reader()).await.unwrap(), 0);
    // Two operators that chose the same key are not in each other's way, and see only their own answers.
    let body = Bytes::from(json!({"line": "card-fraud", "reason": "mine"}).to_string());
    let mut runs = Vec::new();
    for name in ["one", "two", "one"] {
        if runs.len() < 2 {
            let token = hub.made(json!({"name": name, "role": "operator"})).await;
            runs.push((keyed(hub.with_token(&token)), Value::Null));
        }
        let (client, seen) = if name == "one" { &mut runs[0] } else { &mut runs[1] };
        let answer = client.send(Method::POST, "/api/v1/runs", "application/json", body.clone()).await.unwrap();
        let made: Value = answer.json().unwrap();
        assert!(answer.status.is_success(), "{made:#}");
        assert_eq!(answer.headers.contains_key("idempotency-replayed"), !seen.is_null());
        assert!(seen.is_null() || *seen == made);
        *seen = made;
    }
    assert_ne!(runs[0].1["id"], runs[1].1["id"]);
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_changes_only_at_the_revision_that_the_caller_saw() {
    let hub = TestHub::start().await;
    let made = hub.line(json!({"retrain": "manual"})).await;
    assert_eq!((&made["revision"], &made["retrain"], &made["view_version"]), (&json!(1), &json!("manual"), &json!(1)));
    let put = |revision: &'static str| {
        let hub = &hub;
        async move {
            let body = json!({"view": "card-risk", "cool_down": "5s"});
            hub.with_headers((Method::PUT, "/lines/card-fraud"), &[("if-match", revision)], body).await
        }
    };
    let (status, _, problem) = put("\"7\"").await;
    assert_eq!(status, StatusCode::PRECONDITION_FAILED, "{problem:#}");
    assert!(problem["detail"].as_str().unwrap().contains("at revision 1"));
    let (status, headers, line) = put("\"1\"").await;
    assert_eq!(status, StatusCode::OK, "{line:#}");
    assert_eq!((&headers["etag"], &line["cool_down"]), (&"\"2\"".parse().unwrap(), &json!("5s")));
    assert_eq!(put("seven").await.0, StatusCode::BAD_REQUEST);
    let story = hub.get("/lines/card-fraud/events").await.1;
    let kinds: Vec<&str> =
        story["items"].as_array().unwrap().iter().map(|step| step["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["line-changed", "line-made"]);
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_are_registered_listed_in_pages_and_counted() {
    let hub = TestHub::start().await;
    for n in 0..5 {
        let body = json!({"labels": {"site": "lyon"}, "group": "canary"});
        hub.ok(Method::PUT, &format!("/devices/edge-{n}"), body).await;
    }
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = hub.get(&format!("/devices?limit=2{cursor}")).await.1;
        seen.extend(page["items"].as_array().unwrap().iter().map(|device| device["id"].as_str().unwrap().to_owned()));
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen, ["edge-0", "edge-1", "edge-2", "edge-3", "edge-4"]);
    let device = hub.get("/devices/edge-3").await.1;
    assert_eq!(
        (&device["labels"]["site"], &device["group"], &device["connected"]),
        (&json!("lyon"), &json!("canary"), &json!(false))
    );
    assert_eq!(hub.get("/devices/edge-9").await.0, StatusCode::NOT_FOUND);
    assert_eq!(hub.get("/ready").await.0, StatusCode::OK);
    let metrics = hub.send(Method::GET, "/metrics", "", "").await;
    let text = String::from_utf8(metrics.body.to_vec()).unwrap();
    assert!(text.contains("\nhub_connections 0\n") && text.ends_with("# EOF\n"), "{text}");
    assert!(!text.contains("edge-3"), "no device id is a metric label");
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_stops_coming_ends_its_request() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let hub = TestHub::start_in(tempfile::tempdir().unwrap(), |config| {
        config.api.body_timeout = tributary_process::config::HumanDuration(std::time::Duration::from_millis(100));
    })
    .await;
    let mut stream = tokio::net::TcpStream::connect(hub.hub.http_address().unwrap()).await.unwrap();
    let head =
        "PUT /api/v1/devices/edge-1 HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\nauthorization: Bearer ";
    stream.write_all(format!("{head}{}\r\n\r\n{{\"labels\": ", hub.token()).as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("no byte of the body came"), "{answer}");
    hub.stop().await;
}
