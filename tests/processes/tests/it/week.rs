//! A week without a hub, as hub and devices live through it: certificates and metadata run out meanwhile, clocks are a
//! week on, and the power of the devices goes once. What their sources told them all the while is there in the end, and
//! a release goes out as before. Programs see that time by their wall clocks; the herd that comes back after a week is
//! in `returning`.

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::agent::Agent;
use crate::faults::Shim;
use crate::model;
use crate::process::Hub;
use crate::source::{Source, reconcile};

pub const WEEK: Duration = Duration::from_secs(7 * 86_400);
const AGENTS: usize = 2;
/// Certificates that are renewed after four days and end before the week does; timestamps live for a day anyway.
const LIVES: &str = "[identity]\ndevice_lifetime = \"6d\"\nhub_lifetime = \"6d\"\n";

async fn roll_out(hub: &Hub, folder: &Path, agents: &mut [Agent], version: u32) {
    let path = folder.join(format!("{version}.tpk"));
    std::fs::write(&path, model::package(version)).unwrap();
    let number = version.to_string();
    hub.operator(&["model", "upload", "card-fraud", &path.display().to_string()]);
    hub.operator(&["model", "publish", "card-fraud", &number]);
    hub.operator(&["rollout", "start", "card-fraud", &number, "--strategy", "all"]);
    for agent in agents {
        let is =
            |status: &Value| status["lines"][0]["committed"] == version && status["lines"][0]["candidate"].is_null();
        agent.until(&format!("version {version} is committed"), is).await;
    }
}

fn timestamp(status: &Value) -> u64 {
    status["hub"]["repository"]["timestamp"].as_u64().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_week_without_a_hub_ends_with_new_certificates_and_metadata_nothing_lost_and_the_next_release() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let data = path.join("data");
    let clocks = Shim::new(&path.join("shim"), &data);
    let mut hub = Hub::start_with(path, data, LIVES, clocks.environment()).await;
    hub.operator(&["keys", "init", "--out", &path.join("keys").display().to_string(), "--line", "card-fraud"]);
    let view = path.join("view.toml");
    std::fs::write(&view, tributary_fraud::VIEW_TOML).unwrap();
    hub.operator(&["view", "add", &view.display().to_string()]);
    hub.operator(&["line", "set", "card-fraud", "--view", "card-risk"]);
    let (mut agents, mut sources) = (Vec::new(), Vec::new());
    for number in 0..AGENTS {
        let name = format!("edge-{number}");
        let mut agent = Agent::enrol(&hub, &name, hub.beside(&format!("{name}-state")), "").with(clocks.environment());
        agent.start();
        agent.connected().await;
        sources.push(Source::start(&format!("e{number}"), &agent.local));
        agents.push(agent);
    }
    roll_out(&hub, path, &mut agents, 1).await;
    let mut before = Vec::new();
    for agent in &mut agents {
        before.push(agent.until("it knows the repository", |status| timestamp(status) > 0).await);
    }

    hub.process.kill();
    for source in &sources {
        source.more(20).await;
    }
    // Serving on, with what runs out: first without a pause, then after a power cut.
    clocks.ahead(WEEK);
    for source in &sources {
        source.more(20).await;
    }
    agents.iter_mut().for_each(Agent::kill);
    hub = hub.again().await;
    agents.iter_mut().for_each(Agent::start);
    for (agent, before) in agents.iter_mut().zip(&before) {
        let serial = |status: &Value| status["hub"]["certificate"]["serial"].clone();
        let back = |status: &Value| status["hub"]["connected"] == true && serial(status) != serial(before);
        agent.until("it is back with a new certificate", back).await;
        agent.until("it has new metadata", |status| timestamp(status) > timestamp(before)).await;
    }
    for source in &sources {
        source.goes_on(&mut hub, 20).await;
    }
    roll_out(&hub, path, &mut agents, 2).await;
    let mut promised = HashSet::new();
    for source in sources {
        promised.extend(source.stop().await);
    }
    reconcile(&mut hub, &promised).await;
}
