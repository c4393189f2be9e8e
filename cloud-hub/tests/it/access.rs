//! Tokens from their making to their end, guessing, revoked certificates, own releases, the plain listener.

use bytes::Bytes;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tributary_identity::{Key, KeyFile};
use tributary_wire::DeviceId;

use crate::routes::status;
use crate::support::{Enrolled, TestHub, package};

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_shown_once_kept_as_a_hash_and_ends_when_it_is_told_to() {
    let hub = TestHub::start().await;
    let asked = json!({"name": " Grafana <b> ", "role": "viewer", "expires_in": "30d"});
    let key = [("idempotency-key", "t-1")];
    let (code, headers, made) = hub.with_headers((Method::POST, "/tokens"), &key, asked.clone()).await;
    assert_eq!((code, &headers["cache-control"]), (StatusCode::CREATED, &"no-store".parse().unwrap()), "{made:#}");
    let token = made["token"].as_str().unwrap().to_owned();
    let id = made["id"].as_str().unwrap();
    assert!(token.starts_with(&format!("tributary-api.{id}.")) && made["name"] == "Grafana <b>", "{made:#}");
    // Asked again with the same key, the hub says that it was done and does not show it again.
    let again = hub.with_headers((Method::POST, "/tokens"), &key, asked).await;
    assert_eq!(again.0, StatusCode::CONFLICT, "{:#}", again.2);
    assert!(again.2["detail"].as_str().unwrap().contains("not shown again"));
    let me = hub.with_token(&token).get::<Value>("/api/v1/session").await.unwrap();
    assert_eq!((&me["token"], &me["role"], &me["csrf"]), (&made["id"], &json!("viewer"), &Value::Null));
    let secret = token.rsplit('.').next().unwrap();
    let lists = [hub.get("/tokens").await.1, hub.get(&format!("/tokens/{id}")).await.1];
    assert!(lists.iter().all(|list| !list.to_string().contains(secret) && list.to_string().contains(id)));
    for file in ["catalog.db", "catalog.db-wal"] {
        let bytes = std::fs::read(hub.hub.data().join(file)).unwrap_or_default();
        assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()), "{file}");
    }
    hub.hub.access.write_used().await.unwrap();
    assert!(hub.get(&format!("/tokens/{id}")).await.1["last_used"].as_i64().unwrap() > 0);

    // A connection that began with the token learns of its end.
    let verified = hub.hub.access.check(&token, [127, 0, 0, 1].into()).await.unwrap();
    let access = hub.hub.access.clone();
    let ending = tokio::spawn(async move { access.ended(&verified).await });
    let revoked = hub.send(Method::DELETE, &format!("/tokens/{id}"), "", "").await;
    let ended = tokio::time::timeout(crate::support::DEADLINE, ending).await.unwrap().unwrap();
    assert!(ended.contains("was revoked"), "{ended}");
    assert_eq!(revoked.status, StatusCode::OK);
    let refused = hub.with_token(&token).send(Method::GET, "/api/v1/devices", "", Bytes::new()).await.unwrap();
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    assert_eq!(refused.headers["www-authenticate"], "Bearer realm=\"tributary\", error=\"invalid_token\"");
    let problem: Value = refused.json().unwrap();
    assert!(problem["detail"].as_str().unwrap().contains("was revoked"), "{problem:#}");
    assert!(!problem.to_string().contains(secret));
    let short = hub.made(json!({"name": "short", "role": "viewer", "expires_in": "1ms"})).await;
    let start = std::time::Instant::now();
    let ended = loop {
        let answer = hub.with_token(&short).send(Method::GET, "/api/v1/devices", "", Bytes::new()).await.unwrap();
        if answer.status == StatusCode::UNAUTHORIZED {
            break answer;
        }
        assert!(start.elapsed() < crate::support::DEADLINE);
    };
    assert!(String::from_utf8_lossy(&ended.body).contains("has expired"), "{:?}", ended.body);
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wishes_for_tokens_are_checked_and_the_last_admin_stays() {
    let hub = TestHub::start().await;
    for (body, code) in [
        (json!({"name": "", "role": "viewer"}), 422),
        (json!({"name": "x".repeat(65), "role": "viewer"}), 422),
        (json!({"name": "a\nb", "role": "viewer"}), 422),
        (json!({"name": "a", "role": "root"}), 400),
        (json!({"name": "a", "role": "viewer", "expires_in": "0s"}), 422),
        (json!({"name": "a", "role": "viewer", "expires_in": "200000000d"}), 422),
        (json!({"name": "a", "role": "viewer", "expires_in": "1d", "never_expires": true}), 422),
        (json!({"name": "a", "role": "viewer", "secret": "mine"}), 400),
    ] {
        let (found, problem) = hub.json(Method::POST, "/tokens", body.clone()).await;
        assert_eq!(found.as_u16(), code, "{body}: {problem:#}");
    }
    let me = hub.get("/session").await.1;
    let own = format!("/tokens/{}", me["token"].as_str().unwrap());
    let (kept, problem) = hub.json(Method::DELETE, &own, Value::Null).await;
    assert_eq!(kept, StatusCode::CONFLICT, "{problem:#}");
    assert!(problem["detail"].as_str().unwrap().contains("make another"), "{problem:#}");
    let other = hub.made(json!({"name": "other", "role": "admin", "never_expires": true})).await;
    assert_eq!(hub.json(Method::DELETE, &own, Value::Null).await.0, StatusCode::OK);
    assert_eq!(hub.get("/devices").await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(hub.with_token(&other).get::<Value>("/api/v1/session").await.unwrap()["expires"], Value::Null);
    assert_eq!(hub.json(Method::DELETE, "/tokens/none", Value::Null).await.0, StatusCode::UNAUTHORIZED);
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_guesses_has_to_wait_and_who_was_right_before_does_not() {
    let hub = TestHub::start_in(tempfile::tempdir().unwrap(), |config| config.access.failures_per_minute = 5).await;
    let fresh = hub.made(json!({"name": "fresh", "role": "viewer"})).await;
    let guess = fresh.replace(&fresh[fresh.len() - 8..], "AAAAAAAA");
    let ask =
        async |token: &str| hub.with_token(token).send(Method::GET, "/api/v1/devices", "", Bytes::new()).await.unwrap();
    let mut limited = None;
    // The allowance grows while this runs; guessing is faster.
    for _ in 0..1_000 {
        let answer = ask(&guess).await;
        if answer.status == StatusCode::TOO_MANY_REQUESTS {
            limited = Some(answer);
            break;
        }
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    }
    let limited = limited.expect("guessing was never limited");
    let wait: u64 = limited.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=13).contains(&wait), "{wait}");
    assert_eq!(hub.get("/devices").await.0, StatusCode::OK, "the admin at the same address was right before");
    let metrics = String::from_utf8(hub.send(Method::GET, "/metrics", "", "").await.body.to_vec()).unwrap();
    assert!(metrics.contains("hub_access_refusals_total{reason=\"token\"}"), "{metrics}");
    let body = json!({"token": guess}).to_string();
    let answer = hub.nobody().send(Method::POST, "/api/v1/session", "application/json", body.into()).await.unwrap();
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_without_any_admin_makes_one_at_its_next_start() {
    let hub = TestHub::start().await;
    let first = hub.token();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(hub.token_file()).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let hub = TestHub::start_in(hub.stop().await, |_| {}).await;
    assert_eq!(hub.token(), first, "a start changes nothing while there is an admin");
    let mut catalog = hub.hub.catalog.write().await.unwrap();
    sqlx::query("update api_tokens set expires = 1").execute(&mut *catalog).await.unwrap();
    catalog.commit().await.unwrap();
    let hub = TestHub::start_in(hub.stop().await, |_| {}).await;
    assert_ne!(hub.token(), first);
    assert_eq!(hub.get("/tokens").await.0, StatusCode::OK);
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_certificate_ends_on_the_connection_that_it_opened() {
    let hub = TestHub::start().await;
    let enrolled = hub.enrol("edge-1").await;
    let mut stream = hub.tls_stream(&enrolled).await;
    let ask = async |stream: &mut tokio_rustls::client::TlsStream<tokio::net::TcpStream>| -> String {
        stream
            .write_all(b"GET /api/v1/repository/metadata/timestamp.json HTTP/1.1\r\nhost: localhost\r\n\r\n")
            .await
            .unwrap();
        let mut answer = Vec::new();
        // The body is JSON and ends with its brace.
        while !(answer.ends_with(b"}") || answer.ends_with(b"}\n")) {
            let mut piece = [0; 4096];
            let read = stream.read(&mut piece).await.unwrap();
            assert!(read > 0, "{:?}", String::from_utf8_lossy(&answer));
            answer.extend_from_slice(&piece[..read]);
        }
        String::from_utf8(answer).unwrap()
    };
    assert!(ask(&mut stream).await.starts_with("HTTP/1.1 200"));
    assert!(ask(&mut stream).await.starts_with("HTTP/1.1 200"));
    hub.hub.identity.revoke(&DeviceId::new("edge-1").unwrap(), "stolen", hub.hub.now()).await.unwrap();
    let refused = ask(&mut stream).await;
    assert!(refused.starts_with("HTTP/1.1 401") && refused.contains("not valid here"), "{refused}");
    assert_eq!(
        status(&hub.https(Some(&enrolled)), "GET", "/api/v1/repository/metadata/timestamp.json").await.0,
        StatusCode::UNAUTHORIZED
    );
    // A certificate that our authority has signed and the hub never gave out counts for nothing: the authority may be
    // one that signs for others too.
    let (key, device) = (KeyFile::generate().unwrap(), DeviceId::new("edge-2").unwrap());
    let authority = hub.hub.identity.authority();
    let request = key.request(&device).unwrap();
    let lifetime = std::time::Duration::from_secs(3_600);
    let certificate = authority.issue_device(&request, &device, hub.hub.now(), lifetime).unwrap();
    let unknown = Enrolled { certificate, key: std::sync::Arc::new(key) };
    for path in ["/api/v1/repository/metadata/timestamp.json", "/api/v1/devices", "/api/v1/nowhere"] {
        assert_eq!(status(&hub.https(Some(&unknown)), "GET", path).await.0, StatusCode::UNAUTHORIZED, "{path}");
    }
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_fetches_the_releases_that_it_was_assigned_and_no_others() {
    let hub = TestHub::start().await;
    hub.line(json!({})).await;
    let mut packages = Vec::new();
    for version in 1..=3u32 {
        let bytes = package("card-fraud", version);
        packages.push(tributary_release::digest(&bytes).to_string());
        hub.send(Method::POST, "/lines/card-fraud/versions", "application/octet-stream", bytes).await;
        hub.ok(Method::POST, &format!("/lines/card-fraud/versions/{version}/publish"), Value::Null).await;
    }
    let (one, two) = (hub.enrol("edge-1").await, hub.enrol("edge-2").await);
    // edge-1 ran version 1 in an earlier rollout and should run version 2 now; edge-2 has nothing.
    let mut catalog = hub.hub.catalog.write().await.unwrap();
    for (version, sha256) in [(1, &packages[0]), (2, &packages[1])] {
        let query = "insert into rollouts (id, line, role, version, length, sha256, policy_json, state, state_json, reason,
                     created, changed) values ($1, 'card-fraud', 'primary', $1, 1, $2, '{}', 'completed', '{}', '', 0, 0)";
        sqlx::query(query).bind(version).bind(sha256).execute(&mut *catalog).await.unwrap();
    }
    for query in [
        "insert into rollout_devices (rollout, device, wave, assigned) values (1, 'edge-1', 0, 0)",
        "insert into wishes (device, line, role, version, length, sha256, allow_lower, rollout)
         select 'edge-1', line, role, version, length, sha256, 0, id from rollouts where id = 2",
    ] {
        sqlx::query(query).execute(&mut *catalog).await.unwrap();
    }
    catalog.commit().await.unwrap();
    for (enrolled, expected) in [(&one, [200, 200, 404]), (&two, [404, 404, 404])] {
        let client = hub.https(Some(enrolled));
        for (index, expected) in expected.into_iter().enumerate() {
            let path = format!("/api/v1/repository/targets/models/card-fraud/{}.v{}.tpk", packages[index], index + 1);
            let answer = client.send(Method::GET, &path, "", Bytes::new()).await.unwrap();
            assert_eq!(answer.status, expected, "{path}: {:?}", String::from_utf8_lossy(&answer.body));
        }
    }
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_plain_listener_answers_this_machine_and_no_page_or_proxy_from_elsewhere() {
    let hub = TestHub::start().await;
    let ask = async |path: &str, headers: &str| -> u16 {
        let mut stream = tokio::net::TcpStream::connect(hub.hub.http_address().unwrap()).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nconnection: close\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer.split(' ').nth(1).unwrap().parse().unwrap()
    };
    let own = "host: localhost:8080\r\n";
    let with = |header: &str| format!("{own}{header}\r\n");
    for (path, headers, expected) in [
        ("/api/v1/health", own.to_owned(), 200),
        ("/api/v1/health", "host: [::1]:8080\r\n".to_owned(), 200),
        ("/api/v1/health", String::new(), 421),
        ("/api/v1/health", "host: rebound.example\r\n".to_owned(), 421),
        ("/api/v1/health", with("host: rebound.example"), 421),
        ("/api/v1/health", with("x-forwarded-for: 10.0.0.1"), 421),
        ("/api/v1/health", with("forwarded: for=10.0.0.1"), 421),
        // Devices of this machine have no certificate to show here.
        ("/api/v1/repository/metadata/timestamp.json", own.to_owned(), 200),
        ("/api/v1/repository/metadata/timestamp.json", with("origin: http://evil.example"), 401),
        ("/api/v1/devices", own.to_owned(), 401),
        ("/api/v1/devices", with("authorization: Basic YTpi"), 401),
        ("/api/v1/devices", with("authorization: Bearer"), 401),
    ] {
        assert_eq!(ask(path, &headers).await, expected, "{path} with {headers:?}");
    }
    let answer = hub.https(None).send(Method::GET, "/api/v1/health", "", Bytes::new()).await.unwrap();
    assert_eq!(answer.headers["strict-transport-security"], "max-age=31536000");
    assert_eq!(answer.headers["x-content-type-options"], "nosniff");
    assert_eq!(answer.headers["cache-control"], "no-store");
    hub.stop().await;
}
