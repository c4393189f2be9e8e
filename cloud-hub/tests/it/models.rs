//! Views, versions, aliases, packages, releases.

use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use tributary_release::{Package, digest};

use crate::support::{TestHub, package};

const BYTES: &str = "application/octet-stream";

async fn upload(hub: &TestHub, bytes: Vec<u8>) -> (StatusCode, Value) {
    let response = hub.send(Method::POST, "/lines/card-fraud/versions", BYTES, bytes).await;
    (response.status, response.json().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_never_changes_under_its_version() {
    let hub = TestHub::start().await;
    let add = |text: String| {
        let hub = &hub;
        async move { hub.send(Method::POST, "/views", "application/toml", text).await }
    };
    let view = tributary_fraud::VIEW_TOML.to_owned();
    assert_eq!(add(view.clone()).await.status, StatusCode::CREATED);
    assert_eq!(add(view.clone()).await.status, StatusCode::OK, "the same text again changes nothing");
    let changed = add(view.replace("\"7d\"", "\"8d\"")).await;
    assert_eq!(changed.status, StatusCode::CONFLICT, "{:?}", changed.body);
    let broken = add(view.replace("entity = \"customer_id\"", "entity = \"nobody\"")).await;
    assert_eq!(broken.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(String::from_utf8_lossy(&broken.body).contains("nobody"), "{:?}", broken.body);
    assert_eq!(add("name = ".to_owned()).await.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(add(view.replace("version = 1", "version = 2")).await.status, StatusCode::CREATED);
    assert_eq!(hub.get("/views/card-risk").await.1["version"], 2);
    assert_eq!(hub.get("/views/card-risk?version=1").await.1["source"], view);
    assert_eq!(hub.get("/views").await.1["items"].as_array().unwrap().len(), 2);
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_uploaded_package_is_verified_and_one_with_a_byte_changed_is_refused_by_the_members_name() {
    let hub = TestHub::start().await;
    hub.line(json!({})).await;
    let good = package("card-fraud", 1);
    let kept = || std::fs::read_dir(hub.hub.data().join("packages")).unwrap().count();
    let before = kept();
    let mut bad = good.clone();
    let place = bad.len() / 2;
    bad[place] ^= 1;
    let (status, problem) = upload(&hub, bad).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{problem:#}");
    assert!(problem["detail"].as_str().unwrap().contains("graphs/f32.onnx"), "{problem:#}");
    let (status, problem) = upload(&hub, good[..good.len() / 2].to_vec()).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{problem:#}");
    let (status, problem) = upload(&hub, package("other", 1)).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(problem["detail"].as_str().unwrap().contains("of model line other"), "{problem:#}");

    // What a device would fetch in vain.
    let mut hides = Package::read(&good).unwrap();
    hides.manifest.requires.operators = vec!["Gemm".to_owned()];
    let (status, problem) = upload(&hub, hides.write().unwrap()).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(problem["detail"].as_str().unwrap().contains("does not require: Sigmoid"), "{problem:#}");
    let mut garbage = Package::read(&good).unwrap();
    garbage.graphs[0].onnx = vec![7; 1000];
    let (status, problem) = upload(&hub, garbage.write().unwrap()).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(problem["detail"].as_str().unwrap().contains("graph f32 cannot be read"), "{problem:#}");

    let (status, version) = upload(&hub, good.clone()).await;
    assert_eq!(status, StatusCode::CREATED, "{version:#}");
    assert_eq!(version["sha256"], digest(&good).to_string());
    assert_eq!((&version["origin"], &version["aliases"]), (&json!("uploaded"), &json!(["candidate"])));
    assert_eq!(version["manifest"]["serve"], "f32");
    assert_eq!(upload(&hub, good).await.0, StatusCode::OK, "the same package again changes nothing");
    assert_eq!(kept(), before + 1, "nothing is kept of what was refused");
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alias_moves_with_its_whole_history_and_only_from_where_the_caller_saw_it() {
    let hub = TestHub::start().await;
    hub.line(json!({})).await;
    for version in 1..=2 {
        assert_eq!(upload(&hub, package("card-fraud", version)).await.0, StatusCode::CREATED);
    }
    let path = "/lines/card-fraud/aliases/champion";
    assert_eq!(hub.get(path).await.0, StatusCode::NOT_FOUND);
    let first = hub.ok(Method::PUT, path, json!({"version": 1, "reason": "first"})).await;
    let seen = format!("\"{}\"", first["number"]);
    let moved = hub.with_headers((Method::PUT, path), &[("if-match", &seen)], json!({"version": 2})).await;
    assert_eq!((moved.0, &moved.2["version"]), (StatusCode::OK, &json!(2)));
    let stale = hub.with_headers((Method::PUT, path), &[("if-match", &seen)], json!({"version": 1})).await;
    assert_eq!(stale.0, StatusCode::PRECONDITION_FAILED, "{:#}", stale.2);
    hub.ok(Method::PUT, path, json!({"version": 1, "reason": "back"})).await;
    let history = hub.get(&format!("{path}/history")).await.1;
    let versions: Vec<&Value> = history["items"].as_array().unwrap().iter().map(|change| &change["version"]).collect();
    assert_eq!(versions, [1, 2, 1]);
    assert_eq!(history["items"][2]["reason"], "first");
    let (status, _) = hub.json(Method::PUT, "/lines/card-fraud/aliases/No%20Name", json!({"version": 1})).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(hub.get("/lines/card-fraud/versions/1").await.1["aliases"], json!(["champion"]));
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_published_version_is_what_a_device_checks_and_fetches_in_ranges() {
    let hub = TestHub::start().await;
    hub.line(json!({})).await;
    let bytes = package("card-fraud", 1);
    upload(&hub, bytes.clone()).await;
    let publish = "/lines/card-fraud/versions/1/publish";
    assert_eq!(hub.json(Method::POST, publish, Value::Null).await.0, StatusCode::CREATED);
    assert_eq!(hub.json(Method::POST, publish, Value::Null).await.0, StatusCode::OK);

    let (_, releases) = hub.get("/releases/card-fraud").await;
    assert_eq!(releases["items"][0]["sha256"], digest(&bytes).to_string());
    let path = format!("/repository/targets/models/card-fraud/{}.v1.tpk", digest(&bytes));
    let whole = hub.send(Method::GET, &path, "", "").await;
    assert_eq!((whole.status, &whole.body[..]), (StatusCode::OK, &bytes[..]));
    let etag = whole.headers["etag"].to_str().unwrap().to_owned();

    let get = |headers: Vec<(&'static str, String)>| {
        let mut client = hub.client();
        for (name, value) in headers {
            client = client.with_header(hyper::header::HeaderName::from_static(name), value.parse().unwrap());
        }
        let path = format!("/api/v1{path}");
        async move { client.send(Method::GET, &path, "", bytes::Bytes::new()).await.unwrap() }
    };
    let part = get(vec![("range", "bytes=1000-".to_owned())]).await;
    assert_eq!((part.status, &part.body[..]), (StatusCode::PARTIAL_CONTENT, &bytes[1000..]));
    assert_eq!(part.headers["content-range"], format!("bytes 1000-{}/{}", bytes.len() - 1, bytes.len()));
    let few = get(vec![("range", "bytes=0-9".to_owned()), ("if-range", etag.clone())]).await;
    assert_eq!(&few.body[..], &bytes[..10]);
    let other = get(vec![("range", "bytes=0-9".to_owned()), ("if-range", "\"other\"".to_owned())]).await;
    assert_eq!((other.status, other.body.len()), (StatusCode::OK, bytes.len()));
    let outside = get(vec![("range", format!("bytes={}-", bytes.len()))]).await;
    assert_eq!(outside.status, StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(outside.headers["content-range"], format!("bytes */{}", bytes.len()));
    assert_eq!(get(vec![("if-none-match", etag)]).await.status, StatusCode::NOT_MODIFIED);
    assert_eq!(
        hub.get(&format!("/repository/targets/models/card-fraud/{}.v1.tpk", digest(b"none"))).await.0,
        StatusCode::NOT_FOUND
    );
    hub.stop().await;
}
