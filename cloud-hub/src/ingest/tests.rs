mod restored;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use bytes::Bytes;
use cloud_hub_gateway::Room;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tributary_process::clock::SystemClock;
use tributary_process::config::{ByteSize, HumanDuration};
use tributary_process::disk::{self, Access, Disk, SimDisk, create_folder_durably, folder_of, walk};
use tributary_wire::{
    Batch, BatchBody, BatchHeaderV1, BodyEncoding, ClockState, DropReason, Dropped, FieldType, Incarnation, LossReason,
    Lost, Micros, Sensitivity, SequenceNumber, Stamp, StreamAck,
};

use super::*;

/// Receipts as they arrive at devices.
#[derive(Default)]
struct Inbox {
    acks: Mutex<Vec<(DeviceId, StreamAck)>>,
    arrived: tokio::sync::Notify,
    /// What the gateway says is waiting.
    waiting: AtomicU64,
}

impl Answers for Inbox {
    fn ack(&self, device: &DeviceId, ack: Ack) {
        let Ack::V1(ack) = ack;
        self.acks.lock().unwrap().extend(ack.streams.into_iter().map(|stream| (device.clone(), stream)));
        self.arrived.notify_one();
    }

    fn waiting_bytes(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }
}

/// A hub's ingest over a simulated disk and a real catalog.
struct Bench {
    parts: Parts,
    storage: SimDisk,
    inbox: Arc<Inbox>,
    ingest: Ingest,
    queue: mpsc::Sender<Upward>,
    room: Arc<Semaphore>,
    shutdown: Shutdown,
    working: JoinHandle<anyhow::Result<()>>,
}

impl Bench {
    async fn open(folder: &Path, storage: &SimDisk) -> Self {
        Self::with(folder, storage, |_| {}).await
    }

    async fn with(folder: &Path, disk: &SimDisk, change: impl FnOnce(&mut IngestConfig)) -> Self {
        Self::behind(folder, disk, 64 << 20, change).await
    }

    /// Behind a gateway that keeps so many bytes.
    async fn behind(folder: &Path, disk: &SimDisk, queue_bytes: u64, change: impl FnOnce(&mut IngestConfig)) -> Self {
        let mut config = IngestConfig {
            group_idle: HumanDuration(Duration::from_millis(5)),
            retry: HumanDuration(Duration::from_millis(20)),
            ..IngestConfig::default()
        };
        change(&mut config);
        create_folder_durably(disk, Path::new("/data")).unwrap();
        let inbox = Arc::<Inbox>::default();
        let parts = Parts {
            queue_bytes,
            catalog: Catalog::open(&folder.join("catalog.db")).await.unwrap(),
            lake: Arc::new(Lake::open(Arc::new(disk.clone()), "/data/lake").unwrap()),
            quarantine: "/data/quarantine".into(),
            bus: Bus::default(),
            answers: inbox.clone(),
            results: tokio::sync::mpsc::channel(1).0,
            config,
            clock: Arc::new(SystemClock::start()),
        };
        take_in(&parts).await.unwrap();
        recover(&parts).await.unwrap();
        let (ingest, worker) = new(parts.clone());
        let (queue, messages) = mpsc::channel(1024);
        let shutdown = Shutdown::new();
        let working = tokio::spawn(worker.run(messages, shutdown.clone()));
        let storage = disk.clone();
        Self { parts, storage, inbox, ingest, queue, room: Arc::new(Semaphore::new(1 << 20)), shutdown, working }
    }

    async fn send(&self, device: &str, message: impl Into<Bytes>) {
        let room = Room::new(self.room.clone().acquire_owned().await.unwrap());
        let device = DeviceId::new(device).unwrap();
        self.queue.send(Upward { device, channel: Channel::Batch, payload: message.into(), room }).await.unwrap();
    }

    /// Waits until what has arrived satisfies the condition.
    async fn until(&self, what: &str, condition: impl Fn(&[(DeviceId, StreamAck)]) -> bool) {
        let met = async {
            while !condition(&self.inbox.acks.lock().unwrap()) {
                self.inbox.arrived.notified().await;
            }
        };
        timeout(Duration::from_secs(30), met).await.unwrap_or_else(|_| panic!("waited too long until {what}"));
    }

    async fn until_through(&self, sequence: u64) -> StreamAck {
        self.until("a number is acknowledged", |acks| acks.iter().any(|(_, ack)| ack.through.0 >= sequence)).await;
        self.inbox.acks.lock().unwrap().last().unwrap().1.clone()
    }

    async fn count(&self, query: &'static str) -> i64 {
        sqlx::query_scalar(query).fetch_one(self.parts.catalog.reader()).await.unwrap()
    }

