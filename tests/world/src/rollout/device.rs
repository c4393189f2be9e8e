//! A device: what the agent's updates are made of, with a shell that only carries out what they say.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use edge_agent::identity::Time;
use edge_agent::packages::{ActivePackage, PackageFiles};
use edge_agent::state::{Store, StoreOptions, simdisk};
use edge_agent::trust::{StoredFiles, Trust};
use edge_agent::update::slot::Slot;
use edge_agent::update::{UpdateConfig, stored};
use edge_agent_core::Now;
use edge_agent_core::backoff::Backoff;
use edge_agent_core::fit::{Capabilities, EngineCapability};
use edge_agent_core::lines::{self, Lines, LinesSettings, Of};
use edge_agent_core::refresh::Pace;
use edge_agent_core::words::in_words;
use tributary_identity::DeviceClock;
use tributary_process::clock::Clock;
use tributary_process::config::HumanDuration;
use tributary_process::disk::{Access, Disk, SimDisk, replace};
use tributary_wire::{
    ClockState, DeviceId, Health, Micros, Report, ReportV1, ReportV2, Resources, Stamp, TrialReport, WIRE_VERSION,
    Withheld,
};

use super::download::Download;
use super::packages::{MUCH_MEMORY, Shelf, line};

/// Where the floor of time lies.
const FLOOR: &str = "/floor";

/// What a simulated repository and disk answer, they answer at once.
pub(super) fn at_once<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => unreachable!("nothing here waits for anything outside"),
    }
}

/// The clocks of a device, set by the world.
#[derive(Debug, Default)]
pub(super) struct Clocks {
    now: AtomicI64,
    /// How far its wall clock is from the true time.
    skew: AtomicI64,
    /// When its process began.
    began: AtomicI64,
}

impl Clocks {
    fn now(&self) -> i64 {
        self.now.load(Ordering::Relaxed)
    }

    pub(super) fn skew(&self) -> i64 {
        self.skew.load(Ordering::Relaxed)
    }

    pub(super) fn jump_to(&self, skew: i64) {
        self.skew.store(skew, Ordering::Relaxed);
    }
}

impl Clock for Clocks {
    fn wall(&self) -> i64 {
        self.now() + self.skew()
    }

    fn monotonic(&self) -> u64 {
        (self.now() - self.began.load(Ordering::Relaxed)) as u64
    }
}

/// One device, on or off.
pub(super) struct Device {
    pub(super) id: DeviceId,
    pub(super) disk: SimDisk,
    pub(super) clocks: Arc<Clocks>,
    pub(super) shelf: Arc<Shelf>,
    pub(super) capabilities: Capabilities,
    root: Vec<u8>,
    pub(super) life: Option<Life>,
    /// Counts processes, so that what an earlier one waits for means nothing to a later one.
    pub(super) lives: u64,
    seed: u64,
}

/// One process.
pub(super) struct Life {
    pub(super) store: Arc<Store>,
    pub(super) files: PackageFiles,
    pub(super) trust: Trust,
    time: Time,
    pub(super) lines: Lines,
    pub(super) places: BTreeMap<Of, Place>,
    pub(super) connected: bool,
    pub(super) backoff: Backoff,
    pub(super) pace: Pace,
    /// A report is due already.
    pub(super) reporting: bool,
    /// The state is to be opened anew.
    pub(super) healing: bool,
    pub(super) wake: Option<Duration>,
}

/// One line and role in this process.
#[derive(Default)]
pub(super) struct Place {
    pub(super) slot: Slot,
    pub(super) serving: Option<Arc<ActivePackage>>,
    pub(super) did: TrialReport,
    pub(super) download: Option<Download>,
    pub(super) downloads: u64,
}

impl Device {
    pub(super) fn new(number: usize, small: bool, root: Vec<u8>, seed: u64) -> Self {
        let engine = EngineCapability {
            name: tributary_inference::CPU_ENGINE.to_owned(),
            operators: tributary_inference::cpu_operators(),
        };
        let capabilities = Capabilities {
            agent: edge_agent::VERSION.to_owned(),
            engines: vec![engine],
            agent_bytes: 0,
            memory_bytes: Some(if small { MUCH_MEMORY / 2 } else { MUCH_MEMORY * 2 }),
            package_memory: None,
            view_language: tributary_features::VIEW_LANGUAGE,
        };
        Self {
            id: DeviceId::new(&format!("edge-{number}")).expect("a name"),
            disk: SimDisk::new(),
            clocks: Arc::default(),
            shelf: Arc::default(),
            capabilities,
            root,
            life: None,
            lives: 0,
            seed,
        }
    }

    /// The world's time.
    pub(super) fn set_time(&self, now: Micros) {
        self.clocks.now.store(now.0, Ordering::Relaxed);
    }

