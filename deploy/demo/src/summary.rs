//! The figures of one telling, as JSON. Every number was measured in this run.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::step::Step;

/// What `--summary` writes.
#[derive(Debug, Default, Serialize)]
pub struct Summary {
    /// Seed of customers, payments and frauds.
    pub seed: u64,
    /// Steps that truly happened, in order.
    pub steps: Vec<Step>,
    /// Records that agents accepted.
    pub accepted: u64,
    /// Of those, in the lake.
    pub in_lake: u64,
    /// Records that agents reported as dropped.
    pub dropped: u64,
    /// Records that are in the lake more than once.
    pub duplicated: u64,
    /// Changes of state in the hub's audit log.
    pub audit_entries: u64,
    /// Requests that failed while packages were switched.
    pub requests_failed: u64,
    /// Alerts of drift or quality.
    pub alerts: u64,
    /// Runs that an alert started.
    pub retrainings: u64,
    /// Per version: how good it is.
    pub versions: BTreeMap<u32, Version>,
    /// AUC ROC of the first and the second version on the same later payments.
    pub comparison: Option<Comparison>,
    /// Bytes that the agents fetched, by version.
    pub bytes_shipped: BTreeMap<u32, u64>,
    /// Time from event to decision inside the agent, in microseconds.
    pub decision_latency_us: Latency,
    /// Seconds from the alert until every agent had committed the new version.
    pub alert_to_fleet_s: Option<f64>,
    /// Highest resident memory of the hub, in bytes.
    pub hub_memory_bytes: u64,
    /// Highest resident memory of one agent, in bytes.
    pub agent_memory_bytes: u64,
    /// Seconds that the story took.
    pub seconds: f64,
}

/// How good one version is, on the later days of its own dataset.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Version {
    /// AUC ROC of the f32 graph.
    pub auc_f32: f64,
    /// AUC ROC of the int8 graph.
    pub auc_int8: f64,
    /// Average precision of the f32 graph.
    pub average_precision_f32: f64,
    /// Average precision of the int8 graph.
    pub average_precision_int8: f64,
    /// Size of its package file.
    pub package_bytes: u64,
    /// Which graph is served.
    pub serves: String,
}

/// Two versions on the same labelled payments.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Comparison {
    /// Labelled payments.
    pub rows: u64,
    /// The version that was trained before the change.
    pub before: f64,
    /// The version that was trained after it.
    pub after: f64,
}

/// Quantiles.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Latency {
    /// Median.
    pub p50: u64,
    /// 99th percentile.
    pub p99: u64,
}
