//! A network that stops to carry UDP: a real agent goes on over TLS, nothing is lost, and it finds its way back to
//! QUIC. It all happens in a network namespace of its own.

use serde_json::Value;

use crate::agent::Agent;
use crate::namespace::{is_inside, must, tell};
use crate::process::Hub;
use crate::source::{Source, reconcile};

const TEST: &str = "the cut of UDP";
/// Events that must be acknowledged over each transport before the story goes on.
const EVENTS: usize = 60;

#[test]
fn without_udp_telemetry_goes_on_over_tls_and_returns_to_quic_afterwards() {
    if is_inside(TEST, &["nft"]) {
        tell(story());
    }
}

fn cut_udp() {
    must(TEST, "nft", &["add table inet cut; add chain inet cut out { type filter hook output priority 0; }"]);
    must(TEST, "nft", &["add rule inet cut out meta l4proto udp drop"]);
}

fn mend_udp() {
    must(TEST, "nft", &["delete table inet cut"]);
}

/// Waits until the agent is connected this way; what it says of its link.
async fn connected(agent: &mut Agent, transport: &str) -> Value {
    let is = |status: &Value| status["hub"]["connected"] == true && status["hub"]["transport"] == transport;
    agent.until(&format!("the agent is connected over {transport}"), is).await["hub"].clone()
}

async fn story() {
    let folder = tempfile::tempdir().unwrap();
    let mut hub = Hub::start(folder.path()).await;
    let mut agent = Agent::enrol(&hub, "edge-1", hub.beside("state"), "");
    agent.start();
    connected(&mut agent, "quic").await;
    let source = Source::start("e", &agent.local);
    source.goes_on(&mut hub, EVENTS).await;

    cut_udp();
    connected(&mut agent, "tls").await;
    source.goes_on(&mut hub, EVENTS).await;
    let failures = connected(&mut agent, "tls").await["failures"].clone();
    assert!(failures["quic"].is_string(), "the agent says what is wrong with QUIC: {failures}");

    mend_udp();
    connected(&mut agent, "quic").await;
    source.goes_on(&mut hub, EVENTS).await;
    reconcile(&mut hub, &source.stop().await).await;
}
