//! A hub's ingest over a disk that forgets, with its real catalog.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use arrow::array::AsArray;
use bytes::Bytes;
use cloud_hub::bus::Bus;
use cloud_hub::catalog::Catalog;
use cloud_hub::config::IngestConfig;
use cloud_hub::ingest::{self, Answers, Ingest, Parts};
use cloud_hub_gateway::{Room, Upward};
use cloud_hub_lake::{Lake, dataset};
use tempfile::TempDir;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tributary_features::View;
use tributary_process::clock::SystemClock;
use tributary_process::config::HumanDuration;
use tributary_process::disk::{Disk, SimDisk, create_folder_durably, walk};
use tributary_process::shutdown::Shutdown;
use tributary_wire::topic::Channel;
use tributary_wire::{Ack, AckV1, DeviceId, StreamName};

const LAKE: &str = "/data/lake";
/// Messages that may wait.
const ROOM: usize = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(60);

/// Receipts on their way out.
#[derive(Default)]
struct Receipts(Mutex<Vec<(DeviceId, AckV1)>>);

impl Answers for Receipts {
    fn ack(&self, device: &DeviceId, ack: Ack) {
        let Ack::V1(ack) = ack;
        self.0.lock().unwrap().push((device.clone(), ack));
    }
}

/// The hub, over all its lives.
pub struct Hub {
    pub disk: SimDisk,
    folder: TempDir,
    life: Life,
    /// The furthest that each stream was acknowledged; never taken back.
    through: BTreeMap<(DeviceId, StreamName), u64>,
    pub power_cuts: u32,
    /// Failures of the disk that passed.
    pub faults: u32,
}

/// From one power cut to the next.
struct Life {
    catalog: Catalog,
    lake: Arc<Lake>,
    ingest: Ingest,
    queue: mpsc::Sender<Upward>,
    room: Arc<Semaphore>,
    receipts: Arc<Receipts>,
    shutdown: Shutdown,
    working: JoinHandle<Result<()>>,
    /// Messages taken in.
    taken: u64,
}

impl Life {
    async fn begin(disk: &SimDisk, folder: &Path) -> Result<Self> {
        // Bound to this life: whatever of it still runs after the power cut writes nothing.
        let disk = disk.until_crash();
        create_folder_durably(&disk, Path::new("/data"))?;
        let receipts = Arc::<Receipts>::default();
        let parts = Parts {
            queue_bytes: 64 << 20,
            catalog: Catalog::open(&folder.join("catalog.db")).await?,
            lake: Arc::new(Lake::open(Arc::new(disk), LAKE)?),
            quarantine: "/data/quarantine".into(),
            bus: Bus::default(),
            answers: receipts.clone(),
            results: mpsc::channel(1).0,
            config: IngestConfig {
                group_idle: HumanDuration(Duration::from_millis(1)),
                retry: HumanDuration(Duration::from_millis(20)),
                ..IngestConfig::default()
            },
            clock: Arc::new(SystemClock::start()),
        };
        let (catalog, lake) = (parts.catalog.clone(), parts.lake.clone());
        let recovered = ingest::recover(&parts).await?;
        ensure!(recovered.missing == 0, "files of the lake are missing: {recovered:?}");
        let (ingest, worker) = ingest::new(parts);
        let (queue, messages) = mpsc::channel(1024);
        let shutdown = Shutdown::new();
        let working = tokio::spawn(worker.run(messages, shutdown.clone()));
        let room = Arc::new(Semaphore::new(ROOM));
        Ok(Self { catalog, lake, ingest, queue, room, receipts, shutdown, working, taken: 0 })
    }
}

impl Hub {
    pub async fn new() -> Result<Self> {
        let (disk, folder) = (SimDisk::new(), tempfile::tempdir()?);
        let life = Life::begin(&disk, folder.path()).await?;
        Ok(Self { disk, folder, life, through: BTreeMap::new(), power_cuts: 0, faults: 0 })
    }

    pub async fn take(&mut self, device: &DeviceId, batch: Vec<u8>) -> Result<()> {
        let room = Room::new(self.life.room.clone().acquire_owned().await?);
        let (device, payload) = (device.clone(), Bytes::from(batch));
        self.life.queue.send(Upward { device, channel: Channel::Batch, payload, room }).await?;
        self.life.taken += 1;
        Ok(())
    }

