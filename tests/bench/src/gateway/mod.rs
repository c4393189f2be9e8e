//! The hub's gateway beside mosquitto and rumqttd: acknowledged messages, connections, memory, a crowd of half-open
//! connections, and a fleet that comes back all at once.

mod client;
mod connecting;
mod crowd;
mod fleet;
mod idle;
mod link;
mod publishing;
pub mod serve;
mod servers;
mod storm;
mod table;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;

use crate::machine;
use fleet::Fleet;
use link::{Sessions, Transport};
use servers::{Peer, Places, Server};

pub use table::table;

/// Without any answer for so long, something is wrong.
const SILENCE: Duration = Duration::from_secs(60);
/// Messages of one repetition.
const MESSAGES: usize = 100_000;
/// Numbers of publishing clients.
const CLIENTS: [usize; 2] = [1, 10];
/// Connections of one repetition.
const CONNECTIONS: usize = 2_000;

/// One server over one transport.
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    /// Whose.
    pub peer: Peer,
    /// Over what.
    pub transport: Transport,
    /// Acknowledged messages per second of one client, each repetition.
    pub one: Vec<f64>,
    /// Of ten clients.
    pub ten: Vec<f64>,
    /// Connections per second, with full handshakes.
    pub connects: Vec<f64>,
    /// Connections per second that go on with an earlier TLS session.
    pub resumed: Vec<f64>,
    /// Idle connections.
    pub idle: Vec<idle::Memory>,
    /// Acknowledgements beside a crowd.
    pub crowd: Vec<crowd::Times>,
}

/// Everything.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Load when it began.
    pub load: f64,
    /// Version of each server.
    pub versions: Vec<(Peer, String)>,
    /// Ours first.
    pub figures: Vec<Figure>,
    /// A fleet that comes back to our server.
    pub storms: Vec<(Transport, storm::Return)>,
    /// Servers that are not installed.
    pub missing: Vec<Peer>,
}

/// Measures all servers that are there, one repetition of each after the other.
pub async fn measure(rounds: usize, scratch: &Path) -> anyhow::Result<Report> {
    let load = machine::load();
    let most = idle::STEPS.into_iter().max().unwrap_or(0).max(storm::DEVICES);
    eprintln!("making {most} devices");
    let fleet = Arc::new(Fleet::create(scratch, most)?);
    let (mut versions, mut missing) = (Vec::new(), Vec::new());
    for peer in Peer::ALL {
        match peer.version() {
            Some(version) => versions.push((peer, version)),
            None => {
                eprintln!("\n*** NO PEER: {} is not installed; its figures stay empty. ***\n", peer.name());
                missing.push(peer);
            }
        }
    }
    let ways = versions.iter().flat_map(|(peer, _)| peer.transports().iter().map(|transport| (*peer, *transport)));
    let empty = |(peer, transport)| Figure {
        peer,
        transport,
        one: Vec::new(),
        ten: Vec::new(),
        connects: Vec::new(),
        resumed: Vec::new(),
        idle: Vec::new(),
        crowd: Vec::new(),
    };
    let mut figures: Vec<Figure> = ways.map(empty).collect();
    for round in 0..rounds {
        for figure in &mut figures {
            let (peer, transport) = (figure.peer, figure.transport);
            eprintln!("round {} of {rounds}: {} over {}", round + 1, peer.name(), transport.name());
            let what = || format!("{} over {}", peer.name(), transport.name());
            repeat(figure, &fleet, &scratch.join(format!("{round}-{}-{}", peer.name(), transport.name())), scratch)
                .await
                .with_context(what)?;
        }
    }
    for figure in &mut figures {
        let (peer, transport) = (figure.peer, figure.transport);
        if peer == Peer::MosquittoPersistent {
            continue;
        }
        eprintln!("idle connections: {} over {}", peer.name(), transport.name());
        let folder = scratch.join(format!("idle-{}-{}", peer.name(), transport.name()));
        let server = Server::start(peer, Places::free()?, &folder, scratch, &fleet).await?;
        let memory = idle::memory(&server, &fleet, transport).await;
        figure.idle = memory.with_context(|| format!("idle connections of {}", peer.name()))?;
    }
    let mut storms = Vec::new();
    // Plain ones are for development: no fleet comes that way.
    for transport in Peer::Tributary.transports().iter().copied().filter(|transport| *transport != Transport::Plain) {
        eprintln!("a fleet comes back over {}", transport.name());
        let folder = scratch.join(format!("storm-{}", transport.name()));
        let back = storm::comeback(&fleet, transport, &folder, scratch).await;
        storms.push((transport, back.with_context(|| format!("a fleet over {}", transport.name()))?));
    }
    Ok(Report { load, versions, figures, storms, missing })
}

/// One repetition of what is interleaved.
async fn repeat(figure: &mut Figure, fleet: &Fleet, folder: &Path, identity: &Path) -> anyhow::Result<()> {
    let (peer, transport) = (figure.peer, figure.transport);
    let server = Server::start(peer, Places::free()?, folder, identity, fleet).await?;
    for clients in CLIENTS {
        let rate = publishing::rate(&server, fleet, transport, clients, MESSAGES).await?;
        if clients == 1 { &mut figure.one } else { &mut figure.ten }.push(rate);
    }
    if peer == Peer::MosquittoPersistent {
        // What it keeps is written now and then and changes nothing for connections.
        return Ok(());
    }
    let full = connecting::rate(&server, fleet, transport, Sessions::Forgotten, CONNECTIONS).await?;
    figure.connects.push(full);
    if transport == Transport::Tls {
        let resumed = connecting::rate(&server, fleet, transport, Sessions::Kept, CONNECTIONS).await?;
        figure.resumed.push(resumed);
    }
    figure.crowd.push(crowd::times(&server, fleet, transport).await?);
    Ok(())
}
