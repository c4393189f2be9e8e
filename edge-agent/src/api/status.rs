//! What a person, a test or Prometheus wants to know.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::Query;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value as Json_, json};
use tributary_wire::{AuditHead, DeviceId, Health, LineReport, MetadataVersions, Micros, Resources, Unfit};

use super::State;
use super::problem::Problem;
use crate::download::DownloadView;
use crate::identity::{CertificateView, ClockView};
use crate::link::LinkView;
use crate::metrics::Metrics;
use crate::serve::{REASONS, Serving};
use crate::sources::{Replay, Serial, rfc3339};
use crate::state::Store;

/// What the updater and the link say of themselves; given by the wiring.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Generation of the newest assignment.
    pub generation: u64,
    /// Model lines.
    pub lines: Vec<LineReport>,
    /// A package is staged and waits for the hub's word.
    pub asks: bool,
    /// Feature flags of the newest assignment.
    pub flags: BTreeMap<String, String>,
    /// Releases that this device was told to run and cannot.
    pub unfit: Vec<Unfit>,
    /// What is wrong with the newest assignment.
    pub problem: Option<String>,
    /// The newest entry of the hub's audit log that this device knows of.
    pub audit: Option<AuditHead>,
    /// What is wrong with that log.
    pub audit_problem: Option<String>,
    /// The newest verified metadata of the signed repository.
    pub repository: Option<MetadataVersions>,
    /// Why nothing newer is believed.
    pub repository_problem: Option<String>,
    /// The connection to the hub.
    pub link: LinkView,
    /// Files on their way.
    pub download: DownloadView,
    /// The device's clock.
    pub clock: ClockView,
    /// The device's certificate.
    pub certificate: Option<CertificateView>,
    /// Why there is none, and what would change that.
    pub no_certificate: Option<String>,
    /// What is wrong with an identity that cannot be used.
    pub identity_problem: Option<String>,
}

/// Everything there is to say about the agent.
pub struct StatusSource {
    /// Who we are.
    pub device: DeviceId,
    /// The state.
    pub store: Arc<Store>,
    /// The pipeline.
    pub serving: Arc<Serving>,
    /// Files being played.
    pub replays: Vec<Replay>,
    /// Sensor nodes.
    pub nodes: Vec<Serial>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// The updater and the link.
    pub report: Box<dyn Fn() -> Report + Send + Sync>,
}

impl StatusSource {
    /// What is wrong, in words and numbers.
    pub fn health(&self) -> Health {
        let shown = self.serving.shown();
        let mut problems = Vec::new();
        problems.extend(shown.storage_error.map(|error| format!("nothing can be stored: {error}")));
        for replay in &self.replays {
            let status = replay.status();
            problems.extend(status.error.map(|error| format!("replay: {error}")));
        }
        problems.extend(self.nodes.iter().filter_map(|node| node.status().trouble()));
        if let Some(problem) = shown.recovery.and_then(|recovery| recovery.problem) {
            // Worth telling, but the windows are whole again: the agent is well.
            tracing::debug!(problem, "the window snapshot was thrown away at start");
        }
        let report = (self.report)();
        problems.extend(self.serving.sampling().problem.as_ref().map(|problem| format!("sampling policy: {problem}")));
        problems.extend(report.identity_problem);
        problems.extend(report.repository_problem);
        problems.extend(report.link.problem);
        problems.extend(report.clock.problem);
        problems.extend(report.certificate.and_then(|certificate| certificate.problem));
        let refused = self.metrics.refusals(&REASONS);
        Health { ok: problems.is_empty(), problems, refused, dropped: shown.dropped }
    }

    /// What is used.
    pub fn resources(&self) -> Resources {
        let (outbox_batches, outbox_bytes) = self.store.outbox_size();
        let memory_bytes = tributary_process::resources::memory().resident;
        let events = self.serving.shown().accepted;
        Resources { memory_bytes, outbox_batches, outbox_bytes, events }
    }

    /// Counters and gauges in the text form of Prometheus.
    pub fn metrics_text(&self) -> String {
        let (resources, metrics) = (self.resources(), &self.metrics);
        metrics.outbox_batches.set(resources.outbox_batches as i64);
        metrics.outbox_bytes.set(resources.outbox_bytes as i64);
        metrics.memory_bytes.set(resources.memory_bytes as i64);
        let Report { certificate, clock, .. } = (self.report)();
        metrics.clock_ahead.set(clock.ahead.unwrap_or(0) / Micros::SECOND);
        metrics.clock_synchronised.set(clock.synchronised.into());
        metrics.certificate_end.set(certificate.map_or(0, |certificate| certificate.not_after.0 / 1_000_000));
        metrics.queue_events.set(self.serving.waiting() as i64);
        metrics.text()
    }

