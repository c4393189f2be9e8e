//! Pages: only for those who signed in, nothing from outside becomes markup, and the browser is told to keep it so.

use bytes::Bytes;
use hyper::header::HeaderName;
use hyper::{Method, StatusCode};
use serde_json::json;
use tributary_process::http::{Client, Response};

use crate::sessions::Browser;
use crate::support::TestHub;

async fn page(client: &Client, path: &str) -> (Response, String) {
    let answer = client.send(Method::GET, path, "", Bytes::new()).await.unwrap();
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    (answer, text)
}

fn signed_in(browser: &Browser) -> Client {
    browser.client.clone().with_header(HeaderName::from_static("cookie"), browser.cookie.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_overview_is_for_those_who_signed_in_and_shows_what_their_role_may_see() {
    let hub = TestHub::start().await;
    let nobody = hub.https(None);
    let (answer, _) = page(&nobody, "/").await;
    assert_eq!((answer.status, &answer.headers["location"]), (StatusCode::SEE_OTHER, &"/sign-in".parse().unwrap()));
    // A token or a certificate is for the web API; only a session opens a page.
    let program = TestHub::bearer(nobody.clone(), &hub.token());
    assert_eq!(page(&program, "/").await.0.status, StatusCode::SEE_OTHER);
    let enrolled = hub.enrol("edge-1").await;
    assert_eq!(page(&hub.https(Some(&enrolled)), "/").await.0.status, StatusCode::SEE_OTHER);
    let (answer, text) = page(&nobody, "/sign-in").await;
    assert!(answer.status.is_success() && text.contains("id=\"sign-in\""), "{text}");

    let viewer = hub.made(json!({"name": "looks", "role": "viewer"})).await;
    let (viewer, _) = Browser::sign_in(nobody.clone(), &viewer).await;
    let (admin, _) = Browser::sign_in(nobody, &hub.token()).await;
    let (_, seen) = page(&signed_in(&viewer), "/").await;
    assert!(seen.contains("edge-1") && seen.contains("away"), "{seen}");
    assert!(
        !seen.contains("API tokens") && !seen.contains("create-token") && !seen.contains("access.create"),
        "{seen}"
    );
    let (answer, seen) = page(&signed_in(&admin), "/").await;
    assert!(seen.contains("API tokens") && seen.contains("looks") && seen.contains("access.create"), "{seen}");
    assert!(seen.contains(&format!("name=\"csrf-token\" content=\"{}\"", admin.csrf)));
    assert_eq!(page(&signed_in(&admin), "/sign-in").await.0.status, StatusCode::SEE_OTHER);
    let header = |name: &str| answer.headers[name].to_str().unwrap();
    let policy = header("content-security-policy");
    assert!(policy.starts_with("default-src 'none'; ") && policy.contains("frame-ancestors 'none'"), "{policy}");
    assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
    assert_eq!(header("cache-control"), "no-store");
    assert_eq!((header("x-content-type-options"), header("referrer-policy")), ("nosniff", "no-referrer"));
    assert!(header("strict-transport-security").starts_with("max-age="));
    for asset in ["/assets/style.css", "/assets/page.js", "/assets/icon.svg"] {
        assert!(page(&hub.https(None), asset).await.0.status.is_success(), "{asset}");
    }
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_devices_or_people_said_becomes_markup() {
    let hub = TestHub::start().await;
    let attack = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>";
    hub.ok(Method::PUT, "/devices/edge-1", json!({"labels": {"site": attack}})).await;
    hub.made(json!({"name": attack, "role": "admin"})).await;
    // Not even from a catalog that somebody else has written into.
    let mut catalog = hub.hub.catalog.write().await.unwrap();
    for query in [
        "insert into devices (id, first_seen, last_seen, group_name) values ($1, 0, 0, $1)",
        "insert into api_tokens (id, name, role, digest, created) values ($1, $1, 'viewer', x'00', 0)",
    ] {
        sqlx::query(query).bind(attack).execute(&mut *catalog).await.unwrap();
    }
    catalog.commit().await.unwrap();
    let (browser, _) = Browser::sign_in(hub.https(None), &hub.token()).await;
    let (_, text) = page(&signed_in(&browser), "/").await;
    assert!(text.contains("&lt;script&gt;alert(1)"), "{text}");
    assert!(!text.contains("<script>") && !text.contains("<img src=x"), "{text}");
    // Nothing inline: the policy would stop it, and an attacker's would look the same.
    assert_eq!(text.matches("<script").count(), 1);
    assert!(!text.contains(" style=") && !text.contains("<style") && !text.contains(" onclick="), "{text}");
    // Every attribute's quote has its partner in the same tag.
    for tag in text.split('<').skip(1).filter_map(|tag| tag.split('>').next()) {
        assert_eq!(tag.matches('"').count() % 2, 0, "<{tag}>");
    }
    hub.stop().await;
}
