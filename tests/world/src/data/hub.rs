//! A hub's ingest over all its lives: the planner and committer that ship, over a lake and a ledger on a disk that
//! forgets.

mod rot;

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use arrow::array::AsArray;
use bytes::Bytes;
use cloud_hub::bus::Bus;
use cloud_hub::config::IngestConfig;
use cloud_hub::ingest::{self, Answers, MemoryLedger, Parts, Recovered, Stepped};
use cloud_hub_lake::{Lake, dataset};
use rand::Rng;
use rand::rngs::StdRng;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tributary_features::View;
use tributary_process::clock::Clock as _;
use tributary_process::disk::{SimDisk, create_folder_durably};
use tributary_wire::{Ack, AckV1, Batch, DeviceId, Incarnation, Micros, StreamAck, StreamName};

use super::setup::Breakage;
use crate::clock::WorldClock;
use rot::Rot;

const DATA: &str = "/data";
const LAKE: &str = "/data/lake";
const LEDGER: &str = "/data/ledger";

/// Receipts on their way out.
#[derive(Default)]
struct Receipts(Mutex<Vec<(DeviceId, AckV1)>>);

impl Answers for Receipts {
    fn ack(&self, device: &DeviceId, ack: Ack) {
        let Ack::V1(ack) = ack;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((device.clone(), ack));
    }
}

/// The hub.
pub struct Hub {
    disk: SimDisk,
    /// Whether the disk fails now, or soon.
    ailing: bool,
    /// Whether single changes of the disk may still fail.
    stumbles: bool,
    /// Its clock.
    pub clock: WorldClock,
    chance: StdRng,
    breakage: Option<Breakage>,
    config: IngestConfig,
    runtime: Runtime,
    ledger: MemoryLedger,
    life: Option<Life>,
    inbox: Vec<(DeviceId, Bytes)>,
    /// The furthest that each stream was acknowledged; never taken back.
    through: BTreeMap<(DeviceId, Incarnation, StreamName), u64>,
    rot: Option<Rot>,
}

