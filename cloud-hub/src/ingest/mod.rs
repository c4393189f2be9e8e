//! Records become durable here, and only then are they answered for.
//!
//! Messages are gathered into groups, decoded, written as Parquet files, and committed together with their batch numbers
//! in one transaction. The device's outbox is the write-ahead log: what is not committed is not acknowledged and comes
//! again. What cannot be read is kept as it came and acknowledged as such. When the disk refuses, devices are told to
//! hold, nothing is acknowledged, and work goes on as soon as the disk takes a probe.

mod ledger;
mod progress;
mod decode;
mod collect;
mod gathering;
mod plan;
mod commit;
mod hold;
mod load;
mod reports;
mod clocks;
mod recover;
mod rebuild;
mod adopt;
mod judge;
#[cfg(feature = "simulation")]
mod stepped;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use cloud_hub_gateway::{Connections, Upward};
use cloud_hub_lake::{Lake, SchemaConflict};
use serde::Serialize;
use serde_json::json;
use tokio::sync::{mpsc, oneshot};
use tributary_process::clock::Clock;
use tributary_process::shutdown::Shutdown;
use tributary_wire::topic::Channel;
use tributary_wire::{Ack, Column, DeviceId, Field, Micros, SequenceNumber, StreamName};

use crate::audit::Noted;
use crate::bus::Bus;
use crate::catalog::batches::Numbering;
use crate::catalog::{Catalog, quarantine};
use crate::config::IngestConfig;
use crate::hub::Hub;

pub(crate) use adopt::missing;
pub use adopt::{TakenIn, take_in};
#[cfg(feature = "simulation")]
pub use gathering::Gathering;
pub use ledger::{Answer, Entry, Ledger, LedgerError, Standing};
#[cfg(any(test, feature = "simulation"))]
pub use ledger::{Gap, MemoryLedger};
pub use recover::{Recovered, recover};
#[cfg(feature = "simulation")]
pub use stepped::Stepped;

/// The name under which the hub itself numbers records (labels, replays into another stream).
pub const HUB_DEVICE: &str = "hub";

/// Orders waiting for the next group.
const ORDERS: usize = 64;

/// Where receipts go.
pub trait Answers: Send + Sync + 'static {
    /// Sends a receipt. One that does not arrive is covered by a later one.
    fn ack(&self, device: &DeviceId, ack: Ack);

    /// Bytes of messages that came and are not done with.
    fn waiting_bytes(&self) -> u64 {
        0
    }
}

impl Answers for Connections {
    fn ack(&self, device: &DeviceId, ack: Ack) {
        if let Err(error) = self.send(device, Channel::Ack, ack.encode()) {
            tracing::debug!(%device, ?error, "a receipt did not leave");
        }
    }

    fn waiting_bytes(&self) -> u64 {
        Connections::waiting_bytes(self)
    }
}

/// What ingest works with.
#[derive(Clone)]
pub struct Parts<L = Catalog> {
    /// Who is where, and which files count.
    pub catalog: L,
    /// The files.
    pub lake: Arc<Lake>,
    /// Folder for messages kept as they came, in the lake's storage.
    pub quarantine: PathBuf,
    /// Who hears about commits.
    pub bus: Bus,
    /// Where receipts go.
    pub answers: Arc<dyn Answers>,
    /// Where the results of commands go. One that finds no room is dropped: records come first, and the device is asked
    /// again.
    pub results: mpsc::Sender<Upward>,
    /// Memory for messages on their way in.
    pub queue_bytes: u64,
    /// Sizes and times.
    pub config: IngestConfig,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

impl<L> Parts<L> {
    fn now(&self) -> Micros {
        Micros(self.clock.wall())
    }
}

/// Counts since the start, for metrics and the status page.
#[derive(Debug, Default)]
pub struct Counters {
    batches: AtomicU64,
    rows: AtomicU64,
    files: AtomicU64,
    duplicates: AtomicU64,
    conflicts: AtomicU64,
    quarantined: AtomicU64,
    refused: AtomicU64,
    dropped: AtomicU64,
    reports: AtomicU64,
    holding: AtomicBool,
    slowed: AtomicU64,
}

/// [`Counters`] at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Batches committed.
    pub batches: u64,
    /// Rows committed.
    pub rows: u64,
    /// Files committed.
    pub files: u64,
    /// Batches that had been committed before and came again.
    pub duplicates: u64,
    /// Batches whose number was taken by another body.
    pub conflicts: u64,
    /// Messages kept as they came.
    pub quarantined: u64,
    /// Messages neither kept nor acknowledged: a device over its quarantine budget.
    pub refused: u64,
    /// Records that devices reported as dropped.
    pub dropped: u64,
    /// Reports stored.
    pub reports: u64,
    /// Whether the disk refuses and devices were told to wait.
    pub holding: bool,
    /// Streams of devices that were told to wait because the hub has too much to do.
    pub slowed: u64,
}

