//! A mirror: the repository as a tree of files.

use hyper::Method;
use serde_json::{Value, json};

use crate::command_line::operator;
use crate::support::{TestHub, package};

/// All files below a folder, by their paths in it.
fn tree(folder: &std::path::Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name().into_string().unwrap())).unwrap();
        if path.is_dir() {
            found.extend(tree(&path).into_iter().map(|below| format!("{name}/{below}")));
        } else {
            found.push(name);
        }
    }
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_holds_all_of_the_repository_and_is_renewed_by_what_is_new() {
    let hub = TestHub::start().await;
    hub.line(json!({})).await;
    let publish = async |version: u32| {
        let bytes = package("card-fraud", version);
        let sha256 = tributary_release::digest(&bytes);
        hub.send(Method::POST, "/lines/card-fraud/versions", "application/octet-stream", bytes).await;
        hub.ok(Method::POST, &format!("/lines/card-fraud/versions/{version}/publish"), Value::Null).await;
        sha256
    };
    let one = publish(1).await;
    let folder = hub.folder.path().join("mirror");
    let export = async || {
        let (code, out, error) = operator(&hub, &["--json", "repository", "export", folder.to_str().unwrap()]).await;
        assert_eq!(code, 0, "{error}");
        serde_json::from_str::<Value>(&out).unwrap()
    };
    let first = export().await;
    let keys = tree(&folder.join("targets/assignments")).remove(0);
    let expected = [
        "metadata/1.root.json",
        "metadata/1.targets.json",
        "metadata/2.models%2Fcard-fraud.json",
        "metadata/2.models/card-fraud.json",
        "metadata/2.snapshot.json",
        "metadata/timestamp.json",
        &format!("targets/assignments/{keys}"),
        &format!("targets/models/card-fraud/{one}.v1.tpk"),
    ];
    assert_eq!(tree(&folder), expected);
    assert_eq!((&first["timestamp"], &first["files"]), (&json!(2), &json!(8)));
    for name in tree(&folder).iter().filter(|name| !name.contains("2.models/")) {
        let served = hub.send(Method::GET, &format!("/repository/{name}"), "", "").await;
        assert_eq!(served.body, std::fs::read(folder.join(name)).unwrap(), "{name}");
    }
    assert_eq!(export().await["files"], 0, "nothing is new");
    let two = publish(2).await;
    // Role under both of its names, snapshot, timestamp, package.
    assert_eq!(export().await["files"], 5);
    let path = folder.join(format!("targets/models/card-fraud/{two}.v2.tpk"));
    let good = std::fs::read(&path).unwrap();
    std::fs::write(&path, vec![0; good.len()]).unwrap();
    let (code, out, error) = operator(&hub, &["repository", "export", folder.to_str().unwrap(), "--check"]).await;
    assert!(code == 0 && out.contains("1 files"), "{out}{error}");
    assert_eq!(std::fs::read(&path).unwrap(), good);

    let newer = r#"{"signed": {"version": 99}}"#;
    std::fs::write(folder.join("metadata/timestamp.json"), newer).unwrap();
    let (code, _, error) = operator(&hub, &["repository", "export", folder.to_str().unwrap()]).await;
    assert!(code == 1 && error.contains("has timestamp 99, the hub has 3"), "{error}");
    hub.stop().await;
}
