//! Eclipse Paho's interoperability scripts for MQTT 5.
//!
//! No registry carries them: `TRIBUTARY_PAHO` names the folder `interoperability` of a clone of
//! <https://github.com/eclipse/paho.mqtt.testing>. Without it this test is skipped, loudly, also in CI.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use cloud_hub_gateway::Limits;
use tokio::process::Command;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Acceptor;
use crate::tools;

const SCRIPT: &str = "client_test5.py";
/// Some scripts wait for ever for what does not come.
const PATIENCE: Duration = Duration::from_secs(90);
/// Scripts at the same time, each with an acceptor of its own; they mostly sleep.
const AT_ONCE: usize = 8;

/// What the acceptor does as the scripts want it.
const PASS: [&str; 22] = [
    "assigned_clientid",
    "basic",
    "client_topic_alias",
    "dollar_topics",
    "flow_control1",
    "flow_control2",
    "keepalive",
    "maximum_packet_size",
    "offline_message_queueing",
    "overlapping_subscriptions",
    "payload_format",
    "publication_expiry",
    "redelivery_on_reconnect",
    "retained_message",
    "server_keep_alive",
    "session_expiry",
    "shared_subscriptions",
    "unsubscribe",
    "user_properties",
    "will_delay",
    "will_message",
    "zero_length_clientid",
];

/// What it does otherwise, and why.
const ABSENT: [(&str, &str); 3] = [
    ("server_topic_alias", "optional: an alias carries a topic past the check of topics, so none are used either way"),
    ("subscribe_failure", "the script knows the reason 0x80 of MQTT 3 alone; ours is 0x87, not authorised"),
    ("subscribe_identifiers", "it wants one message for overlapping subscriptions; the standard allows one for each"),
];

/// These wait for the wrong client's SUBACK and publish before the other one's subscription stands: they pass or not,
/// as the two connections happen to be read. With the wait put right both pass.
const HASTY: [&str; 2] = ["request_response", "subscribe_options"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paho_scripts_pass_but_for_features_that_are_left_out() {
    let Some(folder) = std::env::var_os("TRIBUTARY_PAHO").map(PathBuf::from) else {
        let why = "TRIBUTARY_PAHO does not name the folder interoperability of a clone of \
                   https://github.com/eclipse/paho.mqtt.testing";
        return tools::skipped("Paho's scripts", why);
    };
    let python = tools::python_with("Paho's scripts", &["unittest"]).expect("a Python");
    let script = std::fs::read_to_string(folder.join(SCRIPT)).unwrap();
    let names = script.lines().filter_map(|line| line.trim().strip_prefix("def test_")?.split('(').next());
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut running = JoinSet::new();
    for name in names.map(str::to_owned) {
        let (folder, python, places) = (folder.clone(), python.clone(), places.clone());
        running.spawn(async move {
            let _place = places.acquire_owned().await.unwrap();
            let told = run(&python, &folder, &name).await;
            (name, told)
        });
    }
    let (mut passed, mut failed) = (Vec::new(), Vec::new());
    for (name, told) in running.join_all().await {
        if HASTY.contains(&name.as_str()) {
            eprintln!("{name}: {}", told.map_or_else(|why| why, |()| "passed".to_owned()));
            continue;
        }
        match told {
            Ok(()) => passed.push(name),
            Err(why) => {
                eprintln!("{name}: {why}");
                failed.push(name);
            }
        }
    }
    passed.sort();
    failed.sort();
    let mut absent = ABSENT.map(|(name, _)| name);
    absent.sort_unstable();
    let mut pass = PASS;
    pass.sort_unstable();
    assert_eq!((passed, failed), (pass.map(str::to_owned).to_vec(), absent.map(str::to_owned).to_vec()));
}

/// One script against an acceptor of its own; the end of what it said if it did not pass.
async fn run(python: &Path, folder: &Path, name: &str) -> Result<(), String> {
    // The scripts ask for 120 s and insist on 60.
    let acceptor = Acceptor::start(Limits { keep_alive: Duration::from_secs(60), ..Limits::default() }).await;
    let mut command = Command::new(python);
    command.current_dir(folder).args([SCRIPT, "-p", &acceptor.plain.port().to_string(), &format!("Test.test_{name}")]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let told = timeout(PATIENCE, command.output()).await;
    acceptor.stop().await;
    let output = told.map_err(|_| format!("not done after {} s", PATIENCE.as_secs()))?.unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    if output.status.success() { Ok(()) } else { Err(lines[lines.len().saturating_sub(8)..].join(" | ")) }
}
