//! What the link shows of itself.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use tributary_wire::Micros;

use crate::metrics::LinkMetrics;
use crate::sources::rfc3339;

/// What the link shows of itself.
#[derive(Debug, Default)]
pub struct LinkStatus {
    connections: AtomicU64,
    sent: AtomicU64,
    acknowledged: AtomicU64,
    quarantined: AtomicU64,
    ignored: AtomicU64,
    shown: Mutex<Shown>,
    metrics: LinkMetrics,
}

#[derive(Debug, Default)]
struct Shown {
    connected: bool,
    error: Option<String>,
    problem: Option<String>,
    transport: Option<&'static str>,
    since: Option<i64>,
    failures: BTreeMap<&'static str, String>,
    next_probe: Option<i64>,
}

/// [`LinkStatus`] at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct LinkView {
    /// Whether a connection stands.
    pub connected: bool,
    /// Over what: `quic`, `tls` or `plain`.
    pub transport: Option<&'static str>,
    /// Since when, RFC 3339.
    pub since: Option<String>,
    /// By transport: why it failed last, until it works again.
    pub failures: BTreeMap<&'static str, String>,
    /// When QUIC is tried again, RFC 3339.
    pub next_probe: Option<String>,
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
    /// What a person must know: the hub refuses this device.
    pub problem: Option<String>,
}

impl LinkStatus {
    /// One whose counts appear among these metrics.
    pub fn new(metrics: LinkMetrics) -> Self {
        Self { metrics, ..Self::default() }
    }

    /// As it is now.
    pub fn view(&self) -> LinkView {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let instant = |micros: i64| rfc3339(&Micros(micros));
        let shown = self.shown();
        LinkView {
            connected: shown.connected,
            transport: shown.transport,
            since: shown.since.map(instant),
            failures: shown.failures.clone(),
            next_probe: shown.next_probe.map(instant),
            connections: get(&self.connections),
            sent: get(&self.sent),
            acknowledged: get(&self.acknowledged),
            quarantined: get(&self.quarantined),
            ignored: get(&self.ignored),
            error: shown.error.clone(),
            problem: shown.problem.clone(),
        }
    }

    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn count_sent(&self) {
        self.sent.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_ignored(&self) {
        self.ignored.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_quarantined(&self, more: u64) {
        self.quarantined.fetch_add(more, Ordering::Relaxed);
    }

    pub(super) fn count_acknowledged(&self, more: u64) {
        self.acknowledged.fetch_add(more, Ordering::Relaxed);
    }

    /// A connection stands.
    pub(super) fn connected(&self, transport: &'static str, wall: i64) {
        self.connections.fetch_add(1, Ordering::Relaxed);
        self.metrics.connected(transport);
        let mut shown = self.shown();
        (shown.connected, shown.error, shown.problem) = (true, None, None);
        (shown.transport, shown.since) = (Some(transport), Some(wall));
        shown.failures.remove(transport);
    }

    /// No connection stands; why, unless that is as it should be.
    pub(super) fn disconnected(&self, error: Option<String>) {
        self.metrics.disconnected();
        let mut shown = self.shown();
        (shown.connected, shown.error) = (false, error);
        (shown.transport, shown.since, shown.next_probe) = (None, None, None);
    }

    /// A transport failed: before a connection stood over it, or after.
    pub(super) fn failed(&self, transport: &'static str, words: String) {
        self.metrics.failed(transport);
        self.shown().failures.insert(transport, words);
    }

    /// The hub said no, or failed otherwise: only a connection or another answer changes what it said last.
    pub(super) fn judged(&self, problem: Option<String>) {
        if problem.is_some() {
            self.shown().problem = problem;
        }
    }

    pub(super) fn probed(&self, works: bool) {
        self.metrics.probed(works);
    }

    pub(super) fn next_probe(&self, wall: Option<i64>) {
        self.shown().next_probe = wall;
    }
}
