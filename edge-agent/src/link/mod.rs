//! The one connection to the hub: MQTT 5, ours to reconnect.
//!
//! Every connection begins with a report; then batches leave as [`Outbox`](edge_agent_core::outbox::Outbox) says, and
//! stay in the store until the hub itself acknowledges them: that a broker took a message proves nothing about a disk.
//! Sessions are clean, because the outbox already holds whatever must arrive, and the hub says again what should run.

mod connection;
mod dial;
mod hear;
pub mod probe;
mod quic;
mod report;
mod session;
pub mod snapshots;
mod status;
mod streams;
mod transports;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use edge_agent_core::backoff::Backoff;
use edge_agent_core::outbox::{Outbox, OutboxSettings};
use edge_agent_core::transport::{Next, TransportSettings};
use serde::{Deserialize, Serialize};
use tributary_process::clock::Clock;
use tributary_process::config::HumanDuration;
use tributary_process::shutdown::Shutdown;
use tributary_wire::{DeviceId, Health, NodeReport, Resources};

use crate::identity::Identity;
use crate::serve::Serving;
use crate::state::Store;
use crate::update::Handle;
use crate::words::in_words;
use transports::Transports;

pub use connection::LinkError;
pub use dial::DialError;
pub use quic::QuicError;
#[cfg(feature = "simulation")]
pub use session::{choose, free};
pub use status::{LinkStatus, LinkView};
pub use streams::{FileStream, FileStreams, StreamError};

/// How the connection is kept.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LinkConfig {
    /// The hub takes the connection for dead after one and a half times this without a word.
    pub keep_alive: HumanDuration,
    /// A connection that takes longer to establish is given up.
    pub connect_timeout: HumanDuration,
    /// A handshake over QUIC that takes longer counts as blocked, and TLS is used at once.
    pub quic_timeout: HumanDuration,
    /// A QUIC connection that is silent for this long is over; keep-alives go three times as often.
    pub quic_idle: HumanDuration,
    /// A QUIC connection that is lost sooner than this counts as killed by the network.
    pub quic_holds: HumanDuration,
    /// While connected over TLS: first wait before QUIC is tried again; doubled each time.
    pub probe: HumanDuration,
    /// Longest such wait.
    pub probe_cap: HumanDuration,
    /// First wait before connecting again.
    pub reconnect: HumanDuration,
    /// Longest wait before connecting again.
    pub reconnect_cap: HumanDuration,
    /// Batches of one stream in flight before the hub has said how many it takes.
    pub first_window: u16,
    /// Batches in flight over all streams, whatever the hub would take: what this costs in memory.
    pub in_flight: usize,
    /// Shortest wait for the hub's acknowledgement before a batch is sent again: longer where acknowledgements take longer,
    /// and doubled each time.
    pub resend_after: HumanDuration,
    /// Longest such wait, and how long a stream that was told to hold asks nothing of the hub.
    pub resend_cap: HumanDuration,
    /// A report is sent at least this often.
    pub report_every: HumanDuration,
}

impl Default for LinkConfig {
    fn default() -> Self {
        let (outbox, transports) = (OutboxSettings::default(), TransportSettings::default());
        Self {
            keep_alive: HumanDuration(Duration::from_secs(30)),
            connect_timeout: HumanDuration(Duration::from_secs(10)),
            quic_timeout: HumanDuration(Duration::from_secs(3)),
            quic_idle: HumanDuration(Duration::from_secs(20)),
            quic_holds: HumanDuration(transports.holds),
            probe: HumanDuration(transports.probe),
            probe_cap: HumanDuration(transports.probe_cap),
            reconnect: HumanDuration(Duration::from_millis(500)),
            reconnect_cap: HumanDuration(Duration::from_secs(60)),
            first_window: outbox.first_window,
            in_flight: outbox.in_flight,
            resend_after: HumanDuration(outbox.resend_after),
            resend_cap: HumanDuration(outbox.resend_cap),
            report_every: HumanDuration(Duration::from_secs(30)),
        }
    }
}

/// How the device is, for its reports.
#[derive(Debug, Clone, Default)]
pub struct Condition {
    /// What is wrong.
    pub health: Health,
    /// What it uses.
    pub resources: Resources,
    /// Labels that selectors match.
    pub labels: Vec<(String, String)>,
    /// Sensor nodes on its serial lines.
    pub nodes: Vec<NodeReport>,
}

/// How the hub is reached.
#[derive(Debug, Clone)]
pub enum Way {
    /// Not at all; what would change that.
    None {
        /// In words.
        why: String,
    },
    /// Without encryption, at this `host:port` of this machine.
    Plain(String),
    /// Over QUIC or TLS, with the device's certificate.
    Secure(Arc<Identity>),
}

/// What the link works with.
pub struct Link {
    /// This device; also the client id.
    pub device: DeviceId,
    /// How to reach the hub.
    pub way: Way,
    /// Settings.
    pub config: LinkConfig,
    /// Where batches wait.
    pub store: Arc<Store>,
    /// What serves, for fleet-scope features.
    pub serving: Arc<Serving>,
    /// What runs and what should.
    pub updates: Handle,
    /// What the hub asks for once.
    pub orders: crate::orders::Handle,
    /// How the device is.
    pub condition: Arc<dyn Fn() -> Condition + Send + Sync>,
    /// Gets the connection, for files beside MQTT.
    pub files: FileStreams,
    /// What this link shows of itself.
    pub status: Arc<LinkStatus>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Chance, for waits.
    pub seed: u64,
}

/// Keeps a connection to the hub until the signal is given: for ever, with growing waits while there is none.
pub async fn run(link: Link, shutdown: Shutdown) {
    if let Way::None { why } = &link.way {
        tracing::warn!("{why}; records wait in the outbox");
        return shutdown.given().await;
    }
    let config = link.config;
    let settings = OutboxSettings {
        first_window: config.first_window,
        in_flight: config.in_flight,
        resend_after: config.resend_after.0,
        resend_cap: config.resend_cap.0,
    };
    let outbox = Arc::new(Mutex::new(Outbox::new(link.store.incarnation(), settings, link.seed)));
    let mut backoff = Backoff::new(config.reconnect.0, config.reconnect_cap.0, link.seed.rotate_left(32));
    let seed = link.seed.rotate_left(16);
    let mut transports = Transports::new(&link, seed);
    let mut snapshots = snapshots::Snapshots::default();
    while !shutdown.is_given() {
        let began = link.clock.monotonic();
        let ended = shutdown.unless_given(session::run(&link, &outbox, &mut transports, &mut snapshots)).await;
        link.updates.online(false);
        link.orders.disconnected();
        session::lock(&outbox).disconnected();
        let Some(error) = ended else { break };
        let (words, over, hub) = (in_words(&error), transports.name(), transports.address());
        backoff.ended(Duration::from_micros(link.clock.monotonic().saturating_sub(began)));
        if transports.ended(&error) == Next::AtOnce {
            tracing::info!(hub, over, why = %words, "another connection follows at once");
            link.status.disconnected(Some(words));
            continue;
        }
        link.status.judged(error.problem());
        let wait = backoff.next_wait();
        tracing::warn!(hub, over, error = %words, wait_ms = wait.as_millis() as u64, "not connected");
        link.status.disconnected(Some(words));
        shutdown.unless_given(tokio::time::sleep(wait)).await;
    }
    link.status.disconnected(None);
}
