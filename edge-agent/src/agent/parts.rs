//! From settings to parts.

use std::path::Path;
use std::sync::Arc;

use tributary_features::View;
use tributary_process::clock::Clock;
use tributary_process::disk::RealDisk;

use super::BuildError;
use super::hub::HubAccess;
use crate::capabilities;
use crate::config::{Config, InvalidConfig};
use crate::download::{self, Origins};
use crate::link::{self, FileStreams};
use crate::metrics::Metrics;
use crate::packages::PackageFiles;
use crate::serve::{FleetSource, PipelineConfig, Serving};
use crate::state::{BatchLimits, Store};
use crate::trust::{StoredFiles, Trust};
use crate::update::{Handle, Parts, Updates};
use crate::windows::SnapshotRules;

pub(super) fn read_view(path: &Path) -> Result<View, BuildError> {
    let text = std::fs::read_to_string(path).map_err(|source| BuildError::File { path: path.to_owned(), source })?;
    View::from_toml(&text).map_err(|source| BuildError::View { path: path.to_owned(), source })
}

pub(super) fn pipeline_config(
    config: &Config,
    view: Option<View>,
    store: &Arc<Store>,
    clock: Arc<dyn Clock>,
    metrics: &Arc<Metrics>,
) -> PipelineConfig {
    PipelineConfig {
        device: config.device.clone(),
        line: config.line().clone(),
        view,
        fallback: config.fallback,
        queue_events: config.limits.queue_events,
        batch: BatchLimits {
            rows: config.outbox.batch_rows,
            bytes: config.outbox.batch_bytes.0 as usize,
            age: micros(config.outbox.batch_age),
        },
        remember: micros(config.state.remember) as i64,
        remember_events: config.state.remember_events,
        retain_events: config.state.retain_events,
        sampling: config.sampling.policy(),
        snapshot: SnapshotRules {
            folder: Some(config.state_dir.join("windows")),
            cache_bytes: config.state.window_cache.0,
            events: config.state.snapshot_events,
            every: micros(config.state.snapshot_every),
        },
        sketch_window: micros(config.sketch_window) as i64,
        prediction_cache: config.prediction_cache,
        fleet: stored_fleet(store.clone()),
        clock,
        metrics: metrics.clone(),
    }
}

pub(super) fn stored_fleet(store: Arc<Store>) -> FleetSource {
    Box::new(move |view| link::snapshots::fleet_table(&store, view))
}

/// Where files come from, in the order in which it is asked.
pub(super) fn origins(
    config: &Config,
    hub: &HubAccess,
    streams: &FileStreams,
    clock: Arc<dyn Clock>,
    metrics: &Metrics,
) -> Result<Origins, BuildError> {
    let hours = config.download.budget.hours().map_err(InvalidConfig::from)?;
    let parts = download::Parts {
        config: config.download.clone(),
        web: hub.web.clone(),
        streams: streams.clone(),
        time: hub.time.clone(),
        clock,
        metrics: metrics.download.clone(),
        seed: rand::random(),
    };
    Ok(Origins::new(parts, hours)?)
}

/// What this device believes of the signed repository, from the root that enrolment brought or the settings name.
pub(super) async fn trust(
    config: &Config,
    hub: &HubAccess,
    origins: &Origins,
    store: &Arc<Store>,
    clock: Arc<dyn Clock>,
) -> Result<Trust, BuildError> {
    let root = match &config.trust.root {
        Some(path) => Some(std::fs::read(path).map_err(|source| BuildError::File { path: path.clone(), source })?),
        None => hub.root(),
    };
    let (source, files) = (Arc::new(origins.clone()), Arc::new(StoredFiles::new(store.clone())));
    Ok(Trust::open(root.as_deref(), source, files, hub.time.clone(), clock).await?)
}

pub(super) async fn updates(
    config: &Config,
    hub: &HubAccess,
    trust: &Trust,
    origins: &Origins,
    store: &Arc<Store>,
    serving: &Arc<Serving>,
    clock: Arc<dyn Clock>,
) -> Result<(Updates, Handle), BuildError> {
    let folder = config.state_dir.join("packages");
    let budget = config.state.packages.map(|budget| budget.0);
    let files = PackageFiles::open_on(Arc::new(RealDisk), folder.clone(), budget)
        .map_err(|source| BuildError::File { path: folder, source })?;
    let parts = Parts {
        device: config.device.clone(),
        lines: config.lines.clone(),
        config: config.update,
        trust: trust.clone(),
        origins: origins.clone(),
        files,
        capabilities: Arc::new(capabilities::gather(config.limits.package_memory)),
        store: store.clone(),
        serving: serving.clone(),
        clock,
        time: hub.time.clone(),
        seed: rand::random(),
    };
    Ok(Updates::build(parts).await?)
}

/// Microseconds of a configured duration.
fn micros(duration: tributary_process::config::HumanDuration) -> u64 {
    duration.0.as_micros().min(i64::MAX as u128) as u64
}