    /// Ids in the lake's `accepted` column, sorted.
    fn ids(&self, stream: &str) -> Vec<i64> {
        let stream = StreamName::new(stream).unwrap();
        let mut ids = Vec::new();
        if self.parts.lake.schema(&stream).columns.is_empty() {
            return ids;
        }
        for records in self.parts.lake.scan(&stream, i64::MIN..=i64::MAX, Some(&["accepted"])).unwrap() {
            ids.extend(records.unwrap().column(0).as_primitive::<Int64Type>().values());
        }
        ids.sort_unstable();
        ids
    }

    /// The process dies and the machine with it.
    async fn crash(self) {
        self.working.abort();
        let _ = self.working.await;
        self.parts.catalog.close().await;
        self.storage.crash(None);
    }

    async fn stop(self) {
        self.shutdown.give();
        timeout(Duration::from_secs(30), self.working).await.unwrap().unwrap().unwrap();
    }
}

fn field(name: &str, kind: FieldType) -> Field {
    Field { name: name.into(), kind, unit: String::new(), nullable: true, sensitivity: Sensitivity::Keep }
}

fn header(sequence: u64, rows: u32, body_bytes: usize) -> BatchHeaderV1 {
    BatchHeaderV1 {
        incarnation: Incarnation(1),
        stream: StreamName::new("events").unwrap(),
        sequence: SequenceNumber(sequence),
        rows,
        encoding: BodyEncoding::Zstd,
        body_bytes: body_bytes as u32,
        body_crc: 0,
        stamp: Stamp { boot: 1, monotonic: 1, wall: Micros(1), clock: ClockState::Synchronised },
    }
}

fn message(sequence: u64, rows: u32, body: &BatchBody) -> Bytes {
    let plain = body.encode();
    let packed = zstd::bulk::compress(&plain, 1).unwrap();
    Batch::new(header(sequence, rows, plain.len()), packed).encode().into()
}

/// Rows with these ids, one per hour, so that long batches lie on several days.
fn events(ids: &[i64]) -> BatchBody {
    BatchBody::Records {
        schema: vec![field("accepted", FieldType::Int), field("event_time", FieldType::Time)],
        columns: vec![
            Column::Int(ids.iter().map(|id| Some(*id)).collect()),
            Column::Time(ids.iter().map(|id| Some(Micros(id * Micros::HOUR))).collect()),
        ],
    }
}

fn batch(sequence: u64, ids: &[i64]) -> Bytes {
    message(sequence, ids.len() as u32, &events(ids))
}

fn typed(sequence: u64, name: &str, column: Column) -> Bytes {
    let body = BatchBody::Records { schema: vec![field(name, column.kind())], columns: vec![column] };
    message(sequence, 1, &body)
}

#[tokio::test]
async fn batches_in_any_order_and_twice_appear_once_and_are_acknowledged() {
    let (folder, storage) = (tempfile::tempdir().unwrap(), SimDisk::new());
    let bench = Bench::open(folder.path(), &storage).await;
    for sequence in [2, 1, 2, 4] {
        let ids: Vec<i64> = (0..30).map(|i| sequence as i64 * 100 + i).collect();
        bench.send("edge-1", batch(sequence, &ids)).await;
    }
    let ack = bench.until_through(2).await;
    assert_eq!((ack.through.0, ack.scattered), (2, vec![SequenceNumber(4)]));
    // It began with one and grew with what was committed, in however many groups that was.
    assert!((2..64).contains(&ack.window), "{}", ack.window);
    assert_eq!(bench.ids("events").len(), 90);
    // Again, after the commit: acknowledged, not stored.
    bench.send("edge-1", batch(1, &(100..130).collect::<Vec<_>>())).await;
    let gap =
        BatchBody::Gap { to: SequenceNumber(3), dropped: vec![Dropped { reason: DropReason::DiskBudget, records: 7 }] };
    bench.send("edge-1", message(3, 0, &gap)).await;
    bench.until_through(4).await;
    assert_eq!(bench.ids("events").len(), 90);
    assert_eq!(bench.count("select records from gaps where reason = 'disk-budget'").await, 7);
    assert_eq!((bench.ingest.status().duplicates, bench.ingest.status().dropped), (2, 7));
    let lost = vec![Lost { reason: LossReason::Age, records: 5, span: Some((Micros(3), Micros(9))) }];
    bench.send("edge-1", message(5, 0, &BatchBody::GapV2 { to: SequenceNumber(8), lost })).await;
    bench.until_through(8).await;
    assert_eq!(bench.count("select to_time - from_time from gaps where reason = 'age' and number = 2").await, 6);
    assert_eq!(bench.ingest.status().dropped, 12);
    bench.stop().await;
}

