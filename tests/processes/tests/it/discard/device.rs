//! A device on a disk that forgets, and the source in front of it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use edge_agent::config::Fallback;
use edge_agent::link;
use edge_agent::metrics::Metrics;
use edge_agent::serve::{Outcome, Pipeline, PipelineConfig, Serving, Submission, SubmitError};
use edge_agent::sources::{TimeDomain, TimeRules};
use edge_agent::state::simdisk::{self, SimDisk};
use edge_agent::state::{BatchLimits, Store, StoreOptions};
use edge_agent::windows::SnapshotRules;
use edge_agent_core::outbox::{Outbox, OutboxSettings};
use rand::Rng;
use rand::rngs::StdRng;
use tempfile::TempDir;
use tributary_features::{Event, FleetTable, View};
use tributary_process::clock::Clock;
use tributary_process::config::HumanDuration;
use tributary_wire::{AckV1, DeviceId, LineName, Micros, SamplingPolicy};

/// A clock that only [`Device::wait`] moves.
#[derive(Default)]
struct StoryClock(AtomicU64);

impl Clock for StoryClock {
    fn wall(&self) -> i64 {
        1_767_571_200_000_000 + self.monotonic() as i64
    }

    fn monotonic(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The device, over all its lives.
pub struct Device {
    pub id: DeviceId,
    view: View,
    /// In the order in which the source brings them.
    events: Vec<Event>,
    /// So many of them were answered as durable.
    answered: usize,
    /// Their ids.
    pub told: BTreeSet<String>,
    disk: SimDisk,
    folder: TempDir,
    batch_rows: usize,
    life: Option<Life>,
    clock: Arc<StoryClock>,
    pub power_cuts: u32,
    /// Failures of the disk that passed.
    pub faults: u32,
}

/// From one power cut to the next.
struct Life {
    store: Arc<Store>,
    serving: Arc<Serving>,
    pipeline: JoinHandle<()>,
    outbox: Outbox,
}

impl Device {
    pub fn new(name: &str, view: &View, events: Vec<Event>, chance: &mut StdRng) -> Result<Self> {
        let mut device = Self {
            id: DeviceId::new(name)?,
            view: view.clone(),
            events,
            answered: 0,
            told: BTreeSet::new(),
            disk: SimDisk::new(),
            folder: tempfile::tempdir()?,
            batch_rows: chance.random_range(4..24),
            life: None,
            clock: Arc::default(),
            power_cuts: 0,
            faults: 0,
        };
        device.begin(chance)?;
        Ok(device)
    }

    fn begin(&mut self, chance: &mut StdRng) -> Result<()> {
        // Bound to this life: a pipeline that opens its state again after the power cut gets nothing.
        let disk = self.disk.until_crash();
        let store = Arc::new(Store::open_with(move || simdisk::backend(&disk), StoreOptions::default())?);
        let pipeline = Pipeline::build(store.clone(), self.config())?;
        let serving = pipeline.serving();
        let pipeline = pipeline.start()?;
        let mut outbox = Outbox::new(store.incarnation(), OutboxSettings::default(), chance.random());
        outbox.connected();
        self.life = Some(Life { store, serving, pipeline, outbox });
        Ok(())
    }

    fn config(&self) -> PipelineConfig {
        PipelineConfig {
            device: DeviceId::new("edge-1").expect("a name"),
            line: LineName::new("card-fraud").expect("a name"),
            view: Some(self.view.clone()),
            fallback: Fallback::default(),
            queue_events: 1024,
            // By number alone: the seed decides, not the speed of the machine.
            batch: BatchLimits { rows: self.batch_rows, bytes: 1 << 20, age: Micros::DAY as u64 },
            remember: i64::MAX,
            remember_events: 1 << 20,
            retain_events: 1 << 20,
            sampling: SamplingPolicy::EVERYTHING,
            snapshot: SnapshotRules {
                folder: Some(self.folder.path().join("windows")),
                cache_bytes: 1 << 20,
                events: 20,
                every: u64::MAX / 2,
            },
            sketch_window: Micros::DAY,
            prediction_cache: 16,
            fleet: Box::new(FleetTable::new),
            clock: self.clock.clone(),
            metrics: Arc::new(Metrics::default()),
        }
    }

    fn life(&mut self) -> &mut Life {
        self.life.as_mut().expect("the power is on between two calls")
    }

    /// Whether the source is through.
    pub fn is_through(&self) -> bool {
        self.answered == self.events.len()
    }

    /// The power will fail in the middle of something.
    pub fn weaken(&self, chance: &mut StdRng) {
        self.disk.fail_after(chance.random_range(0..60));
    }

    /// The source brings the next events, and all again that were not answered as durable. `false`: no answer.
    pub async fn bring(&mut self, chance: &mut StdRng) -> Result<bool> {
        let end = (self.answered + chance.random_range(1..14)).min(self.events.len());
        let lateness = HumanDuration(Duration::from_micros(self.view.lateness() as u64));
        let submission = Submission {
            source: "till".into(),
            rules: TimeRules { time: TimeDomain::Replay, lateness, ..TimeRules::default() },
            events: self.events[self.answered..end].to_vec(),
            progress: None,
            durable: chance.random_bool(0.8),
        };
        let outcomes = match self.life().serving.clone().try_submit(submission).await {
            Ok(outcomes) => outcomes,
            Err(SubmitError::Storage(_)) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let mut is_durable = true;
        for (event, outcome) in self.events[self.answered..end].iter().zip(outcomes) {
            match outcome {
                Outcome::Accepted { durable: true, .. } | Outcome::Duplicate { durable: true, .. } => {
                    self.told.insert(event.id.as_str().to_owned());
                }
                Outcome::Accepted { .. } | Outcome::Duplicate { .. } => is_durable = false,
                Outcome::Refused(refusal) => bail!("{} was refused: {refusal}", event.id),
            }
        }
        if is_durable {
            self.answered = end;
        }
        Ok(true)
    }

    /// Batches that leave now; `None`: the disk failed.
    pub fn outgoing(&mut self) -> Option<Vec<Vec<u8>>> {
        let now = self.now();
        let life = self.life();
        link::choose(&life.store, &mut life.outbox, now).ok().map(|(batches, _)| batches)
    }

    /// Takes in a receipt; `false`: the disk failed.
    pub fn hear(&mut self, ack: &AckV1) -> bool {
        let now = self.now();
        let life = self.life();
        let freed = life.outbox.acknowledged(now, ack);
        link::free(&life.store, &freed).1.is_ok()
    }

    fn now(&self) -> Duration {
        Duration::from_micros(self.clock.monotonic())
    }

    /// Time passes.
    pub fn wait(&mut self, time: Duration) {
        self.clock.0.fetch_add(time.as_micros() as u64, Ordering::Relaxed);
    }

    /// The connection breaks and stands again.
    pub fn reconnect(&mut self) {
        let outbox = &mut self.life().outbox;
        outbox.disconnected();
        outbox.connected();
    }

    /// Something failed: the power, or the disk for a moment, in which case the same life goes on.
    pub fn fail(&mut self, chance: &mut StdRng) -> Result<()> {
        if chance.random_bool(0.5) {
            return self.lose_power(chance);
        }
        self.disk.mend();
        self.faults += 1;
        self.reconnect();
        Ok(())
    }

    /// The power goes and comes back. What was not synced is lost, or half of it.
    pub fn lose_power(&mut self, chance: &mut StdRng) -> Result<()> {
        self.disk.crash(chance.random_bool(0.7).then(|| chance.random()));
        self.power_cuts += 1;
        self.end()?;
        let windows = self.folder.path().join("windows");
        if chance.random_bool(0.2) && windows.exists() {
            std::fs::remove_dir_all(windows)?;
        }
        self.begin(chance)?;
        let store = self.life().store.clone();
        for id in &self.told {
            ensure!(store.answer(id)?.is_some(), "{id} was answered as durable; after a power cut it is not known");
        }
        Ok(())
    }

    fn end(&mut self) -> Result<Arc<Store>> {
        let Life { store, serving, pipeline, .. } = self.life.take().context("the power is on")?;
        serving.stop();
        pipeline.join().ok().context("the pipeline ends without a panic")?;
        Ok(store)
    }

    /// Stops in good order, which closes the batch that is open, and starts again.
    pub fn restart(&mut self, chance: &mut StdRng) -> Result<()> {
        let store = self.end()?;
        drop(store);
        self.begin(chance)
    }

    /// Batches that wait for a receipt, and records given up.
    pub fn waiting(&mut self) -> (u64, u64) {
        let store = &self.life().store;
        (store.outbox_size().0, store.outgoing().dropped)
    }
}
