//! Everything that is counted, with its name and unit, and its Prometheus text.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicI64, AtomicU64};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// Label `source`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct SourceLabel {
    /// Name of the source.
    pub source: String,
}

/// Label `reason`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabel {
    /// Which reason; a fixed set.
    pub reason: &'static str,
}

/// Label `transport`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TransportLabel {
    /// `quic`, `tls` or `plain`.
    pub transport: &'static str,
}

/// Label `outcome`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutcomeLabel {
    /// `works` or `fails`.
    pub outcome: &'static str,
}

/// What the link counts.
#[derive(Debug, Clone, Default)]
pub struct LinkMetrics {
    in_use: Family<TransportLabel, Gauge>,
    connections: Family<TransportLabel, Counter>,
    failures: Family<TransportLabel, Counter>,
    probes: Family<OutcomeLabel, Counter>,
}

impl LinkMetrics {
    fn register(&self, registry: &mut Registry) {
        registry.register("link_connected", "1 for the transport in use", self.in_use.clone());
        registry.register("link_connections", "Connections to the hub, by transport", self.connections.clone());
        registry.register("link_failures", "Attempts and connections that failed", self.failures.clone());
        registry.register("link_probes", "Attempts to get back to QUIC", self.probes.clone());
    }

    /// A connection stands.
    pub fn connected(&self, transport: &'static str) {
        let label = TransportLabel { transport };
        self.connections.get_or_create(&label).inc();
        self.in_use.clear();
        self.in_use.get_or_create(&label).set(1);
    }

    /// No connection stands.
    pub fn disconnected(&self) {
        self.in_use.clear();
    }

    /// An attempt failed or a connection broke.
    pub fn failed(&self, transport: &'static str) {
        self.failures.get_or_create(&TransportLabel { transport }).inc();
    }

    /// QUIC was tried beside a connection over TLS.
    pub fn probed(&self, works: bool) {
        self.probes.get_or_create(&OutcomeLabel { outcome: if works { "works" } else { "fails" } }).inc();
    }
}

/// Label `origin`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OriginLabel {
    /// `quic`, `https` or `mirror`.
    pub origin: &'static str,
}

/// Label `way`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct WayLabel {
    /// `patch` or `compressed`.
    pub way: &'static str,
}

/// What downloads count.
#[derive(Debug, Clone, Default)]
pub struct DownloadMetrics {
    bytes: Family<OriginLabel, Counter>,
    failures: Family<OriginLabel, Counter>,
    patched: Family<WayLabel, Counter>,
    saved: Counter,
}

impl DownloadMetrics {
    fn register(&self, registry: &mut Registry) {
        registry.register("download_bytes", "Bytes of packages and patches that came", self.bytes.clone());
        registry.register("download_failures", "Files that did not come, or were wrong", self.failures.clone());
        registry.register("download_patched", "Packages that came by a patch or compressed", self.patched.clone());
        registry.register("download_saved_bytes", "Bytes that these did not take", self.saved.clone());
    }

    /// So many bytes came.
    pub fn received(&self, origin: &'static str, bytes: u64) {
        self.bytes.get_or_create(&OriginLabel { origin }).inc_by(bytes);
    }

    /// A package came by a cheaper way, which saved so many bytes.
    pub fn patched(&self, way: &'static str, saved: u64) {
        self.patched.get_or_create(&WayLabel { way }).inc();
        self.saved.inc_by(saved);
    }

    /// A file did not come, or was wrong.
    pub fn failed(&self, origin: &'static str) {
        self.failures.get_or_create(&OriginLabel { origin }).inc();
    }
}

