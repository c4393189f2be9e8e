//! From event to durable decision.
//!
//! [`Serving`] is the handle that sources, API, updater and link share. Behind it one thread ([`pipeline`]) takes
//! what waits, in one order for all: check, windows, fleet table, inference, decision, one commit, answers.

mod slot;
mod answering;
mod cache;
mod sketches;
mod sampling;
mod pipeline;
mod group;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, mpsc};

use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, oneshot};
use tributary_features::{Event, RowError, View};
use tributary_wire::{DroppedRecords, LineName, Micros, Role, SamplingReport, SnapshotNumber, TrialReport};

use self::answering::Answering;
use crate::metrics::Metrics;
use crate::packages::ActivePackage;
use crate::sources::{TimeError, TimeRules};
use crate::state::{Answer, SourceState};
use crate::windows::Recovery;

pub use answering::Share;
pub use pipeline::{FleetSource, Pipeline, PipelineConfig, StartError};
pub use slot::Slots;

/// Why an event was refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// It does not fit the feature view.
    #[error(transparent)]
    Row(#[from] RowError),
    /// Its time is not acceptable.
    #[error(transparent)]
    Time(#[from] TimeError),
    /// Its texts are longer than a batch could carry.
    #[error("the event has {found} bytes of text; at most {limit} are taken")]
    TooLong {
        /// How many.
        found: usize,
        /// The limit.
        limit: usize,
    },
}

impl Refusal {
    /// One word for metrics and clients.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Row(RowError::Unknown { .. }) => "unknown-field",
            Self::Row(RowError::Missing { .. }) => "missing-field",
            Self::Row(RowError::Twice { .. }) => "repeated-field",
            Self::Row(RowError::Type { .. }) => "wrong-type",
            Self::Row(RowError::NotFinite { .. }) => "not-finite",
            Self::Row(RowError::TooLarge { .. }) => "too-large",
            Self::Row(RowError::KeyTooLong { .. }) => "key-too-long",
            Self::TooLong { .. } => "too-long",
            Self::Time(TimeError::Future { .. } | TimeError::Leap { .. }) => "future",
            Self::Time(TimeError::BehindWatermark { .. }) => "behind-watermark",
            Self::Time(TimeError::OutOfRange { .. }) => "time-out-of-range",
        }
    }
}

/// The word for events that are not even events.
pub const MALFORMED: &str = "malformed";

/// All words of [`Refusal::reason`], and [`MALFORMED`].
pub const REASONS: [&str; 12] = [
    "too-long",
    "unknown-field",
    "missing-field",
    "repeated-field",
    "wrong-type",
    "not-finite",
    "too-large",
    "key-too-long",
    "future",
    "behind-watermark",
    "time-out-of-range",
    MALFORMED,
];

/// What became of an event.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// It is in.
    Accepted {
        /// The decision.
        answer: Answer,
        /// Whether it survives a power cut.
        durable: bool,
    },
    /// It was in before; this is what was answered then.
    Duplicate {
        /// The decision.
        answer: Answer,
        /// Whether it survives a power cut.
        durable: bool,
    },
    /// It is not in.
    Refused(Refusal),
}

/// Why nothing became of a submission.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// More events wait than are allowed to.
    #[error("the queue is full: {limit} events wait already")]
    QueueFull {
        /// The limit.
        limit: usize,
    },
    /// More events at once than the queue can ever hold.
    #[error("{found} events at once; the queue holds {limit}")]
    TooMany {
        /// How many were given.
        found: usize,
        /// The limit.
        limit: usize,
    },
    /// The state cannot be written. Nothing of the submission was kept.
    #[error("nothing was stored: {0}")]
    Storage(String),
    /// The agent is stopping.
    #[error("the agent is stopping")]
    Stopped,
}

