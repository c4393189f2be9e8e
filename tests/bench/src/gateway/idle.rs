//! What connections cost that have nothing to say: resident memory of the server.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::SILENCE;
use super::client::Client;
use super::fleet::Fleet;
use super::link::{Sessions, Transport, quic_endpoint};
use super::servers::Server;

/// Numbers of connections.
pub const STEPS: [usize; 2] = [1_000, 5_000];
/// Handshakes at the same time; memory that they need for a moment stays with the process.
const AT_ONCE: usize = 32;
/// Attempts of a device after the first.
const ATTEMPTS: usize = 5;
/// After the last connection, so that what was only needed for handshakes has been given back.
const SETTLE: Duration = Duration::from_secs(2);

/// Memory of a server with so many idle connections.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Memory {
    /// How many.
    pub connections: usize,
    /// Resident bytes of the server with them.
    pub resident: u64,
    /// Resident bytes more than without any, for each.
    pub each: f64,
}

/// Opens connections step by step, in a server that has had none.
pub async fn memory(server: &Server, fleet: &Fleet, transport: Transport) -> anyhow::Result<Vec<Memory>> {
    tokio::time::sleep(SETTLE).await;
    let before = server.process.memory().resident;
    let endpoint = quic_endpoint()?;
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let (mut clients, mut found) = (Vec::new(), Vec::new());
    for connections in STEPS {
        let mut connecting = JoinSet::new();
        for index in clients.len()..connections {
            let dialer = fleet.dialer(index, transport, server.places.of(transport), Sessions::Forgotten, &endpoint)?;
            let (id, places) = (fleet.id(index), places.clone());
            connecting.spawn(async move {
                let _place = places.acquire_owned().await?;
                let mut attempts = 0;
                loop {
                    match tokio::time::timeout(SILENCE, Client::connect(&dialer, &id)).await? {
                        Ok(client) => return Ok(client),
                        // On a busy machine a handshake may take longer than a server allows.
                        Err(error) if attempts == ATTEMPTS => return Err(error),
                        Err(_) => attempts += 1,
                    }
                }
            });
        }
        while let Some(client) = connecting.join_next().await {
            clients.push(client??);
        }
        tokio::time::sleep(SETTLE).await;
        let resident = server.process.memory().resident;
        let each = resident.saturating_sub(before) as f64 / connections as f64;
        found.push(Memory { connections, resident, each });
    }
    Ok(found)
}
