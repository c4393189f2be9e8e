//! The one writer: takes what waits, serves it as one group, and commits it once.
//!
//! Everything that a restart would have to find again is in [`Live`]. When a commit fails, `Live` is thrown away and
//! read back from the disk, so that memory never holds an event that the state does not.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError, RwLock, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use edge_agent_core::sampling::{InForce, Sampler};
use tokio::sync::Semaphore;
use tributary_features::{FleetTable, View};
use tributary_process::clock::Clock;
use tributary_wire::{ClockState, DeviceId, LineName, Micros, SamplingPolicy, Stamp};

use super::group::Waiting;
use super::sampling::Policies;
use super::sketches::Sketches;
use super::slot::Slots;
use super::{Message, Serving, Shown, SubmitError};
use crate::config::Fallback;
use crate::metrics::Metrics;
use crate::state::{BatchLimits, Commit, Keeping, OpenBatch, SourceState, Store, StoreError, Sweep};
use crate::windows::{Recovery, SnapshotRules, Windows};

/// Name of the stored view: the one that a package brought stays in use after a restart, until a package is in place.
const VIEW_BLOB: &str = "serve/view";
/// Events in one group: as many share a sync.
const GROUP_EVENTS: usize = 1024;
/// Wait between attempts to open the state again.
const RETRY: u64 = 500_000;
/// So long after a failure, a write of next to nothing counts as a sign that the disk takes data again. Sooner it says
/// little: a full disk may have room for that.
const PROBE: u64 = 5_000_000;
/// The longest time between two looks at the state's health.
const LOOK: Duration = Duration::from_secs(2);
/// A source that was silent for so long no longer holds the watermark back.
const SILENT: u64 = 60_000_000;

/// Gives the table of fleet-scope features that is stored for a view.
pub type FleetSource = Box<dyn FnMut(&View) -> FleetTable + Send>;

