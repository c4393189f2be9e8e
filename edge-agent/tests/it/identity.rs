use std::process::Command;

use crate::support::{Running, config};

#[tokio::test]
async fn an_agent_without_an_identity_serves_and_says_how_to_enrol() {
    let folder = tempfile::tempdir().unwrap();
    let agent = Running::start(config(&folder)).await;
    let status = agent.status().await;
    assert_eq!((&status["health"]["ok"], &status["hub"]["connected"]), (&true.into(), &false.into()));
    assert!(status["hub"]["not_enrolled"].as_str().unwrap().contains("edge-agent enroll"), "{status}");
    agent.stop().await;
}

#[tokio::test]
async fn an_agent_whose_identity_is_damaged_serves_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&folder);
    let identity = config.state_dir.join("identity");
    std::fs::create_dir_all(&identity).unwrap();
    std::fs::write(identity.join("current"), "7").unwrap();
    let agent = Running::start(config).await;
    let status = agent.status().await;
    let problems = status["health"]["problems"].to_string();
    assert!(problems.contains("identity") && problems.contains("hub.json"), "{status}");
    agent.stop().await;
}

#[test]
fn plain_addresses_of_other_machines_are_refused() {
    let program = env!("CARGO_BIN_EXE_edge-agent");
    for setting in ["hub.insecure_plain_mqtt=10.0.0.1:1883", "hub.insecure_plain_http=http://hub.example:80"] {
        let output = Command::new(program).args(["config", "--set", setting]).output().unwrap();
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{words}");
        assert!(words.contains("only an address of this machine"), "{words}");
    }
}
