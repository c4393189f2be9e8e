use edge_agent::doctor::{Options, examine};
use serde_json::Value;
use tributary_process::checkup::{Mark, Report};
use tributary_process::config::Sources;

use crate::support::{Running, config, event};

async fn look(folder: &tempfile::TempDir) -> Report {
    let flags = [("state_dir", "state"), ("view", "view.toml")]
        .map(|(key, name)| format!("{key}={:?}", folder.path().join(name).display().to_string()));
    let sources = Sources { flags: flags.to_vec(), ..Sources::default() };
    examine(&sources, Options { offline: true, ..Options::default() }).await
}

fn found(report: &Report, check: &str) -> (Mark, String) {
    let finding = report.findings.iter().find(|finding| finding.key() == ("State", check)).unwrap();
    (finding.mark(), finding.found().to_owned())
}

#[tokio::test]
async fn a_running_agent_is_asked_and_a_stopped_ones_files_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let agent = Running::start(config(&folder)).await;
    agent.post("/v1/events", &Value::Array((0..10).map(event).collect())).await;
    let report = look(&folder).await;
    assert!(found(&report, "agent").1.starts_with("runs: "), "{report:?}");
    assert!(found(&report, "state.redb").1.contains("open in the running agent"), "{report:?}");
    assert!(found(&report, "state.redb").1.contains("10 events accepted"), "{report:?}");
    assert_eq!(found(&report, "health").0, Mark::Ok);
    assert!(report.offers().next().is_none() && report.is_well(), "{report:?}");
    // Nothing of it kept the agent from its work.
    agent.post("/v1/events", &Value::Array((10..20).map(event).collect())).await;
    agent.stop().await;

    let report = look(&folder).await;
    assert!(found(&report, "agent").1.contains("does not run"), "{report:?}");
    assert!(found(&report, "state.redb").1.contains("20 events accepted"), "{report:?}");
    assert!(found(&report, "window snapshot").1.contains("up to event 20"), "{report:?}");
    assert!(report.is_well(), "{report:?}");
    // Nor does it keep the next one from starting, on what it was.
    let agent = Running::start(config(&folder)).await;
    assert_eq!(agent.status().await["windows"]["recovery"]["snapshot"], 20);
    agent.stop().await;
}
