//! The state that an earlier build left, in the hands of today's programs: nothing of it is lost, and all that was proven
//! goes on. `make.sh` made it with the programs of that build, which were killed in the middle of their work.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tributary_demo::recount;

use crate::agent::Agent;
use crate::namespace::{is_inside, tell};
use crate::process::{Hub, finish};
use crate::source::{STREAMS, Source};
use crate::tools;

const TEST: &str = "the upgrade";

/// How many migrations of the catalog the newest of these states may lack.
const BEHIND: i64 = 3;

/// One of a commit before the signed repository, one with sampling and an outbox by classes, and whatever was made since.
#[test]
fn the_states_that_earlier_builds_left_go_on_with_nothing_lost() {
    // Their ports are in their identities, so they must be free: in a network of its own they are.
    if is_inside(TEST, &["tar"]) {
        for state in states() {
            eprintln!("{}", state.display());
            tell(story(&state));
        }
    }
}

/// What changed since is met by today's programs only in a state of a build from before it.
#[test]
fn one_of_these_states_is_of_a_build_that_is_not_much_older() {
    if tools::program(TEST, "tar").is_none() {
        return;
    }
    let newest = states().iter().map(|state| migration_of(state)).max().unwrap();
    let today = cloud_hub::catalog::newest_migration();
    assert!(
        newest + BEHIND >= today,
        "the newest state in tests/processes/tests/it/upgrade has migration {newest} of the catalog, this hub has {today}: \
         check a published commit with migration {} or later out, and make another there (make.sh says how)",
        today - BEHIND
    );
}

/// The states that are kept here.
fn states() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/upgrade");
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut states: Vec<PathBuf> = paths.filter(|path| path.to_string_lossy().ends_with(".tar.zst")).collect();
    states.sort();
    assert!(states.len() > 1, "{states:?}");
    states
}

/// The newest migration of a state's catalog, as the doctor finds it.
fn migration_of(state: &Path) -> i64 {
    let folder = tempfile::tempdir().unwrap();
    unpack(state, folder.path());
    let data = format!("data_dir={}", folder.path().join("hub").display());
    let done = finish("hub", &["--json", "doctor", "--set", &data]);
    let report: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    let form = report["findings"].as_array().unwrap().iter().find(|it| it["check"] == "form").unwrap();
    let found = form["found"].as_str().unwrap();
    let number = found.strip_prefix("version ").and_then(|rest| rest.split([';', ',']).next()?.parse().ok());
    number.unwrap_or_else(|| panic!("{}: {found}", state.display()))
}

#[test]
#[ignore = "writes the package that make.sh asks for, to the path in TRIBUTARY_PACKAGE"]
fn a_package_for_the_recipe() {
    std::fs::write(std::env::var_os("TRIBUTARY_PACKAGE").unwrap(), crate::model::package(1)).unwrap();
}

fn unpack(state: &Path, folder: &Path) {
    let tar = zstd::bulk::decompress(&std::fs::read(state).unwrap(), 64 << 20).unwrap();
    let mut command = Command::new(tools::program(TEST, "tar").unwrap());
    let mut child = command.args(["-x", "-C"]).arg(folder).stdin(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), &tar).unwrap();
    assert!(child.wait().unwrap().success());
}

async fn story(state: &Path) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    unpack(state, path);
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
