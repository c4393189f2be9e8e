//! How many devices per second a server lets in: handshake, CONNECT and CONNACK.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::ensure;
use tokio::task::JoinSet;

use super::SILENCE;
use super::client::Client;
use super::fleet::Fleet;
use super::link::{Sessions, Transport, quic_endpoint};
use super::servers::Server;

/// Devices that connect at the same time.
pub const AT_ONCE: usize = 32;

/// Connects `connections` times over `AT_ONCE` devices; connections per second.
pub async fn rate(
    server: &Server,
    fleet: &Fleet,
    transport: Transport,
    sessions: Sessions,
    connections: usize,
) -> anyhow::Result<f64> {
    let (left, resumed) = (Arc::new(AtomicUsize::new(connections)), Arc::new(AtomicUsize::new(0)));
    let mut connecting = JoinSet::new();
    let endpoint = quic_endpoint()?;
    let mut devices = Vec::new();
    for index in 0..AT_ONCE {
        let dialer = fleet.dialer(index, transport, server.places.of(transport), sessions, &endpoint)?;
        // The first one is not counted: it is what later ones go on with.
        Client::connect(&dialer, &fleet.id(index)).await?.leave().await;
        devices.push((dialer, fleet.id(index)));
    }
    let begin = Instant::now();
    for (dialer, id) in devices {
        let (left, resumed) = (left.clone(), resumed.clone());
        connecting.spawn(async move {
            while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
                let client = tokio::time::timeout(SILENCE, Client::connect(&dialer, &id)).await??;
                resumed.fetch_add(usize::from(client.link().resumed()), Ordering::Relaxed);
                client.leave().await;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = connecting.join_next().await {
        done??;
    }
    let took = begin.elapsed().as_secs_f64();
    let resumed = resumed.load(Ordering::Relaxed);
    if transport == Transport::Tls {
        // Otherwise the figure would not be what its heading says.
        let expected = if sessions == Sessions::Kept { connections * 9 / 10..=connections } else { 0..=0 };
        ensure!(expected.contains(&resumed), "{resumed} of {connections} handshakes were resumed");
    }
    Ok(connections as f64 / took)
}