/// The agent's metrics. Names carry the prefix `edge_agent_`; counters get `_total`.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
    /// Events accepted, by source, since start.
    pub accepted: Family<SourceLabel, Counter>,
    /// Events that were there before, by source, since start.
    pub duplicates: Family<SourceLabel, Counter>,
    /// Events refused, by reason, since start.
    pub refused: Family<ReasonLabel, Counter>,
    /// Requests refused because the queue was full.
    pub queue_full: Counter,
    /// Predictions whose answer was the declared fallback.
    pub degraded: Counter,
    /// Answers taken from the prediction cache.
    pub cache_hits: Counter,
    /// Commits, since start.
    pub commits: Counter,
    /// Commits that failed.
    pub commit_failures: Counter,
    /// Records given up for the disk budget, since start.
    pub dropped: Counter,
    /// The connection to the hub.
    pub link: LinkMetrics,
    /// Files from the repository.
    pub download: DownloadMetrics,
    /// When the device's certificate ends, in seconds since 1970; 0 without one.
    pub certificate_end: Gauge,
    /// Seconds that the device's clock is ahead of the hub's; 0 before they were compared.
    pub clock_ahead: Gauge,
    /// 1 when it agrees with the hub's.
    pub clock_synchronised: Gauge,
    /// Batches in the outbox.
    pub outbox_batches: Gauge,
    /// Bytes in the outbox.
    pub outbox_bytes: Gauge,
    /// Events that wait for the writer.
    pub queue_events: Gauge,
    /// Resident memory.
    pub memory_bytes: Gauge,
    /// Entities held in the windows.
    pub window_entities: Gauge,
    /// Seconds from the writer's taking of an event to its decision.
    pub decision_seconds: Histogram,
    /// Seconds a request waited in the queue.
    pub wait_seconds: Histogram,
    /// Seconds of a commit, sync included.
    pub commit_seconds: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        // 10 µs to 5 s, doubling.
        let seconds = || Histogram::new(exponential_buckets(1e-5, 2.0, 20));
        let metrics = Self {
            registry: Mutex::new(Registry::with_prefix("edge_agent")),
            accepted: Family::default(),
            duplicates: Family::default(),
            refused: Family::default(),
            queue_full: Counter::default(),
            degraded: Counter::default(),
            cache_hits: Counter::default(),
            commits: Counter::default(),
            commit_failures: Counter::default(),
            dropped: Counter::default(),
            link: LinkMetrics::default(),
            download: DownloadMetrics::default(),
            certificate_end: Gauge::<i64, AtomicI64>::default(),
            clock_ahead: Gauge::<i64, AtomicI64>::default(),
            clock_synchronised: Gauge::<i64, AtomicI64>::default(),
            outbox_batches: Gauge::<i64, AtomicI64>::default(),
            outbox_bytes: Gauge::<i64, AtomicI64>::default(),
            queue_events: Gauge::<i64, AtomicI64>::default(),
            memory_bytes: Gauge::<i64, AtomicI64>::default(),
            window_entities: Gauge::<i64, AtomicI64>::default(),
            decision_seconds: seconds(),
            wait_seconds: seconds(),
            commit_seconds: seconds(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&self) {
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        registry.register("events_accepted", "Events accepted, by source", self.accepted.clone());
        registry.register("events_duplicate", "Events that were there before, by source", self.duplicates.clone());
        registry.register("events_refused", "Events refused, by reason", self.refused.clone());
        registry.register("queue_full", "Requests refused because the queue was full", self.queue_full.clone());
        registry.register("decisions_degraded", "Answers that were the declared fallback", self.degraded.clone());
        registry.register("prediction_cache_hits", "Answers taken from the prediction cache", self.cache_hits.clone());
        registry.register("commits", "Transactions of the event path", self.commits.clone());
        registry.register(
            "commit_failures",
            "Transactions of the event path that failed",
            self.commit_failures.clone(),
        );
        registry.register("records_dropped", "Records given up for the disk budget", self.dropped.clone());
        registry.register("outbox_batches", "Batches without receipt", self.outbox_batches.clone());
        registry.register("queue_events", "Events that wait for the writer", self.queue_events.clone());
        registry.register("window_entities", "Entities held in the windows", self.window_entities.clone());
        self.link.register(&mut registry);
        self.download.register(&mut registry);
        registry.register(
            "certificate_end_timestamp_seconds",
            "When the device's certificate ends; 0 without one",
            self.certificate_end.clone(),
        );
        let ahead =
            "How far the device's clock is ahead of the hub's, below zero if behind; 0 before they were compared";
        registry.register_with_unit("clock_ahead", ahead, Unit::Seconds, self.clock_ahead.clone());
        let agrees = "1 when the device's clock agrees with the hub's to a few seconds";
        registry.register("clock_synchronised", agrees, self.clock_synchronised.clone());
        let bytes = || Unit::Bytes;
        registry.register_with_unit(
            "outbox",
            "Size of the batches without receipt",
            bytes(),
            self.outbox_bytes.clone(),
        );
        registry.register_with_unit("memory", "Resident memory", bytes(), self.memory_bytes.clone());
        let seconds = || Unit::Seconds;
        registry.register_with_unit(
            "decision",
            "From the writer to the decision",
            seconds(),
            self.decision_seconds.clone(),
        );
        registry.register_with_unit("wait", "In the queue before the writer", seconds(), self.wait_seconds.clone());
        registry.register_with_unit("commit", "One transaction, sync included", seconds(), self.commit_seconds.clone());
    }

    /// The Prometheus text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing into a string has no way to fail.
        let _ = encode(&mut text, &self.registry.lock().unwrap_or_else(PoisonError::into_inner));
        text
    }

    /// Counts an accepted event.
    pub fn count_accepted(&self, source: &str) {
        self.accepted.get_or_create(&SourceLabel { source: source.to_owned() }).inc();
    }

    /// Counts an event that was there before.
    pub fn count_duplicate(&self, source: &str) {
        self.duplicates.get_or_create(&SourceLabel { source: source.to_owned() }).inc();
    }

    /// Counts refused events.
    pub fn count_refused(&self, reason: &'static str, events: u64) {
        self.refused.get_or_create(&ReasonLabel { reason }).inc_by(events);
    }

    /// Refused events by reason, since start.
    pub fn refusals(&self, reasons: &[&'static str]) -> Vec<(String, u64)> {
        let count = |reason: &'static str| self.refused.get_or_create(&ReasonLabel { reason }).get();
        let counts = reasons.iter().map(|reason| ((*reason).to_owned(), count(reason)));
        counts.filter(|(_, count)| *count > 0).collect()
    }
}

/// Keeps the type of counters in sight: they are 64 bits also where a machine word is not.
const _: fn(&Counter<u64, AtomicU64>) -> u64 = Counter::get;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_names_counters_units_and_labels() {
        let metrics = Metrics::default();
        metrics.count_accepted("api");
        metrics.count_refused("type", 2);
        let text = metrics.text();
        assert!(text.contains("edge_agent_events_accepted_total{source=\"api\"} 1"), "{text}");
        assert!(text.contains("edge_agent_events_refused_total{reason=\"type\"} 2"), "{text}");
        assert!(text.contains("edge_agent_outbox_bytes 0"), "{text}");
        assert!(text.ends_with("# EOF\n"));
    }
}
