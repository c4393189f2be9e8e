//! What the hub serves of the repository, and to whom.

use bytes::Bytes;
use hyper::{Method, StatusCode};
use serde_json::json;
use tributary_release::{hashed_path, package_path};
use tributary_wire::VersionNumber;

use crate::offline;
use crate::repository::{content, line, publish, upload};
use crate::support::TestHub;

#[tokio::test]
async fn devices_get_all_metadata_but_only_packages_that_are_theirs() {
    let hub = TestHub::without_repository().await;
    offline::unattended(&hub.hub, "card-fraud").await;
    hub.line(json!({})).await;
    let sha256 = upload(&hub, 1).await;
    publish(&hub, 1).await;
    let (mine, other) = (hub.enrol("edge-1").await, hub.enrol("edge-2").await);
    let mut catalog = hub.hub.catalog.write().await.unwrap();
    for query in [
        "insert into rollouts (id, line, role, version, length, sha256, policy_json, state, state_json, reason,
         created, changed) values (1, 'card-fraud', 'primary', 1, 1, $1, '{}', 'completed', '{}', '', 0, 0)",
        "insert into rollout_devices (rollout, device, wave, assigned) select 1, 'edge-1', 0, 0 where $1 <> ''",
    ] {
        sqlx::query(query).bind(sha256.to_string()).execute(&mut *catalog).await.unwrap();
    }
    catalog.commit().await.unwrap();
    let package = format!("targets/{}", hashed_path(&package_path(&line(), VersionNumber(1)), &sha256));
    let keys = content(&hub, "targets").await.targets.remove(0);
    let keys = format!("targets/{}", hashed_path(&keys.path, &keys.sha256));
    let get = async |client: &tributary_process::http::Client, path: &str| {
        client.send(Method::GET, &format!("/api/v1/repository/{path}"), "", Bytes::new()).await.unwrap()
    };
    for (device, package_status) in [(&mine, StatusCode::OK), (&other, StatusCode::NOT_FOUND)] {
        let client = hub.https(Some(device));
        for path in
            ["metadata/timestamp.json", "metadata/1.root.json", "metadata/2.snapshot.json", "metadata/1.targets.json"]
        {
            assert_eq!(get(&client, path).await.status, StatusCode::OK, "{path}");
        }
        for path in ["metadata/2.models%2Fcard-fraud.json", "metadata/2.models/card-fraud.json", keys.as_str()] {
            assert_eq!(get(&client, path).await.status, StatusCode::OK, "{path}");
        }
        assert_eq!(get(&client, &package).await.status, package_status);
        assert_eq!(get(&client, "metadata/2.root.json").await.status, StatusCode::NOT_FOUND);
    }
    assert_eq!(get(&hub.https(None), "metadata/timestamp.json").await.status, StatusCode::UNAUTHORIZED);

    let whole = get(&hub.client(), &package).await;
    let etag = whole.headers["etag"].to_str().unwrap().to_owned();
    assert!(whole.headers["cache-control"].to_str().unwrap().contains("immutable"));
    let ranged = async |headers: &[(&'static str, &str)], path: &str| {
        let mut client = hub.client();
        for (name, value) in headers {
            client = client.with_header(hyper::header::HeaderName::from_static(name), value.parse().unwrap());
        }
        get(&client, path).await
    };
    let part = ranged(&[("range", "bytes=10-"), ("if-range", &etag)], &package).await;
    assert_eq!((part.status, &part.body[..]), (StatusCode::PARTIAL_CONTENT, &whole.body[10..]));
    let changed = ranged(&[("range", "bytes=10-"), ("if-range", "\"other\"")], &package).await;
    assert_eq!((changed.status, changed.body), (StatusCode::OK, whole.body));
    assert_eq!(ranged(&[("if-none-match", &etag)], &package).await.status, StatusCode::NOT_MODIFIED);
    let timestamp = get(&hub.client(), "metadata/timestamp.json").await;
    assert_eq!(timestamp.headers["cache-control"], "private, no-cache");
    let part = ranged(&[("range", "bytes=0-9")], "metadata/timestamp.json").await;
    assert_eq!((part.status, &part.body[..]), (StatusCode::PARTIAL_CONTENT, &timestamp.body[..10]));
    hub.stop().await;
}
