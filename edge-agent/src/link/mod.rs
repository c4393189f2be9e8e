//! The one connection to the hub: MQTT 5, ours to reconnect.
//!
//! Every connection begins with a report; then batches leave as [`Outbox`](edge_agent_core::outbox::Outbox) says, and
//! stay in the store until the hub itself acknowledges them: that a broker took a message proves nothing about a disk.
//! Sessions are clean, because the outbox already holds whatever must arrive, and the hub says again what should run.

mod connection;
mod report;
mod session;
pub mod snapshots;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use edge_agent_core::backoff::Backoff;
use edge_agent_core::outbox::{Outbox, OutboxSettings};
use serde::{Deserialize, Serialize};
use tributary_process::clock::Clock;
use tributary_process::config::HumanDuration;
use tributary_process::shutdown::Shutdown;
use tributary_wire::{DeviceId, Health, Resources};

use crate::serve::Serving;
use crate::state::Store;
use crate::update::Handle;
use crate::words::in_words;

pub use connection::LinkError;
#[cfg(feature = "simulation")]
pub use session::choose;

/// How the connection is kept.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LinkConfig {
    /// The hub takes the connection for dead after one and a half times this without a word.
    pub keep_alive: HumanDuration,
    /// A connection that takes longer to establish is given up.
    pub connect_timeout: HumanDuration,
    /// First wait before connecting again.
    pub reconnect: HumanDuration,
    /// Longest wait before connecting again.
    pub reconnect_cap: HumanDuration,
    /// Batches of one stream in flight before the hub has said how many it takes.
    pub first_window: u16,
    /// Batches in flight over all streams, whatever the hub would take: what this costs in memory.
    pub in_flight: usize,
    /// Wait for the hub's acknowledgement before a batch is sent again; doubled each time.
    pub resend_after: HumanDuration,
    /// Longest such wait.
    pub resend_cap: HumanDuration,
    /// A report is sent at least this often.
    pub report_every: HumanDuration,
}

impl Default for LinkConfig {
    fn default() -> Self {
        let outbox = OutboxSettings::default();
        Self {
            keep_alive: HumanDuration(Duration::from_secs(30)),
            connect_timeout: HumanDuration(Duration::from_secs(10)),
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
}

/// What the link works with.
pub struct Link {
    /// This device; also the client id.
    pub device: DeviceId,
    /// `host:port` of the hub's acceptor; empty: no hub.
    pub hub: String,
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
    /// What this link shows of itself.
    pub status: Arc<LinkStatus>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Chance, for waits.
    pub seed: u64,
}

/// What the link shows of itself.
#[derive(Debug, Default)]
pub struct LinkStatus {
    connected: AtomicBool,
    connections: AtomicU64,
    sent: AtomicU64,
    acknowledged: AtomicU64,
    quarantined: AtomicU64,
    ignored: AtomicU64,
    error: Mutex<Option<String>>,
}

/// [`LinkStatus`] at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct LinkView {
    /// Whether a connection stands.
    pub connected: bool,
    /// Connections since start.
    pub connections: u64,
    /// Batches published since start, repeated ones included.
    pub sent: u64,
    /// Batches freed by the hub's acknowledgement since start.
    pub acknowledged: u64,
    /// Of those, put aside by the hub as unreadable.
    pub quarantined: u64,
    /// Messages of the hub that could not be read or were not meant for this device.
    pub ignored: u64,
    /// Why the last connection ended, in words.
    pub error: Option<String>,
}

impl LinkStatus {
    /// As it is now.
    pub fn view(&self) -> LinkView {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        LinkView {
            connected: self.connected.load(Ordering::Relaxed),
            connections: get(&self.connections),
            sent: get(&self.sent),
            acknowledged: get(&self.acknowledged),
            quarantined: get(&self.quarantined),
            ignored: get(&self.ignored),
            error: self.error.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    fn count(count: &AtomicU64, more: u64) {
        count.fetch_add(more, Ordering::Relaxed);
    }

    fn connection(&self, stands: bool, error: Option<String>) {
        self.connected.store(stands, Ordering::Relaxed);
        if stands {
            Self::count(&self.connections, 1);
        }
        *self.error.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }
}

/// Keeps a connection to the hub until the signal is given: for ever, with growing waits while there is none.
pub async fn run(link: Link, shutdown: Shutdown) {
    if link.hub.is_empty() {
        tracing::info!("no hub is configured; records wait in the outbox");
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
    let mut snapshots = snapshots::Snapshots::default();
    while !shutdown.is_given() {
        let began = link.clock.monotonic();
        let ended = shutdown.unless_given(session::run(&link, &outbox, &mut snapshots)).await;
        link.updates.online(false);
        link.orders.disconnected();
        session::lock(&outbox).disconnected();
        let Some(error) = ended else { break };
        let words = in_words(&error);
        tracing::warn!(hub = %link.hub, error = %words, "not connected");
        link.status.connection(false, Some(words));
        // A connection that held for a while was a good one; one that breaks at once must not be hammered.
        if link.clock.monotonic().saturating_sub(began) > config.reconnect_cap.0.as_micros() as u64 {
            backoff.reset();
        }
        shutdown.unless_given(tokio::time::sleep(backoff.next_wait())).await;
    }
    link.status.connection(false, None);
}
