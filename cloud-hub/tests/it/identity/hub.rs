//! The hub's own identity, and clients that are no devices.

use std::sync::Arc;

use hyper::Method;
use serde_json::{Value, json};
use tributary_identity::Authority;
use tributary_identity::tls::{self, HubProblem};

use super::{
    ACCEPTED, ADMINISTRATIVE_ACTION, BAD_PASSWORD, DAY, Device, NOT_AUTHORISED, clock, connect, connect_with, https,
};
use crate::support::TestHub;

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_made_elsewhere_signs_and_people_are_told_before_it_ends() {
    let elsewhere = tempfile::tempdir().unwrap();
    let files = (elsewhere.path().join("ca.pem"), elsewhere.path().join("ca.key"));
    let (pem, key) = Authority::create("elsewhere", cloud_hub::catalog::now(), 40 * DAY).unwrap();
    std::fs::write(&files.0, &pem).unwrap();
    tributary_process::durable::write_private(&files.1, key.as_bytes()).unwrap();
    let hub = TestHub::start_in(tempfile::tempdir().unwrap(), |config| {
        (config.identity.authority, config.identity.authority_key) = (Some(files.0.clone()), Some(files.1.clone()));
        config.identity.host = Some("hub.example".into());
    })
    .await;
    let device = Device::enrolled(&hub, "edge-1").await;
    let told = device.enrolled.clone().unwrap();
    assert_eq!((told.authorities.as_str(), told.ports.host.as_deref()), (pem.as_str(), Some("hub.example")));
    let end = hub.hub.identity.authority().certificate().not_after();
    assert_eq!(device.certificate().not_after(), end, "no longer than the authority");
    assert!(told.renew_after.0 < end.0 - 10 * tributary_wire::Micros::DAY, "{}", told.renew_after);
    assert_eq!(device.connect(&hub).await.unwrap(), ACCEPTED);
    let of_kind = |answer: &Value, kind: &str| {
        answer["items"].as_array().unwrap().iter().filter(|alert| alert["kind"] == kind).count()
    };
    let alerts = hub.until("/alerts", |answer| of_kind(answer, "authority-expires") == 1).await;
    assert_eq!(of_kind(&alerts, "hub-certificate-expires"), 0, "{alerts:#}");
    assert!(!hub.hub.data().join("identity/authority.key").exists());
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hub_keeps_its_certificate_until_it_gets_other_names() {
    let hub = TestHub::start().await;
    let device = Device::enrolled(&hub, "edge-1").await;
    let first = hub.hub.identity.own_certificate();
    let hub = TestHub::start_in(hub.stop().await, |_| {}).await;
    assert_eq!(hub.hub.identity.own_certificate(), first);
    let other = |config: &mut cloud_hub::Config| config.identity.names = vec!["localhost".into(), "hub.example".into()];
    let hub = TestHub::start_in(hub.stop().await, other).await;
    assert_eq!(hub.hub.identity.own_certificate().names(), ["localhost", "hub.example"]);
    // Devices still know it by its authority, but not under a name that it has no more.
    assert_eq!(device.connect(&hub).await.unwrap(), ACCEPTED);
    let refused = https(&hub, device.config(tls::ALPN_HTTP)).get::<Value>("/api/v1/health").await.unwrap_err();
    assert_eq!(tls::hub_problem(&refused), Some(HubProblem::Name), "{refused:?}");
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_integration_shows_an_api_token_as_its_password() {
    let hub = TestHub::start().await;
    let authorities = [hub.hub.identity.authority().certificate().clone()];
    let config = Arc::new(tls::device_client(&authorities, None, tls::ALPN_MQTT, clock()).unwrap());
    let code =
        async |id: &str, password: Option<&str>| connect_with(&hub, config.clone(), id, password).await.unwrap().code;
    let made = hub.ok(Method::POST, "/tokens", json!({"name": "grafana", "role": "viewer"})).await;
    let token = made["token"].as_str().unwrap();
    assert_eq!(code("app-grafana", None).await, BAD_PASSWORD);
    assert_eq!(code("app-grafana", Some("guess")).await, BAD_PASSWORD);
    assert_eq!(code("app-grafana", Some(token)).await, ACCEPTED);
    // A token does not make a device, nor a certificate an integration.
    assert_eq!(code("edge-1", Some(token)).await, NOT_AUTHORISED);
    let device = Device::enrolled(&hub, "edge-1").await;
    let shown = connect(&hub, Arc::new(device.config(tls::ALPN_MQTT)), "app-grafana").await.unwrap();
    assert_eq!(shown.code, NOT_AUTHORISED);
    let live = connect_with(&hub, config.clone(), "app-live", Some(token)).await.unwrap();
    assert_eq!(live.code, ACCEPTED);
    hub.ok(Method::DELETE, &format!("/tokens/{}", made["id"].as_str().unwrap()), Value::Null).await;
    // Whoever is connected with it goes at once.
    assert_eq!(live.ended().await, ADMINISTRATIVE_ACTION);
    assert_eq!(code("app-grafana", Some(token)).await, BAD_PASSWORD);
    hub.stop().await;
}