#[tokio::test]
async fn what_cannot_be_read_is_kept_named_and_does_not_stop_the_rest() {
    let (folder, storage) = (tempfile::tempdir().unwrap(), SimDisk::new());
    let bench = Bench::open(folder.path(), &storage).await;
    let mut damaged = batch(2, &[1]).to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    let bomb = {
        let packed = zstd::bulk::compress(&vec![0; 1 << 20], 1).unwrap();
        Bytes::from(Batch::new(header(3, 1, 100), packed).encode())
    };
    bench.send("edge-1", Bytes::from_static(b"not a batch")).await;
    bench.send("edge-1", batch(1, &[7])).await;
    bench.send("edge-1", damaged).await;
    bench.send("edge-1", bomb).await;
    bench.send("edge-2", batch(1, &[8])).await;
    bench
        .until("both devices are answered", |acks| {
            acks.iter().any(|(d, a)| d.as_str() == "edge-1" && a.through.0 == 3)
                && acks.iter().any(|(d, _)| d.as_str() == "edge-2")
        })
        .await;
    let quarantined = |acks: &[(DeviceId, StreamAck)]| {
        acks.iter().flat_map(|(_, ack)| ack.quarantined.clone()).map(|s| s.0).collect::<BTreeSet<_>>()
    };
    assert_eq!(quarantined(&bench.inbox.acks.lock().unwrap()), BTreeSet::from([2, 3]));
    assert_eq!(bench.ids("events"), [7, 8]);
    let reasons: Vec<(String, String)> = sqlx::query_as("select reason, detail from quarantine order by sequence")
        .fetch_all(bench.parts.catalog.reader())
        .await
        .unwrap();
    assert_eq!(reasons[0].0, "undecodable-header");
    assert!(reasons[1].1.starts_with("batch body checksum is"), "{reasons:?}");
    assert!(reasons[2].1.starts_with("the body does not decompress"), "{reasons:?}");
    // The same bytes again are counted, not kept twice.
    bench.send("edge-1", Bytes::from_static(b"not a batch")).await;
    bench.send("edge-1", batch(4, &[9])).await;
    bench.until_through(4).await;
    assert_eq!(bench.count("select count(*) from quarantine").await, 3);
    assert_eq!(bench.count("select times from quarantine where reason = 'undecodable-header'").await, 2);
    bench.stop().await;
}

#[tokio::test]
async fn a_time_from_the_far_future_goes_to_quarantine_and_the_rest_goes_on() {
    let (folder, storage) = (tempfile::tempdir().unwrap(), SimDisk::new());
    let bench = Bench::open(folder.path(), &storage).await;
    let year_9998 = 253_339_228_800_000_000 / Micros::HOUR;
    bench.send("edge-1", batch(1, &[7])).await;
    bench.send("edge-1", batch(2, &[8, year_9998])).await;
    bench.send("edge-1", batch(3, &[9])).await;
    bench.until_through(3).await;
    assert_eq!(bench.ids("events"), [7, 9]);
    let (reason, detail): (String, String) =
        sqlx::query_as("select reason, detail from quarantine").fetch_one(bench.parts.catalog.reader()).await.unwrap();
    assert_eq!(reason, "future");
    assert!(detail.starts_with("event time 9998-01-01 is more than 1000 days ahead"), "{detail}");
    bench.stop().await;
}

#[tokio::test]
async fn a_column_that_changes_its_type_waits_until_it_is_replayed_into_a_new_stream() {
    let (folder, storage) = (tempfile::tempdir().unwrap(), SimDisk::new());
    let bench = Bench::open(folder.path(), &storage).await;
    bench.send("edge-1", typed(1, "amount", Column::Double(vec![Some(1.5)]))).await;
    bench.send("edge-1", typed(2, "amount", Column::Text(vec![Some("1.5".into())]))).await;
    bench.send("edge-1", typed(3, "new", Column::Bool(vec![Some(true)]))).await;
    bench.until_through(3).await;
    let events = StreamName::new("events").unwrap();
    assert_eq!(bench.parts.lake.schema(&events).columns.len(), 2);
    let (id, detail): (String, String) =
        sqlx::query_as("select id, detail from quarantine").fetch_one(bench.parts.catalog.reader()).await.unwrap();
    assert!(detail.starts_with("column \"amount\" is text, but in this stream it is double"), "{detail}");

    let refused = bench.ingest.replay(&id, None).await.unwrap_err();
    assert!(matches!(refused, SubmitError::Schema { .. }), "{refused}");
    let second = StreamName::new("events-2").unwrap();
    bench.ingest.replay(&id, Some(second.clone())).await.unwrap();
    let rows: usize = bench.parts.lake.scan(&second, 0..=i64::MAX, None).unwrap().map(|r| r.unwrap().num_rows()).sum();
    assert_eq!(rows, 1);
    assert_eq!(bench.count("select count(*) from batches where state = 'quarantined'").await, 0);
    let again = bench.ingest.replay(&id, Some(second)).await.unwrap_err();
    assert!(again.to_string().contains("was replayed before"), "{again}");
    assert!(matches!(bench.ingest.replay("none", None).await, Err(SubmitError::NotKept { .. })));
    bench.stop().await;
}

