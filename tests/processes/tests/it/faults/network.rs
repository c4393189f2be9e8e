//! A bad network in a namespace of its own: packets that are lost, in both directions or in one, and cuts.

use std::time::Duration;

use crate::agent::Agent;
use crate::namespace::{is_inside, must, tell};
use crate::process::Hub;
use crate::source::{Source, reconcile};

const TEST: &str = "the bad network";
/// Events that come through each kind of trouble.
const EVENTS: usize = 40;

#[test]
fn a_network_that_loses_packets_and_is_cut_delays_telemetry_and_loses_none() {
    if is_inside(TEST, &["nft"]) {
        tell(story());
    }
}

/// From now on the network does this to packets; nothing stands of what was before.
fn network(rule: &str) {
    must(TEST, "nft", &["flush", "ruleset"]);
    must(TEST, "nft", &["add table inet bad; add chain inet bad out { type filter hook output priority 0; }"]);
    if !rule.is_empty() {
        must(TEST, "nft", &[&format!("add rule inet bad out {rule}")]);
    }
}

async fn story() {
    let folder = tempfile::tempdir().unwrap();
    let mut hub = Hub::start(folder.path()).await;
    let mut agent = Agent::enrol(&hub, "edge-1", hub.beside("state"), "");
    agent.start();
    agent.connected().await;
    let source = Source::start("e", &agent.local);
    source.goes_on(&mut hub, EVENTS).await;

    network("numgen random mod 100 < 12 drop");
    source.goes_on(&mut hub, EVENTS).await;

    // What the hub says is lost, what it hears is not: everything comes twice. Then the other way round.
    let port = |of: &str| hub.address(of).rsplit_once(':').unwrap().1.to_owned();
    let ports = [port("mqtt_tls"), port("mqtt_quic")].join(", ");
    for direction in ["sport", "dport"] {
        network(&format!("meta l4proto {{ tcp, udp }} th {direction} {{ {ports} }} drop"));
        source.more(EVENTS).await;
        agent.until("the agent notices", |status| status["hub"]["connected"] == false).await;
        network("");
        agent.connected().await;
        source.goes_on(&mut hub, EVENTS).await;
    }
    for _ in 0..4 {
        network("drop");
        source.more(EVENTS / 4).await;
        tokio::time::sleep(Duration::from_millis(700)).await;
        network("numgen random mod 100 < 5 drop");
        source.more(EVENTS / 4).await;
    }
    network("");
    source.goes_on(&mut hub, EVENTS).await;
    reconcile(&mut hub, &source.stop().await).await;
}