/// Records that were given up: whose, of which stream.
pub type Gaps = BTreeMap<(DeviceId, Incarnation, String), u64>;

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
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (inbox, through) = (Vec::new(), BTreeMap::new());
        let mut hub = Self {
            disk,
            ailing: false,
            stumbles: false,
            clock,
            chance,
            breakage,
            config,
            runtime,
            ledger,
            life: None,
            inbox,
            through,
            rot: None,
        };
        ensure!(hub.start()?, "a hub starts on a disk that works");
        Ok(hub)
    }

    /// Whether it runs.
    pub fn is_up(&self) -> bool {
        self.life.is_some()
    }

    /// It starts after a power cut; `false` while its disk fails.
    pub fn start(&mut self) -> Result<bool> {
        match self.begin() {
            Ok((recovered, life)) => {
                let unfit = recovered.missing + recovered.set_aside;
                ensure!(unfit == 0, "files of the lake are missing or cannot be used: {recovered:?}");
                self.life = Some(life);
                Ok(true)
            }
            Err(_) if self.ailing || self.stumbles => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn begin(&mut self) -> Result<(Recovered, Life)> {
        // Bound to this life: nothing of it writes after its end.
        let disk = Arc::new(self.disk.until_crash());
        create_folder_durably(&*disk, Path::new(DATA))?;
        self.ledger = self.ledger.reopen(disk.clone())?;
        let (lake, receipts) = (Arc::new(Lake::open(disk, LAKE)?), Arc::<Receipts>::default());
        let parts = Parts {
            catalog: self.ledger.clone(),
            lake: lake.clone(),
            quarantine: "/data/quarantine".into(),
            bus: Bus::default(),
            answers: receipts.clone(),
            results: mpsc::channel(1).0,
            queue_bytes: 1 << 20,
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
        self.inbox.push((device.clone(), Bytes::from(message)));
        Ok(early)
    }

    /// Deals with everything that arrived; the receipts that leave then. While the disk refuses, it first looks whether
    /// that has passed.
    pub fn work(&mut self) -> Result<Vec<(DeviceId, AckV1)>> {
        let Some(life) = &mut self.life else { return Ok(Vec::new()) };
        let (messages, received) = (std::mem::take(&mut self.inbox), Micros(self.clock.wall()));
        self.runtime.block_on(async {
            if life.ingest.status().holding {
                life.ingest.probe().await;
            }
            if !messages.is_empty() {
                life.ingest.group(messages, received).await;
            }
        });
        let status = life.ingest.status();
        ensure!((status.conflicts, status.quarantined) == (0, 0), "batches conflict or were put aside: {status:?}");
        let receipts = std::mem::take(&mut *life.receipts.0.lock().unwrap_or_else(PoisonError::into_inner));
        for (device, ack) in &receipts {
            for stream in &ack.streams {
                ensure!(stream.quarantined.is_empty(), "{device}: put aside {stream:?}");
                let of = (device.clone(), stream.incarnation, stream.stream.clone());
                let through = self.through.entry(of).or_default();
                ensure!(stream.through.0 >= *through, "{device}: {through} was acknowledged, now only {stream:?}");
                *through = stream.through.0;
            }
        }
        Ok(receipts)
    }

    /// The disk refuses everything after so many more changes.
    pub fn fail_disk(&mut self, changes: u64) {
        self.ailing = true;
        self.disk.fail_after(changes);
    }

    /// One change of the disk fails, after so many more.
    pub fn fail_once(&mut self, changes: u64) {
        self.stumbles = true;
        self.disk.fail_once(changes, ErrorKind::Other);
    }

    /// The disk is full after so many more bytes.
    pub fn fill_disk(&mut self, bytes: u64) {
        self.ailing = true;
        self.disk.set_capacity(Some(self.disk.used() + bytes));
    }

    /// The disk works, and has room.
    pub fn mend_disk(&mut self) {
        self.ailing = false;
        self.disk.mend();
        self.disk.set_capacity(None);
    }

    /// Whether the disk refuses.
    pub fn is_holding(&self) -> bool {
        self.life.as_ref().is_some_and(|life| life.ingest.status().holding)
    }

    /// The power goes. What was not synced is lost, or some of it, and what was not dealt with too.
    pub fn lose_power(&mut self) -> Result<()> {
        self.inbox.clear();
        let seed = self.chance.random_bool(0.7).then(|| self.chance.random());
        self.disk.crash(seed);
        self.stumbles = false;
        self.life = None;
        Ok(())
    }

    /// The program is killed; the machine goes on.
    pub fn kill(&mut self) -> Result<()> {
        self.inbox.clear();
        self.disk.kill();
        self.life = None;
        Ok(())
    }

    /// The program is killed after so many more changes of the disk.
    pub fn kill_after(&mut self, changes: u64) {
        self.disk.kill_after(changes);
    }

    /// The power goes, and the catalog with it: the next start finds a new one beside the lake. A disk that fails
    /// keeps its catalog: it would take no new one.
    pub fn lose_catalog(&mut self) -> Result<()> {
        self.put_back()?;
        self.lose_power()?;
        if self.ailing {
            return Ok(());
        }
        self.ledger = MemoryLedger::create(Arc::new(self.disk.clone()), LEDGER)?;
        self.through.clear();
        if self.breakage == Some(Breakage::RebuiltShort) {
            self.lose_file()?;
        }
        Ok(())
    }

    /// Records that devices reported as given up, by the beginning of a stream's name and of theirs.
    pub fn gaps(&self) -> Gaps {
        let mut gaps = Gaps::new();
        for gap in self.ledger.gaps() {
            let of = (gap.of.device, gap.of.incarnation, gap.of.stream.as_str().to_owned());
            *gaps.entry(of).or_default() += gap.lost.records;
        }
        gaps
    }

    fn lake(&self) -> Result<&Lake> {
        Ok(&self.life.as_ref().context("the hub has no power")?.lake)
    }

    /// Event ids in a stream, each of which must be there once.
    pub fn ids(&self, stream: &str) -> Result<BTreeSet<String>> {
        let (mut ids, stream) = (BTreeSet::new(), StreamName::new(stream)?);
        // A stream of which nothing but gaps came has no columns of its own.
        if self.lake()?.schema(&stream).columns.iter().all(|column| column.name != "event_id") {
            return Ok(ids);
        }
        for records in self.lake()?.scan(&stream, i64::MIN..=i64::MAX, Some(&["event_id"]))? {
            for id in records?.column(0).as_string::<i32>().iter() {
                let id = id.context("a row without an id")?;
                ensure!(ids.insert(id.to_owned()), "{stream}: {id:?} is there more than once");
            }
        }
        Ok(ids)
    }

    /// What a replay of the accepted events makes of the features that were served.
    pub fn replay(&self, view: &View) -> Result<dataset::Summary> {
        let spec = dataset::DatasetSpec {
            view: view.clone(),
            from: Micros(0),
            to: Micros(i64::MAX),
            label_delay: view.label_delay(),
            labels_until: None,
            line: None,
        };
        Ok(dataset::Dataset::build(self.lake()?, spec, &|_| Ok(None))?.summary().clone())
    }
}
