//! Updates against a hub's downloads, with real packages, a real pipeline and traffic all along.

mod fit;
mod hub;
mod panics;
mod power;
mod rotten;
mod stories;
mod together;
mod vouching;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;
use tributary_identity::Ports;
use tributary_inference::onnx::{Graph, Op, Tensor};
use tributary_process::clock::{Clock, SystemClock};
use tributary_process::config::HumanDuration;
use tributary_process::http::{Client, Endpoint};
use tributary_process::shutdown::Shutdown;
use tributary_release::{
    DecisionRule, GoldenCase, GraphEntry, Lineage, MANIFEST_FORMAT, Manifest, OUTPUT_REFERENCE, OutputBounds, Package,
    Precision, Probation, Requirements, SigningKey, ViewRef, digest, sign_assignment,
};
use tributary_stats::Reference;
use tributary_wire::{
    Assignment, AssignmentV1, AssignmentV2, AssignmentV3, AuditHead, ChallengerShare, DeviceId, Generation,
    LineAssignment, Micros, ReleaseRef, Role, Sha256, SignedAssignment, UpdaterState, VersionNumber,
};

use super::{Handle, Parts, UpdateConfig, Updates};
use crate::download::{self, DownloadConfig, Origins};
use crate::identity::{Identity, Time, Web};
use crate::link::FileStreams;
use crate::metrics::DownloadMetrics;
use crate::packages::PackageFiles;
use crate::serve::{Outcome, Serving};
use crate::testing::{self, Rig, Running};
use crate::trust::{StoredFiles, Trust};

pub(crate) const PROBATION: Probation = Probation {
    min_predictions: 20,
    max_error_share: 0.0,
    max_latency_p99_us: 60_000_000,
    output_mean_low: 0.0,
    output_mean_high: 1.0,
    timeout_s: 60,
};

/// A package over the test view whose output is `sigmoid(weight × amount)`.
pub(crate) fn package(version: u32, probation: Probation) -> Vec<u8> {
    let view = testing::view();
    let mut graph = Graph::new("graph", 3);
    let weights = graph.constant("w", Tensor::f32(&[1, 3], vec![version as f32 * 0.001, 0.0, 0.0]));
    let bias = graph.constant("b", Tensor::f32(&[1], vec![0.0]));
    let input = graph.input.clone();
    let sum = graph.node(Op::Gemm { alpha: 1.0, beta: 1.0, trans_b: true }, &[&input, &weights, &bias]);
    let output = graph.node(Op::Sigmoid, &[&sum]);
    graph.set_output(&output, 1);
    let rows = [1.0, 2.0, 3.0, 40.0, 5.0, 6.0];
    let decision = DecisionRule { threshold: 0.5, margin: 0.01 };
    let outputs = graph.evaluate(&rows, 2).unwrap();
    let golden = rows.chunks(3).zip(&outputs).map(|(features, &output)| GoldenCase {
        features: features.to_vec(),
        output,
        decision: decision.decide(output),
    });
    let features = view.feature_names();
    let names = features.iter().map(String::as_str).chain([OUTPUT_REFERENCE]);
    let package = Package {
        reference: names.map(|name| Reference::build(name, &rows, &[], 4)).collect(),
        graphs: vec![tributary_release::Graph { name: "f32".into(), onnx: graph.to_bytes().unwrap() }],
        view_toml: view.source().into(),
        golden: golden.collect(),
        manifest: Manifest {
            format: MANIFEST_FORMAT,
            line: testing::line(),
            version: VersionNumber(version),
            created: Micros(0),
            serve: "f32".into(),
            graphs: vec![GraphEntry { name: "f32".into(), precision: Precision::F32, metrics: BTreeMap::new() }],
            features: features.clone(),
            view: ViewRef { name: view.name().into(), version: view.version() },
            decision,
            tolerance: 1e-4,
            output: OutputBounds { low: 0.0, high: 1.0 },
            probation,
            requires: Requirements { operators: graph.operators(), ..Requirements::default() },
            lineage: Lineage { dataset: String::new(), run: String::new(), seed: 0 },
            quantization: None,
            members: BTreeMap::new(),
        },
    };
    package.write().unwrap()
}

