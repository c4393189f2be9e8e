//! Any bytes from the network: nothing panics, and nothing waits for what cannot come.
//!
//! `cargo test` runs these for a moment. For longer:
//! `BOLERO_RANDOM_TEST_TIME_MS=600000 cargo test -p cloud-hub-gateway --lib fuzz`.

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, timeout};
use tributary_process::shutdown::Shutdown;
use tributary_wire::DeviceId;
use tributary_wire::file::{FileRequest, MAX_FILE_MESSAGE_BYTES};

use crate::clients::Clients;
use crate::connections::Connections;
use crate::door::Door;
use crate::files::{self, Fault, NoFiles};
use crate::packets::{Ending, Packets};
use crate::session::{self, Arrival, Rim};
use crate::{Admission, Limits, Peer, Refused, Rights, Topics, Transport};

/// A valid packet of each kind, first byte and body, to be changed in places. The first is a CONNECT.
const VALID: [(u8, &[u8]); 14] = [
    (0x10, b"\0\x04MQTT\x05\x02\0\x3c\x05\x11\0\0\0\x3c\0\x06edge-1"),
    (0x10, b"\0\x04MQTT\x05\xc6\0\x3c\0\0\x06edge-1\0\0\x03a/b\0\x04gone\0\x04user\0\x08password"),
    (0x30, b"\0\x14v1/d/edge-1/up/batch\0data"),
    (0x32, b"\0\x14v1/d/edge-1/up/batch\0\x01\0data"),
    (0x34, b"\0\x03a/b\0\x01\x07\x26\0\x01k\0\x01vdata"),
    (0x33, b"\0\x03a/b\0\x01\x05\x02\0\0\0\x05data"),
    (0x40, b"\0\x01"),
    (0x50, b"\0\x01\0\0"),
    (0x62, b"\0\x01\0"),
    (0x70, b"\0\x01"),
    (0x82, b"\0\x01\x02\x0b\x05\0\x03a/#\x01"),
    (0xa2, b"\0\x01\0\0\x03a/#"),
    (0xc0, b""),
    (0xe0, b"\0\x05\x11\0\0\0\x3c"),
];

fn framed(first: u8, body: &[u8]) -> Vec<u8> {
    [&[first, body.len() as u8][..], body].concat()
}

/// Packets as the fuzzer wants them: each one of the valid, some of its bytes changed, or bytes of its own.
type Wish = Vec<(u8, Vec<(u8, u8)>, Option<Vec<u8>>)>;

