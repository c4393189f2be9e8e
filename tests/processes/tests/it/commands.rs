//! Commands to a device, from the operator's web API to the agent's process and back, with the real programs.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};
use tributary_demo::fleet::{Fleet, Wish, device};
use tributary_demo::wait;

/// A debug build on a busy machine needs seconds for what takes milliseconds otherwise.
const PATIENCE: Duration = Duration::from_secs(180);

const ALL: &str = r#"allow = ["logs", "diagnostics", "restart", "rotate-key"]"#;

fn append(folder: &Path, name: &str, text: &str) {
    let path = folder.join(format!("{name}.toml"));
    let mut file = std::fs::File::options().append(true).open(path).unwrap();
    writeln!(file, "\n{text}").unwrap();
}

async fn ask(fleet: &Fleet, body: Value) -> String {
    let path = format!("/api/v1/devices/{}/commands", device(0));
    let asked: Value = fleet.api.call(Method::POST, &path, &body).await.unwrap();
    format!("{path}/{}", asked["id"].as_str().unwrap())
}

/// Waits for the end of a command; the command and its result.
async fn end(fleet: &mut Fleet, path: &str) -> (Value, Vec<u8>) {
    let command = wait::until("a command ends", PATIENCE, async || {
        // The agent's process never ends, also when it is started again.
        fleet.check()?;
        let command: Value = fleet.api.get(path).await?;
        let open = matches!(command["state"].as_str(), Some("queued" | "sent"));
        Ok(if open { Err(command.to_string()) } else { Ok(command) })
    });
    let command = command.await.unwrap();
    let body = fleet.api.send(Method::GET, &format!("{path}/result"), "", bytes::Bytes::new()).await.unwrap();
    (command, body.body.to_vec())
}

fn starts(fleet: &Fleet) -> usize {
    let log = std::fs::read_to_string(fleet.folder.join("logs").join(format!("{}.log", device(0)))).unwrap();
    log.matches("the agent works").count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_sends_its_log_and_a_bundle_rotates_its_key_and_starts_again_in_place() {
    let folder = tempfile::tempdir().unwrap();
    let executable = PathBuf::from(env!("CARGO_BIN_EXE_programs"));
    let wish = Wish { executable, agents: 1, view: tributary_fraud::VIEW_TOML, misled: None };
    let mut fleet = Fleet::start(folder.path(), &wish).await.unwrap();
    // What may be asked for is forbidden on both sides unless the settings say otherwise.
    let path = format!("/api/v1/devices/{}/commands", device(0));
    let refused = fleet.api.call::<Value>(Method::POST, &path, &json!({"order": "restart"})).await.unwrap_err();
    assert_eq!(refused.status().map(|status| status.as_u16()), Some(403), "{refused}");
    fleet.hub.kill();
    append(folder.path(), "hub", &format!("[[commands.rules]]\ngroup = \"demo\"\n{ALL}"));
    fleet.hub.start().unwrap();
    fleet.hub_answers(PATIENCE).await.unwrap();
    let restart = ask(&fleet, json!({"order": "restart"})).await;
    let (command, _) = end(&mut fleet, &restart).await;
    assert_eq!(command["state"], "refused", "{command:#}");
    assert!(command["reason"].as_str().unwrap().contains("commands.allow"), "{command:#}");

    // Asked while the device is away, done when it is back.
    fleet.agents[0].kill();
    append(folder.path(), &device(0), &format!("[commands]\n{ALL}"));
    let logs = ask(&fleet, json!({"order": "logs", "lines": 50})).await;
    fleet.agents[0].start().unwrap();
    let (command, log) = end(&mut fleet, &logs).await;
    assert_eq!(command["state"], "done", "{command:#}");
    assert!(String::from_utf8_lossy(&log).contains("the agent works"), "{}", String::from_utf8_lossy(&log));
    let bundle = ask(&fleet, json!({"order": "diagnostics"})).await;
    let (command, bundle) = end(&mut fleet, &bundle).await;
    assert_eq!((&command["state"], &command["media"]), (&json!("done"), &json!("application/x-tar+zstd")));
    assert!(bundle.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]), "{} bytes", bundle.len());

    let rotate = ask(&fleet, json!({"order": "rotate-key"})).await;
    let (command, text) = end(&mut fleet, &rotate).await;
    assert_eq!(command["state"], "done", "{command:#}");
    assert!(String::from_utf8_lossy(&text).contains("for a new key"), "{}", String::from_utf8_lossy(&text));
    let before = starts(&fleet);
    let restart = ask(&fleet, json!({"order": "restart"})).await;
    let (command, text) = end(&mut fleet, &restart).await;
    assert_eq!(command["state"], "done", "{command:#}");
    assert!(String::from_utf8_lossy(&text).contains("started again"), "{}", String::from_utf8_lossy(&text));
    assert_eq!(starts(&fleet), before + 1, "once, by the same process");
    let verdict: Value = fleet.api.get("/api/v1/audit/verify").await.unwrap();
    assert_eq!(verdict["whole"], true, "{verdict:#}");
    let results: Value = fleet.api.get("/api/v1/audit?action=command.result").await.unwrap();
    assert_eq!(results["items"].as_array().unwrap().len(), 5, "{results:#}");
}
