//! Every route with everybody: who gets through is what the description declares.

use bytes::Bytes;
use hyper::StatusCode;
use serde_json::{Value, json};
use tributary_process::http::Client;

use crate::support::TestHub;

/// Roles in the order of what they may do.
const ROLES: [&str; 3] = ["viewer", "operator", "admin"];

/// What the description says about one operation: for everybody, from which role on, for devices.
struct Declared {
    everybody: bool,
    role: Option<usize>,
    devices: bool,
}

fn declared(operation: &Value) -> Declared {
    let requirements = operation["security"].as_array().expect("every operation declares whom it is for");
    assert!(!requirements.is_empty());
    let role = requirements.iter().find_map(|requirement| requirement["token"][0].as_str());
    Declared {
        everybody: requirements.contains(&json!({})),
        role: role.map(|role| ROLES.iter().position(|name| *name == role).expect("a known role")),
        devices: requirements.iter().any(|requirement| requirement["device"].is_array()),
    }
}

pub async fn status(client: &Client, method: &str, path: &str) -> (StatusCode, Value) {
    let body = Bytes::from_static(b"{}");
    let answer = client.send(method.parse().unwrap(), path, "application/json", body).await.unwrap();
    (answer.status, answer.json().unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_lets_through_whom_it_declares_and_nobody_else() {
    let hub = TestHub::start().await;
    let mut tokens = Vec::new();
    for role in ROLES {
        tokens.push(hub.made(json!({"name": role, "role": role})).await);
    }
    let https = hub.https(None);
    let callers: Vec<Client> = tokens.iter().map(|token| TestHub::bearer(https.clone(), token)).collect();
    let device = hub.https(Some(&hub.enrol("edge-1").await));
    let api: Value = serde_json::from_str(&cloud_hub::api::openapi_text()).unwrap();
    let mut walked = 0;
    let mut nobodys = Vec::new();
    for (template, operations) in api["paths"].as_object().unwrap() {
        // Ids that are not there: the question is who gets as far as being told so.
        let path: String = template
            .split('/')
            .map(|part| if part.starts_with('{') { "1" } else { part })
            .collect::<Vec<_>>()
            .join("/");
        for (method, operation) in operations.as_object().unwrap() {
            walked += 1;
            let (declared, method, place) = (declared(operation), method.to_uppercase(), format!("{method} {path}"));
            let (nobody, problem) = status(&https, &method, &path).await;
            if declared.everybody {
                assert!(!matches!(nobody.as_u16(), 401 | 403), "{place} is for everybody: {problem:#}");
                continue;
            }
            assert_eq!(nobody, StatusCode::UNAUTHORIZED, "{place} without a token: {problem:#}");
            nobodys.push(problem["detail"].clone());
            for (index, (role, caller)) in ROLES.iter().zip(&callers).enumerate() {
                let (found, problem) = status(caller, &method, &path).await;
                if declared.role.is_some_and(|needed| index >= needed) {
                    assert!(!matches!(found.as_u16(), 401 | 403), "{place} with role {role}: {problem:#}");
                } else {
                    assert_eq!(found, StatusCode::FORBIDDEN, "{place} with role {role}: {problem:#}");
                    let needed = declared.role.map_or("devices", |needed| ROLES[needed]);
                    assert!(problem["detail"].as_str().unwrap().contains(needed), "{place}: {problem:#}");
                }
            }
            let (found, problem) = status(&device, &method, &path).await;
            match declared.devices {
                true => assert!(!matches!(found.as_u16(), 401 | 403), "{place} with a certificate: {problem:#}"),
                false => assert_eq!(found, StatusCode::FORBIDDEN, "{place} with a certificate: {problem:#}"),
            }
        }
    }
    assert!(walked > 50, "{walked}");
    // Nobody learns what is there: what is not looks the same.
    for (method, path) in
        [("GET", "/api/v1/nowhere"), ("DELETE", "/api/v1/devices"), ("GET", "/nowhere"), ("PATCH", "/api/v1/health")]
    {
        let (found, problem) = status(&https, method, path).await;
        assert_eq!(found, StatusCode::UNAUTHORIZED, "{method} {path}");
        nobodys.push(problem["detail"].clone());
    }
    nobodys.dedup();
    assert_eq!(nobodys.len(), 1, "{nobodys:?}");
    assert_eq!(status(&callers[0], "GET", "/api/v1/nowhere").await.0, StatusCode::NOT_FOUND);
    assert_eq!(status(&callers[0], "PATCH", "/api/v1/devices").await.0, StatusCode::METHOD_NOT_ALLOWED);
    hub.stop().await;
}
