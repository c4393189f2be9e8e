//! A hub's ingest over all its lives: the planner and committer that ship, over a lake and a ledger on a disk that
//! forgets.

mod contents;
mod groups;
mod naming;
mod rot;
mod troubles;

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, ensure};
use bytes::Bytes;
use cloud_hub::bus::Bus;
use cloud_hub::config::IngestConfig;
use cloud_hub::ingest::{self, Answers, Gathering, MemoryLedger, Parts, Recovered, Stepped};
use cloud_hub_lake::Lake;
use rand::Rng;
use rand::rngs::StdRng;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tributary_process::clock::Clock as _;
use tributary_process::disk::{Harm, SimDisk, create_folder_durably};
use tributary_wire::{Ack, AckV1, Batch, DeviceId, Incarnation, LossReason, StreamAck, StreamName};

use super::setup::Breakage;
use crate::clock::WorldClock;
use groups::Group;
use naming::Naming;
use rot::Rot;

const DATA: &str = "/data";
const LAKE: &str = "/data/lake";
const LEDGER: &str = "/data/ledger";

/// Receipts on their way out, and what the gateway says of the messages on their way in.
#[derive(Default)]
struct Receipts {
    acks: Mutex<Vec<(DeviceId, AckV1)>>,
    waiting: AtomicU64,
}

impl Answers for Receipts {
    fn ack(&self, device: &DeviceId, ack: Ack) {
        let Ack::V1(ack) = ack;
        self.acks.lock().unwrap_or_else(PoisonError::into_inner).push((device.clone(), ack));
    }

    fn waiting_bytes(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }
}

/// The hub.
pub struct Hub {
    disk: SimDisk,
    /// Whether the disk fails now, or soon.
    ailing: bool,
    /// Its clock.
    pub clock: WorldClock,
    chance: StdRng,
    breakage: Option<Breakage>,
    config: IngestConfig,
    runtime: Runtime,
    ledger: MemoryLedger,
    life: Option<Life>,
    inbox: VecDeque<(DeviceId, Bytes)>,
    /// Decides when what arrived is a group.
    gathering: Gathering,
    /// The group that a slow hub is about to commit.
    in_hand: Option<Group>,
    /// Receipts for a group that is on the disk, which has not said so yet.
    late: Vec<(DeviceId, AckV1)>,
    slow: Option<Slow>,
    /// How often a stream was told to hold because there was too much to do.
    pub held: u64,
    names: Naming,
    /// The furthest that each stream was acknowledged; never taken back.
    through: BTreeMap<(DeviceId, Incarnation, StreamName), u64>,
    rot: Option<Rot>,
}

/// Records that were given up: of which stream, and why.
pub type Losses = BTreeMap<(String, LossReason), u64>;

/// A hub whose disk is slow, and that has more to do than it can.
#[derive(Debug, Clone, Copy)]
struct Slow {
    /// What a commit takes.
    commit: Duration,
    /// Memory for messages on their way in.
    queue_bytes: u64,
}

/// From one power cut to the next.
struct Life {
    lake: Arc<Lake>,
    ingest: Stepped<MemoryLedger>,
    receipts: Arc<Receipts>,
}

impl Hub {
    /// A hub that begins.
    pub fn new(clock: WorldClock, mut chance: StdRng, breakage: Option<Breakage>) -> Result<Self> {
        let disk = SimDisk::new();
        create_folder_durably(&disk, Path::new(DATA))?;
        let ledger = MemoryLedger::create(Arc::new(disk.clone()), LEDGER)?;
        disk.set_lying(breakage == Some(Breakage::HubDiskLies));
        if chance.random_bool(0.2) {
            disk.set_short_writes(Some(chance.random()));
        }
        let mut config = IngestConfig::default();
        if chance.random_bool(0.5) {
            // Then a disk is full in the middle of something, and not when little is left.
            config.disk_reserve.0 = 0;
        }
        let slow = chance.random_bool(0.3).then(|| Slow {
            commit: Duration::from_secs([2, 20][chance.random_range(0..2)]),
            queue_bytes: [1 << 10, 8 << 10][chance.random_range(0..2)],
        });
        config.retry.0 = Duration::from_secs([1, 5, 30][chance.random_range(0..3)]);
        config.group_idle.0 = Duration::from_millis([50, 1_000][chance.random_range(0..2)]);
        // A slow hub with small groups would take longer than a world lasts.
        if slow.is_none() && chance.random_bool(0.3) {
            config.group_bytes.0 = 1 << 10;
        }
        let names = Naming::new(clock.clone(), chance.random());
        // Without timers and sockets: whatever would wait for one panics.
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        let (inbox, through) = (VecDeque::new(), BTreeMap::new());
        let mut hub = Self {
            disk,
            ailing: false,
            gathering: Gathering::new(&config),
            clock,
            chance,
            breakage,
            config,
            runtime,
            ledger,
            life: None,
            inbox,
            in_hand: None,
            late: Vec::new(),
            slow,
            held: 0,
            names,
            through,
            rot: None,
        };
        ensure!(hub.start()?, "a hub starts on a disk that works");
        Ok(hub)
    }