/// How far a source has been read; stored with its events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// What is being read.
    pub of: String,
    /// How far, in the source's own count, once these events are in.
    pub offset: u64,
    /// Rows among them that were no events.
    pub malformed: u64,
    /// Nothing comes after.
    pub finished: bool,
}

/// Events of one source, to be taken together.
#[derive(Debug, Clone)]
pub struct Submission {
    /// Name of the source.
    pub source: Arc<str>,
    /// Its rules of time.
    pub rules: TimeRules,
    /// The events.
    pub events: Vec<Event>,
    /// How far the source has been read, when it counts.
    pub progress: Option<Progress>,
    /// Whether the answer waits for the disk.
    pub durable: bool,
}

type Reply<T> = oneshot::Sender<T>;

enum Message {
    Submit {
        submission: Submission,
        received: u64,
        reply: Reply<Result<Vec<Outcome>, SubmitError>>,
        permit: OwnedSemaphorePermit,
    },
    Predict {
        event: Box<Event>,
        reply: Reply<Result<Result<Answer, Refusal>, SubmitError>>,
    },
    /// A package or a fleet snapshot changed; see the slots.
    Look,
    FleetChanged {
        view: String,
        version: u32,
    },
    Stop,
}

/// What the pipeline shows of itself.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Shown {
    /// Name and version of the view in use.
    pub view: (String, u32),
    /// Events accepted since the state began.
    pub accepted: u64,
    /// Where each source stands.
    pub sources: Vec<(String, SourceState)>,
    /// Event time before which sketches are closed.
    pub watermark: Option<Micros>,
    /// Snapshot of fleet-scope features being served, and when it was taken.
    pub fleet: Option<(SnapshotNumber, Micros)>,
    /// Entities and events in the windows.
    pub windows: (usize, usize),
    /// Last event in the durable window snapshot.
    pub window_snapshot: Option<u64>,
    /// How the windows came back at start.
    #[serde(skip)]
    pub recovery: Option<Recovery>,
    /// Why nothing can be stored at present.
    pub storage_error: Option<String>,
    /// Records given up for want of room or time since the state began …
    pub dropped: u64,
    /// … by stream and reason.
    pub dropped_by: Vec<DroppedRecords>,
    /// What became of observations.
    pub sampling: SamplingReport,
}

/// The handle to the pipeline.
pub struct Serving {
    queue: mpsc::Sender<Message>,
    room: Arc<Semaphore>,
    limit: usize,
    line: LineName,
    slots: RwLock<Slots>,
    answering: RwLock<Arc<Answering>>,
    policies: sampling::Policies,
    cache_size: usize,
    view: RwLock<Arc<View>>,
    shown: Mutex<Shown>,
    stopped: AtomicBool,
    metrics: Arc<Metrics>,
    clock: Arc<dyn tributary_process::clock::Clock>,
}

/// A package that may not serve here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SwapError {
    /// Another line than this agent serves.
    #[error("this agent serves line {serves}, the package is of {found}")]
    OtherLine {
        /// The configured line.
        serves: LineName,
        /// The package's.
        found: LineName,
    },
}

impl Serving {
    /// Puts a package in place for new events at once, without dropping any that wait; `None` is the declared
    /// fallback. Statistics begin anew. When the package brings another feature view, the pipeline first rebuilds the
    /// windows while events wait.
    pub fn swap(&self, line: &LineName, role: &Role, package: Option<Arc<ActivePackage>>) -> Result<(), SwapError> {
        if *line != self.line {
            return Err(SwapError::OtherLine { serves: self.line.clone(), found: line.clone() });
        }
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        *slots = slots.with(role.clone(), package, self.cache_size);
        drop(slots);
        // An error means the pipeline has stopped; then nothing serves anyway.
        let _ = self.queue.send(Message::Look);
        Ok(())
    }

    /// Shares the predictions of a line out among challengers, from the next group of events on.
    pub fn share_out(&self, line: &LineName, shares: &[Share]) {
        if *line != self.line || self.answering().is(shares) {
            return;
        }
        let answering = Arc::new(Answering::new(line, shares));
        *self.answering.write().unwrap_or_else(PoisonError::into_inner) = answering;
    }