#[tokio::test]
async fn the_same_number_with_another_body_raises_an_alert() {
    let (folder, storage) = (tempfile::tempdir().unwrap(), SimDisk::new());
    let bench = Bench::open(folder.path(), &storage).await;
    bench.send("edge-1", batch(1, &[1])).await;
    bench.until_through(1).await;
    bench.send("edge-1", batch(1, &[2])).await;
    bench.send("edge-1", batch(2, &[3])).await;
    bench.until_through(2).await;
    assert_eq!(bench.ids("events"), [1, 3]);
    assert_eq!(
        bench.count("select count(*) from alerts where kind = 'cloned-state' and severity = 'critical'").await,
        1
    );
    assert_eq!(bench.count("select count(*) from quarantine where reason = 'conflict'").await, 1);
    bench.stop().await;
}

#[tokio::test]
async fn a_device_that_lost_what_the_hub_has_of_it_is_no_copy() {
    let (folder, storage) = (tempfile::tempdir().unwrap(), SimDisk::new());
    let bench = Bench::open(folder.path(), &storage).await;
    let damaged = |first: u64, to: u64| {
        let lost = vec![Lost { reason: LossReason::Corrupt, records: 1, span: None }];
        message(first, 0, &BatchBody::GapV2 { to: SequenceNumber(to), lost })
    };
    bench.send("edge-1", batch(1, &[1])).await;
    bench.until_through(1).await;
    bench.send("edge-1", damaged(1, 1)).await;
    bench.send("edge-1", damaged(2, 2)).await;
    bench.until_through(2).await;
    let status = bench.ingest.status();
    assert_eq!((bench.ids("events"), status.duplicates, status.dropped, status.conflicts), (vec![1], 1, 1, 0));
    // A device gives up one such batch at a time: whoever says more is another one.
    bench.send("edge-1", damaged(1, 3)).await;
    bench.send("edge-1", batch(3, &[3])).await;
    bench.until_through(3).await;
    assert_eq!((bench.ids("events"), bench.ingest.status().conflicts), (vec![1, 3], 1));
    bench.stop().await;
}

#[tokio::test]
async fn a_device_over_its_quarantine_budget_is_neither_kept_nor_acknowledged() {
    let (folder, storage) = (tempfile::tempdir().unwrap(), SimDisk::new());
    let bench = Bench::with(folder.path(), &storage, |config| config.quarantine_bytes = ByteSize(10)).await;
    bench.send("edge-1", typed(1, "device", Column::Text(vec![Some("me".into())]))).await;
    bench.send("edge-1", batch(2, &[1])).await;
    bench
        .until("the good one is answered", |acks| acks.iter().any(|(_, ack)| ack.scattered == [SequenceNumber(2)]))
        .await;
    assert_eq!(bench.ingest.status().refused, 1);
    assert_eq!(bench.count("select count(*) from alerts where kind = 'quarantine-full'").await, 1);
    bench.stop().await;
}

#[tokio::test]
async fn a_full_disk_makes_devices_hold_and_work_goes_on_when_there_is_space() {
    let (folder, storage) = (tempfile::tempdir().unwrap(), SimDisk::new());
    let bench = Bench::open(folder.path(), &storage).await;
    bench.send("edge-1", batch(1, &[1])).await;
    bench.until_through(1).await;
    storage.set_capacity(Some(storage.used()));
    bench.send("edge-1", batch(2, &[2])).await;
    bench.until("the device is told to hold", |acks| acks.iter().any(|(_, ack)| ack.window == 0)).await;
    assert!(bench.ingest.status().holding);
    assert!(bench.inbox.acks.lock().unwrap().iter().all(|(_, ack)| ack.through.0 < 2));
    storage.set_capacity(None);
    bench.until("the device may send again", |acks| acks.last().is_some_and(|(_, ack)| ack.window > 0)).await;
    bench.send("edge-1", batch(2, &[2])).await;
    bench.until_through(2).await;
    assert_eq!(bench.ids("events"), [1, 2]);
    bench.stop().await;
}

