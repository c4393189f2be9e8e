//! The doctors beside whole programs: an agent's way to a hub that is there, strange, closed to it, or away; and a hub
//! whose catalog is gone.

use serde_json::Value;
use tributary_demo::wait;

use crate::agent::Agent;
use crate::process::{Hub, PATIENCE, finish};
use crate::source::{Source, reconcile};

/// Nobody answers within this; who does has more time on a busy machine.
const SILENCE: &str = "15s";
const ANSWER: &str = "60s";

/// What the agent's doctor finds of the hub, and whether all is well, with more settings.
fn look(agent: &Agent, patience: &str, settings: &[&str]) -> (Vec<Value>, bool) {
    let same = agent.same();
    let more = settings.iter().flat_map(|setting| ["--set", setting]);
    let arguments: Vec<&str> =
        ["--json", "doctor", "--timeout", patience].into_iter().chain(same[1..].iter().copied()).chain(more).collect();
    let done = finish("agent", &arguments);
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    let report: Value = serde_json::from_str(&said)
        .unwrap_or_else(|error| panic!("{error}: {said}{}", String::from_utf8_lossy(&done.stderr)));
    let findings = report["findings"].as_array().unwrap().iter().filter(|it| it["section"] == "Hub").cloned();
    (findings.collect(), done.status.success())
}

/// The finding of one check, which must say and advise these words.
fn says(findings: &[Value], check: &str, result: &str, found: &str, advice: &str) {
    let finding =
        findings.iter().find(|it| it["check"] == check).unwrap_or_else(|| panic!("no {check}: {findings:#?}"));
    assert_eq!(finding["result"], result, "{finding:#}");
    let holds = |of: &str, words: &str| finding[of].as_str().unwrap_or_default().contains(words);
    assert!(holds("found", found) && holds("advice", advice), "{found:?}, {advice:?}: {finding:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agents_doctor_says_what_keeps_it_from_its_hub_and_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let mut hub = Hub::start(folder.path()).await;
    let agent = Agent::enrol(&hub, "edge-1", hub.beside("state"), "");
    let (found, _) = look(&agent, ANSWER, &[]);
    says(&found, "https", "ok", "knows this device", "");
    says(&found, "tls", "ok", "handshake in", "");
    says(&found, "quic", "ok", "handshake in", "");

    // Another hub, whose authority this device does not know.
    let beside = tempfile::tempdir().unwrap();
    let stranger = Hub::start(beside.path()).await;
    let to_stranger = [("https", "https"), ("tls", "mqtt_tls"), ("quic", "mqtt_quic")]
        .map(|(setting, of)| format!("hub.{setting}={}", stranger.address(of)));
    let (found, well) = look(&agent, ANSWER, &to_stranger.each_ref().map(String::as_str));
    assert!(!well);
    for check in ["https", "tls", "quic"] {
        says(&found, check, "fail", "", "another hub answers there");
    }

    // One way that nobody answers on is told by itself, while the others work.
    let (found, _) = look(&agent, SILENCE, &["hub.quic=127.0.0.1:9"]);
    says(&found, "tls", "ok", "handshake in", "");
    says(&found, "quic", "warn", "127.0.0.1:9", "UDP does not get through");

    hub.operator(&["device", "revoke", "edge-1", "--reason", "lost"]);
    let (found, well) = look(&agent, ANSWER, &[]);
    assert!(!well);
    says(&found, "https", "fail", "", "enrol");

    hub.process.kill();
    let (found, well) = look(&agent, ANSWER, &[]);
    assert!(!well);
    for check in ["https", "tls", "quic"] {
        says(&found, check, "fail", "127.0.0.1:", "is the hub running");
    }
}

/// The worst day: the catalog is gone, and there is no backup.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hub_whose_catalog_is_gone_is_made_again_from_the_lake_and_its_devices_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut hub = Hub::start(folder.path()).await;
    let mut agent = Agent::enrol(&hub, "edge-1", hub.beside("state"), "");
    agent.start();
    agent.connected().await;
    let source = Source::start("e", &agent.local);
    source.goes_on(&mut hub, 20).await;
    hub.process.kill();

    // A catalog of nonsense, without the log beside it, from which SQLite would mend it: the start names the doctor.
    let catalog = hub.data.join("catalog.db");
    for name in ["catalog.db", "catalog.db-wal", "catalog.db-shm"] {
        let _ = std::fs::remove_file(hub.data.join(name));
    }
    std::fs::write(&catalog, vec![7; 9_000]).unwrap();
    let said = hub.refused();
    assert!(said.contains("cannot start (`cloud-hub doctor` with the same settings"), "{said}");
    std::fs::remove_file(&catalog).unwrap();
    let data = hub.data.display().to_string();
    let done = finish("hub", &["doctor", "--set", &format!("data_dir={data}")]);
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    let words = said.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(!done.status.success() && words.contains("start the hub (cloud-hub serve)"), "{said}");
    assert!(words.contains("cloud-hub restore accept DEVICE"), "{said}");

    hub = hub.again().await;
    accepted(&hub).await;
    agent.connected().await;
    source.goes_on(&mut hub, 20).await;
    let status: Value = serde_json::from_str(&hub.operator(&["--json", "restore", "status"])).unwrap();
    assert!(status["backup_time"] == 0 && status["taken_in"]["batches"].as_u64() > Some(0), "{status:#}");
    assert_eq!(status["lost"], Value::Array(Vec::new()), "{status:#}");
    reconcile(&mut hub, &source.stop().await).await;
}

/// Accepts the device as soon as it has shown its certificate.
async fn accepted(hub: &Hub) {
    let shown = wait::until("the device shows its certificate", PATIENCE, async || {
        let status: Value = serde_json::from_str(&hub.operator(&["--json", "restore", "status"]))?;
        let shown = status["certificates"].as_array().is_some_and(|shown| !shown.is_empty());
        Ok(shown.then_some(()).ok_or_else(|| status.to_string()))
    });
    shown.await.unwrap();
    hub.operator(&["restore", "accept", "edge-1", "--reason", "it is ours"]);
}