    fn answering(&self) -> Arc<Answering> {
        self.answering.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The package that decides at present.
    pub fn current(&self) -> Option<Arc<ActivePackage>> {
        self.slots().primary().map(|slot| slot.package().clone())
    }

    /// What a package did since it was put in place.
    pub fn statistics(&self, line: &LineName, role: &Role) -> TrialReport {
        match self.slots().get(role).filter(|_| *line == self.line) {
            Some(slot) => slot.statistics(),
            None => TrialReport::default(),
        }
    }

    /// Tells that a new complete snapshot of fleet-scope features is stored.
    pub fn fleet_changed(&self, view_name: &str, version: u32) {
        let _ = self.queue.send(Message::FleetChanged { view: view_name.to_owned(), version });
    }

    /// Snapshot of fleet-scope features being served, and the event time it was taken at.
    pub fn fleet(&self) -> Option<(SnapshotNumber, Micros)> {
        self.shown_mut().fleet
    }

    /// The view in use.
    pub fn view(&self) -> Arc<View> {
        self.view.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What the pipeline shows of itself.
    pub fn shown(&self) -> Shown {
        self.shown_mut().clone()
    }

    /// Most events that may wait.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Events that wait.
    pub fn waiting(&self) -> usize {
        self.limit - self.room.available_permits()
    }

    /// Submits events; refuses when the queue is full.
    pub async fn try_submit(&self, submission: Submission) -> Result<Vec<Outcome>, SubmitError> {
        let wanted = self.wanted(&submission)?;
        match self.room.clone().try_acquire_many_owned(wanted) {
            Ok(permit) => self.send(submission, permit).await,
            Err(TryAcquireError::NoPermits) => {
                self.metrics.queue_full.inc();
                Err(SubmitError::QueueFull { limit: self.limit })
            }
            Err(TryAcquireError::Closed) => Err(SubmitError::Stopped),
        }
    }

    /// Submits events; waits for room.
    pub async fn submit(&self, submission: Submission) -> Result<Vec<Outcome>, SubmitError> {
        let wanted = self.wanted(&submission)?;
        let permit = self.room.clone().acquire_many_owned(wanted).await.map_err(|_| SubmitError::Stopped)?;
        self.send(submission, permit).await
    }

    /// Scores an event and stores nothing.
    pub async fn predict(&self, event: Event) -> Result<Result<Answer, Refusal>, SubmitError> {
        let (reply, answer) = oneshot::channel();
        let message = Message::Predict { event: Box::new(event), reply };
        self.queue.send(message).map_err(|_| SubmitError::Stopped)?;
        answer.await.map_err(|_| SubmitError::Stopped)?
    }

    /// Asks the pipeline to finish what waits and stop. What comes later is refused.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        let _ = self.queue.send(Message::Stop);
    }

    fn wanted(&self, submission: &Submission) -> Result<u32, SubmitError> {
        if self.stopped.load(Ordering::Acquire) {
            return Err(SubmitError::Stopped);
        }
        let found = submission.events.len();
        if found > self.limit {
            return Err(SubmitError::TooMany { found, limit: self.limit });
        }
        // A submission without events still takes a place.
        Ok(found.max(1) as u32)
    }

    async fn send(&self, submission: Submission, permit: OwnedSemaphorePermit) -> Result<Vec<Outcome>, SubmitError> {
        let (reply, answer) = oneshot::channel();
        let message = Message::Submit { submission, received: self.clock.monotonic(), reply, permit };
        self.queue.send(message).map_err(|_| SubmitError::Stopped)?;
        answer.await.map_err(|_| SubmitError::Stopped)?
    }

    fn slots(&self) -> Slots {
        self.slots.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn shown_mut(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod sampling_tests;
