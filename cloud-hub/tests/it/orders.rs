//! Commands to devices: a stock MQTT client as device, the web API as operator.

use std::process::Command as Process;

use hyper::{Method, StatusCode};
use rumqttc::mqttbytes::v5::Packet;
use serde_json::{Value, json};
use tributary_wire::{
    Command, CommandId, CommandResult, CommandResultV1, CommandV1, MAX_RESULT_BYTES, Micros, Order, Outcome, Report,
};

use crate::devices::{Device, report};
use crate::support::TestHub;

/// A report of an agent that knows commands.
fn knows_commands(number: u64) -> Vec<u8> {
    let mut report = Report::decode(&report(number)).unwrap().base().clone();
    report.reads = 2;
    Report::V1(report).encode()
}

async fn present(hub: &TestHub, id: &str, number: u64) -> Device {
    let device = Device::connected(hub, id).await;
    device.publish("report", knows_commands(number)).await;
    device
}

async fn heard(device: &mut Device) -> CommandV1 {
    device
        .until(|packet| match packet {
            Packet::Publish(publish) if publish.topic.ends_with(b"/down/command") => {
                let Command::V1(command) = Command::decode(&publish.payload).unwrap();
                Some(command)
            }
            _ => None,
        })
        .await
}

fn result(id: &str, outcome: Outcome) -> Vec<u8> {
    let id = CommandId::new(id).unwrap();
    CommandResult::V1(CommandResultV1 { id, finished: Micros(1), outcome }).encode()
}

fn done(body: &[u8]) -> Outcome {
    Outcome::Done { media: "text/plain".to_owned(), body: body.to_vec() }
}

async fn ask(hub: &TestHub, device: &str, body: Value) -> (StatusCode, Value) {
    hub.json(Method::POST, &format!("/devices/{device}/commands"), body).await
}

/// Lets the client work until the hub says so.
async fn until(hub: &TestHub, device: &mut Device, path: &str, state: &str) -> Value {
    let end = hub.until(path, |command| command["state"] == state);
    tokio::select! {
        command = end => command,
        () = device.until(|_| None::<()>) => unreachable!("it waits for ever"),
    }
}

