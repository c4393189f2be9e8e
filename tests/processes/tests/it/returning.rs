//! A hub that was away for a week, and a thousand devices that come back to it at once, each with a week's backlog.
//!
//! The devices are light: the agent's own outbox and waits, real batches over the hub's own door, and nothing else. Some
//! dozens are enrolled: they come over TLS and QUIC and report first, as agents do. The hub's clock is a week on when it
//! comes back; what a week does to devices is in `week`. The benchmark `tributary-bench
//! returning` tells the same story in any size and says how long it took.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cloud_hub::config::IngestConfig;
use edge_agent::identity::{Enrolment, Folder, Identity, Time, TlsSettings, enrol};
use edge_agent_core::outbox::OutboxSettings;
use quinn::crypto::rustls::QuicClientConfig;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsConnector;
use tributary_demo::recount;
use tributary_identity::EnrolmentToken;
use tributary_process::http::Endpoint;
use tributary_process::resources::memory_of_process;
use tributary_wire::DeviceId;

#[path = "../../../bench/src/returning/device.rs"]
mod device;
#[path = "../../../bench/src/returning/messages.rs"]
mod messages;
#[path = "../../../bench/src/returning/packets.rs"]
mod packets;

use device::{Device, Dial, Duplex, Figures, Plan};
use messages::{STREAMS, event_id};

use crate::faults::Shim;
use crate::process::{Hub, PATIENCE};
use crate::tools;
use crate::week::WEEK;

const DEVICES: usize = 1_000;
/// Of these with a certificate, one after the other over TLS and QUIC.
const ENROLLED: usize = 48;
/// Devices that only report what happens now.
const LIVE: usize = 10;
/// Batches of each stream, and records in each: a small week, because this is a debug build on a shared machine.
const BATCHES: u64 = 15;
const ROWS: u64 = 4;
/// Memory that the hub has for messages: as on a small machine, so that it is soon full.
const QUEUE: u64 = 8 << 20;
/// Resident memory that the hub must do with, whatever comes at once: the queue, what is made of small messages, a thousand
/// connections, and a debug build.
const MEMORY: u64 = 400 << 20;

/// A thousand sockets need more files than a shell usually allows; those who are started here inherit the limit.
fn may_open_enough_files() -> bool {
    let test = "the return of a thousand devices";
    let Some(program) = tools::program(test, "prlimit") else { return false };
    let own = std::process::id().to_string();
    let done = Command::new(program).args(["--pid", &own, "--nofile=8192:"]).output().unwrap();
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let open = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap_or_default();
    let open: u64 = open.split_whitespace().next().and_then(|soft| soft.parse().ok()).unwrap_or(u64::MAX);
    if open < 4096 {
        tools::lacks(test, &format!("only {open} files may be open: {}", String::from_utf8_lossy(&done.stderr)));
    }
    open >= 4096
}

/// Enrols the first devices; how each gets in.
async fn doors(hub: &Hub) -> Vec<Dial> {
    let token: EnrolmentToken = hub.token(ENROLLED as u32).parse().unwrap();
    let endpoint: Endpoint = format!("https://{}", hub.address("https")).parse().unwrap();
    let udp = quinn::Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let mut doors = Vec::new();
    for number in 0..ENROLLED {
        let folder = Folder::of(&hub.beside(&format!("back-{number}")));
        let time = Time::open(folder.clone());
        let device = DeviceId::new(&format!("back-{number}")).unwrap();
        let enrolment = Enrolment { hub: endpoint.clone(), token: token.clone(), device, again: false };
        enrol(&folder, &time, &enrolment).await.unwrap();
        let identity = Identity::open(folder, &Default::default(), time).unwrap().unwrap().current();
        let address = hub.address(if number % 2 == 0 { "mqtt_tls" } else { "mqtt_quic" }).parse().unwrap();
        doors.push(match number % 2 {
            0 => over_tls(identity.mqtt.clone(), address),
            _ => over_quic(identity.mqtt.clone(), address, udp.clone()),
        });
    }
    doors
}

fn over_tls(settings: Arc<TlsSettings>, address: SocketAddr) -> Dial {
    Box::new(move || {
        let connector = TlsConnector::from(settings.clone());
        Box::pin(async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(connector.connect(address.ip().into(), stream).await?) as Box<dyn Duplex>)
        })
    })
}

fn over_quic(settings: Arc<TlsSettings>, address: SocketAddr, udp: quinn::Endpoint) -> Dial {
    let mut settings = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(settings).unwrap()));
    // A hub that was killed says nothing.
    let mut transport = quinn::TransportConfig::default();
    transport.max_idle_timeout(Some(Duration::from_secs(10).try_into().unwrap()));
    transport.keep_alive_interval(Some(Duration::from_secs(2)));
    settings.transport_config(Arc::new(transport));
    Box::new(move || {
        let (settings, udp) = (settings.clone(), udp.clone());
        Box::pin(async move {
            let connection = udp.connect_with(settings, address, &address.ip().to_string())?.await?;
            let (send, receive) = connection.open_bi().await?;
            Ok(Box::new(tokio::io::join(receive, send)) as Box<dyn Duplex>)
        })
    })
}

fn peak(hub: &Hub) -> u64 {
    memory_of_process(hub.process.id()).peak
}

