//! The first certificate: who gets one, and who does not.

use std::sync::Arc;
use std::time::Duration;

use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use tributary_identity::tls::{self, HubProblem};
use tributary_identity::{EnrolRequest, EnrolmentToken};
use tributary_wire::Micros;

use super::{
    ACCEPTED, ADMINISTRATIVE_ACTION, Device, NOT_AUTHORISED, clock, connect, fingerprint, https, kind, metric, token,
};
use crate::support::TestHub;

#[tokio::test(flavor = "multi_thread")]
async fn a_device_enrols_with_a_token_connects_and_stands_in_its_group() {
    let hub = TestHub::start().await;
    let token = token(&hub, json!({"group": "canary", "labels": {"site": "lyon"}, "uses": 2})).await;
    let mut device = Device::new("edge-1");
    let (status, answer) = device.try_enrol(&hub, &token).await;
    assert_eq!(status, StatusCode::OK, "{answer:#}");
    let told = device.enrolled.clone().unwrap();
    assert_eq!(device.certificate().common_name(), "edge-1");
    assert_eq!(told.ports.https, hub.hub.https_address().port());
    assert_eq!(told.ports.tls, hub.hub.mqtt_addresses().tls.map(|address| address.port()));
    assert_eq!(told.ports.quic, hub.hub.mqtt_addresses().quic.map(|address| address.port()));
    let root = told.root.clone().expect("the hub has a signed repository");
    assert_eq!(hub.send(Method::GET, "/repository/metadata/1.root.json", "", "").await.body, root);
    let two_thirds = Micros(told.now.0 + 60 * Micros::DAY);
    assert!((told.renew_after.0 - two_thirds.0).abs() < 60_000_000, "{} {two_thirds}", told.renew_after);

    assert_eq!(device.connect(&hub).await.unwrap(), ACCEPTED);
    let known = hub.get("/devices/edge-1").await.1;
    assert_eq!((&known["group"], &known["labels"]["site"]), (&json!("canary"), &json!("lyon")));
    let kept = hub.get("/enrolment-tokens").await.1["items"][0].clone();
    assert_eq!((&kept["uses_made"], &kept["state"]), (&json!(1), &json!("usable")), "{kept:#}");
    assert!(kept.get("token").is_none() && !kept.to_string().contains(token.split('.').nth(2).unwrap()));
    let used = hub.until("/devices/edge-1/certificates", |answer| answer["items"][0]["used"].is_i64()).await;
    assert_eq!((&used["items"][0]["state"], &used["items"][0]["how"]), (&json!("valid"), &json!("enrolled")));
    assert!(metric(&hub, "hub_enrolments_total{outcome=\"enrolled\"} 1").await);
    assert!(metric(&hub, "hub_admissions_total{outcome=\"tls\"} 1").await);

    // After a restart the hub is the same one, and so is the device.
    let hub = TestHub::start_in(hub.stop().await, |_| {}).await;
    assert_eq!(device.connect(&hub).await.unwrap(), ACCEPTED);
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_does_not_count_is_refused_and_each_refusal_says_why() {
    let hub = TestHub::start().await;
    let good: EnrolmentToken = token(&hub, json!({})).await.parse().unwrap();
    // The hub that answers is not the one of the token: the device does not even show it.
    let other = EnrolmentToken::new("k7", [7; 32], tributary_wire::Sha256([1; 32])).unwrap();
    let client = https(&hub, tls::pinned_client(other.hub(), tls::ALPN_HTTP, clock()).unwrap());
    let refused = client.get::<Value>("/api/v1/health").await.unwrap_err();
    assert_eq!(tls::hub_problem(&refused), Some(HubProblem::Other), "{refused:?}");

    let short = token(&hub, json!({"lifetime": "1ms"})).await;
    let taken_back = token(&hub, json!({})).await;
    let id = taken_back.split('.').nth(1).unwrap();
    assert_eq!(hub.ok(Method::DELETE, &format!("/enrolment-tokens/{id}"), Value::Null).await["state"], "revoked");
    let used_up = token(&hub, json!({})).await;
    assert_eq!(Device::new("edge-1").try_enrol(&hub, &used_up).await.0, StatusCode::OK);
    tokio::time::sleep(Duration::from_millis(2)).await;
    let wrong = EnrolmentToken::new(good.id(), [7; 32], good.hub()).unwrap().to_string();
    let unknown = EnrolmentToken::new("none", [7; 32], good.hub()).unwrap().to_string();
    for (token, status, name) in [
        (short, 403, "token-expired"),
        (taken_back, 403, "token-revoked"),
        (used_up, 403, "token-used-up"),
        (wrong, 403, "token-secret"),
        (unknown, 403, "token-unknown"),
        ("nonsense".to_owned(), 400, "token-malformed"),
    ] {
        let (found, answer) = Device::new("edge-9").try_enrol(&hub, &token).await;
        assert_eq!((found.as_u16(), kind(&answer)), (status, &*format!("/problems/enrolment-{name}")), "{answer:#}");
        assert!(metric(&hub, &format!("hub_enrolments_total{{outcome=\"{name}\"}} 1")).await, "{name}");
    }
    let mut hubs_own = Device::new("hub");
    assert_eq!(kind(&hubs_own.try_enrol(&hub, &good.to_string()).await.1), "/problems/enrolment-device-reserved");
    let not_its_own = EnrolRequest {
        request: Device::new("edge-2").request("").request,
        ..Device::new("edge-3").request(&good.to_string())
    };
    let refused = hub.hub.identity.enrol(&not_its_own, None, hub.hub.now()).await.unwrap_err();
    assert_eq!(refused.to_string(), r#"the signing request is for "edge-2", expected "edge-3""#);
    assert_eq!(hub.get("/devices/edge-9").await.0, StatusCode::NOT_FOUND);
    assert_eq!(Device::new("edge-3").try_enrol(&hub, &good.to_string()).await.0, StatusCode::OK, "still unused");
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_guesses_is_shut_out_for_a_while() {
    let hub = TestHub::start_in(tempfile::tempdir().unwrap(), |config| config.identity.refusals_per_minute = 3).await;
    let unknown = EnrolmentToken::new("none", [7; 32], fingerprint(&hub)).unwrap().to_string();
    let mut refused = Vec::new();
    for _ in 0..5 {
        refused.push(Device::new("edge-1").try_enrol(&hub, &unknown).await.0.as_u16());
    }
    assert_eq!(refused, [403, 403, 403, 429, 429]);
    let good = token(&hub, json!({})).await;
    assert_eq!(Device::new("edge-1").try_enrol(&hub, &good).await.0, StatusCode::TOO_MANY_REQUESTS);
    // Another address is not concerned.
    let elsewhere = Some("192.0.2.1".parse().unwrap());
    let request = Device::new("edge-1").request(&good);
    hub.hub.identity.enrol(&request, elsewhere, hub.hub.now()).await.unwrap();
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_devices_that_race_for_the_last_use_one_wins() {
    let hub = TestHub::start().await;
    let token = token(&hub, json!({"uses": 2})).await;
    let racing = (0..8).map(|n| {
        let (hub, token) = (&hub, &token);
        async move { Device::new(&format!("edge-{n}")).try_enrol(hub, token).await.0 }
    });
    let outcomes = futures_util::future::join_all(racing).await;
    assert_eq!(outcomes.iter().filter(|status| **status == StatusCode::OK).count(), 2, "{outcomes:?}");
    assert_eq!(hub.get("/enrolment-tokens").await.1["items"][0]["uses_made"], 2);
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_whose_answer_was_lost_is_answered_again_and_costs_nothing() {
    let hub = TestHub::start().await;
    let token = token(&hub, json!({"uses": 1})).await;
    let mut device = Device::new("edge-1");
    let first = device.try_enrol(&hub, &token).await.1;
    let again = device.try_enrol(&hub, &token).await.1;
    assert_eq!(first["certificate"], again["certificate"]);
    assert_eq!(hub.get("/enrolment-tokens").await.1["items"][0]["uses_made"], 1);
    // Another key is another request.
    let (status, answer) = Device::new("edge-1").try_enrol(&hub, &token).await;
    assert_eq!((status, kind(&answer)), (StatusCode::FORBIDDEN, "/problems/enrolment-token-used-up"));
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_device_comes_back_by_an_operators_word_alone_and_once() {
    let hub = TestHub::start().await;
    let before = Device::enrolled(&hub, "edge-1").await;
    let live = connect(&hub, Arc::new(before.config(tls::ALPN_MQTT)), "edge-1").await.unwrap();
    let token = token(&hub, json!({"uses": 9})).await;
    let mut wiped = Device::new("edge-1");
    let (status, answer) = wiped.try_enrol(&hub, &token).await;
    assert_eq!((status, kind(&answer)), (StatusCode::CONFLICT, "/problems/enrolment-device-enrolled"), "{answer:#}");
    assert!(answer["detail"].as_str().unwrap().contains("device allow-enrolment edge-1"), "{answer:#}");

    hub.ok(Method::POST, "/devices/edge-1/allow-enrolment", json!({"lifetime": "1h"})).await;
    assert_eq!(wiped.try_enrol(&hub, &token).await.0, StatusCode::OK);
    assert_eq!(live.ended().await, ADMINISTRATIVE_ACTION, "whoever has the old key is out");
    assert_eq!(before.connect(&hub).await.unwrap(), NOT_AUTHORISED);
    assert_eq!(wiped.connect(&hub).await.unwrap(), ACCEPTED);
    assert_eq!(Device::new("edge-1").try_enrol(&hub, &token).await.0, StatusCode::CONFLICT, "the word is used up");

    let (status, _) = hub.json(Method::POST, "/devices/edge-9/allow-enrolment", json!({})).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    hub.stop().await;
}