/// Receipts come with the window of the moment; here somebody else fills the hub's queue.
#[tokio::test]
async fn a_hub_with_too_much_to_do_lets_devices_hold_and_go_on_when_it_has_caught_up() {
    let (folder, storage) = (tempfile::tempdir().unwrap(), SimDisk::new());
    let bench = Bench::behind(folder.path(), &storage, 2048, |_| {}).await;
    bench.inbox.waiting.store(1 << 20, Ordering::Relaxed);
    let ids: Vec<i64> = (0..200).collect();
    bench.send("edge-1", batch(1, &ids)).await;
    bench.until("the device holds", |acks| acks.iter().any(|(_, ack)| ack.window == 0)).await;
    let ack = bench.until_through(1).await;
    assert_eq!((ack.through.0, ack.window), (1, 0), "what came is stored and acknowledged all the same");
    assert_eq!((bench.ingest.status().slowed, bench.ingest.status().holding), (1, false));
    bench.inbox.waiting.store(0, Ordering::Relaxed);
    bench.until("it may go on", |acks| acks.last().is_some_and(|(_, ack)| ack.window > 0)).await;
    assert_eq!(bench.ingest.status().slowed, 0);
    bench.send("edge-1", batch(2, &[200])).await;
    bench.until_through(2).await;
    assert_eq!(bench.ids("events").len(), 201);
    bench.stop().await;
}

#[tokio::test]
async fn records_of_the_hub_are_durable_when_submit_returns_and_followers_see_each_file_once() {
    let (folder, storage) = (tempfile::tempdir().unwrap(), SimDisk::new());
    let bench = Bench::open(folder.path(), &storage).await;
    let labels = StreamName::new("labels").unwrap();
    let mut early = bench.parts.bus.follow(bench.parts.lake.clone(), labels.clone(), 0);
    for id in ["a", "b"] {
        let columns = vec![Column::Text(vec![Some(id.into())]), Column::Bool(vec![Some(true)])];
        let fields = vec![field("event_id", FieldType::Text), field("label", FieldType::Bool)];
        bench.ingest.submit(&labels, fields, columns, None).await.unwrap();
    }
    let wrong = bench
        .ingest
        .submit(&labels, vec![field("label", FieldType::Int)], vec![Column::Int(vec![Some(1)])], None)
        .await;
    assert!(matches!(wrong, Err(SubmitError::Schema { .. })));
    let mut late = bench.parts.bus.follow(bench.parts.lake.clone(), labels, 0);
    for follower in [&mut early, &mut late] {
        let mut numbers = Vec::new();
        for _ in 0..2 {
            let committed = timeout(Duration::from_secs(30), follower.next()).await.unwrap().unwrap().unwrap();
            assert_eq!(committed.records.num_rows(), 1);
            numbers.push(committed.file.number);
        }
        assert_eq!(numbers, [1, 2]);
        assert!(follower.is_level());
    }
    bench.stop().await;
}

#[tokio::test]
async fn a_lost_catalog_is_made_again_from_the_files() {
    let (folder, storage) = (tempfile::tempdir().unwrap(), SimDisk::new());
    let bench = Bench::open(folder.path(), &storage).await;
    let ids: Vec<i64> = (0..60).collect();
    bench.send("edge-1", batch(1, &ids)).await;
    bench.until_through(1).await;
    bench.send("edge-2", batch(1, &[100])).await;
    bench.until("edge-2 is answered", |acks| acks.iter().any(|(d, _)| d.as_str() == "edge-2")).await;
    bench.crash().await;
    let elsewhere = tempfile::tempdir().unwrap();
    let bench = Bench::open(elsewhere.path(), &storage).await;
    assert_eq!(bench.ids("events").len(), 61);
    // Numbers are known again: the same batch is a duplicate.
    bench.send("edge-1", batch(1, &ids)).await;
    bench.until_through(1).await;
    assert_eq!((bench.ids("events").len(), bench.ingest.status().duplicates), (61, 1));
    bench.stop().await;
}