/// Batches of the week that were acknowledged.
fn acknowledged(figures: &Figures) -> u64 {
    let [all, live] = [&figures.acknowledged, &figures.live].map(|count| count.load(Ordering::Relaxed));
    all.saturating_sub(live)
}

/// Waits for something as long as batches of the week are acknowledged: how fast that is depends on the machine.
async fn goes_on(hub: &mut Hub, figures: &Figures, what: &str, mut is_met: impl FnMut() -> bool) {
    let acknowledged = || acknowledged(figures);
    loop {
        let before = acknowledged();
        let look = async || match is_met() {
            true => Ok(true),
            false if acknowledged() > before => Ok(false),
            false => Err(format!("nothing is acknowledged: {figures:?}")),
        };
        if hub.process.until(what, look).await {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_devices_that_come_back_after_a_week_lose_and_double_nothing() {
    if !may_open_enough_files() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let clock = Shim::new(&folder.path().join("shim"), &data);
    let queue = ("CLOUD_HUB__GATEWAY__QUEUE_BYTES".to_owned(), format!("{}MiB", QUEUE >> 20));
    let environment = [clock.environment(), &[queue]].concat();
    let mut hub = Hub::start_with(folder.path(), data, "", &environment).await;
    let plan = Arc::new(Plan {
        address: hub.address("mqtt").to_owned(),
        doors: doors(&hub).await,
        most: IngestConfig::default().window,
        batches: BATCHES,
        rows: ROWS,
        waits: (Duration::from_millis(200), Duration::from_secs(2)),
        outbox: OutboxSettings::default(),
    });
    hub.process.kill();

    let (figures, (end, ended), (done, mut back)) =
        (Arc::new(Figures::default()), watch::channel(false), mpsc::channel(DEVICES));
    let mut returning = Vec::new();
    for number in 0..DEVICES {
        let device = Device::returning(number, &plan, &figures).unwrap();
        returning.push(tokio::spawn(device.run(done.clone(), ended.clone())));
    }
    let mut live = Vec::new();
    for number in 0..LIVE {
        let device = Device::live(number, Duration::from_millis(200), &plan, &figures).unwrap();
        live.push(tokio::spawn(device.run(done.clone(), ended.clone())));
    }
    let all = DEVICES as u64 * STREAMS.len() as u64 * BATCHES;
    // For the hub it is a week later.
    clock.ahead(WEEK);
    hub = hub.again().await;
    // In the middle of it, the hub is killed once more.
    goes_on(&mut hub, &figures, "a third of the week is there", || acknowledged(&figures) > all / 3).await;
    let mut most = peak(&hub);
    hub = hub.again().await;
    let (live_before, mut devices) = (figures.live.load(Ordering::Relaxed), 0);
    let mut are_done = || {
        devices += std::iter::from_fn(|| back.try_recv().ok()).count();
        devices >= DEVICES
    };
    goes_on(&mut hub, &figures, "devices are done with their week", &mut are_done).await;
    assert!(figures.narrow.load(Ordering::Relaxed) > 0, "the hub let them in step by step: {figures:?}");
    let live_meanwhile = figures.live.load(Ordering::Relaxed) - live_before;
    assert!(live_meanwhile >= LIVE as u64, "devices without a backlog wait for those with one: {figures:?}");
    most = most.max(peak(&hub));
    end.send(true).unwrap();
    let mut reported = Vec::new();
    for device in live {
        reported.push(tokio::time::timeout(PATIENCE, device).await.unwrap().unwrap());
    }
    for device in returning {
        device.await.unwrap();
    }

    let known: Value = serde_json::from_str(&hub.operator(&["--json", "device", "list"])).unwrap();
    let has_reported = |known: &&Value| known["report"]["agent"] == "light";
    assert_eq!(
        known.as_array().unwrap().iter().filter(has_reported).count(),
        ENROLLED,
        "those who are enrolled reported"
    );

    for (place, stream) in STREAMS.into_iter().enumerate() {
        let mut expected = HashSet::new();
        let mut expect = |name: String, batches: u64| {
            let device = DeviceId::new(&name).unwrap();
            expected.extend(
                (1..=batches)
                    .flat_map(|batch| (0..ROWS).map(move |row| (batch, row)))
                    .map(|(batch, row)| event_id(&device, batch, row)),
            );
        };
        (0..DEVICES).for_each(|number| expect(format!("back-{number}"), BATCHES));
        if place == 0 {
            reported.iter().enumerate().for_each(|(number, batches)| expect(format!("live-{number}"), *batches));
        }
        let counts = recount::event_ids(&hub.lake(), stream).unwrap();
        let lost: Vec<_> = expected.iter().filter(|id| !counts.contains_key(*id)).take(3).collect();
        let doubled: Vec<_> = counts.iter().filter(|(_, count)| **count != 1).take(3).collect();
        assert!(lost.is_empty() && doubled.is_empty(), "{stream}: lost {lost:?}, more than once {doubled:?}");
        assert_eq!(counts.len(), expected.len(), "{stream}: something came that nobody sent");
    }
    tools::say(&format!("{figures:?}; the hub's highest resident memory {} MiB", most >> 20));
    assert!(most < MEMORY, "the hub took {} MiB, expected less than {} MiB", most >> 20, MEMORY >> 20);
}