    /// Messages taken in since the last power cut.
    pub fn taken(&self) -> u64 {
        self.life.taken
    }

    /// Waits until so many messages of this life are dealt with, receipts included. `false`: the disk failed.
    pub async fn until(&self, dealt_with: u64) -> Result<bool> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.life.ingest.status();
            if status.holding {
                return Ok(false);
            }
            ensure!((status.conflicts, status.quarantined, status.dropped) == (0, 0, 0), "{status:?}");
            // Each message holds its place until its group is done.
            let waiting = ROOM - self.life.room.available_permits();
            if self.life.taken - waiting as u64 >= dealt_with {
                return Ok(true);
            }
            ensure!(Instant::now() < deadline, "{dealt_with} messages are not dealt with: {status:?}");
            sleep(Duration::from_millis(1)).await;
        }
    }

    /// The disk works again, and nobody lost power; ingest finds that out.
    pub async fn mend(&mut self) -> Result<()> {
        self.disk.mend();
        self.faults += 1;
        let deadline = Instant::now() + PATIENCE;
        while self.life.ingest.status().holding {
            ensure!(Instant::now() < deadline, "ingest holds although the disk works");
            sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    /// Receipts that left since the last call.
    pub fn receipts(&mut self) -> Result<Vec<(DeviceId, AckV1)>> {
        let receipts = std::mem::take(&mut *self.life.receipts.0.lock().unwrap());
        for (device, stream) in receipts.iter().flat_map(|(device, ack)| ack.streams.iter().map(move |s| (device, s))) {
            ensure!(stream.quarantined.is_empty(), "{device}: put aside {stream:?}");
            let through = self.through.entry((device.clone(), stream.stream.clone())).or_default();
            ensure!(stream.through.0 >= *through, "{device}: {through} was acknowledged, now only {stream:?}");
            *through = stream.through.0;
        }
        Ok(receipts)
    }

    /// The power goes and comes back. What was not synced is lost.
    pub async fn lose_power(&mut self) -> Result<()> {
        self.life.working.abort();
        let _ = (&mut self.life.working).await;
        self.disk.crash(None);
        self.life.catalog.close().await;
        self.power_cuts += 1;
        self.life = Life::begin(&self.disk, self.folder.path()).await?;
        // Everything that counts can be read.
        for stream in self.life.lake.streams() {
            self.counts(&stream)?;
        }
        Ok(())
    }

    pub async fn stop(&mut self) -> Result<()> {
        self.life.shutdown.give();
        timeout(PATIENCE, &mut self.life.working).await.context("ingest ends")??
    }

    /// Event ids in a stream and how often each is there, by the lake's own scan.
    pub fn counts(&self, stream: &StreamName) -> Result<HashMap<String, u32>> {
        let mut counts = HashMap::new();
        for records in self.life.lake.scan(stream, i64::MIN..=i64::MAX, Some(&["event_id"]))? {
            for id in records?.column(0).as_string::<i32>().iter() {
                let count: &mut u32 = counts.entry(id.context("a row without an id")?.to_owned()).or_default();
                *count += 1;
                ensure!(*count == 1, "{stream}: {id:?} is there more than once");
            }
        }
        Ok(counts)
    }

    /// What a replay of the accepted events makes of the features that were served.
    pub fn replay(&self, view: &View) -> Result<dataset::Summary> {
        let spec = dataset::DatasetSpec::whole(view.clone());
        Ok(dataset::Dataset::build(&self.life.lake, spec, &|_| Ok(None))?.summary().clone())
    }

    /// Writes every file of a stream below a real folder.
    pub fn copy(&self, stream: &str, to: &Path) -> Result<()> {
        let folder = Path::new(LAKE).join(stream);
        for path in walk(&self.disk, &folder)? {
            let to = to.join(path.strip_prefix(&folder)?);
            std::fs::create_dir_all(to.parent().context("a file lies in a folder")?)?;
            std::fs::write(to, self.disk.read(&path, u64::MAX)?)?;
        }
        Ok(())
    }
}
