//! A fleet that loses its hub at one instant and comes back: the hub is killed and started again, and every device
//! tries with an agent's waits until it is in.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use edge_agent_core::backoff::Backoff;
use serde::Serialize;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::SILENCE;
use super::client::Client;
use super::fleet::Fleet;
use super::link::{Dialer, Sessions, Transport, quic_endpoint};
use super::servers::{Peer, Places, Server};
use crate::figures::Spread;

/// Devices.
pub const DEVICES: usize = 1_000;
/// An agent's settings: first and longest wait, and when it gives an attempt up.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Handshakes at the same time when the fleet connects for the first time; that is not what is measured.
const AT_ONCE: usize = 32;

/// How a fleet came back.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Return {
    /// From the kill until the hub answered again.
    pub hub: f64,
    /// From the kill until half of the devices, 99 in a hundred, and all were back.
    pub devices: Spread,
    /// The last one.
    pub all: f64,
    /// Attempts that failed.
    pub failed: usize,
}

/// Kills and starts our server under a connected fleet.
pub async fn comeback(
    fleet: &Arc<Fleet>,
    transport: Transport,
    folder: &Path,
    identity: &Path,
) -> anyhow::Result<Return> {
    let places = Places::free()?;
    let server = Server::start(Peer::Tributary, places, folder, identity, fleet).await?;
    let (cut, is_cut) = watch::channel(None::<Instant>);
    let first = Arc::new(Semaphore::new(AT_ONCE));
    let connected = Arc::new(Semaphore::new(0));
    let mut devices = JoinSet::new();
    for index in 0..DEVICES {
        // A device has a socket of its own, and goes on with the TLS session that it had; the new hub knows none.
        let endpoint = quic_endpoint()?;
        let dialer = fleet.dialer(index, transport, places.of(transport), Sessions::Kept, &endpoint)?;
        let device = Device { dialer, id: fleet.id(index), seed: index as u64 };
        devices.spawn(device.live(first.clone(), connected.clone(), is_cut.clone()));
    }
    let all_connected = tokio::time::timeout(SILENCE, connected.acquire_many(DEVICES as u32));
    tokio::select! {
        all = all_connected => drop(all.context("the fleet does not get in at all")??),
        // None comes back before the cut, so this is an error.
        Some(done) = devices.join_next() => {
            done??;
        }
    }

    let begin = Instant::now();
    drop(server);
    cut.send(Some(begin)).context("no device is left")?;
    let server = Server::start(Peer::Tributary, places, folder, identity, fleet).await?;
    let hub = begin.elapsed().as_secs_f64();
    let (mut times, mut failed) = (Vec::new(), 0);
    while let Some(done) = devices.join_next().await {
        let (time, failures) = done??;
        times.push(time);
        failed += failures;
    }
    drop(server);
    let all = times.iter().copied().fold(0.0, f64::max);
    let devices = Spread::of(times).context("there are no devices")?;
    Ok(Return { hub, devices, all, failed })
}

struct Device {
    dialer: Dialer,
    id: String,
    seed: u64,
}

impl Device {
    /// Connects, waits for the cut, comes back; seconds from the cut, and attempts that failed.
    async fn live(
        self,
        first: Arc<Semaphore>,
        connected: Arc<Semaphore>,
        mut cut: watch::Receiver<Option<Instant>>,
    ) -> anyhow::Result<(f64, usize)> {
        let place = first.acquire().await?;
        let client = Client::connect(&self.dialer, &self.id).await?;
        drop(place);
        connected.add_permits(1);
        let cut = cut.wait_for(Option::is_some).await?.context("a cut has an instant")?;
        // The network is gone for all at once, whether or not a transport would have noticed.
        drop(client);
        let (mut backoff, mut failed) = (Backoff::new(FIRST_WAIT, LONGEST_WAIT, self.seed), 0);
        loop {
            tokio::time::sleep(backoff.next_wait()).await;
            match tokio::time::timeout(CONNECT_TIMEOUT, Client::connect(&self.dialer, &self.id)).await {
                Ok(Ok(client)) => {
                    let time = cut.elapsed().as_secs_f64();
                    // It stays until the last one is back.
                    tokio::spawn(async move { { client }.ended().await });
                    return Ok((time, failed));
                }
                Ok(Err(_)) | Err(_) => failed += 1,
            }
        }
    }
}
