//! Sessions of browsers: how they begin and end, and what another site's page cannot do with them.

use bytes::Bytes;
use hyper::header::HeaderName;
use hyper::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};
use tributary_process::http::Client;

use crate::support::TestHub;

/// What a browser keeps.
pub struct Browser {
    pub client: Client,
    pub origin: String,
    pub cookie: String,
    pub csrf: String,
}

impl Browser {
    pub async fn sign_in(client: Client, token: &str) -> (Self, HeaderMap) {
        let origin = client.endpoint().to_string();
        let body = json!({"token": token}).to_string();
        let asking = client.clone().with_header(HeaderName::from_static("origin"), origin.parse().unwrap());
        let answer = asking.send(Method::POST, "/api/v1/session", "application/json", body.into()).await.unwrap();
        assert_eq!(answer.status, StatusCode::CREATED, "{:?}", answer.body);
        let set = answer.headers["set-cookie"].to_str().unwrap();
        let cookie = set.split(';').next().unwrap().to_owned();
        let csrf = answer.json::<Value>().unwrap()["csrf"].as_str().unwrap().to_owned();
        (Self { client, origin, cookie, csrf }, answer.headers)
    }

    async fn ask(&self, method: Method, path: &str, headers: &[(&'static str, &str)]) -> (StatusCode, Value) {
        let mut client = self.client.clone();
        for (name, value) in [("cookie", self.cookie.as_str())].iter().chain(headers) {
            client = client.with_header(HeaderName::from_static(name), value.parse().unwrap());
        }
        let body = if method == Method::GET { Bytes::new() } else { Bytes::from_static(b"{}") };
        let answer = client.send(method, path, "application/json", body).await.unwrap();
        (answer.status, answer.json().unwrap_or_default())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_does_what_its_token_may_but_only_from_the_hubs_own_page() {
    let hub = TestHub::start().await;
    let token = hub.made(json!({"name": "ada", "role": "operator"})).await;
    for client in [hub.https(None), hub.nobody()] {
        let (browser, headers) = Browser::sign_in(client, &token).await;
        let cookie = headers["set-cookie"].to_str().unwrap();
        let secure = browser.origin.starts_with("https");
        assert_eq!(cookie.starts_with("__Host-tributary="), secure, "{cookie}");
        assert!(cookie.contains("; HttpOnly; SameSite=Strict"), "{cookie}");
        assert_eq!(cookie.ends_with("; Secure"), secure, "{cookie}");
        let (status, me) = browser.ask(Method::GET, "/api/v1/session", &[]).await;
        assert_eq!((status, &me["name"], &me["role"]), (StatusCode::OK, &json!("ada"), &json!("operator")), "{me:#}");
        assert_eq!(me["csrf"], browser.csrf.as_str());
        assert_eq!(browser.ask(Method::GET, "/api/v1/tokens", &[]).await.0, StatusCode::FORBIDDEN);

        let (own, proof) = (browser.origin.as_str(), ("x-csrf-token", browser.csrf.as_str()));
        let put = async |headers: &[(&'static str, &str)]| {
            browser.ask(Method::PUT, "/api/v1/devices/edge-1", headers).await.0
        };
        assert_eq!(put(&[("origin", own), proof]).await, StatusCode::OK);
        assert_eq!(put(&[("sec-fetch-site", "same-origin"), proof]).await, StatusCode::OK);
        for forged in [
            &[][..],
            &[proof],
            &[("origin", own)],
            &[("origin", own), ("x-csrf-token", "")],
            &[("origin", own), ("x-csrf-token", &browser.csrf[1..])],
            &[("origin", "https://evil.example"), proof],
            &[("origin", "null"), proof],
            &[("origin", own), ("sec-fetch-site", "cross-site"), proof],
            &[("sec-fetch-site", "same-site"), proof],
        ] {
            assert_eq!(put(forged).await, StatusCode::FORBIDDEN, "{forged:?}");
        }
        // A program with a token has no browser that could be misled.
        let program = TestHub::bearer(browser.client.clone(), &token);
        let path = "/api/v1/devices/edge-1";
        let answer = program.send(Method::PUT, path, "application/json", Bytes::from_static(b"{}")).await.unwrap();
        assert_eq!(answer.status, StatusCode::OK);

        assert_eq!(browser.ask(Method::DELETE, "/api/v1/session", &[]).await.0, StatusCode::FORBIDDEN);
        let ended = browser.ask(Method::DELETE, "/api/v1/session", &[("origin", own), proof]).await;
        assert_eq!(ended.0, StatusCode::NO_CONTENT);
        assert_eq!(browser.ask(Method::GET, "/api/v1/session", &[]).await.0, StatusCode::UNAUTHORIZED);
    }
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_with_its_token_when_idle_and_when_it_is_old() {
    let hub = TestHub::start().await;
    let token = hub.made(json!({"name": "ada", "role": "viewer"})).await;
    let (browser, _) = Browser::sign_in(hub.https(None), &token).await;
    // The catalog holds neither the cookie nor what would do in its place.
    let secret = browser.cookie.split_once('=').unwrap().1;
    for file in ["catalog.db", "catalog.db-wal"] {
        let bytes = std::fs::read(hub.hub.data().join(file)).unwrap_or_default();
        for secret in [secret, &browser.csrf] {
            assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()), "{file}");
        }
    }
    let id = browser.ask(Method::GET, "/api/v1/session", &[]).await.1["token"].as_str().unwrap().to_owned();
    assert_eq!(hub.json(Method::DELETE, &format!("/tokens/{id}"), Value::Null).await.0, StatusCode::OK);
    let (status, problem) = browser.ask(Method::GET, "/api/v1/session", &[]).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert!(problem["detail"].as_str().unwrap().contains("sign in again"), "{problem:#}");
    let again = hub.https(None);
    let body = json!({"token": token}).to_string();
    let answer = again.send(Method::POST, "/api/v1/session", "application/json", body.into()).await.unwrap();
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    hub.stop().await;

    for old in [true, false] {
        let hub = TestHub::start_in(tempfile::tempdir().unwrap(), |config| {
            let none = tributary_process::config::HumanDuration(std::time::Duration::ZERO);
            match old {
                true => config.access.session = none,
                false => config.access.session_idle = none,
            }
        })
        .await;
        let (browser, _) = Browser::sign_in(hub.https(None), &hub.token()).await;
        assert_eq!(browser.ask(Method::GET, "/api/v1/devices", &[]).await.0, StatusCode::UNAUTHORIZED, "old: {old}");
        hub.hub.access.write_used().await.unwrap();
        let left: i64 =
            sqlx::query_scalar("select count(*) from sessions").fetch_one(hub.hub.catalog.reader()).await.unwrap();
        assert_eq!(left, 0, "ended sessions are cleared away");
        hub.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_sites_page_cannot_sign_a_browser_in() {
    let hub = TestHub::start().await;
    let body = json!({"token": hub.token()}).to_string();
    for (name, value) in [("origin", "https://evil.example"), ("sec-fetch-site", "cross-site")] {
        let client = hub.https(None).with_header(HeaderName::from_static(name), value.parse().unwrap());
        let answer =
            client.send(Method::POST, "/api/v1/session", "application/json", body.clone().into()).await.unwrap();
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{name}");
        assert!(!answer.headers.contains_key("set-cookie"));
    }
    hub.stop().await;
}