impl Counters {
    fn add(&self, counter: impl Fn(&Self) -> &AtomicU64, by: u64) {
        counter(self).fetch_add(by, Ordering::Relaxed);
    }

    /// The counts now.
    pub fn status(&self) -> Status {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Status {
            batches: of(&self.batches),
            rows: of(&self.rows),
            files: of(&self.files),
            duplicates: of(&self.duplicates),
            conflicts: of(&self.conflicts),
            quarantined: of(&self.quarantined),
            refused: of(&self.refused),
            dropped: of(&self.dropped),
            reports: of(&self.reports),
            holding: self.holding.load(Ordering::Relaxed),
            slowed: of(&self.slowed),
        }
    }
}

/// Why records made at the hub, or a replay, did not become durable.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// The disk refuses for now; nothing was stored, trying again later is right.
    #[error("the hub's disk takes nothing at the moment; nothing was stored")]
    Holding,
    /// The stream's columns do not allow it.
    #[error("the records do not fit stream {stream}")]
    Schema {
        /// Which stream.
        stream: StreamName,
        /// What does not fit.
        source: SchemaConflict,
    },
    /// The columns disagree with each other or with the fields.
    #[error("the records cannot be used: {problem}")]
    Unusable {
        /// What is wrong.
        problem: String,
    },
    /// There is no such message in quarantine.
    #[error("there is no message {id} in quarantine")]
    NotKept {
        /// What was asked for.
        id: String,
    },
    /// The message was replayed before, or its number belongs to another body.
    #[error("message {id} cannot be replayed: {problem}")]
    Settled {
        /// Which message.
        id: String,
        /// Why.
        problem: String,
    },
    /// The catalog or the disk failed.
    #[error("could not read the message from quarantine")]
    Read(#[source] anyhow::Error),
    /// The hub is stopping.
    #[error("the hub is stopping")]
    Stopping,
}

type Reply = oneshot::Sender<Result<(), SubmitError>>;

/// What the hub itself asks ingest to store.
enum Order {
    Submit {
        stream: StreamName,
        fields: Vec<Field>,
        columns: Vec<Column>,
        noted: Option<Noted>,
        reply: Reply,
    },
    Replay {
        kept: Replayed,
        message: bytes::Bytes,
        reply: Reply,
    },
    /// A gap in a device's numbers that the hub concludes from its report.
    Message {
        device: DeviceId,
        message: bytes::Bytes,
    },
}

/// A message of the quarantine that is read again.
struct Replayed {
    id: String,
    device: DeviceId,
    /// Another stream than its own.
    stream: Option<StreamName>,
    noted: Noted,
}

/// Hands records to ingest. Clones share it.
#[derive(Clone)]
pub struct Ingest {
    orders: mpsc::Sender<Order>,
    counters: Arc<Counters>,
    parts: Parts,
}

impl std::fmt::Debug for Ingest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ingest").field("status", &self.status()).finish_non_exhaustive()
    }
}

/// The working half: run it once.
pub struct Worker {
    orders: mpsc::Receiver<Order>,
    counters: Arc<Counters>,
    parts: Parts,
}

