//! Every later certificate, and the end of each.

use std::sync::Arc;

use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use tributary_identity::tls::{self, Shown};
use tributary_identity::{Authority, Certificate, Key, KeyFile};
use tributary_wire::DeviceId;

use super::{ACCEPTED, ADMINISTRATIVE_ACTION, DAY, Device, NOT_AUTHORISED, clock, connect, token};
use crate::support::TestHub;

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_device_is_out_at_once_and_neither_a_resumed_session_nor_a_restart_lets_it_in() {
    let hub = TestHub::start().await;
    let (device, other) = (Device::enrolled(&hub, "edge-1").await, Device::enrolled(&hub, "edge-2").await);
    let config = Arc::new(device.config(tls::ALPN_MQTT));
    let first = connect(&hub, config.clone(), "edge-1").await.unwrap();
    assert_eq!((first.code, first.resumed), (ACCEPTED, false));
    let live = connect(&hub, config.clone(), "edge-1").await.unwrap();
    assert_eq!((live.code, live.resumed), (ACCEPTED, true), "sessions are resumed");

    let (status, answer) = hub.json(Method::POST, "/devices/edge-1/revoke", json!({"reason": " "})).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{answer:#}");
    let done = hub.ok(Method::POST, "/devices/edge-1/revoke", json!({"reason": "stolen"})).await;
    assert_eq!(done, json!({"revoked": 1, "disconnected": true}));
    assert_eq!(live.ended().await, ADMINISTRATIVE_ACTION);
    let resumed = connect(&hub, config, "edge-1").await.unwrap();
    assert_eq!((resumed.code, resumed.resumed), (NOT_AUTHORISED, true));
    assert_eq!(device.connect(&hub).await.unwrap(), NOT_AUTHORISED, "nor a whole handshake");
    let refused = hub.hub.identity.device(&device.certificate(), hub.hub.now()).unwrap_err();
    assert!(refused.to_string().ends_with("is revoked: stolen"), "{refused}");
    assert!(!device.renew(&hub, &KeyFile::generate().unwrap()).await.unwrap().0.is_success());
    let again = hub.ok(Method::POST, "/devices/edge-1/revoke", json!({"reason": "stolen"})).await;
    assert_eq!(again, json!({"revoked": 0, "disconnected": false}));
    assert_eq!(other.connect(&hub).await.unwrap(), ACCEPTED);
    assert!(hub.hub.connections.tally().of(cloud_hub_gateway::Refusal::Revoked) >= 2);

    let hub = TestHub::start_in(hub.stop().await, |_| {}).await;
    assert_eq!(device.connect(&hub).await.unwrap(), NOT_AUTHORISED);
    assert_eq!(other.connect(&hub).await.unwrap(), ACCEPTED);
    let kept = hub.get("/devices/edge-1/certificates").await.1["items"][0].clone();
    assert_eq!((&kept["state"], &kept["reason"]), (&json!("revoked"), &json!("stolen")));
    // To come back it needs an operator's word, as a wiped one.
    let token = token(&hub, json!({"uses": 2})).await;
    let mut found = Device::new("edge-1");
    assert_eq!(found.try_enrol(&hub, &token).await.0, StatusCode::CONFLICT);
    hub.ok(Method::POST, "/devices/edge-1/allow-enrolment", json!({})).await;
    assert_eq!(found.try_enrol(&hub, &token).await.0, StatusCode::OK);
    assert_eq!(found.connect(&hub).await.unwrap(), ACCEPTED);
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_old_certificate_counts_until_the_device_has_connected_with_the_new_one() {
    let hub = TestHub::start().await;
    let old = Device::enrolled(&hub, "edge-1").await;
    assert_eq!(old.connect(&hub).await.unwrap(), ACCEPTED);
    let key = KeyFile::generate().unwrap();
    let lost = old.renew(&hub, &key).await.unwrap().1;
    let again = old.renew(&hub, &key).await.unwrap().1;
    assert_eq!(lost["certificate"], again["certificate"], "the same key gets the same certificate");
    assert_eq!(old.connect(&hub).await.unwrap(), ACCEPTED, "the answer may have been lost");
    let unused = Device { id: old.id.clone(), key, enrolled: Some(serde_json::from_value(again).unwrap()) };
    let new = old.renewed(&hub).await;
    assert_eq!(unused.connect(&hub).await.unwrap(), NOT_AUTHORISED, "of those never used only the last counts");
    assert_eq!(new.connect(&hub).await.unwrap(), ACCEPTED);
    assert_eq!(old.connect(&hub).await.unwrap(), NOT_AUTHORISED);
    let states = |answer: &Value| {
        let items = answer["items"].as_array().unwrap();
        items.iter().map(|item| item["state"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let path = "/devices/edge-1/certificates";
    hub.until(path, |answer| states(answer) == ["valid", "revoked", "revoked"]).await;

    let hub = TestHub::start_in(hub.stop().await, |_| {}).await;
    assert_eq!(old.connect(&hub).await.unwrap(), NOT_AUTHORISED);
    assert_eq!(new.connect(&hub).await.unwrap(), ACCEPTED);
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_certificate_renews_within_the_grace_and_does_nothing_else() {
    let hub = TestHub::start().await;
    let late = Device::enrolled_ago(&hub, "edge-1", 100 * DAY).await;
    assert!(late.connect(&hub).await.is_err(), "TLS refuses it");
    assert!(hub.hub.identity.device(&late.certificate(), hub.hub.now()).is_err());
    let new = late.renewed(&hub).await;
    assert_eq!(new.connect(&hub).await.unwrap(), ACCEPTED);
    let (status, answer) = late.renew(&hub, &KeyFile::generate().unwrap()).await.unwrap();
    assert!(status.is_client_error(), "superseded: {answer:#}");
    let too_late = Device::enrolled_ago(&hub, "edge-2", 130 * DAY).await;
    let refused = too_late.renew(&hub, &KeyFile::generate().unwrap()).await;
    assert!(refused.is_err() || refused.is_ok_and(|(status, _)| status.is_client_error()));
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_do_not_get_in_whatever_they_show() {
    let hub = TestHub::start().await;
    let device = Device::enrolled(&hub, "edge-1").await;
    let authorities = [hub.hub.identity.authority().certificate().clone()];
    let attempt = async |shown: Option<Arc<Shown>>, client_id: &str| {
        let config = tls::device_client(&authorities, shown, tls::ALPN_MQTT, clock()).unwrap();
        connect(&hub, Arc::new(config), client_id).await.map(|connection| connection.code)
    };
    let issued = |authority: &Authority| {
        let (id, key) = (DeviceId::new("edge-1").unwrap(), KeyFile::generate().unwrap());
        let certificate = authority.issue_device(&key.request(&id).unwrap(), &id, hub.hub.now(), DAY).unwrap();
        Arc::new(Shown::new(&[certificate], &key).unwrap())
    };
    // Another authority with the same name, and one that signed itself.
    let (pem, key) = Authority::create("tributary authority", hub.hub.now(), DAY).unwrap();
    assert!(attempt(Some(issued(&Authority::new(&pem, &key).unwrap())), "edge-1").await.is_err());
    let itself = Certificate::all_from_pem(&pem).unwrap();
    assert!(attempt(Some(Arc::new(Shown::from_pem(&itself, &key).unwrap())), "edge-1").await.is_err());
    // Signed by our authority, but not issued by the hub: somebody has copied the key.
    let folder = hub.hub.data().join("identity");
    let ours = Authority::open(&folder.join("authority.pem"), &folder.join("authority.key")).unwrap();
    assert_eq!(attempt(Some(issued(&ours)), "edge-1").await.unwrap(), NOT_AUTHORISED);
    // A good certificate under another name, and none at all.
    assert_eq!(attempt(Some(device.shown()), "edge-2").await.unwrap(), NOT_AUTHORISED);
    assert_eq!(attempt(None, "edge-1").await.unwrap(), NOT_AUTHORISED);
    let tally = hub.hub.connections.tally();
    assert!(tally.of(cloud_hub_gateway::Refusal::Certificate) >= 3);
    assert!(tally.of(cloud_hub_gateway::Refusal::UnknownAuthority) >= 1);
    assert_eq!(device.connect(&hub).await.unwrap(), ACCEPTED);
    hub.stop().await;
}
