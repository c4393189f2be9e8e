//! The whole way round: an emulated node's windows reach the lake of a real hub, a model is learnt from the healthy ones,
//! and the node takes it, tries it, keeps it, and finds the worn bearing with it.

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_s_windows_reach_the_hub_and_what_was_learnt_from_them_comes_back_to_the_node() {
    if !super::can_emulate() {
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
            Ok(healthy.map(|recorded| recorded.window.input(ADXL345_COUNT)).collect::<Vec<_>>())
        })
        .await;
    // Four windows of three axes a second, less what a busy machine's emulator had no time for: never fewer than learning
    // takes.
    assert!(healthy.len() >= 100, "{} windows", healthy.len());
    let learnt = learn(&healthy).unwrap();
    let parity = learnt.parity(&healthy).unwrap();
    assert!(parity.agree.0 == parity.agree.1, "{parity:?}");

    let image = lake::image(&learnt, "mps2", 2, 1, &key()).unwrap();
    let (status, answer) = agent.bring(&image).await;
    assert_eq!(status, 202, "{answer}");
    let node = agent
        .until("the learnt model is confirmed", |node| {
            node["model"]["version"] == 2 && node["model"]["state"] == "confirmed" && node["threshold"].is_u64()
        })
        .await;
    assert_eq!(node["threshold"].as_u64(), Some(learnt.model().unwrap().threshold().into()), "{node}");
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
