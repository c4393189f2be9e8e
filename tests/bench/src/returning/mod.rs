//! A hub that was away for a week, and a fleet that comes back to it at once with a week's backlog.
//!
//! The devices wait as agents do while there is no hub; then it is started. What is measured is what an operator asks:
//! when is everything there, what does the hub need for it, and does what happens *now* still come through.

mod device;
mod messages;
mod packets;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use edge_agent_core::outbox::OutboxSettings;
use serde::Serialize;
use tokio::sync::{mpsc, watch};

use crate::figures::{count, megabytes, seconds};
use crate::programs::Programs;
use device::{Device, Figures, Plan};
use messages::STREAMS;

/// Devices without a backlog, which report once a second.
const LIVE: usize = 10;
/// The most batches of a stream in flight, unless a hub is configured otherwise.
const MOST: u16 = 64;
/// An agent's first and longest wait between attempts to connect.
const WAITS: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));
/// Without any progress for so long, something is wrong.
const SILENCE: Duration = Duration::from_secs(120);

/// How large.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Size {
    /// Devices that come back.
    pub devices: usize,
    /// Batches of each of their two streams.
    pub batches: u64,
    /// Records in each batch.
    pub rows: u64,
}

/// What it took.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// How large it was.
    pub size: Size,
    /// Records that came back.
    pub rows: u64,
    /// Seconds from the hub's start until half of the devices, and all, were done with their week.
    pub half: f64,
    /// All.
    pub all: f64,
    /// Records per second, over the whole time.
    pub rows_per_second: f64,
    /// Highest resident bytes of the hub.
    pub peak: u64,
    /// Seconds of a core that the hub used.
    pub cpu: f64,
    /// Batches that were sent more than once, as a share of all.
    pub repeated: f64,
    /// Receipts that said hold.
    pub held: u64,
    /// Live batches acknowledged meanwhile, and the longest that one took, in seconds.
    pub live: u64,
    /// The longest.
    pub live_longest: f64,
}

/// Starts a hub, lets it go away for a week, and takes the time of its return.
pub async fn measure(programs: &Programs, size: Size, folder: &Path) -> anyhow::Result<Report> {
    // Free now, and nobody listens there while the hub is away.
    let address = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
    let plan = Arc::new(Plan {
        address: address.clone(),
        doors: Vec::new(),
        most: MOST,
        batches: size.batches,
        rows: size.rows,
        waits: WAITS,
        outbox: OutboxSettings::default(),
    });
    let (figures, (end, ended)) = (Arc::new(Figures::default()), watch::channel(false));
    let (done, mut back) = mpsc::channel(size.devices);
    let mut devices = Vec::new();
    for number in 0..size.devices {
        devices.push(tokio::spawn(Device::returning(number, &plan, &figures)?.run(done.clone(), ended.clone())));
    }
    for number in 0..LIVE {
        let device = Device::live(number, Duration::from_secs(1), &plan, &figures)?;
        devices.push(tokio::spawn(device.run(done.clone(), ended.clone())));
    }
    // They have been trying for a while, so that their attempts are spread as they are in the field.
    tokio::time::sleep(Duration::from_secs(30)).await;
    let begin = Instant::now();
    let hub = programs.hub_at(folder, &address).await?;
    let mut half = 0.0;
    for number in 1..=size.devices {
        let before = figures.acknowledged.load(Ordering::Relaxed);
        loop {
            match tokio::time::timeout(SILENCE, back.recv()).await {
                Ok(device) => break drop(device.context("a device ended")?),
                Err(_) => {
                    let now = figures.acknowledged.load(Ordering::Relaxed);
                    ensure!(now > before, "nothing goes on: {figures:?}");
                }
            }
        }
        if number == size.devices.div_ceil(2) {
            half = begin.elapsed().as_secs_f64();
        }
    }
    let all = begin.elapsed().as_secs_f64();
    let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let batches = size.devices as u64 * STREAMS.len() as u64 * size.batches;
    let rows = batches * size.rows;
    let (peak, cpu) = (hub.process.memory().peak, hub.process.cpu());
    let report = Report {
        size,
        rows,
        half,
        all,
        rows_per_second: rows as f64 / all,
        peak,
        cpu,
        repeated: of(&figures.sent).saturating_sub(of(&figures.acknowledged)) as f64 / batches as f64,
        held: of(&figures.held),
        live: of(&figures.live),
        live_longest: of(&figures.live_longest) as f64 / 1e6,
    };
    end.send(true).context("no device is left")?;
    for device in devices {
        device.await?;
    }
    let (_, found) = crate::ingest::recount(&hub.data.join("lake").join(STREAMS[1]))?;
    ensure!(found as u64 == rows / 2, "{} observations were acknowledged, {found} are in the lake", rows / 2);
    Ok(report)
}

/// As text.
pub fn table(report: &Report) -> String {
    let Report { size, rows, half, all, rows_per_second, peak, cpu, repeated, held, live, live_longest } = report;
    format!(
        "A fleet comes back after a week: {} devices, each {} batches of {} records in each of {} streams\n  \
         records {}, half of the devices done after {}, all after {}: {} records/s\n  \
         hub: at most {} resident, {} of a core; {:.1} % of batches sent again, {held} times told to hold\n  \
         meanwhile {live} batches of {LIVE} devices without a backlog, the slowest {}\n",
        count(size.devices as f64),
        size.batches,
        size.rows,
        STREAMS.len(),
        count(*rows as f64),
        seconds(*half),
        seconds(*all),
        count(*rows_per_second),
        megabytes(*peak),
        seconds(*cpu),
        repeated * 100.0,
        seconds(*live_longest),
    )
}
