//! A file system that goes over to read-only beneath a running program, as one does that has found an error in itself.

use serde_json::Value;

use super::shim::{READ_ONLY, Shimmed};
use crate::source::reconcile;

fn is_refused(status: &Value) -> bool {
    status["health"]["problems"].to_string().contains("Read-only file system")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_system_that_becomes_read_only_stops_agent_or_hub_without_loss_until_it_can_be_written_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let Shimmed { hubs, agents, mut hub, mut agent, source } = Shimmed::begin(path).await;

    agents.refuse(READ_ONLY);
    agent.until("the agent says what is wrong", is_refused).await;
    let before = source.promised();
    assert!(source.problem().is_some_and(|problem| problem.contains("Read-only")), "{:?}", source.problem());
    assert!(source.promised() <= before + 5, "nothing is promised that cannot be stored");
    agents.refuse(0);
    source.goes_on(&mut hub, 20).await;
    agent.until("the agent is well again", |status| !is_refused(status)).await;

    hubs.refuse(READ_ONLY);
    source.more(40).await;
    hub.process
        .until("the hub says what is wrong", async || {
            let log = std::fs::read_to_string(path.join("hub.log")).map_err(|error| error.to_string())?;
            let says = log.contains("nothing of a group was stored") && log.contains("the disk still refuses");
            if says && log.contains("Read-only file system") { Ok(()) } else { Err("no word of it".to_owned()) }
        })
        .await;
    // Devices are told to wait, and serve on.
    source.more(40).await;
    hubs.refuse(0);
    source.goes_on(&mut hub, 20).await;
    reconcile(&mut hub, &source.stop().await).await;
}