pub(crate) fn key() -> SigningKey {
    SigningKey::generate([7; 32])
}

pub(crate) fn device_id() -> DeviceId {
    DeviceId::new("edge-1").unwrap()
}

pub(crate) fn release(version: u32, file: &[u8]) -> ReleaseRef {
    ReleaseRef { version: VersionNumber(version), length: file.len() as u64, sha256: digest(file) }
}

pub(crate) fn assignment(generation: u64, release: ReleaseRef, allow_lower: bool) -> SignedAssignment {
    sign_assignment(&key(), &Assignment::V1(desired(generation, release, allow_lower)))
}

/// As from a hub that keeps an audit log, with an entry of this number as its newest.
pub(crate) fn audited(generation: u64, release: ReleaseRef, number: u64) -> SignedAssignment {
    let audit = AuditHead { number, hash: Sha256([number as u8; 32]) };
    let desired = desired(generation, release, false);
    sign_assignment(&key(), &Assignment::V2(AssignmentV2 { desired, audit }))
}

/// Of the third form, perhaps with a challenger.
pub(crate) fn third(generation: u64, primary: ReleaseRef, other: Option<ReleaseRef>, share: u16) -> SignedAssignment {
    let (line, role) = (testing::line(), Role::new("challenger-b").unwrap());
    let mut desired = desired(generation, primary, false);
    desired.flags = vec![("new-form".to_owned(), "on".to_owned())];
    let mut shares = Vec::new();
    if let Some(release) = other {
        desired.lines.push(LineAssignment { line: line.clone(), role: role.clone(), release, allow_lower: false });
        shares.push(ChallengerShare { line, role, per_10_000: share });
    }
    let audit = AuditHead { number: generation, hash: Sha256([generation as u8; 32]) };
    sign_assignment(&key(), &Assignment::V3(AssignmentV3 { desired, audit, snapshot: 1, shares, sampling: None }))
}

fn desired(generation: u64, release: ReleaseRef, allow_lower: bool) -> AssignmentV1 {
    let line = LineAssignment { line: testing::line(), role: Role::primary(), release, allow_lower };
    let now = tributary_process::clock::wall_now();
    AssignmentV1 {
        device: device_id(),
        generation: Generation(generation),
        issued: Micros(now),
        expires: Micros(now + Micros::HOUR),
        lines: vec![line],
        flags: Vec::new(),
    }
}

/// A device whose power can be cut between two of its lives; its disk and package folder stay.
struct Device {
    rig: Rig,
    hub: hub::Hub,
    /// An enrolled device's.
    identity: Option<Arc<Identity>>,
    events: Arc<AtomicU64>,
}

/// One life of it.
struct Life {
    running: Running,
    trust: Trust,
    handle: Handle,
    shutdown: Shutdown,
    task: JoinHandle<()>,
    traffic: JoinHandle<()>,
}

impl Device {
    fn new() -> Self {
        Self { rig: Rig::new(), hub: hub::Hub::start(), identity: None, events: Arc::default() }
    }

    /// One that its hub knows by its certificate alone.
    fn enrolled() -> Self {
        let (rig, authority) = (Rig::new(), crate::identity::tests::hub::authority());
        let hub = hub::Hub::start_secure(&authority);
        let ports = Ports { host: None, https: hub.port(), tls: None, quic: None };
        let identity = crate::identity::tests::identity(rig.folder.path(), &authority, &device_id(), ports);
        Self { rig, hub, identity: Some(identity), events: Arc::default() }
    }

    /// Starts the device and traffic that must never be refused or fail.
    fn start(&self) -> Life {
        self.start_with(|_| ())
    }

    /// Starts it with other parts.
    fn start_with(&self, change: impl FnOnce(&mut Parts)) -> Life {
        let running = self.rig.start();
        let mut parts = parts(&self.rig, &running, self.hub.endpoint());
        if let Some(identity) = &self.identity {
            parts.origins = origins(Web::Secure(identity.clone()));
        }
        let root = self.hub.root();
        parts.trust = running.runtime.block_on(trust(Some(&root), &parts.origins, &running, parts.time.clone()));
        let trust = parts.trust.clone();
        change(&mut parts);
        let built = async { tokio::time::timeout(Duration::from_secs(60), Updates::build(parts)).await };
        let (updates, handle) = running.runtime.block_on(built).expect("the start comes to an end").unwrap();
        let shutdown = Shutdown::new();
        let task = running.runtime.spawn(updates.run(shutdown.clone()));
        let traffic = running.runtime.spawn(traffic(running.serving.clone(), self.events.clone()));
        Life { running, trust, handle, shutdown, task, traffic }
    }
}