/// Makes both halves.
pub fn new(parts: Parts) -> (Ingest, Worker) {
    let (sender, orders) = mpsc::channel(ORDERS);
    let counters = Arc::<Counters>::default();
    let ingest = Ingest { orders: sender, counters: counters.clone(), parts: parts.clone() };
    (ingest, Worker { orders, counters, parts })
}

impl Worker {
    /// Takes messages until the shutdown is given and the queue is empty, then commits what it has and ends.
    pub async fn run(self, queue: mpsc::Receiver<Upward>, shutdown: Shutdown) -> anyhow::Result<()> {
        let (groups, committing) = mpsc::channel(1);
        let (reports, reporting) = mpsc::channel(64);
        let committer = commit::Committer::new(self.parts.clone(), self.counters.clone());
        let others = collect::Others { reports, results: self.parts.results.clone() };
        let collecting = collect::run(self.parts.clone(), queue, self.orders, others, groups, shutdown);
        let reporting = reports::run(self.parts, self.counters, reporting);
        let ((), (), committed) = tokio::join!(collecting, reporting, committer.run(committing));
        committed
    }
}

impl Ingest {
    /// Stores records made at the hub, under its own numbers. When it returns they are durable and in the lake, and
    /// what is `noted` is in the audit log.
    pub async fn submit(
        &self,
        stream: &StreamName,
        fields: Vec<Field>,
        columns: Vec<Column>,
        noted: Option<Noted>,
    ) -> Result<(), SubmitError> {
        let stream = stream.clone();
        self.order(|reply| Order::Submit { stream, fields, columns, noted, reply }).await
    }

    /// Reads a message of the quarantine again, as if it came now. With `stream`, its records go to that stream: the
    /// way to take in a column whose type changed.
    pub async fn replay(&self, id: &str, stream: Option<StreamName>) -> Result<(), SubmitError> {
        let failed = |error: anyhow::Error| SubmitError::Read(error);
        let mut connection = self.parts.catalog.reader().acquire().await.map_err(|e| failed(e.into()))?;
        let kept = quarantine::get(&mut connection, id).await.map_err(|e| failed(e.into()))?;
        drop(connection);
        let kept = kept.ok_or_else(|| SubmitError::NotKept { id: id.to_owned() })?;
        if kept.state != "kept" {
            return Err(SubmitError::Settled { id: id.to_owned(), problem: "it was replayed before".to_owned() });
        }
        let device = DeviceId::new(&kept.device).map_err(|e| failed(e.into()))?;
        let (disk, path) = (self.parts.lake.disk().clone(), self.parts.quarantine.join(&kept.path));
        let message = tokio::task::spawn_blocking(move || disk.read(&path, u64::MAX)).await;
        let message = message.map_err(|e| failed(e.into()))?.map_err(|e| failed(e.into()))?.into();
        let (from, to) = (json!({"state": "kept"}), json!({"state": "replayed", "device": device, "stream": stream}));
        let noted = Noted::new("quarantine.replay", id, from, to);
        let kept = Replayed { id: id.to_owned(), device, stream, noted };
        self.order(|reply| Order::Replay { kept, message, reply }).await
    }

    /// Answers for numbers that a device holds no more and of which this hub, set back to an older state, knows nothing:
    /// else the numbers after them would never be complete.
    pub(crate) async fn give_up(&self, of: &Numbering, first: SequenceNumber, last: SequenceNumber) {
        let message = decode::gap(of, first, last);
        // A hub that stops hears it again with the device's next report.
        let _ = self.orders.send(Order::Message { device: of.device.clone(), message }).await;
    }

    async fn order(&self, order: impl FnOnce(Reply) -> Order) -> Result<(), SubmitError> {
        let (reply, answer) = oneshot::channel();
        self.orders.send(order(reply)).await.map_err(|_| SubmitError::Stopping)?;
        answer.await.map_err(|_| SubmitError::Stopping)?
    }

    /// Counts since the start.
    pub fn status(&self) -> Status {
        self.counters.status()
    }
}

/// Reads a message of the quarantine again; see [`Ingest::replay`].
pub async fn replay(hub: &Hub, id: &str) -> Result<(), SubmitError> {
    hub.ingest.replay(id, None).await
}
