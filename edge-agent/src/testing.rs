//! What the tests of this crate share: a small view, packages with an engine made of a function, a pipeline on a
//! simulated disk.

use std::sync::Arc;
use std::thread::JoinHandle;

use tributary_features::{EntityKey, Event, FleetTable, Value, View};
use tributary_inference::{Engine, InferenceError};
use tributary_process::clock::{Clock, SystemClock};
use tributary_process::config::HumanDuration;
use tributary_release::{
    DecisionRule, Lineage, MANIFEST_FORMAT, Manifest, OutputBounds, Package, Probation, Requirements, ViewRef,
};
use tributary_stats::Reference;
use tributary_wire::{DeviceId, EventId, LineName, Micros, PackageRef, SamplingPolicy, Sha256, VersionNumber};

use crate::config::Fallback;
use crate::metrics::Metrics;
use crate::packages::ActivePackage;
use crate::serve::{Outcome, Pipeline, PipelineConfig, Serving, Submission, SubmitError};
use crate::sources::{TimeDomain, TimeRules};
use crate::state::simdisk::{self, SimDisk};
use crate::state::{BatchLimits, Store, StoreOptions};
use crate::windows::SnapshotRules;

pub(crate) const VIEW: &str = r#"
name = "test"
version = 1
time_zone = "UTC"
lateness = "1h"
label_delay = "7d"

[[entity]]
name = "customer_id"
kind = "int"

[[value]]
name = "amount"
kind = "double"
unit = "EUR"
required = true

[[feature]]
name = "amount"
kind = "value"
value = "amount"

[[feature]]
name = "count_1d"
kind = "count"
scope = "device"
entity = "customer_id"
window = "1d"

[[feature]]
name = "mean_7d"
kind = "mean"
scope = "device"
entity = "customer_id"
value = "amount"
window = "7d"
"#;

pub(crate) fn view() -> View {
    View::from_toml(VIEW).unwrap()
}

pub(crate) fn line() -> LineName {
    LineName::new("fraud").unwrap()
}

/// 2018-04-01.
pub(crate) const START: Micros = Micros(1_522_540_800_000_000);

/// Event `n`: five minutes apart, 17 customers, every tenth a little late.
pub(crate) fn event(n: u64) -> Event {
    let late = if n % 10 == 9 { 1_000_000_000 } else { 0 };
    Event {
        id: EventId::new(&format!("e-{n}")).unwrap(),
        time: Micros(START.0 + n as i64 * 300_000_000 - late),
        entities: vec![("customer_id".into(), EntityKey::Int((n % 17) as i64))],
        values: vec![("amount".into(), Value::Double(n as f64 * 0.37 + 0.1))],
    }
}

pub(crate) fn replay_rules() -> TimeRules {
    TimeRules {
        time: TimeDomain::Replay,
        lateness: HumanDuration(std::time::Duration::from_secs(3600)),
        ..TimeRules::default()
    }
}

pub(crate) fn submission(events: Vec<Event>) -> Submission {
    Submission { source: "api".into(), rules: replay_rules(), events, progress: None, durable: true }
}

type Function = fn(&[f32]) -> Result<f32, String>;

struct FunctionEngine(Function);

impl Engine for FunctionEngine {
    fn name(&self) -> &'static str {
        "function"
    }
    fn features(&self) -> usize {
        3
    }
    fn outputs(&self) -> usize {
        1
    }
    fn predict(&self, rows: &[f32], _n: usize, out: &mut Vec<f32>) -> Result<(), InferenceError> {
        out.clear();
        for row in rows.chunks(3) {
            out.push((self.0)(row).map_err(|reason| InferenceError::Run { engine: "function", reason })?);
        }
        Ok(())
    }
}