/// A program that dies between a file's name and its sync leaves a file that is seen until the power goes. Its rows had a
/// receipt as soon as a catalog that was made again knew it.
#[tokio::test]
async fn a_file_that_counts_in_a_catalog_made_again_survives_the_next_power_cut() {
    let (folder, storage) = (tempfile::tempdir().unwrap(), SimDisk::new());
    let bench = Bench::open(folder.path(), &storage).await;
    bench.send("edge-1", batch(1, &[1, 2])).await;
    bench.until_through(1).await;
    let files = bench.parts.lake.files_after(&StreamName::new("events").unwrap(), 0);
    bench.crash().await;
    let path = Path::new("/data/lake").join(&files[0].path);
    let bytes = storage.read(&path, u64::MAX).unwrap();
    storage.remove(&path).unwrap();
    storage.sync_folder(folder_of(&path)).unwrap();
    let mut file = storage.append(&path).unwrap();
    file.write_all(&bytes).unwrap();
    file.sync().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let bench = Bench::open(elsewhere.path(), &storage).await;
    assert_eq!(bench.ids("events"), [1, 2]);
    bench.crash().await;
    let bench = Bench::open(elsewhere.path(), &storage).await;
    assert_eq!(bench.count("select count(*) from alerts where kind = 'lake-files-missing'").await, 0);
    assert_eq!(bench.ids("events"), [1, 2]);
    bench.stop().await;
}

/// Numbers that have no rows in the lake stand in its footers, or in the quarantine: else a stream would never again be
/// complete, and what was lost or set aside would be forgotten.
#[tokio::test]
async fn a_catalog_made_again_knows_gaps_empty_batches_and_the_quarantine() {
    let (folder, storage) = (tempfile::tempdir().unwrap(), SimDisk::new());
    let bench = Bench::open(folder.path(), &storage).await;
    let lost = vec![
        Lost { reason: LossReason::Age, records: 8, span: Some((Micros(3), Micros(9))) },
        Lost { reason: LossReason::DiskBudget, records: 4, span: None },
    ];
    let gap =
        |first, to, lost: &[Lost]| message(first, 0, &BatchBody::GapV2 { to: SequenceNumber(to), lost: lost.to_vec() });
    let mut damaged = batch(6, &[1]).to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    bench.send("edge-1", batch(1, &[1, 2])).await;
    bench.send("edge-1", gap(2, 4, &lost)).await;
    bench.until_through(4).await;
    bench.send("edge-1", batch(5, &[])).await;
    bench.send("edge-1", damaged).await;
    bench.send("edge-1", batch(7, &[3])).await;
    bench.until_through(7).await;
    // A stream of which there is nothing but a gap.
    bench.send("edge-2", gap(1, 9, &lost)).await;
    bench
        .until("edge-2 is answered", |acks| acks.iter().any(|(d, a)| d.as_str() == "edge-2" && a.through.0 == 9))
        .await;
    bench.crash().await;

    let elsewhere = tempfile::tempdir().unwrap();
    let bench = Bench::open(elsewhere.path(), &storage).await;
    let through = "select min(through) * 100 + max(through) from stream_progress";
    assert_eq!(bench.count(through).await, 709, "both streams are complete at once");
    let gaps = "select count(*) * 1000 + sum(records) * 10 + count(from_time) from gaps where reason in ('age', 'disk-budget')";
    assert_eq!(bench.count(gaps).await, 4_242);
    assert_eq!(bench.count("select count(*) from quarantine where sequence = 6 and state = 'kept'").await, 1);
    assert_eq!(walk(&storage, Path::new("/data/quarantine")).unwrap().len(), 1, "its file is there");
    assert_eq!(bench.count("select waits_for from restores where state = 'waiting' and backup_time = 0").await, 2);
    assert_eq!(bench.count("select count(*) from alerts where kind = 'hub-restored'").await, 1);
    // What comes again is known by its body.
    bench.send("edge-1", gap(2, 4, &lost)).await;
    bench.send("edge-1", batch(8, &[4])).await;
    bench.until_through(8).await;
    assert_eq!((bench.ids("events"), bench.ingest.status().conflicts), (vec![1, 2, 3, 4], 0));
    bench.stop().await;
}

#[tokio::test]
async fn beside_damage_a_catalog_made_again_deletes_nothing_and_says_what_is_missing() {
    let (folder, storage) = (tempfile::tempdir().unwrap(), SimDisk::new());
    let bench = Bench::open(folder.path(), &storage).await;
    bench.send("edge-1", batch(1, &[1, 2])).await;
    bench.until_through(1).await;
    bench.send("edge-2", batch(1, &[3])).await;
    bench.until("edge-2 is answered", |acks| acks.iter().any(|(d, _)| d.as_str() == "edge-2")).await;
    let files = bench.parts.lake.files_after(&StreamName::new("events").unwrap(), 0);
    bench.crash().await;
    let rotten = Path::new("/data/lake").join(&files[0].path);
    storage.rot(&rotten, files[0].bytes as usize - 20).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let bench = Bench::open(elsewhere.path(), &storage).await;
    assert_eq!(bench.ids("events"), [3]);
    let aside = walk(&storage, Path::new("/data/lake-set-aside")).unwrap();
    assert_eq!(aside, [Path::new("/data/lake-set-aside").join(&files[0].path)]);
    assert_eq!(bench.count("select count(*) from alerts where kind = 'lake-files-set-aside'").await, 1);
    bench.stop().await;
}