    /// Starts a process up to its first orders; what these are, or what kept it from starting.
    pub(super) fn start(&mut self) -> Result<Vec<lines::Action>, String> {
        self.lives += 1;
        let clocks = self.clocks.clone();
        clocks.began.store(clocks.now(), Ordering::Relaxed);
        let disk = self.disk.until_crash();
        let backend = disk.clone();
        let options = StoreOptions { wall: Micros(clocks.wall()), ..StoreOptions::default() };
        let store = Store::open_with(move || simdisk::backend(&backend), options).map_err(|error| in_words(&error))?;
        let store = Arc::new(store);
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let files = PackageFiles::open_on(shared, "/packages".into(), None).map_err(|error| error.to_string())?;
        let floor = disk.read(Path::new(FLOOR), 64).ok().and_then(|it| String::from_utf8(it).ok()?.parse().ok());
        let clock = DeviceClock::over(Micros(floor.unwrap_or(0)), clocks.clone());
        let keeper = disk.clone();
        let keep =
            move |floor: Micros| replace(&keeper, Path::new(FLOOR), floor.0.to_string().as_bytes(), Access::Everyone);
        let time = Time::keeping(clock, Arc::new(keep));
        let kept = Arc::new(StoredFiles::new(store.clone()));
        let trust = Trust::open(Some(&self.root), self.shelf.clone(), kept, time.clone(), clocks);
        let trust = at_once(trust).map_err(|error| in_words(&error))?;
        let records = stored::records(&store).map_err(|error| in_words(&error))?;
        let settings = LinesSettings {
            device: self.id.clone(),
            lines: vec![line()],
            updater: config().settings(),
            seed: self.seed ^ self.lives,
        };
        let (lines, orders) = Lines::recover(settings, records, now(&self.clocks, &time));
        let seed = self.seed.wrapping_mul(31) ^ self.lives;
        self.life = Some(Life {
            store,
            files,
            trust,
            time,
            lines,
            places: BTreeMap::new(),
            connected: false,
            backoff: Backoff::new(Duration::from_secs(1), Duration::from_secs(60), seed),
            pace: Pace::new(config().refresh_every.0, seed),
            reporting: false,
            healing: false,
            wake: None,
        });
        Ok(orders)
    }

    /// What was stored of an assignment, taken in after the first orders.
    pub(super) fn recall(&mut self) -> Result<Vec<lines::Action>, String> {
        let now = self.now();
        let Some(life) = &mut self.life else { return Ok(Vec::new()) };
        let remembered = stored::remembered(&life.store).map_err(|error| in_words(&error))?;
        let believed = life.trust.believed();
        Ok(life.lines.recall(now, &believed, &remembered))
    }

    pub(super) fn now(&self) -> Now {
        let passed = self.life.as_ref().map_or(Micros(0), |life| life.time.passed());
        Now { wall: Micros(self.clocks.wall()).max(passed), monotonic: self.monotonic() }
    }

    pub(super) fn monotonic(&self) -> Duration {
        Duration::from_micros(self.clocks.monotonic())
    }

    /// The report of this moment.
    pub(super) fn report(&self, boot: u64) -> Option<Report> {
        let life = self.life.as_ref()?;
        let number = life.store.next_report_number().ok()?;
        let lines = &life.lines;
        let problems: Vec<String> =
            lines.problem().map(str::to_owned).into_iter().chain(lines.audit_problem()).collect();
        let engine = |of: &Of| life.places.get(of).and_then(|place| place.serving.as_ref()).map_or("", |_| "tract");
        let base = ReportV1 {
            number,
            incarnation: life.store.incarnation(),
            stamp: Stamp {
                boot,
                monotonic: self.clocks.monotonic(),
                wall: Micros(self.clocks.wall()),
                clock: ClockState::Unsynchronised,
            },
            reads: WIRE_VERSION,
            agent: edge_agent::VERSION.to_owned(),
            labels: Vec::new(),
            generation: lines.generation(),
            asks: lines.asks(),
            lines: lines.reports(engine),
            snapshot: None,
            health: Health { ok: problems.is_empty(), problems, ..Health::default() },
            resources: Resources::default(),
        };
        let (metadata, unfit) = (life.trust.versions(), lines.unfit());
        let (withheld, held, audit, nodes) = (Withheld::default(), Vec::new(), lines.audit(), Vec::new());
        Some(lines::report(lines.hub_reads(), ReportV2 { base, metadata, unfit, withheld, held, audit, nodes }))
    }
}

fn now(clocks: &Clocks, time: &Time) -> Now {
    let wall = Micros(clocks.wall()).max(time.passed());
    Now { wall, monotonic: Duration::from_micros(clocks.monotonic()) }
}

/// Settings of a device in the world: as shipped, but for the times that would only make it sleep.
pub(super) fn config() -> UpdateConfig {
    UpdateConfig { refresh_every: HumanDuration(Duration::from_secs(1800)), ..UpdateConfig::default() }
}
