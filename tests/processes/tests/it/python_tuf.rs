//! Stock python-tuf follows what a real hub signs, and downloads packages and images: the repository is one that any
//! client of The Update Framework can read.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tributary_release::{ASSIGNMENT_KEYS, CUSTOM, PackageCustom, digest};

use crate::process::Hub;
use crate::tools;

/// The registry's own example.
#[path = "../../../../cloud-hub/tests/it/package_file.rs"]
mod package_file;

const SCRIPT: &str = include_str!("python_tuf.py");
const PACKAGE: &str = "models/card-fraud/v1.tpk";
const IMAGE: &str = "nodes/mps2/v1.img";

/// An operator publishes: a package that the hub signs, an image that a person signs, and a second root.
fn publish(hub: &Hub, folder: &Path, package: &[u8], image: &[u8]) {
    let path = |name: &str| folder.join(name).display().to_string();
    std::fs::write(path("package.tpk"), package).unwrap();
    std::fs::write(path("v1.img"), image).unwrap();
    std::fs::write(path("view.toml"), tributary_fraud::VIEW_TOML).unwrap();
    hub.operator(&["view", "add", &path("view.toml")]);
    hub.operator(&["line", "set", "card-fraud", "--view", "card-risk"]);
    hub.operator(&["model", "upload", "card-fraud", &path("package.tpk")]);
    hub.operator(&["model", "publish", "card-fraud", "1"]);

    let (carry, file) = (path("carry"), format!("{IMAGE}={}", path("v1.img")));
    hub.operator(&["keys", "draft", "nodes", "--file", &file, "--out", &carry]);
    hub.operator(&["keys", "sign", &path("carry/1.nodes.json"), "--key", &path("keys/targets.key")]);
    hub.operator(&["keys", "apply", &path("carry/1.nodes.json"), "--content", &path("v1.img")]);
    hub.operator(&["keys", "draft", "root", "--life", "30d", "--out", &carry]);
    for key in ["keys/root-1.key", "keys/root-3.key"] {
        hub.operator(&["keys", "sign", &path("carry/2.root.json"), "--key", &path(key)]);
    }
    hub.operator(&["keys", "apply", &path("carry/2.root.json")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_tuf_downloads_from_the_hub_and_from_a_mirror_and_refuses_a_mirror_that_lies() {
    let Some(python) = tools::python_with("python-tuf", &["tuf"]) else { return };
    let folder = tempfile::tempdir().unwrap();
    let hub = Hub::start(folder.path()).await;
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (package, image) = (package_file::package("card-fraud", 1), b"an image for a node".to_vec());
    hub.operator(&["keys", "init", "--out", &path("keys"), "--line", "card-fraud"]);
    hub.operator(&["repository", "export", &path("older")]);
    publish(&hub, folder.path(), &package, &image);
    hub.operator(&["repository", "export", &path("mirror")]);

    let asked = json!({
        "folder": hub.beside("python"),
        "root": path("keys/1.root.json"),
        "hub": format!("https://{}/api/v1/repository/", hub.address("https")),
        "token": hub.admin_token(),
        "authority": hub.authority(),
        "mirror": path("mirror"),
        "older": path("older"),
        "targets": [PACKAGE, IMAGE, ASSIGNMENT_KEYS, "models/card-fraud/v2.tpk"],
    });
    let told = tokio::task::spawn_blocking(move || {
        let mut command = Command::new(python);
        command.args(["-c", SCRIPT]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(asked.to_string().as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    });
    let told = told.await.unwrap();
    let errors = String::from_utf8_lossy(&told.stderr);
    assert!(told.status.success(), "{errors}\nthe end of the hub's log:\n{}", hub.process.log());
    let told: Value = serde_json::from_slice(&told.stdout).unwrap();

    for from in ["hub", "mirror"] {
        let got = &told[from];
        let is = |path: &str, content: &[u8]| {
            let target = &got["targets"][path];
            assert_eq!(
                (&target["length"], &target["sha256"]),
                (&json!(content.len()), &json!(digest(content))),
                "{got:#}"
            );
        };
        is(PACKAGE, &package);
        is(IMAGE, &image);
        let custom = got["targets"][PACKAGE]["custom"][CUSTOM].clone();
        let custom: PackageCustom = serde_json::from_value(custom).unwrap();
        assert_eq!(custom.requires.memory_bytes, 1 << 20);
        assert!(got["targets"][ASSIGNMENT_KEYS]["length"].as_u64().unwrap() > 0, "{got:#}");
        assert_eq!(got["targets"]["models/card-fraud/v2.tpk"], Value::Null, "what nobody signed is not there");
        // Root was rotated; the package and the image made a snapshot and a timestamp each.
        assert_eq!(got["versions"], json!({"root": 2, "targets": 1, "snapshot": 3, "timestamp": 3}));
    }
    assert_eq!(told["changed"]["refused"], "LengthOrHashMismatchError", "{:#}", told["changed"]);
    assert_eq!(told["back"]["refused"], "BadVersionNumberError", "{:#}", told["back"]);
}