fn bytes(wish: &Wish) -> Vec<u8> {
    let mut all = Vec::new();
    for (which, changes, own) in wish {
        let (first, body) = VALID[usize::from(*which) % VALID.len()];
        // A frame that is whole, so that what is inside is looked at.
        let mut packet = match own {
            Some(own) => framed(*which, &own[..own.len() % 128]),
            None => framed(first, body),
        };
        for (place, byte) in changes {
            let place = usize::from(*place) % packet.len();
            packet[place] = *byte;
        }
        all.extend_from_slice(&packet);
    }
    all
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[tokio::test]
async fn the_valid_ones_are_read() {
    for (first, body) in VALID {
        let bytes = framed(first, body);
        let mut packets = Packets::new(tokio::io::join(&bytes[..], tokio::io::sink()), 1000, Duration::from_secs(1));
        packets.fill().await.unwrap();
        assert!(packets.buffered().is_ok_and(|packet| packet.is_some()), "{first:x} {body:?}");
    }
}

#[test]
fn any_packets_are_read_or_refused() {
    let runtime = AssertUnwindSafe(runtime());
    bolero::check!().with_type::<Wish>().for_each(|wish| {
        let bytes = bytes(wish);
        runtime.block_on(async {
            let stream = tokio::io::join(&bytes[..], tokio::io::sink());
            let mut packets = Packets::new(stream, 1000, Duration::from_secs(1));
            loop {
                match packets.buffered() {
                    Ok(Some(packet)) => drop(packets.publish_head().1.min(packet_size(&packet))),
                    Ok(None) => match packets.fill().await {
                        Ok(()) => {}
                        Err(Ending::Closed) => break,
                        Err(other) => panic!("{other:?}"),
                    },
                    Err(Ending::Refused(..)) => break,
                    Err(other) => panic!("{other:?}"),
                }
            }
        });
    });
}

#[test]
fn any_bytes_on_a_files_stream_are_a_request_or_refused() {
    let runtime = AssertUnwindSafe(runtime());
    let valid = FileRequest::V1 { path: "metadata/timestamp.json".into(), start: 300 }.encode();
    bolero::check!().with_type::<(bool, Vec<(u8, u8)>, Vec<u8>)>().for_each(|(whole, changes, own)| {
        let mut bytes = if *whole { [&(valid.len() as u16).to_le_bytes()[..], &valid].concat() } else { own.clone() };
        for (place, byte) in changes.iter().filter(|_| *whole) {
            let place = usize::from(*place) % bytes.len();
            bytes[place] = *byte;
        }
        match runtime.block_on(files::read_request(&bytes[..])) {
            Ok(FileRequest::V1 { path, .. }) => assert!(path.len() < MAX_FILE_MESSAGE_BYTES),
            Err(Fault::Closed | Fault::Long { .. } | Fault::Unreadable(_)) => {}
            Err(other) => panic!("{other}"),
        }
    });
}

/// What was read can be looked at.
fn packet_size(packet: &rumqttd::protocol::Packet) -> u8 {
    format!("{packet:?}").len() as u8
}

/// Devices by their ids, clients that may do everything by others.
struct Everybody;

impl Admission for Everybody {
    fn admit<'a>(&'a self, peer: Peer<'a>) -> Pin<Box<dyn Future<Output = Result<Rights, Refused>> + Send + 'a>> {
        let device = DeviceId::new(peer.client_id).ok().filter(|_| !peer.client_id.contains('a'));
        let rights = device.map_or_else(|| Rights::Client(Arc::new(Everything)), Rights::Device);
        Box::pin(std::future::ready(Ok(rights)))
    }
}

struct Everything;

impl Topics for Everything {
    fn may_publish(&self, topic: &str) -> bool {
        assert!(!topic.is_empty() && !topic.contains(['+', '#', '\0']));
        true
    }

    fn may_follow(&self, filter: &str) -> bool {
        assert!(!filter.is_empty() && !filter.contains('\0'));
        true
    }
}

fn rim() -> Rim {
    let limits = Limits { messages_per_second: u32::MAX, handshake: Duration::from_secs(60), ..Limits::default() };
    let (up, mut ups) = mpsc::channel(64);
    let (events, mut news) = mpsc::channel(64);
    tokio::spawn(async move { while ups.recv().await.is_some() {} });
    tokio::spawn(async move { while news.recv().await.is_some() {} });
    Rim {
        door: Door::new(limits.clone()),
        handshakes: Semaphore::new(1),
        queue: Arc::new(Semaphore::new(limits.queue_bytes)),
        connections: Connections::new(Clients::start().unwrap(), limits.queue_bytes),
        limits,
        admission: Arc::new(Everybody),
        files: Arc::new(NoFiles),
        up,
        events,
        shutdown: Shutdown::new(),
    }
}

#[test]
fn any_session_comes_to_an_end() {
    let runtime = AssertUnwindSafe(runtime());
    let rim = AssertUnwindSafe(runtime.block_on(async { rim() }));
    let device_greets = framed(VALID[0].0, VALID[0].1);
    let client_greets = framed(0x10, b"\0\x04MQTT\x05\x02\0\x3c\0\0\x06a-user");
    bolero::check!().with_type::<(bool, bool, Wish)>().for_each(|(greets, device, wish)| {
        let greeting = if *device { &device_greets[..] } else { &client_greets[..] };
        let bytes = [if *greets { greeting } else { &[] }, &bytes(wish)[..]].concat();
        runtime.block_on(async {
            let address = SocketAddr::from(([127, 0, 0, 1], 1));
            let tally = rim.connections.tally();
            // Every one from its own address, so that none comes too fast.
            let origin = u32::from_ne_bytes([bytes.len() as u8, 1, 2, 3]);
            let ticket = loop {
                match rim.door.knock(std::net::IpAddr::V4(origin.into()), tally) {
                    Ok(ticket) => break ticket,
                    Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
                }
            };
            let deadline = Instant::now() + rim.limits.handshake;
            let (transport, certificate, seated) = (Transport::Plain, None, None);
            let arrival = Arrival { address, transport, certificate, deadline, ticket, seated };
            let stream = tokio::io::join(&bytes[..], tokio::io::sink());
            let served = timeout(Duration::from_secs(30), session::serve(stream, arrival, &rim)).await;
            assert!(served.is_ok(), "a session waits though its peer has closed");
        });
    });
    // Its router has lived through all of that.
    let alive = runtime.block_on(async { rim.connections.clients().session_for_test().await });
    assert!(alive);
}
