//! Two programs where there must be one: the second says why it does not start, and the first goes on unharmed.

use crate::agent::Agent;
use crate::process::{Hub, finish};
use crate::source::{Source, reconcile};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_agent_and_a_second_hub_on_the_same_state_are_refused_and_the_first_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut hub = Hub::start(folder.path()).await;
    let mut agent = Agent::enrol(&hub, "edge-1", hub.beside("state"), "");
    agent.start();
    agent.connected().await;
    let source = Source::start("e", &agent.local);
    source.goes_on(&mut hub, 20).await;

    for _ in 0..2 {
        let second = finish("agent", &agent.same());
        let said = format!("{}{}", String::from_utf8_lossy(&second.stdout), String::from_utf8_lossy(&second.stderr));
        assert!(!second.status.success(), "{said}");
        let state = agent.state.join("state.redb").display().to_string();
        assert!(said.contains(&state) && said.contains("another agent works with it"), "{said}");

        let said = hub.refused();
        assert!(said.contains(&format!("another hub works in {}", hub.data.display())), "{said}");
        source.goes_on(&mut hub, 20).await;
    }
    // The lock ends with the process, however it ends.
    agent.kill();
    agent.start();
    hub = hub.again().await;
    agent.connected().await;
    source.goes_on(&mut hub, 20).await;
    reconcile(&mut hub, &source.stop().await).await;
}
