//! What others notice of thousands of connections that hang half-open: the acknowledgement times of well-behaved
//! devices, alone and beside a crowd that begins handshakes and never ends them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

use super::SILENCE;
use super::client::Client;
use super::fleet::Fleet;
use super::link::{Dialer, Sessions, Transport, client_hello, quic_endpoint};
use super::publishing::PAYLOAD;
use super::servers::Server;
use crate::figures::Spread;

/// Connections that hang.
pub const CROWD: usize = 5_000;
/// Addresses that the crowd comes from, as an attack does: limits for each address alone do not end it.
pub const ADDRESSES: usize = 250;
/// Well-behaved devices.
pub const DEVICES: usize = 5;
/// Between two messages of a device.
const PAUSE: Duration = Duration::from_millis(5);
/// How long acknowledgements are timed.
const WATCH: Duration = Duration::from_secs(8);
/// Before one that was cut off comes again.
const RETURN: Duration = Duration::from_secs(1);
/// How long the crowd may take to gather.
const GATHER: Duration = Duration::from_secs(20);
/// Within this time every beginning of a QUIC handshake is sent again.
const QUIC_PERIOD: Duration = Duration::from_secs(5);

/// Acknowledgement times alone and beside the crowd.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Times {
    /// Alone.
    pub alone: Spread,
    /// Beside the crowd.
    pub crowded: Spread,
    /// Connections that were hanging, on average; for QUIC those begun within the last seconds.
    pub hanging: usize,
}

impl Times {
    /// How much later the slowest in a hundred acknowledgements comes.
    pub fn ratio(&self) -> f64 {
        self.crowded.p99 / self.alone.p99
    }
}

/// Times acknowledgements without and with the crowd.
pub async fn times(server: &Server, fleet: &Fleet, transport: Transport) -> anyhow::Result<Times> {
    let alone = watch(server, fleet, transport).await?;
    let hanging = Arc::new(AtomicUsize::new(0));
    let target = server.places.of(transport);
    let _crowd = match transport {
        Transport::Plain => streams(target, &[], &hanging),
        Transport::Tls => {
            let hello = client_hello(&fleet.settings(0)?)?;
            streams(target, &hello[..hello.len() / 2], &hanging)
        }
        Transport::Quic => datagrams(target, initials(fleet).await?, &hanging).await?,
    };
    let deadline = Instant::now() + GATHER;
    // A server may refuse some of them: then fewer hang, and the report says how many.
    while hanging.load(Ordering::Relaxed) < CROWD && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let before = hanging.load(Ordering::Relaxed);
    let crowded = watch(server, fleet, transport).await?;
    let hanging = (before + hanging.load(Ordering::Relaxed)) / 2;
    Ok(Times { alone, crowded, hanging })
}

/// Acknowledgement times of the well-behaved devices.
async fn watch(server: &Server, fleet: &Fleet, transport: Transport) -> anyhow::Result<Spread> {
    let mut devices = JoinSet::new();
    for index in 0..DEVICES {
        let endpoint = quic_endpoint()?;
        let dialer = fleet.dialer(index, transport, server.places.of(transport), Sessions::Forgotten, &endpoint)?;
        let (id, topic) = (fleet.id(index), fleet.topic(index));
        devices.spawn(async move {
            let connecting = tokio::time::timeout(SILENCE, Client::connect(&dialer, &id));
            let mut client = connecting.await.context("a well-behaved device is not let in")??;
            let (begin, mut times) = (Instant::now(), Vec::new());
            while begin.elapsed() < WATCH {
                let sent = Instant::now();
                let publishing = tokio::time::timeout(SILENCE, client.publish(&topic, &[7; PAYLOAD]));
                publishing.await.context("a well-behaved device gets no acknowledgement")??;
                times.push(sent.elapsed().as_secs_f64());
                tokio::time::sleep(PAUSE).await;
            }
            client.leave().await;
            anyhow::Ok(times)
        });
    }
    let mut times = Vec::new();
    while let Some(done) = devices.join_next().await {
        times.extend(done??);
    }
    Spread::of(times).context("no acknowledgement was timed")
}

fn address(index: usize) -> IpAddr {
    let index = index % ADDRESSES;
    Ipv4Addr::new(127, 1, (index / 250) as u8, (index % 250 + 1) as u8).into()
}

/// Connections that say `beginning` and no more. They end with what is returned.
fn streams(target: SocketAddr, beginning: &[u8], hanging: &Arc<AtomicUsize>) -> JoinSet<()> {
    let mut crowd = JoinSet::new();
    let beginning: Arc<[u8]> = beginning.into();
    for index in 0..CROWD {
        let (beginning, hanging) = (beginning.clone(), hanging.clone());
        let dialer = Dialer::plain(target).leaving(address(index));
        crowd.spawn(async move {
            loop {
                if let Ok(mut stream) = dialer.tcp().await
                    && stream.write_all(&beginning).await.is_ok()
                {
                    hanging.fetch_add(1, Ordering::Relaxed);
                    // Whatever comes, and then the end.
                    while stream.read(&mut [0; 64]).await.is_ok_and(|bytes| bytes > 0) {}
                    hanging.fetch_sub(1, Ordering::Relaxed);
                }
                tokio::time::sleep(RETURN).await;
            }
        });
    }
    crowd
}

/// The first datagrams of as many QUIC handshakes, each with its own connection id, caught before they reach a server.
async fn initials(fleet: &Fleet) -> anyhow::Result<Vec<Vec<u8>>> {
    let trap = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let (target, endpoint) = (trap.local_addr()?, quic_endpoint()?);
    let dialer = fleet.dialer(0, Transport::Quic, target, Sessions::Forgotten, &endpoint)?;
    let (mut caught, mut datagram) = (Vec::new(), [0; 2048]);
    while caught.len() < CROWD {
        let dialer = dialer.clone();
        let dialing = tokio::spawn(async move { dialer.dial().await.map(drop) });
        let length = tokio::time::timeout(SILENCE, trap.recv(&mut datagram)).await.context("no QUIC handshake")??;
        dialing.abort();
        caught.push(datagram[..length].to_vec());
    }
    Ok(caught)
}

/// Sends all of them again and again from many addresses, evenly over a period. It ends with what is returned.
async fn datagrams(
    target: SocketAddr,
    initials: Vec<Vec<u8>>,
    hanging: &Arc<AtomicUsize>,
) -> anyhow::Result<JoinSet<()>> {
    let mut sockets = Vec::new();
    for index in 0..ADDRESSES {
        sockets.push(UdpSocket::bind((address(index), 0)).await?);
    }
    let (mut crowd, hanging) = (JoinSet::new(), hanging.clone());
    crowd.spawn(async move {
        let burst = 10;
        let mut tick = tokio::time::interval(QUIC_PERIOD * burst as u32 / CROWD as u32);
        for (index, initials) in initials.chunks(burst).enumerate().cycle() {
            tick.tick().await;
            for (offset, initial) in initials.iter().enumerate() {
                // A full buffer loses it, as a network would.
                let _ = sockets[(index * burst + offset) % ADDRESSES].send_to(initial, target).await;
            }
            let sent = hanging.load(Ordering::Relaxed) + initials.len();
            hanging.store(sent.min(CROWD), Ordering::Relaxed);
        }
    });
    Ok(crowd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crowd_comes_from_many_loopback_addresses() {
        let addresses: std::collections::HashSet<_> = (0..CROWD).map(address).collect();
        assert_eq!(addresses.len(), ADDRESSES);
        assert!(addresses.iter().all(IpAddr::is_loopback));
    }
}
