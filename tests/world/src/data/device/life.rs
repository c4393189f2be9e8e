//! A device from one power cut to the next.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context as Turn, Poll, Waker};

use anyhow::{Result, bail, ensure};
use edge_agent::config::Fallback;
use edge_agent::metrics::Metrics;
use edge_agent::serve::{Outcome, Pipeline, PipelineConfig, Serving, StartError, Submission, SubmitError};
use edge_agent::state::simdisk;
use edge_agent::state::{BatchLimits, Store, StoreOptions};
use edge_agent::windows::SnapshotRules;
use edge_agent_core::outbox::{Outbox, OutboxSettings};
use rand::Rng;
use tributary_features::FleetTable;
use tributary_process::clock::Clock as _;
use tributary_stats::Sketch;
use tributary_wire::{LossReason, Micros, Role};

use super::super::hub::Losses;
use super::super::served;
use super::Device;

/// From this version of messages on a hub reads why records were given up, and of when they were.
const REASONS: u8 = 3;

/// What a device keeps back from the hub, as it says itself.
#[derive(Debug, Clone, Default)]
pub struct KeptBack {
    /// Events accepted.
    pub accepted: u64,
    /// Records given up, with the reasons that its hub can be told.
    pub dropped: Losses,
    /// Observations that sampling left out.
    pub left_out: u64,
    /// Predictions in sketches that are still being filled.
    pub sketched: u64,
}

impl KeptBack {
    /// Records of a stream that were given up, for whatever reason.
    pub fn dropped(&self, stream: &str) -> u64 {
        self.dropped.iter().filter(|((of, _), _)| of == stream).map(|(_, records)| records).sum()
    }
}

/// What came of a start.
pub(super) enum Begun {
    /// It runs.
    Life(Box<Life>),
    /// The disk refused something meanwhile.
    Refused,
    /// The state is damaged.
    Broken(anyhow::Error),
}

/// The parts that end with the power.
pub(super) struct Life {
    pub(super) store: Arc<Store>,
    pub(super) serving: Arc<Serving>,
    pub(super) pipeline: Pipeline,
    pub(super) outbox: Outbox,
}

impl Life {
    pub(super) fn begin(device: &mut Device) -> Result<Begun> {
        let refusals = device.disk.refusals();
        let refused = || device.disk.refusals() > refusals;
        let options = StoreOptions {
            outbox_budget: device.setup.outbox_budget,
            wall: Micros(device.clock.wall()),
            boot: device.chance.random(),
            cache_bytes: 1 << 16,
        };
        let store = match simdisk::open(&device.disk, options) {
            Ok(store) => Arc::new(store),
            Err(error) if error.is_broken() => return Ok(Begun::Broken(error.into())),
            Err(_) if refused() => return Ok(Begun::Refused),
            Err(error) => return Err(error.into()),
        };
        store.hub_reads(if device.setup.reasons { REASONS } else { 0 });
        let pipeline = match Pipeline::build(store.clone(), config(device)) {
            Ok(pipeline) => pipeline,
            Err(StartError::Store(error)) if error.is_broken() => return Ok(Begun::Broken(error.into())),
            Err(StartError::Store(_)) if refused() => return Ok(Begun::Refused),
            Err(error) => return Err(error.into()),
        };
        let serving = pipeline.serving();
        if device.setup.packaged {
            // Now and then another one was put in place.
            if device.chance.random_bool(0.2) {
                device.package = device.chance.random_range(1..=served::VERSIONS);
            }
            serving.swap(&served::line(), &Role::primary(), Some(served::package(device.package)))?;
        }
        let outbox = Outbox::new(store.incarnation(), OutboxSettings::default(), device.chance.random());
        Ok(Begun::Life(Box::new(Self { store, serving, pipeline, outbox })))
    }

    pub(super) fn submit(&mut self, submission: Submission) -> Result<Result<Vec<Outcome>, SubmitError>> {
        let Self { serving, pipeline, .. } = self;
        let mut answer = pin!(serving.try_submit(submission));
        let mut turn = Turn::from_waker(Waker::noop());
        if let Poll::Ready(answer) = answer.as_mut().poll(&mut turn) {
            return Ok(answer);
        }
        ensure!(pipeline.step().is_some(), "the pipeline stopped by itself");
        match answer.poll(&mut turn) {
            Poll::Ready(answer) => Ok(answer),
            Poll::Pending => bail!("a submission was left without an answer"),
        }
    }

    /// What it kept back; a hub that was told no reasons takes what was too old for what had no room.
    pub(super) fn kept_back(&mut self, reasons: bool) -> Result<KeptBack> {
        ensure!(self.pipeline.step().is_some(), "the pipeline stopped by itself");
        let withheld = self.serving.withheld();
        let mut dropped = Losses::new();
        for lost in &withheld.dropped {
            let reason = match lost.reason {
                LossReason::Age if !reasons => LossReason::DiskBudget,
                reason => reason,
            };
            *dropped.entry((lost.stream.as_str().to_owned(), reason)).or_default() += lost.records;
        }
        let all = self.store.outgoing().dropped;
        ensure!(dropped.values().sum::<u64>() == all, "{all} records were dropped, by stream {dropped:?}");
        let left_out = withheld.sampling.left_out + withheld.sampling.uncovered;
        let loaded = self.store.load()?;
        let mut sketched = 0;
        for (_, sketch) in &loaded.open_sketches {
            sketched += Sketch::decode(sketch)?.predictions;
        }
        Ok(KeptBack { accepted: loaded.next - 1, dropped, left_out, sketched })
    }
}

fn config(device: &Device) -> PipelineConfig {
    let setup = &device.setup;
    PipelineConfig {
        device: device.id.clone(),
        line: served::line(),
        view: Some(device.view.clone()),
        fallback: Fallback::default(),
        queue_events: 1024,
        batch: BatchLimits { rows: setup.rows, bytes: 1 << 20, age: setup.age.as_micros() as u64 },
        remember: i64::MAX,
        remember_events: setup.remember_events,
        retain_events: setup.retain_events,
        sampling: setup.sampling.clone(),
        // sled works on real files with threads of its own; its tests cut the power by themselves. Here the windows
        // always come back from the events.
        snapshot: SnapshotRules { folder: None, cache_bytes: 1 << 20, events: u64::MAX / 2, every: u64::MAX / 2 },
        sketch_window: Micros::DAY,
        prediction_cache: 16,
        fleet: Box::new(FleetTable::new),
        clock: Arc::new(device.clock.clone()),
        metrics: Arc::new(Metrics::default()),
    }
}