/// A clock that stands until it is set.
#[derive(Clone, Default)]
struct SetClock(Arc<AtomicU64>);

impl SetClock {
    fn pass(&self, time: Duration) {
        self.0.fetch_add(time.as_micros() as u64, Ordering::Relaxed);
    }
}

impl Clock for SetClock {
    fn wall(&self) -> i64 {
        1_767_571_200_000_000 + self.monotonic() as i64
    }

    fn monotonic(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The lake took the file, the catalog had no room for the commit; what came then is committed with other files.
#[tokio::test]
async fn the_files_of_a_commit_that_failed_are_gone_when_work_goes_on() {
    let (disk, catalog) = (SimDisk::new(), SimDisk::new());
    create_folder_durably(&disk, Path::new("/data")).unwrap();
    let (inbox, clock) = (Arc::<Inbox>::default(), SetClock::default());
    let parts = Parts {
        queue_bytes: 64 << 20,
        catalog: MemoryLedger::create(Arc::new(catalog.clone()), "/ledger").unwrap(),
        lake: Arc::new(Lake::open(Arc::new(disk.clone()), "/data/lake").unwrap()),
        quarantine: "/data/quarantine".into(),
        bus: Bus::default(),
        answers: inbox.clone(),
        results: mpsc::channel(1).0,
        config: IngestConfig::default(),
        clock: Arc::new(clock.clone()),
    };
    let mut committer = commit::Committer::new(parts.clone(), Arc::default());
    let item = |ids: &[i64]| collect::Item::of(DeviceId::new("edge-1").unwrap(), batch(1, ids), Micros(1));
    catalog.set_capacity(Some(catalog.used()));
    committer.group(vec![item(&[1])], 0).await;
    assert!(committer.holding.is_some() && inbox.acks.lock().unwrap().iter().all(|(_, ack)| ack.window == 0));
    assert_eq!(parts.lake.compare().unwrap().unregistered.len(), 1);
    let retry = parts.config.retry.0;
    assert_eq!(committer.probes_at(), Some(retry.as_micros() as u64));
    clock.pass(retry);
    committer.probe().await;
    assert_eq!(committer.probes_at(), Some(2 * retry.as_micros() as u64), "there is still no room");
    catalog.set_capacity(None);
    clock.pass(retry - Duration::from_micros(1));
    committer.probe().await;
    assert!(committer.holding.is_some(), "it is not time to try again");
    clock.pass(Duration::from_micros(1));
    committer.probe().await;
    assert!(committer.holding.is_none());
    committer.group(vec![item(&[1])], 0).await;
    assert_eq!(inbox.acks.lock().unwrap().last().unwrap().1.through, SequenceNumber(1));
    assert_eq!(parts.lake.compare().unwrap(), cloud_hub_lake::Differences::default());
    assert_eq!(parts.catalog.files().await.unwrap().len(), 1);
}

/// The disk refuses everything from some change of a commit on, so also to remove what was written of it.
#[tokio::test]
async fn nothing_of_a_commit_that_the_disk_broke_off_is_left_when_work_goes_on() {
    let mut broken = 0;
    for changes in 0.. {
        let (disk, catalog, clock) = (SimDisk::new(), SimDisk::new(), SetClock::default());
        create_folder_durably(&disk, Path::new("/data")).unwrap();
        let parts = Parts {
            queue_bytes: 64 << 20,
            catalog: MemoryLedger::create(Arc::new(catalog), "/ledger").unwrap(),
            lake: Arc::new(Lake::open(Arc::new(disk.clone()), "/data/lake").unwrap()),
            quarantine: "/data/quarantine".into(),
            bus: Bus::default(),
            answers: Arc::<Inbox>::default(),
            results: mpsc::channel(1).0,
            config: IngestConfig::default(),
            clock: Arc::new(clock.clone()),
        };
        let mut committer = commit::Committer::new(parts.clone(), Arc::default());
        let item = || collect::Item::of(DeviceId::new("edge-1").unwrap(), batch(1, &[1]), Micros(1));
        disk.fail_after(changes);
        committer.group(vec![item()], 0).await;
        if committer.holding.is_none() {
            break;
        }
        broken += 1;
        disk.mend();
        clock.pass(parts.config.retry.0);
        committer.probe().await;
        assert!(committer.holding.is_none());
        committer.group(vec![item()], 0).await;
        assert_eq!(parts.lake.compare().unwrap(), cloud_hub_lake::Differences::default(), "after {changes} changes");
        assert_eq!(parts.catalog.files().await.unwrap().len(), 1);
    }
    assert!(broken > 4, "{broken}");
}

/// A test of the tests: were a sync left out, the crash below would be seen to lose what was acknowledged.
#[tokio::test]
async fn a_disk_that_lies_about_syncing_loses_files_and_the_loss_is_an_alert() {
    let (folder, storage) = (tempfile::tempdir().unwrap(), SimDisk::new());
    let bench = Bench::open(folder.path(), &storage).await;
    bench.send("edge-1", batch(1, &[1])).await;
    bench.until_through(1).await;
    storage.set_lying(true);
    bench.send("edge-1", batch(2, &[2])).await;
    bench.until_through(2).await;
    bench.crash().await;
    let bench = Bench::open(folder.path(), &storage).await;
    let files = bench.parts.lake.files_after(&StreamName::new("events").unwrap(), 0);
    assert_eq!(bench.parts.lake.read(&files[0]).unwrap().num_rows(), 1);
    assert!(bench.parts.lake.read(&files[1]).unwrap_err().to_string().starts_with("could not open"));
    assert_eq!(bench.count("select count(*) from alerts where kind = 'lake-files-missing'").await, 1);
    bench.stop().await;
}

/// Two devices send for ever; the hub dies again and again, at any step, and forgets what was not synced.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_and_nothing_is_doubled_over_many_crashes() {
    for seed in 0..6 {
        let mut random = StdRng::seed_from_u64(seed);
        let (folder, storage) = (tempfile::tempdir().unwrap(), SimDisk::new());
        let mut outboxes: BTreeMap<(&str, u64), Vec<i64>> = BTreeMap::new();
        let mut acked: BTreeSet<(&str, u64)> = BTreeSet::new();
        let mut next_id = 0;
        for device in ["edge-1", "edge-2"] {
            for sequence in 1..=12 {
                let rows = random.random_range(1..40);
                outboxes.insert((device, sequence), (next_id..next_id + rows).collect());
                next_id += rows;
            }
        }
        let take_acks = |bench: &Bench, acked: &mut BTreeSet<(&str, u64)>| {
            for (device, ack) in bench.inbox.acks.lock().unwrap().iter() {
                let known = outboxes.keys().filter(|(d, _)| *d == device.as_str());
                acked.extend(known.filter(|(_, s)| *s <= ack.through.0 || ack.scattered.contains(&SequenceNumber(*s))));
            }
        };
        for round in 0..=10 {
            let bench = Bench::open(folder.path(), &storage).await;
            let stored = bench.ids("events");
            let distinct: BTreeSet<i64> = stored.iter().copied().collect();
            assert_eq!(stored.len(), distinct.len(), "seed {seed}, round {round}: doubled");
            for key in &acked {
                let whole = outboxes[key].iter().all(|id| distinct.contains(id));
                assert!(whole, "seed {seed}, round {round}: {key:?} was acknowledged and is lost");
            }
            let last = round == 10;
            let mut waiting: Vec<_> = outboxes.keys().filter(|key| !acked.contains(*key)).copied().collect();
            waiting.shuffle(&mut random);
            if !last {
                waiting.truncate(random.random_range(1..8).min(waiting.len()));
                if random.random_bool(0.7) {
                    storage.fail_after(random.random_range(0..60));
                }
            }
            for (device, sequence) in &waiting {
                bench.send(device, batch(*sequence, &outboxes[&(*device, *sequence)])).await;
                if random.random_bool(0.2) {
                    bench.send(device, batch(*sequence, &outboxes[&(*device, *sequence)])).await;
                }
            }
            // A device that has nothing to send any more hears nothing in this life.
            let senders: BTreeSet<&str> = waiting.iter().map(|(device, _)| *device).collect();
            let all = |acks: &[(DeviceId, StreamAck)]| {
                let through = |d: &str| acks.iter().any(|(device, ack)| device.as_str() == d && ack.through.0 == 12);
                senders.iter().all(|device| through(device))
            };
            if last {
                bench.until("all is acknowledged", all).await;
                take_acks(&bench, &mut acked);
                assert_eq!(bench.ids("events"), (0..next_id).collect::<Vec<_>>(), "seed {seed}");
                bench.stop().await;
            } else {
                // Cut at a random moment, or once something was answered.
                let moment = Duration::from_millis(random.random_range(0..60));
                let answered = bench.until("something is answered", |acks| !acks.is_empty());
                let _ = timeout(moment, answered).await;
                take_acks(&bench, &mut acked);
                bench.crash().await;
            }
        }
    }
}
