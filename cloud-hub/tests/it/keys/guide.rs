//! The guide for people: its commands are run as they stand there, and a device that enrolled at the beginning follows
//! through every step.

use std::fs;
use std::path::Path;

use hyper::Method;
use serde_json::json;

use super::device::Device;
use super::{Machine, PROGRAM, with_a_version};
use crate::support::{TestHub, package};

/// What a thief does who holds the key of the unattended line, as soon as there is one.
async fn slip_in(hub: &TestHub) {
    hub.json(Method::POST, "/lines/returns/versions/1/publish", json!(null)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_of_the_guide_works() {
    let guide = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/hub/keys.md")).unwrap();
    let mut scenarios = guide.split("<!-- scenario: ").skip(1).peekable();
    assert!(scenarios.peek().is_some());
    let (mut commands, mut scenarios_with_a_release, mut withdrawn) = (0, 0, 0);
    for scenario in scenarios {
        let hub = TestHub::without_repository().await;
        with_a_version(&hub).await;
        hub.ok(Method::PUT, "/lines/returns", json!({"view": "card-risk"})).await;
        hub.send(Method::POST, "/lines/returns/versions", "application/octet-stream", package("returns", 1)).await;
        let folder = tempfile::tempdir().unwrap();
        // Who made it needs no hub.
        fs::write(folder.path().join("mps2-v2.img"), b"a model for sensor nodes").unwrap();
        let machine = Machine::online(folder.path(), &hub);
        let mut device = None;
        for block in scenario.split("```sh\n").skip(1) {
            let script = block.split("```").next().unwrap();
            let mut shell = machine.command("sh");
            let programs = Path::new(PROGRAM).parent().unwrap().display().to_string();
            let path = format!("{programs}:{}", std::env::var("PATH").unwrap_or_default());
            shell.env("PATH", path).args(["-e", "-c", script]);
            let output = machine.output(shell).await;
            let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
            assert!(output.status.success(), "{script}\n{said}");
            if device.is_none() && hub.get("/signing").await.1["roles"] != json!([]) {
                device = Some(Device::enrolled(&hub).await);
            }
            if let Some(device) = &mut device {
                device.believes(&hub).await;
            }
            slip_in(&hub).await;
            commands += script.matches("cloud-hub ").count();
        }
        // Whatever was done to it, the repository holds together, and nothing waits.
        let (_, standing) = hub.get("/signing").await;
        for role in standing["roles"].as_array().unwrap() {
            assert_eq!((&role["standing"], &role["next"]), (&json!("fine"), &json!("")), "{role:#}");
        }
        let published = hub.get("/lines/card-fraud/versions/1").await.1["published"] == true;
        let device = &mut device.unwrap();
        assert_eq!(device.lists(&hub, "models/card-fraud/v1.tpk").await, published);
        scenarios_with_a_release += usize::from(published);
        let (_, slipped) = hub.get("/lines/returns/versions/1").await;
        withdrawn += usize::from(slipped["release"] == "withdrawn");
        assert_eq!(device.lists(&hub, "models/returns/v1.tpk").await, slipped["release"] == "published", "{slipped}");
        hub.stop().await;
    }
    assert_eq!((scenarios_with_a_release, withdrawn), (1, 1));
    assert!(commands >= 40, "{commands}");
}