/// What the pipeline is made of.
pub struct PipelineConfig {
    /// Who serves: what challengers share out where events have no entity.
    pub device: DeviceId,
    /// The line that is served.
    pub line: LineName,
    /// The view until a package brings another.
    pub view: Option<View>,
    /// What is answered when no package can.
    pub fallback: Fallback,
    /// Most events that wait.
    pub queue_events: usize,
    /// When batches are closed.
    pub batch: BatchLimits,
    /// Event ids are remembered for this long, in microseconds …
    pub remember: i64,
    /// … and for at most so many later events.
    pub remember_events: u64,
    /// Accepted events kept at most.
    pub retain_events: u64,
    /// What is sent of raw observations, unless the hub says otherwise; its bytes and times bind the hub too.
    pub sampling: SamplingPolicy,
    /// Window snapshots.
    pub snapshot: SnapshotRules,
    /// Width of sketches in microseconds of event time.
    pub sketch_window: i64,
    /// Places in the prediction cache of each package.
    pub prediction_cache: usize,
    /// The stored fleet table.
    pub fleet: FleetSource,
    /// Clocks.
    pub clock: Arc<dyn Clock>,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

/// Why the pipeline cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The state cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no view to read events by.
    #[error("no feature view: set `view` to a file (a package brings its own later)")]
    NoView,
    /// The stored view is not one.
    #[error("the stored feature view")]
    View(#[from] tributary_features::ViewError),
    /// No thread could be started.
    #[error("the writer's thread")]
    Thread(#[source] std::io::Error),
}

/// Everything that a restart finds again.
pub(super) struct Live {
    pub(super) windows: Windows,
    pub(super) next: u64,
    pub(super) batched_through: u64,
    pub(super) sources: BTreeMap<String, SourceState>,
    pub(super) open: OpenBatch,
    pub(super) sketches: Sketches,
    pub(super) sampler: Sampler,
}

/// The writer's own side.
pub struct Pipeline {
    pub(super) config: PipelineConfig,
    pub(super) store: Arc<Store>,
    pub(super) serving: Arc<Serving>,
    queue: mpsc::Receiver<Message>,
    pub(super) live: Option<Live>,
    pub(super) fleet: FleetTable,
    /// When each source last brought something, and its watermark then.
    pub(super) touched: BTreeMap<String, (u64, Option<Micros>)>,
    pub(super) watermark: Option<Micros>,
    /// The policy that the store was told of.
    kept_to: Option<Arc<InForce>>,
    retry_at: u64,
    /// Why the last write failed, until one succeeds.
    failure: String,
    failed_at: u64,
}

impl Pipeline {
    /// Reads the state and brings the windows back; nothing is served before [`Pipeline::start`].
    pub fn build(store: Arc<Store>, mut config: PipelineConfig) -> Result<Self, StartError> {
        let stored = store.blob_get(VIEW_BLOB)?.map(|bytes| View::from_toml(&String::from_utf8_lossy(&bytes)));
        let view = Arc::new(stored.transpose()?.or(config.view.take()).ok_or(StartError::NoView)?);
        let (live, recovery) = recover(&store, &config, view.clone())?;
        let fleet = (config.fleet)(&view);
        let (sender, queue) = mpsc::channel();
        let serving = Arc::new(Serving {
            queue: sender,
            room: Arc::new(Semaphore::new(config.queue_events)),
            limit: config.queue_events,
            line: config.line.clone(),
            slots: RwLock::new(Slots::default()),
            answering: RwLock::default(),
            policies: Policies::new(config.sampling.clone(), store.outbox_room()),
            cache_size: config.prediction_cache,
            view: RwLock::new(view),
            shown: Mutex::new(Shown::default()),
            stopped: AtomicBool::new(false),
            metrics: config.metrics.clone(),
            clock: config.clock.clone(),
        });
        let pipeline = Self {
            config,
            store,
            serving,
            queue,
            live: Some(live),
            fleet,
            touched: BTreeMap::new(),
            watermark: None,
            kept_to: None,
            retry_at: 0,
            failure: String::new(),
            failed_at: 0,
        };
        pipeline.show(Some(recovery));
        Ok(pipeline)
    }

    /// The handle for everyone else.
    pub fn serving(&self) -> Arc<Serving> {
        self.serving.clone()
    }

    /// Begins to serve, in a thread of its own that ends after [`Serving::stop`].
    pub fn start(self) -> Result<JoinHandle<()>, StartError> {
        std::thread::Builder::new().name("pipeline".into()).spawn(move || self.run()).map_err(StartError::Thread)
    }

    fn run(mut self) {
        loop {
            let first = match self.queue.recv_timeout(self.wait()) {
                Ok(message) => Some(message),
                Err(mpsc::RecvTimeoutError::Timeout) => None,
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
            };
            if self.work(first) {
                break;
            }
        }
        self.close();
    }

    /// Does at once what waits and what is due, in place of the thread, for a caller who owns the clock. How long
    /// nothing more is to be done then; `None` after [`Serving::stop`].
    #[cfg(feature = "simulation")]
    pub fn step(&mut self) -> Option<Duration> {
        let first = self.queue.try_recv().ok();
        if self.work(first) {
            self.close();
            return None;
        }
        Some(self.wait())
    }

    /// One turn: `first` and what waits behind it. Whether to stop.
    fn work(&mut self, first: Option<Message>) -> bool {
        let mut stopping = false;
        let (mut waiting, mut events, mut next) = (Vec::new(), 0, first);
        while let Some(message) = next.take() {
            match message {
                Message::Submit { submission, received, reply, permit } => {
                    events += submission.events.len();
                    waiting.push(Waiting { submission, received, reply, permit });
                }
                Message::Predict { event, reply } => {
                    // The caller may have gone away.
                    let _ = reply.send(self.predict(&event));
                }
                Message::Look => {}
                Message::FleetChanged { view, version } => self.take_fleet(&view, version),
                // What came before is finished; what comes after finds the door closed.
                Message::Stop => stopping = true,
            }
            if events < GROUP_EVENTS {
                next = self.queue.try_recv().ok();
            }
        }
        self.turn(waiting);
        stopping
    }

    /// How long nothing is to be done.
    fn wait(&self) -> Duration {
        let now = self.config.clock.monotonic();
        let due = match &self.live {
            Some(live) => live.open.due_at(self.config.batch),
            None => Some(self.retry_at),
        };
        let due = due.map_or(LOOK, |due| Duration::from_micros(due.saturating_sub(now).max(1)));
        due.min(LOOK)
    }

    fn turn(&mut self, waiting: Vec<Waiting>) {
        if self.live.is_some() && self.store.is_suspect() {
            // Somebody else's write failed, and redb refuses everything since.
            self.fail(&StoreError::Closed);
        }
        if self.live.is_none() && self.config.clock.monotonic() >= self.retry_at {
            self.reopen();
        }
        if waiting.is_empty() && !self.failure.is_empty() {
            self.try_to_write();
        }
        self.keep_to_policy();
        let slots = self.serving.slots();
        let result = self.follow(&slots).and_then(|()| match self.live {
            Some(_) => self.serve(&slots, waiting),
            None => {
                let error = SubmitError::Storage(self.failure.clone());
                waiting.into_iter().for_each(|waiting| waiting.answer(Err(error.clone())));
                Ok(())
            }
        });
        if let Err(error) = result {
            self.fail(&error);
        }
        self.show(None);
    }

    /// Finds out whether the state can be written again, so that it is known before the next event comes.
    fn try_to_write(&mut self) {
        if self.live.is_some()
            && self.config.clock.monotonic() >= self.failed_at + PROBE
            && let Err(error) = self.commit(&Commit::default())
        {
            self.fail(&error);
        }
    }

    /// Throws memory away and reads back what is durable.
    fn fail(&mut self, error: &StoreError) {
        self.failure = describe(error);
        self.failed_at = self.config.clock.monotonic();
        tracing::error!(error = self.failure, disk_full = error.is_disk_full(), "nothing can be stored");
        self.config.metrics.commit_failures.inc();
        self.live = None;
        self.reopen();
    }

    fn reopen(&mut self) {
        let view = self.serving.view();
        let opened = self.store.reopen().and_then(|()| recover(&self.store, &self.config, view));
        match opened {
            Ok((live, recovery)) => {
                tracing::info!(?recovery, "the state is open again");
                self.live = Some(live);
                self.show(Some(recovery));
            }
            Err(error) => self.failure = describe(&error),
        }
        self.retry_at = self.config.clock.monotonic() + RETRY;
    }

    /// Takes up another view when the primary package brings one.
    fn follow(&mut self, slots: &Slots) -> Result<(), StoreError> {
        let wanted = slots.primary().map(|slot| slot.package().view.clone());
        let Some(live) = &mut self.live else { return Ok(()) };
        let Some(view) = wanted.filter(|view| view.source() != live.windows.view().source()) else { return Ok(()) };
        tracing::info!(view = view.name(), version = view.version(), "the package brings another feature view");
        // Events of the old view leave under their own columns before the first of the new.
        self.commit_idle(true)?;
        self.store.blob_put(VIEW_BLOB, view.source().as_bytes())?;
        let view = Arc::new(view);
        // The old windows let go of the snapshot's folder before the new ones take it.
        self.live = None;
        let (live, recovery) = recover(&self.store, &self.config, view.clone())?;
        self.live = Some(live);
        self.fleet = (self.config.fleet)(&view);
        *self.serving.view.write().unwrap_or_else(PoisonError::into_inner) = view;
        self.show(Some(recovery));
        Ok(())
    }

    /// Tells the store how much it keeps, when that has changed.
    fn keep_to_policy(&mut self) {
        let wanted = self.serving.sampling();
        if self.kept_to.as_ref().is_some_and(|known| Arc::ptr_eq(known, &wanted)) {
            return;
        }
        let seconds = wanted.policy.keep_seconds;
        let age = seconds.map(|seconds| i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(Micros::SECOND));
        let bytes = wanted.policy.outbox_bytes.unwrap_or(self.store.outbox_room());
        self.store.keep(Keeping { bytes, age });
        self.kept_to = Some(wanted);
    }

    fn take_fleet(&mut self, name: &str, version: u32) {
        let view = self.serving.view();
        if (view.name(), view.version()) == (name, version) {
            self.fleet = (self.config.fleet)(&view);
        }
    }

    /// Commits without new events: a batch that is due by age, or any when `close`.
    pub(super) fn commit_idle(&mut self, close: bool) -> Result<(), StoreError> {
        let now = self.config.clock.monotonic();
        let Some(live) = &mut self.live else { return Ok(()) };
        let changes = live.sketches.changes(self.watermark);
        let mut commit = Commit { open_sketches: changes.open, sketches: changes.finished, ..Commit::default() };
        if close || live.open.is_due(self.config.batch, now) {
            self.close_batch(&mut commit);
        }
        if !(commit.batches.is_empty()
            && commit.sketches.is_empty()
            && commit.open_sketches.is_empty()
            && commit.batched_through.is_none())
        {
            self.commit(&commit)?;
        }
        self.give_up()
    }

    /// Gives up what grew too old, or has no room since a budget was lowered, though nothing new comes.
    fn give_up(&mut self) -> Result<(), StoreError> {
        while self.store.holds_too_much(Micros(self.config.clock.wall())) {
            let dropped = self.store.give_up(self.stamp())?;
            self.config.metrics.dropped.inc_by(dropped);
        }
        Ok(())
    }

    /// Moves the open events into batches of `commit`, and lets old records go at the same time.
    pub(super) fn close_batch(&mut self, commit: &mut Commit<'_>) {
        let Some(live) = &mut self.live else { return };
        let Some(last) = live.open.last() else { return };
        commit.batches.extend(live.open.close(live.windows.view()));
        commit.batched_through = Some(last);
        live.batched_through = last;
        let newest = live.next - 1;
        commit.sweep = Some(Sweep {
            forget_through: newest.saturating_sub(self.config.remember_events),
            forget_before: Micros(self.config.clock.certain().saturating_sub(self.config.remember)),
            trim_through: live.windows.snapshot_through().map_or(last, |snapshot| snapshot.min(last)),
            trim_before: live.windows.needed_from().unwrap_or(Micros(i64::MIN)),
            budget_through: newest.saturating_sub(self.config.retain_events).min(last),
        });
    }

    /// Makes `commit` durable and counts it.
    pub(super) fn commit(&mut self, commit: &Commit<'_>) -> Result<(), StoreError> {
        let begun = self.config.clock.monotonic();
        let committed = self.store.commit(commit, self.stamp())?;
        self.failure.clear();
        let now = self.config.clock.monotonic();
        let metrics = &self.config.metrics;
        metrics.commits.inc();
        metrics.commit_seconds.observe((now - begun) as f64 / 1e6);
        metrics.dropped.inc_by(committed.dropped);
        Ok(())
    }

    fn stamp(&self) -> Stamp {
        let clock = &self.config.clock;
        Stamp {
            boot: self.store.boot(),
            monotonic: clock.monotonic(),
            wall: Micros(clock.wall()),
            clock: match clock.is_synchronised() {
                true => ClockState::Synchronised,
                false => ClockState::Unsynchronised,
            },
        }
    }

    /// The event time that all sources have passed that still bring something.
    pub(super) fn move_watermark(&mut self, now: u64) {
        let Some(live) = &self.live else { return };
        let finished = |name: &str| live.sources.get(name).is_some_and(|source| source.finished);
        let lively = self.touched.iter().filter(|(name, (at, _))| !finished(name) && now.saturating_sub(*at) < SILENT);
        let lowest = lively.filter_map(|(_, (_, watermark))| *watermark).min();
        self.watermark = self.watermark.max(lowest);
    }

    fn close(&mut self) {
        if let Err(error) = self.commit_idle(true) {
            tracing::error!(error = describe(&error), "the last batch stays open; its events are stored");
        }
        let now = self.config.clock.monotonic();
        if let Some(live) = &mut self.live {
            live.windows.settle();
            live.windows.write_snapshot(now);
            live.windows.settle();
        }
        self.show(None);
    }

    pub(super) fn show(&self, recovery: Option<Recovery>) {
        let mut shown = self.serving.shown_mut();
        if recovery.is_some() {
            shown.recovery = recovery;
        }
        shown.fleet = self.fleet.serving();
        shown.watermark = self.watermark;
        shown.dropped = self.store.outgoing().dropped;
        shown.dropped_by = self.store.dropped();
        if let Some(live) = &self.live {
            let view = live.windows.view();
            shown.view = (view.name().to_owned(), view.version());
            shown.accepted = live.next - 1;
            shown.sources = live.sources.iter().map(|(name, state)| (name.clone(), state.clone())).collect();
            let now = Micros(self.config.clock.wall());
            shown.sampling = live.sampler.report(&self.serving.sampling(), now);
            shown.windows = live.windows.held();
            shown.window_snapshot = live.windows.snapshot_through();
        }
        // That the state could be opened again says nothing: a full disk can still be read.
        shown.storage_error = (!self.failure.is_empty()).then(|| self.failure.clone());
    }
}

/// An error with its causes in one line.
pub(super) fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Reads everything back from the disk.
fn recover(store: &Store, config: &PipelineConfig, view: Arc<View>) -> Result<(Live, Recovery), StoreError> {
    let loaded = store.load()?;
    let now = config.clock.monotonic();
    let (windows, recovery) = Windows::recover(view, store, &loaded, config.snapshot.clone(), now)?;
    let mut open = OpenBatch::default();
    store.replay(loaded.batched_through, |accepted| open.push(accepted, now))?;
    let sketches = Sketches::load(config.sketch_window, &loaded.open_sketches);
    let sources = loaded.sources.into_iter().collect();
    let sampler = Sampler::new(&config.device, loaded.sampling);
    let (next, batched_through) = (loaded.next, loaded.batched_through);
    Ok((Live { windows, next, batched_through, sources, open, sketches, sampler }, recovery))
}
