//! News inside the hub: what was committed, who reported, who came and went.
//!
//! The bus may drop news for a listener that is too slow. Reports and connections are news only (the catalog has the
//! last state); committed records are followed with [`Follower`], which reads from the lake what it missed.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::RecordBatch;
use cloud_hub_lake::{FileEntry, Lake, LakeError};
use tokio::sync::broadcast;
use tributary_wire::{DeviceId, ReportV1, StreamName};

/// News waiting for the slowest listener. Records are shared, not copied, but they stay in memory that long.
const WAITING: usize = 64;

/// One piece of news.
#[derive(Debug, Clone)]
pub enum HubEvent {
    /// A file was committed to the lake.
    Committed(Arc<Committed>),
    /// A device reported something newer than what was known.
    Report {
        /// Who.
        device: DeviceId,
        /// What.
        report: Arc<ReportV1>,
    },
    /// A device connected.
    Connected(DeviceId),
    /// A device is gone.
    Disconnected(DeviceId),
    /// A rollout began: patches to its release are waited for.
    RolloutBegan,
    /// People signed other keys, or took releases back: devices should hear of it.
    TakenBack,
    /// A patch was made, or found not worth it.
    Patched,
}

/// A file of the lake with its records.
#[derive(Debug, Clone)]
pub struct Committed {
    /// The file; `file.number` is its place in the order of commits.
    pub file: FileEntry,
    /// All its records, with all columns that the stream had then.
    pub records: RecordBatch,
}

/// Where news is published.
#[derive(Debug, Clone)]
pub struct Bus {
    sender: broadcast::Sender<HubEvent>,
}

impl Default for Bus {
    fn default() -> Self {
        Self { sender: broadcast::channel(WAITING).0 }
    }
}

impl Bus {
    /// Tells everyone who listens.
    pub fn publish(&self, event: HubEvent) {
        let _ = self.sender.send(event); // nobody listening is fine
    }

    /// Listens from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<HubEvent> {
        self.sender.subscribe()
    }

    /// Follows the files of a stream from after file `number` (0: from the first).
    pub fn follow(&self, lake: Arc<Lake>, stream: StreamName, number: i64) -> Follower {
        // Listening before looking: a file committed in between is seen twice, and skipped by its number.
        let news = self.subscribe();
        let backlog = lake.files_after(&stream, number).into();
        Follower { lake, stream, last: number, backlog, news: Some(news) }
    }
}

/// Every committed file of a stream exactly once, in commit order, however late or slow the reader.
#[derive(Debug)]
pub struct Follower {
    lake: Arc<Lake>,
    stream: StreamName,
    last: i64,
    backlog: VecDeque<FileEntry>,
    news: Option<broadcast::Receiver<HubEvent>>,
}

impl Follower {
    /// The number of the last file given out; keep it with what was made from the records.
    pub fn last(&self) -> i64 {
        self.last
    }

    /// Whether nothing is known to wait: the next call would wait for news.
    pub fn is_level(&self) -> bool {
        self.backlog.is_empty() && self.news.as_ref().is_none_or(broadcast::Receiver::is_empty)
    }

    /// The next file; `None` when the hub has ended and nothing is left. May be dropped while it waits.
    pub async fn next(&mut self) -> Result<Option<Committed>, LakeError> {
        loop {
            if let Some(file) = self.backlog.front().cloned() {
                let (lake, entry) = (self.lake.clone(), file.clone());
                let read = tokio::task::spawn_blocking(move || lake.read(&entry));
                // A panic in the reader is our own; passing it on keeps its message.
                let records = read.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?;
                self.backlog.pop_front();
                self.last = file.number;
                return Ok(Some(Committed { file, records }));
            }
            let Some(news) = &mut self.news else { return Ok(None) };
            match news.recv().await {
                Ok(HubEvent::Committed(committed)) => {
                    if committed.file.stream == self.stream && committed.file.number > self.last {
                        self.last = committed.file.number;
                        return Ok(Some(Committed::clone(&committed)));
                    }
                }
                Ok(_) => {}
                Err(broadcast::error::RecvError::Lagged(_)) => {
                    self.backlog = self.lake.files_after(&self.stream, self.last).into();
                }
                Err(broadcast::error::RecvError::Closed) => {
                    self.backlog = self.lake.files_after(&self.stream, self.last).into();
                    self.news = None;
                }
            }
        }
    }
}
