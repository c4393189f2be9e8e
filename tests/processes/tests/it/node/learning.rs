//! The whole way round: an emulated node's windows reach the lake of a real hub, the pipeline of the vibration system learns
//! a model from the healthy ones and publishes it in the signed repository, the agent verifies the chain, and the node
//! takes it, tries it, keeps it, and finds the worn bearing with it.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use hyper::Method;
use serde_json::{Value, json};
use tributary_demo::wait;
use tributary_vibration::lake::{self, ADXL345_COUNT};
use tributary_vibration::{VIEW_TOML, learn};
use tributary_wire::Micros;

use super::images::key;
use super::{Bench, NODE, PATIENCE};
use crate::process::Hub;

/// The emulated machine is healthy for twenty seconds; a little less is learnt from.
const HEALTHY: i64 = 19 * Micros::SECOND;

/// `pipeline.sh` as a person runs it, with the programs in PATH and the hub in the environment.
struct Pipeline {
    folder: PathBuf,
    path: String,
    environment: [(&'static str, String); 3],
}

impl Pipeline {
    fn new(folder: &Path, hub: &Hub) -> Self {
        let programs = folder.join("bin");
        std::fs::create_dir(&programs).unwrap();
        for (name, first) in [("cloud-hub", "hub"), ("vibration", "vibration")] {
            let program = programs.join(name);
            let text = format!("#!/bin/sh\nexec {:?} {first} \"$@\"\n", env!("CARGO_BIN_EXE_programs"));
            std::fs::write(&program, text).unwrap();
            std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap_or_default());
        let environment = [
            ("CLOUD_HUB_URL", format!("https://{}", hub.address("https"))),
            ("CLOUD_HUB_CA", hub.authority().display().to_string()),
            ("CLOUD_HUB_TOKEN_FILE", hub.admin_token().display().to_string()),
        ];
        Self { folder: folder.to_owned(), path, environment }
    }

    fn run(&self, lake: &Path, more: &[String]) -> Output {
        Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/systems/vibration/pipeline.sh"))
            .args(["--kind", "mps2", "--version", "2", "--key", "nodes.key", "--sign", "keys/targets.key", "--lake"])
            .arg(lake)
            .args(more)
            .current_dir(&self.folder)
            .env("PATH", &self.path)
            .envs(self.environment.iter().cloned())
            .output()
            .unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_s_windows_reach_the_hub_and_what_was_learnt_from_them_comes_back_to_the_node() {
    let with_curl = crate::tools::program("the pipeline of the vibration system", "curl").is_some();
    if !with_curl || !super::can_emulate() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut hub = Hub::start(folder.path()).await;
    // With a signed repository every device is assigned something, and then says more about itself.
    let keys = folder.path().join("keys").display().to_string();
    hub.operator(&["keys", "init", "--out", &keys, "--line", "card-fraud"]);
    let Some(Bench { agent, _emulator, folder: _folder, tap: _tap, .. }) = Bench::start(VIEW_TOML, Some(&hub)).await
    else {
        return;
    };

    let lake = hub.lake();
    let healthy = hub
        .process
        .until("the healthy windows are in the lake", async || {
            let windows = lake::windows(&lake).map_err(|error| format!("{error:#}"))?;
            let first = windows.first().map_or(0, |first| first.time);
            let worn = windows.iter().filter(|window| window.time > first + HEALTHY + Micros::SECOND).count();
            if worn == 0 {
                return Err(format!("{} windows", windows.len()));
            }
            let healthy = windows.into_iter().filter(|window| window.time < first + HEALTHY);
            Ok((first, healthy.map(|recorded| recorded.window.input(ADXL345_COUNT)).collect::<Vec<_>>()))
        })
        .await;
    let (first, healthy) = healthy;
    // Four windows of three axes a second, less what a busy machine's emulator had no time for: never fewer than learning
    // takes.
    assert!(healthy.len() >= 100, "{} windows", healthy.len());
    let learnt = learn(&healthy).unwrap();
    let parity = learnt.parity(&healthy).unwrap();
    assert!(parity.agree.0 == parity.agree.1, "{parity:?}");

    key().save(&folder.path().join("nodes.key")).unwrap();
    let pipeline = Pipeline::new(folder.path(), &hub);
    let failed = pipeline.run(Path::new("no-lake"), &[]);
    let why = String::from_utf8_lossy(&failed.stderr);
    assert!(failed.status.code() == Some(1) && why.contains("no-lake is no folder"), "{why}");
    let socket = agent.folder.join("state/agent.sock");
    let (to, node) = ((first + HEALTHY).to_string(), format!("unix:{}={NODE}", socket.display()));
    let arguments = ["--to".to_owned(), to, "--agent".to_owned(), node];
    let done = tokio::task::spawn_blocking(move || pipeline.run(&lake, &arguments)).await.unwrap();
    let (told, errors) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{told}{errors}");
    let node = agent
        .until("the learnt model is confirmed", |node| {
            node["model"]["version"] == 2 && node["model"]["state"] == "confirmed" && node["threshold"].is_u64()
        })
        .await;
    assert!(told.contains(&format!("; threshold {}\n", node["threshold"])), "{node} {told}");
    assert_eq!((&node["model"]["rollback"], &node["images_failed"]), (&json!(2), &json!(0)), "{node}");
    // What the signed repository does not list is refused by the agent, and counted.
    let path = format!("/v1/nodes/{NODE}/update");
    let unlisted = agent.local.send(Method::POST, &path, "application/json", r#"{"version":3}"#.into()).await.unwrap();
    let why: Value = unlisted.json().unwrap();
    assert_eq!(unlisted.status.as_u16(), 422, "{why}");
    assert!(why["detail"].as_str().unwrap().contains("nodes/mps2/v3.img of the signed repository"), "{why}");
    agent.until("the refusal is counted", |node| node["images_failed"] == 1).await;
    // The hub knows the node, and what it runs, from the device's reports.
    let shown = wait::until("the hub shows the node with its new model", PATIENCE, async || {
        let device: Value = serde_json::from_str(&hub.operator(&["device", "show", "edge-1", "--json"]))?;
        let node = device["nodes"][0].clone();
        // Its health comes anew after the restart with the model.
        let is_told = node["model"]["version"] == 2 && node["windows"].as_u64() > Some(0);
        Ok(if is_told { Ok(node) } else { Err(device.to_string()) })
    });
    let shown = shown.await.unwrap();
    assert_eq!((&shown["node"], &shown["kind"]), (&json!(NODE), &json!("mps2")), "{shown}");
    // The machine began anew with its node; when it wears, the node finds that by what it was sent.
    let before = node["anomalies"].as_u64().unwrap();
    agent.until("it finds the worn bearing", |node| node["anomalies"].as_u64() > Some(before + 3)).await;
}
