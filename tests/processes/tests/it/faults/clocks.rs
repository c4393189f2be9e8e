//! Clocks that jump, forward and back, of a device and of the hub.

use std::time::Duration;

use hyper::Method;
use serde_json::Value;

use super::shim::Shimmed;
use crate::agent::Agent;
use crate::source::{payment, reconcile};

const DAY: Duration = Duration::from_secs(86_400);

/// Tells an event again.
async fn again(agent: &Agent, number: usize) -> Value {
    let told = [payment("e", number)];
    let answer = agent.local.call::<Value>(Method::POST, "/v1/events?durable=true", &told).await;
    answer.unwrap()["results"][0]["status"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clocks_that_jump_forward_and_back_lose_and_double_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let Shimmed { hubs, agents, mut hub, mut agent, source } = Shimmed::begin(path).await;

    // The device, while it works: an hour, a month, two years ahead and behind, and back to the truth.
    for by in [Duration::from_secs(3600), 30 * DAY, 730 * DAY] {
        agents.ahead(by);
        source.goes_on(&mut hub, 20).await;
        assert_eq!(again(&agent, 0).await, "duplicate", "an id is not forgotten because a clock was wrong");
        agents.behind(by);
        source.goes_on(&mut hub, 20).await;
    }
    agents.ahead(Duration::ZERO);

    // A start in the future, where its certificate and all metadata have expired: it serves and keeps what it is told,
    // and is back in as soon as the clock is right.
    agent.kill();
    agents.ahead(800 * DAY);
    agent.start();
    source.more(40).await;
    agents.ahead(Duration::ZERO);
    agent.connected().await;
    source.goes_on(&mut hub, 20).await;
    assert_eq!(again(&agent, 1).await, "duplicate");

    // A start in 1970.
    agent.kill();
    agents.behind(60 * 365 * DAY);
    agent.start();
    agent.connected().await;
    source.goes_on(&mut hub, 20).await;
    agents.behind(Duration::ZERO);

    // The hub, for a while: what it signs and believes in the wrong time must not stay.
    for by in [2 * DAY, 500 * DAY] {
        hubs.ahead(by);
        source.more(40).await;
        hubs.ahead(Duration::ZERO);
        agent.connected().await;
        source.goes_on(&mut hub, 20).await;
    }
    hubs.behind(30 * DAY);
    source.more(40).await;
    hubs.behind(Duration::ZERO);
    hub = hub.again().await;
    agent.connected().await;
    source.goes_on(&mut hub, 20).await;
    reconcile(&mut hub, &source.stop().await).await;
}