/// With the usual settings.
pub(crate) fn origins(web: Web) -> Origins {
    let config = DownloadConfig::default();
    let hours = config.budget.hours().unwrap();
    let parts = download::Parts {
        config,
        web,
        streams: FileStreams::default(),
        time: Time::of(tributary_identity::DeviceClock::new(Micros(0))),
        clock: Arc::new(SystemClock::start()),
        metrics: DownloadMetrics::default(),
        seed: 1,
    };
    Origins::new(parts, hours).unwrap()
}

pub(crate) fn parts(rig: &Rig, running: &Running, hub: Endpoint) -> Parts {
    let time = Time::of(tributary_identity::DeviceClock::new(Micros(0)));
    let quick = |millis| HumanDuration(Duration::from_millis(millis));
    let origins = origins(Web::Plain(Client::new(hub).with_timeout(Duration::from_secs(5))));
    Parts {
        device: device_id(),
        lines: vec![testing::line()],
        config: UpdateConfig {
            fetch_retry: quick(5),
            fetch_retry_cap: quick(20),
            ask_every: quick(100),
            look_every: quick(10),
            ..UpdateConfig::default()
        },
        trust: running.runtime.block_on(trust(None, &origins, running, time.clone())),
        origins,
        files: PackageFiles::open(rig.folder.path().join("packages")).unwrap(),
        capabilities: Arc::new(crate::capabilities::gather(None)),
        store: running.store.clone(),
        serving: running.serving.clone(),
        clock: Arc::new(SystemClock::start()) as Arc<dyn Clock>,
        time,
        seed: 1,
    }
}

async fn trust(root: Option<&[u8]>, origins: &Origins, running: &Running, time: Time) -> Trust {
    let files = Arc::new(StoredFiles::new(running.store.clone()));
    Trust::open(root, Arc::new(origins.clone()), files, time, Arc::new(SystemClock::start())).await.unwrap()
}

async fn traffic(serving: Arc<Serving>, events: Arc<AtomicU64>) {
    loop {
        let n = events.fetch_add(1, Ordering::Relaxed);
        let outcomes = serving.try_submit(testing::submission(vec![testing::event(n)])).await.expect("never refused");
        assert!(matches!(outcomes[..], [Outcome::Accepted { .. }]), "{outcomes:?}");
        tokio::task::yield_now().await;
    }
}

impl Life {
    /// Works until `condition` holds; panics with what there was instead.
    fn until(&self, what: &str, condition: impl Fn(&Handle) -> bool) {
        self.running.runtime.block_on(async {
            for _ in 0..3000 {
                assert!(!self.traffic.is_finished(), "the traffic broke off");
                if condition(&self.handle) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            panic!("{what} never came: {:?} {:?}", self.handle.lines(), self.handle.problem());
        });
    }

    fn until_state(&self, state: UpdaterState, committed: Option<u32>) {
        self.until(&format!("{state:?}"), |handle| {
            let line = &handle.lines()[0];
            line.state == state && line.committed.map(|package| package.version.0) == committed
        });
    }

    /// Assigns, answers the device's question, and waits until it has decided.
    fn assign(&self, signed: &SignedAssignment) {
        self.handle.online(true);
        self.handle.assigned(signed.encode());
        self.until("the question", Handle::asks);
        self.handle.assigned(signed.encode());
    }

    fn serving(&self) -> Option<u32> {
        self.running.serving.current().map(|package| package.reference.version.0)
    }

    /// An end without any farewell.
    fn crash(self) {
        self.task.abort();
        self.traffic.abort();
        self.running.stop();
    }

    fn stop(self) {
        self.shutdown.give();
        self.traffic.abort();
        self.running.runtime.block_on(self.task).unwrap();
        self.running.stop();
    }
}