async fn actions(hub: &TestHub, subject: &str) -> Vec<String> {
    let page = hub.get(&format!("/audit?subject={subject}")).await.1;
    page["items"].as_array().unwrap().iter().map(|entry| entry["action"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_goes_down_its_result_comes_up_and_all_of_it_is_written_down() {
    let hub = TestHub::start().await;
    let mut device = present(&hub, "edge-1", 1).await;
    let (status, asked) = ask(&hub, "edge-1", json!({"order": "logs", "lines": 7})).await;
    assert_eq!((status, &asked["state"]), (StatusCode::ACCEPTED, &json!("queued")), "{asked:#}");
    let id = asked["id"].as_str().unwrap();
    let command = heard(&mut device).await;
    assert_eq!((command.id.as_str(), &command.order), (id, &Order::Logs { lines: 7 }));
    assert_eq!(json!(command.deadline), asked["deadline"]);
    let path = format!("/devices/edge-1/commands/{id}");
    let missing = hub.get(&format!("{path}/result")).await;
    assert_eq!(missing.0, StatusCode::NOT_FOUND, "{:#}", missing.1);
    device.publish("result", result(id, done(b"the last line\n"))).await;
    let command = until(&hub, &mut device, &path, "done").await;
    assert_eq!((&command["bytes"], &command["times"], &command["lines"]), (&json!(14), &json!(1), &json!(7)));
    let body = hub.send(Method::GET, &format!("{path}/result"), "", "").await;
    assert_eq!(
        (&body.body[..], &body.headers["content-type"]),
        (&b"the last line\n"[..], &"text/plain".parse().unwrap())
    );
    assert_eq!(body.headers["x-content-type-options"], "nosniff");
    assert_eq!(actions(&hub, id).await, ["command.result", "command.create"]);
    let entry = &hub.get("/audit?action=command.result").await.1["items"][0];
    assert_eq!((&entry["who"], &entry["from"]["state"]), (&json!("device:edge-1"), &json!("sent")));
    // A second answer, one of somebody else, one that nobody asked for, one that is none: nothing changes.
    let mut other = present(&hub, "edge-2", 1).await;
    device.publish("result", result(id, done(b"again"))).await;
    device.publish("result", result("nobody-asked", done(b"x"))).await;
    device.publish("result", b"\xffnonsense".to_vec()).await;
    other.publish("result", result(id, Outcome::Failed("forged".to_owned()))).await;
    let counted = async {
        loop {
            let text = hub.send(Method::GET, "/metrics", "", "").await;
            let text = String::from_utf8(text.body.to_vec()).unwrap();
            let of =
                |reason: &str| text.contains(&format!("hub_command_results_ignored_total{{reason=\"{reason}\"}} 1"));
            if ["again", "unknown", "unreadable", "foreign"].into_iter().all(of) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    let pump = async { tokio::join!(device.until(|_| None::<()>), other.until(|_| None::<()>)) };
    tokio::select! { () = counted => {}, _ = pump => {} }
    assert_eq!(hub.get(&path).await.1["state"], "done");
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_waits_for_its_device_and_is_sent_on_each_connection_until_it_is_answered() {
    let hub = TestHub::start().await;
    hub.ok(Method::PUT, "/devices/edge-1", json!({})).await;
    let (_, taken_back) = ask(&hub, "edge-1", json!({"order": "diagnostics"})).await;
    let path = format!("/devices/edge-1/commands/{}", taken_back["id"].as_str().unwrap());
    let (status, cancelled) = hub.json(Method::DELETE, &path, Value::Null).await;
    assert_eq!((status, &cancelled["state"]), (StatusCode::OK, &json!("cancelled")), "{cancelled:#}");
    assert_eq!(hub.json(Method::DELETE, &path, Value::Null).await.0, StatusCode::CONFLICT);
    let (_, asked) = ask(&hub, "edge-1", json!({"order": "logs"})).await;
    let id = asked["id"].as_str().unwrap().to_owned();
    let path = format!("/devices/edge-1/commands/{id}");
    for number in 1..=3 {
        // It loses its connection before it can answer.
        let mut device = present(&hub, "edge-1", number).await;
        assert_eq!(heard(&mut device).await.id.as_str(), id);
        until(&hub, &mut device, &path, "sent").await;
        drop(device);
        hub.until("/devices/edge-1", |device| device["connected"] == false).await;
    }
    let mut device = present(&hub, "edge-1", 4).await;
    heard(&mut device).await;
    let too_large = Outcome::Done { media: "text/plain".to_owned(), body: vec![b'x'; MAX_RESULT_BYTES + 1] };
    device.publish("result", result(&id, too_large)).await;
    let failed = until(&hub, &mut device, &path, "failed").await;
    assert!(failed["reason"].as_str().unwrap().contains("1048577 bytes"), "{failed:#}");
    assert!(failed["times"].as_i64().unwrap() >= 4);
    let all = hub.get("/devices/edge-1/commands").await.1;
    let states: Vec<&str> = all["items"].as_array().unwrap().iter().map(|c| c["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["failed", "cancelled"]);
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_passes_while_the_device_is_away() {
    let hub = TestHub::start().await;
    hub.ok(Method::PUT, "/devices/edge-1", json!({})).await;
    let (_, asked) = ask(&hub, "edge-1", json!({"order": "logs", "deadline_seconds": 1})).await;
    let id = asked["id"].as_str().unwrap().to_owned();
    let path = format!("/devices/edge-1/commands/{id}");
    let expired = hub.until(&path, |command| command["state"] == "expired").await;
    assert_eq!((&expired["times"], expired["ended"].is_i64()), (&json!(0), true));
    // Nothing is sent any more; but a device that had done it in time may still say so.
    let mut device = present(&hub, "edge-1", 1).await;
    device.publish("result", result(&id, done(b"done while away"))).await;
    until(&hub, &mut device, &path, "done").await;
    assert_eq!(actions(&hub, &id).await, ["command.result", "command.expire", "command.create"]);
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_rule_allows_is_refused_and_the_rule_is_named() {
    let rules = r#"rules = [{ group = "lab", allow = ["restart"] }]"#;
    let hub = TestHub::start_in(tempfile::tempdir().unwrap(), |config| {
        config.commands = toml::from_str(rules).unwrap();
    })
    .await;
    hub.ok(Method::PUT, "/devices/edge-1", json!({})).await;
    hub.ok(Method::PUT, "/devices/edge-2", json!({"group": "lab"})).await;
    for (device, body, status, words) in [
        ("edge-1", json!({"order": "restart"}), 403, "no rule of commands.rules fits it"),
        ("edge-1", json!({"order": "rotate-key"}), 403, "only logs, diagnostics"),
        ("edge-2", json!({"order": "logs"}), 403, "commands.rules[0] (group = lab) allows only restart"),
        ("edge-2", json!({"order": "restart"}), 202, ""),
        ("edge-1", json!({"order": "logs"}), 202, ""),
        ("edge-9", json!({"order": "logs"}), 404, "there is no device edge-9"),
        ("edge-1", json!({"order": "reboot"}), 422, "none of logs, diagnostics, restart, rotate-key"),
        ("edge-1", json!({"order": "logs", "lines": 0}), 422, "between 1 and 100000"),
        ("edge-2", json!({"order": "restart", "lines": 1}), 422, "only logs have lines"),
        ("edge-1", json!({"order": "logs", "deadline_seconds": 0}), 422, "1 to 604800 are allowed"),
        ("edge-1", json!({"order": "logs", "deadline_seconds": 604_801}), 422, "1 to 604800 are allowed"),
        ("edge-1", json!({"order": "logs", "line": 1}), 400, "unknown field `line`"),
    ] {
        let (found, answer) = ask(&hub, device, body.clone()).await;
        assert_eq!(found.as_u16(), status, "{device} {body}: {answer:#}");
        assert!(answer.to_string().contains(words), "{device} {body}: {answer:#}");
    }
    assert_eq!(hub.get("/devices/edge-9/commands").await.0, StatusCode::NOT_FOUND);
    assert_eq!(hub.get("/devices/edge-1/commands/nothing").await.0, StatusCode::NOT_FOUND);
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_waits_is_not_sent_once_its_device_is_in_another_group() {
    let hub = TestHub::start_in(tempfile::tempdir().unwrap(), |config| {
        config.commands = toml::from_str(r#"rules = [{ group = "lab", allow = ["restart"] }]"#).unwrap();
    })
    .await;
    hub.ok(Method::PUT, "/devices/edge-1", json!({"group": "lab"})).await;
    let (status, asked) = ask(&hub, "edge-1", json!({"order": "restart"})).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{asked:#}");
    let id = asked["id"].as_str().unwrap();
    hub.ok(Method::PUT, "/devices/edge-1", json!({"group": "field"})).await;
    let mut device = present(&hub, "edge-1", 1).await;
    let refused = until(&hub, &mut device, &format!("/devices/edge-1/commands/{id}"), "refused").await;
    assert_eq!(refused["times"], 0);
    assert!(refused["reason"].as_str().unwrap().contains("no rule of commands.rules fits it"), "{refused:#}");
    assert_eq!(actions(&hub, id).await, ["command.refuse", "command.create"]);
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_knows_no_commands_is_named() {
    let hub = TestHub::start().await;
    let mut device = Device::connected(&hub, "edge-1").await;
    device.publish("report", report(1)).await;
    let known = hub.until("/devices/edge-1", |device| device["report"]["reads"] == 1);
    tokio::select! { _ = known => {}, () = device.until(|_| None::<()>) => {} }
    let (status, problem) = ask(&hub, "edge-1", json!({"order": "logs"})).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(problem["detail"].as_str().unwrap().contains("reads messages of version 1"), "{problem:#}");
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_operator_waits_for_a_log_at_the_terminal() {
    let hub = TestHub::start().await;
    let mut device = present(&hub, "edge-1", 1).await;
    let answering = tokio::spawn(async move {
        loop {
            let command = heard(&mut device).await;
            let outcome = match command.order {
                Order::Logs { lines } => done(format!("{lines} lines\n").as_bytes()),
                _ => done(b"\x28\xb5\x2f\xfd bundle"),
            };
            device.publish("result", result(command.id.as_str(), outcome)).await;
        }
    });
    let operator = |arguments: Vec<String>| {
        let (url, token) = (hub.url(), hub.token_file());
        let mut process = Process::new(env!("CARGO_BIN_EXE_cloud-hub"));
        process.env("CLOUD_HUB_URL", url).env("CLOUD_HUB_TOKEN_FILE", token).args(arguments);
        tokio::task::spawn_blocking(move || process.output().unwrap())
    };
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let output = operator(words("device command edge-1 logs --lines 3 --wait")).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "3 lines\n", "{}", String::from_utf8_lossy(&output.stderr));
    let file = hub.folder.path().join("bundle");
    let mut bundle = words("device command edge-1 diagnostics --output");
    bundle.push(file.display().to_string());
    let output = operator(bundle).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(std::fs::read(file).unwrap(), b"\x28\xb5\x2f\xfd bundle");
    let output = operator(words("device command edge-1 restart")).await.unwrap();
    assert_eq!(output.status.code(), Some(5), "{}", String::from_utf8_lossy(&output.stderr));
    let output = operator(words("device commands edge-1")).await.unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("diagnostics") && table.contains("done"), "{table}");
    answering.abort();
    hub.stop().await;
}