/// A package whose graph is a function.
pub(crate) fn package(version: u32, view: View, function: Function) -> Arc<ActivePackage> {
    let reference = |name: &str| Reference::build(name, &[0.0, 1.0, 2.0, 5.0, 20.0, 100.0], &[], 4);
    let manifest = Manifest {
        format: MANIFEST_FORMAT,
        line: line(),
        version: VersionNumber(version),
        created: START,
        serve: "int8".into(),
        graphs: Vec::new(),
        features: view.feature_names(),
        view: ViewRef { name: view.name().into(), version: view.version() },
        decision: DecisionRule { threshold: 0.5, margin: 0.0 },
        tolerance: 0.0,
        output: OutputBounds { low: 0.0, high: 1.0 },
        probation: Probation {
            min_predictions: 1,
            max_error_share: 0.0,
            max_latency_p99_us: 1_000_000,
            output_mean_low: 0.0,
            output_mean_high: 1.0,
            timeout_s: 60,
        },
        requires: Requirements::default(),
        lineage: Lineage { dataset: String::new(), run: String::new(), seed: 0 },
        quantization: None,
        members: Default::default(),
    };
    let mut references: Vec<Reference> = manifest.features.iter().map(|name| reference(name)).collect();
    references.push(reference("output"));
    let package = Package {
        manifest,
        graphs: Vec::new(),
        view_toml: view.source().into(),
        reference: references,
        golden: Vec::new(),
    };
    let reference = PackageRef { version: VersionNumber(version), sha256: Sha256([version as u8; 32]) };
    Arc::new(ActivePackage { line: line(), reference, package, view, engine: Box::new(FunctionEngine(function)) })
}

/// A device that can lose its power.
pub(crate) struct Rig {
    pub(crate) disk: SimDisk,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) batch_rows: usize,
    pub(crate) budget: u64,
    pub(crate) queue: usize,
    pub(crate) remember_events: u64,
    pub(crate) retain_events: u64,
    /// Whether windows are kept over a restart.
    pub(crate) windows: bool,
    /// The device's own policy.
    pub(crate) sampling: SamplingPolicy,
}

impl Rig {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let disk = SimDisk::new();
        Self {
            disk,
            folder,
            batch_rows: 16,
            budget: 64 << 20,
            queue: 4096,
            remember_events: 100_000,
            retain_events: 100_000,
            windows: true,
            sampling: SamplingPolicy::EVERYTHING,
        }
    }

    pub(crate) fn store(&self) -> Result<Arc<Store>, crate::state::StoreError> {
        let disk = self.disk.clone();
        let options = StoreOptions { outbox_budget: self.budget, ..StoreOptions::default() };
        Store::open_with(move || simdisk::backend(&disk), options).map(Arc::new)
    }

    pub(crate) fn config(&self) -> PipelineConfig {
        PipelineConfig {
            device: DeviceId::new("edge-1").expect("a name"),
            line: line(),
            view: Some(view()),
            fallback: Fallback::default(),
            queue_events: self.queue,
            batch: BatchLimits { rows: self.batch_rows, bytes: 1 << 20, age: 3_600_000_000 },
            remember: i64::MAX,
            remember_events: self.remember_events,
            retain_events: self.retain_events,
            sampling: self.sampling.clone(),
            snapshot: SnapshotRules {
                folder: self.windows.then(|| self.folder.path().join("windows")),
                cache_bytes: 1 << 20,
                events: 8,
                every: u64::MAX / 2,
            },
            sketch_window: Micros::DAY,
            prediction_cache: 16,
            fleet: Box::new(FleetTable::new),
            clock: Arc::new(SystemClock::start()) as Arc<dyn Clock>,
            metrics: Arc::new(Metrics::default()),
        }
    }

    pub(crate) fn start(&self) -> Running {
        self.start_on(self.store().unwrap())
    }

    pub(crate) fn start_on(&self, store: Arc<Store>) -> Running {
        let pipeline = Pipeline::build(store.clone(), self.config()).unwrap();
        let serving = pipeline.serving();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Running { store, serving, thread: Some(pipeline.start().unwrap()), runtime }
    }
}

pub(crate) struct Running {
    pub(crate) store: Arc<Store>,
    pub(crate) serving: Arc<Serving>,
    thread: Option<JoinHandle<()>>,
    pub(crate) runtime: tokio::runtime::Runtime,
}

impl Running {
    pub(crate) fn submit(&self, events: Vec<Event>) -> Result<Vec<Outcome>, SubmitError> {
        self.runtime.block_on(self.serving.try_submit(submission(events)))
    }

    /// Stops the thread; after [`SimDisk::crash`] it can write nothing any more.
    pub(crate) fn stop(mut self) {
        self.serving.stop();
        self.thread.take().unwrap().join().unwrap();
    }
}