    /// All of it as JSON.
    pub fn json(&self) -> Json_ {
        let shown = self.serving.shown();
        let (report, health, resources) = ((self.report)(), self.health(), self.resources());
        let in_force = self.serving.sampling();
        let sources: Vec<Json_> = shown
            .sources
            .iter()
            .map(|(name, state)| {
                json!({
                    "name": name,
                    "accepted": state.accepted,
                    "duplicates": state.duplicates,
                    "refused": state.refused,
                    "newest": state.newest.as_ref().map(rfc3339),
                    "offset": state.offset,
                    "of": state.of,
                    "finished": state.finished,
                })
            })
            .collect();
        let serving = self.serving.current().map(|package| {
            json!({
                "line": package.line,
                "version": package.reference.version,
                "sha256": package.reference.sha256,
                "engine": package.engine.name(),
            })
        });
        let lines: Vec<Json_> = report
            .lines
            .iter()
            .map(|line| {
                json!({
                    "line": line.line,
                    "role": line.role,
                    "state": format!("{:?}", line.state),
                    "committed": line.committed.map(|package| package.version),
                    "previous": line.previous.map(|package| package.version),
                    "candidate": line.candidate.map(|package| package.version),
                    "undone": line.undone.as_ref().map(|(package, why)| json!({"version": package.version, "why": why})),
                    "error": line.error,
                    "engine": line.engine,
                    "trial": line.trial,
                })
            })
            .collect();
        let unfit: Vec<Json_> = report
            .unfit
            .iter()
            .map(|it| json!({"line": it.line, "role": it.role, "version": it.package.version, "reasons": it.reasons}))
            .collect();
        let recovery = shown.recovery.map(|recovery| {
            json!({
                "snapshot": recovery.snapshot,
                "replayed": recovery.replayed,
                "unfit": recovery.unfit,
                "problem": recovery.problem,
            })
        });
        let certificate = report.certificate.as_ref().map(|certificate| {
            json!({
                "serial": certificate.serial.as_str(),
                "not_after": rfc3339(&certificate.not_after),
                "next_attempt": certificate.next_attempt.as_ref().map(rfc3339),
                "error": certificate.error,
            })
        });
        let mut hub = json!(report.link);
        hub["generation"] = json!(report.generation);
        hub["asks"] = json!(report.asks);
        hub["problem"] = json!(report.problem);
        hub["audit"] = json!(report.audit.map(|head| json!({ "number": head.number, "hash": head.hash })));
        hub["audit_problem"] = json!(report.audit_problem);
        hub["repository"] = json!(report.repository);
        hub["repository_problem"] = json!(report.repository_problem);
        hub["certificate"] = json!(certificate);
        hub["not_enrolled"] = json!(report.no_certificate);
        json!({
            "device": self.device,
            "agent": crate::VERSION,
            "incarnation": self.store.incarnation(),
            "clock": {
                "now": rfc3339(&report.clock.now),
                "synchronised": report.clock.synchronised,
                "unset": report.clock.unset,
                "ahead_of_hub_seconds": report.clock.ahead.map(|ahead| ahead / Micros::SECOND),
                "not_before": rfc3339(&report.clock.floor),
            },
            "health": { "ok": health.ok, "problems": health.problems },
            "hub": hub,
            "serving": serving,
            "lines": lines,
            "unfit": unfit,
            "flags": report.flags,
            "download": report.download,
            "view": { "name": shown.view.0, "version": shown.view.1 },
            "fleet": shown.fleet.as_ref().map(|(number, taken)| json!({"snapshot": number, "taken": rfc3339(taken)})),
            "events": {
                "accepted": shown.accepted,
                "refused": health.refused.into_iter().collect::<BTreeMap<_, _>>(),
                "waiting": self.serving.waiting(),
                "watermark": shown.watermark.as_ref().map(rfc3339),
            },
            "sources": sources,
            "nodes": self.nodes.iter().map(Serial::status).collect::<Vec<_>>(),
            "replays": self.replays.iter().map(Replay::status).collect::<Vec<_>>(),
            "windows": {
                "entities": shown.windows.0,
                "events": shown.windows.1,
                "snapshot": shown.window_snapshot,
                "recovery": recovery,
            },
            "outbox": {
                "batches": resources.outbox_batches,
                "bytes": resources.outbox_bytes,
                "dropped_records": health.dropped,
                "dropped": shown.dropped_by,
                "budget": in_force.policy.outbox_bytes,
            },
            "sampling": {
                "policy": in_force.policy,
                "limited": in_force.limited,
                "problem": in_force.problem,
                "observations": {
                    "kept": shown.sampling.kept,
                    "left_out": shown.sampling.left_out,
                    "uncovered": shown.sampling.uncovered,
                },
                "events_left_out": shown.sampling.events_left_out,
                "day_bytes": shown.sampling.day_bytes,
            },
            "memory_bytes": resources.memory_bytes,
        })
    }
}

pub(super) async fn status(state: State) -> Json<Json_> {
    Json(state.status.json())
}

/// Feature flags of this device, as its newest assignment says: for the application beside the agent.
pub(super) async fn flags(state: State) -> Json<BTreeMap<String, String>> {
    Json((state.status.report)().flags)
}

pub(super) async fn health(state: State) -> Response {
    let health = state.status.health();
    let status = if health.ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "ok": health.ok, "problems": health.problems }))).into_response()
}

pub(super) async fn metrics(state: State) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], state.status.metrics_text()).into_response()
}

/// Which accepted ids are listed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Page {
    after: u64,
    limit: usize,
}

impl Default for Page {
    fn default() -> Self {
        Self { after: 0, limit: 1000 }
    }
}

/// Accept numbers and event ids that are remembered, so that anyone can reconcile them with the lake.
pub(super) async fn accepted(
    state: State,
    page: Result<Query<Page>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<Json_>, Problem> {
    let Query(page) = page.map_err(|error| Problem::new(StatusCode::BAD_REQUEST, "query", error.body_text()))?;
    let store = state.status.store.clone();
    let ids = tokio::task::spawn_blocking(move || store.remembered(page.after, page.limit.min(10_000))).await;
    let failed = |error: String| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "storage", error);
    let ids = ids.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))?;
    let next = ids.last().map(|(number, _)| *number);
    let ids: Vec<Json_> = ids.into_iter().map(|(number, id)| json!({ "accepted": number, "id": id })).collect();
    Ok(Json(json!({ "total": state.serving.shown().accepted, "events": ids, "next": next })))
}
