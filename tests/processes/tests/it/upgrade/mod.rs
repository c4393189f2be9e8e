//! The state that an earlier build left, in the hands of today's programs: nothing of it is lost, and all that was proven
//! goes on. `make.sh` made it with the programs of that build, which were killed in the middle of their work.

use std::collections::HashSet;
use std::path::Path;
use std::process::{Command, Stdio};

use tributary_demo::recount;

use crate::agent::Agent;
use crate::namespace::{is_inside, tell};
use crate::process::Hub;
use crate::source::{STREAMS, Source};
use crate::tools;

const TEST: &str = "the upgrade";

/// Of the last commit before the signed repository.
#[test]
fn the_state_of_a_build_before_signed_releases_goes_on_with_nothing_lost() {
    goes_on("76dcb46");
}

/// With a signed repository, sampling and an outbox by classes; a new one is made before every change of stored forms.
#[test]
fn the_state_of_the_previous_build_goes_on_with_nothing_lost() {
    goes_on("b395c11");
}

fn goes_on(commit: &str) {
    // Its ports are in its identity, so they must be free: in a network of its own they are.
    if is_inside(TEST, &["tar"]) {
        tell(story(commit));
    }
}

#[test]
#[ignore = "writes the package that make.sh asks for, to the path in TRIBUTARY_PACKAGE"]
fn a_package_for_the_recipe() {
    std::fs::write(std::env::var_os("TRIBUTARY_PACKAGE").unwrap(), crate::model::package(1)).unwrap();
}

fn unpack(commit: &str, folder: &Path) {
    let state = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/it/upgrade/{commit}.tar.zst"));
    let tar = zstd::bulk::decompress(&std::fs::read(state).unwrap(), 64 << 20).unwrap();
    let mut command = Command::new(tools::program(TEST, "tar").unwrap());
    let mut child = command.args(["-x", "-C"]).arg(folder).stdin(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), &tar).unwrap();
    assert!(child.wait().unwrap().success());
}

async fn story(commit: &str) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    unpack(commit, path);
    let promised: HashSet<String> =
        std::fs::read_to_string(path.join("promised")).unwrap().lines().map(str::to_owned).collect();
    assert!(promised.len() > 80, "{}", promised.len());
    // The paths of these settings are relative to their folder.
    for (name, setting, target) in
        [("hub", "data_dir", "hub"), ("agent", "state_dir", "agent"), ("agent", "view", "view.toml")]
    {
        let file = path.join(format!("{name}.toml"));
        let text = std::fs::read_to_string(&file).unwrap();
        let (relative, absolute) = (format!("{setting} = {target:?}"), format!("{setting} = {:?}", path.join(target)));
        assert!(text.contains(&relative), "{text}");
        let mut text = text.replace(&relative, &absolute);
        if name == "hub" && !text.contains("[identity]") {
            // The certificates of the first fixture may have ended when this test runs.
            text.push_str("[identity]\ngrace = \"3650d\"\n");
        }
        std::fs::write(&file, text).unwrap();
    }
    let mut hub = Hub::found(path, path.join("hub")).await;
    let config = path.join("agent.toml").display().to_string();
    let mut agent = Agent::at("edge-1", path, &config, path.join("agent"));
    agent.start();
    // Its certificate still counts, and so does the package that it had committed.
    agent.connected().await;
    let status = agent.until("the package serves", |status| status["lines"][0]["committed"] == 1).await;
    assert_eq!((&status["serving"]["version"], &status["hub"]["not_enrolled"]), (&1.into(), &serde_json::Value::Null));
    assert!(hub.operator(&["device", "list"]).contains("edge-1"));
    assert!(hub.operator(&["model", "list", "card-fraud"]).contains('1'));
    assert!(hub.operator(&["audit", "verify"]).contains("whole"));

    let source = Source::start("new", &agent.local);
    source.goes_on(&mut hub, 20).await;
    let all: HashSet<String> = promised.union(&source.stop().await).cloned().collect();
    crate::source::reconcile(&mut hub, &all).await;
    for stream in STREAMS {
        let counts = recount::event_ids(&hub.lake(), stream).unwrap();
        assert!(promised.iter().all(|id| counts.get(id) == Some(&1)), "{stream}");
    }
}