    /// What its disk did to writes so far.
    pub fn harm(&self) -> Harm {
        self.disk.harm()
    }

    /// Whether it runs.
    pub fn is_up(&self) -> bool {
        self.life.is_some()
    }

    /// It starts after a power cut; `false` when its disk refused something meanwhile.
    pub fn start(&mut self) -> Result<bool> {
        let refusals = self.disk.refusals();
        match self.begin() {
            Ok((recovered, life)) => {
                let unfit = recovered.missing + recovered.set_aside;
                ensure!(unfit == 0, "files of the lake are missing or cannot be used: {recovered:?}");
                self.life = Some(life);
                Ok(true)
            }
            Err(_) if self.disk.refusals() > refusals => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn begin(&mut self) -> Result<(Recovered, Life)> {
        // Bound to this life: nothing of it writes after its end.
        let disk = Arc::new(self.disk.until_crash());
        create_folder_durably(&*disk, Path::new(DATA))?;
        self.ledger = self.ledger.reopen(disk.clone())?;
        let (lake, receipts) = (Lake::open(disk, LAKE)?, Arc::<Receipts>::default());
        let lake = Arc::new(lake.naming(self.names.source()));
        let parts = Parts {
            catalog: self.ledger.clone(),
            lake: lake.clone(),
            quarantine: "/data/quarantine".into(),
            bus: Bus::default(),
            answers: receipts.clone(),
            results: mpsc::channel(1).0,
            queue_bytes: self.slow.map_or(1 << 20, |slow| slow.queue_bytes),
            config: self.config.clone(),
            clock: Arc::new(self.clock.clone()),
        };
        let recovered = self.runtime.block_on(ingest::recover(&parts))?;
        Ok((recovered, Life { lake, ingest: Stepped::new(parts), receipts }))
    }

    /// A message arrived. What leaves at once.
    pub fn take(&mut self, device: &DeviceId, message: Vec<u8>) -> Result<Option<AckV1>> {
        let mut early = None;
        if self.breakage == Some(Breakage::AnsweredBeforeCommit) {
            let (header, _) = Batch::decode(&message)?;
            let (stream, incarnation, through) = (header.stream, header.incarnation, header.sequence);
            let (scattered, quarantined) = (Vec::new(), Vec::new());
            let answer = StreamAck { stream, incarnation, through, scattered, quarantined, window: 8 };
            early = Some(AckV1 { streams: vec![answer] });
        }
        self.gathering.add(self.clock.monotonic(), message.len() as u64);
        self.inbox.push_back((device.clone(), Bytes::from(message)));
        Ok(early)
    }

    /// Commits what it has taken up, or the group that has closed; the receipts that leave then. While the disk refuses, it
    /// first looks, when that is due, whether that has passed. With nothing to commit it lets those go on who hold.
    pub fn work(&mut self) -> Result<Vec<(DeviceId, AckV1)>> {
        if !self.late.is_empty() {
            return Ok(std::mem::take(&mut self.late));
        }
        let Group { messages, received, begun } = self.in_hand.take().unwrap_or_else(|| self.next_group());
        let waiting: u64 = messages.iter().chain(&self.inbox).map(|(_, it)| it.len() as u64).sum();
        let Some(life) = &mut self.life else { return Ok(Vec::new()) };
        life.receipts.waiting.store(waiting, Ordering::Relaxed);
        self.runtime.block_on(async {
            if life.ingest.status().holding {
                life.ingest.probe().await;
            }
            match messages.is_empty() {
                true => life.ingest.go_on(),
                false => life.ingest.group(messages, received, begun).await,
            }
        });
        let status = life.ingest.status();
        ensure!((status.conflicts, status.quarantined) == (0, 0), "batches conflict or were put aside: {status:?}");
        let receipts = std::mem::take(&mut *life.receipts.acks.lock().unwrap_or_else(PoisonError::into_inner));
        for (device, ack) in &receipts {
            for stream in &ack.streams {
                ensure!(stream.quarantined.is_empty(), "{device}: put aside {stream:?}");
                self.held += u64::from(stream.window == 0 && !status.holding);
                let of = (device.clone(), stream.incarnation, stream.stream.clone());
                let through = self.through.entry(of).or_default();
                ensure!(stream.through.0 >= *through, "{device}: {through} was acknowledged, now only {stream:?}");
                *through = stream.through.0;
            }
        }
        Ok(receipts)
    }

    /// Whether the disk refuses.
    pub fn is_holding(&self) -> bool {
        self.life.as_ref().is_some_and(|life| life.ingest.status().holding)
    }

    /// Whether somebody was told to hold because there was too much to do.
    pub fn slows_down(&self) -> bool {
        self.life.as_ref().is_some_and(|life| life.ingest.status().slowed > 0)
    }
}
