//! Plays a file as if its events happened again: CSV, JSON lines or Parquet, at a chosen speed.
//!
//! The place in the file is stored in the same transaction as the events read up to it, so that a restart goes on
//! exactly there. A bad row is counted and named, and the rest goes on; a broken file stops this source only.

mod reader;
mod parquet;
mod text;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tributary_features::{Event, View};
use tributary_process::shutdown::Shutdown;
use tributary_wire::Micros;

use super::{TimeDomain, TimeRules};
use crate::serve::{Outcome, Progress, Serving, Submission, SubmitError};
use crate::state::SourceState;
use reader::Chunk;
pub use reader::{ReplayError, RowProblem};

/// Rows read at once: many share a commit, and none is sent much before its time.
const CHUNK_ROWS: usize = 512;
/// Chunks read ahead of the pipeline.
const CHUNKS_AHEAD: usize = 2;
/// Wait before a chunk that could not be stored is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// A file to play.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReplayConfig {
    /// The file; its ending says what it is: `csv`, `jsonl` (or `ndjson`, `json`), `parquet`.
    pub file: PathBuf,
    /// Name of the source.
    pub name: String,
    /// Seconds of event time per second; 0 is as fast as possible.
    pub speed: f64,
    /// Column of the event id.
    pub id: String,
    /// Column of the event time.
    pub time_column: String,
    /// What its times mean.
    pub time: TimeDomain,
    /// How far behind its newest event another may come.
    pub lateness: tributary_process::config::HumanDuration,
    /// Plays only a share of the rows: those whose entity belongs to this device.
    pub share: Option<Share>,
}

/// Rows of one entity always fall to the same of several devices.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// Which entity decides; its keys must be whole numbers.
    pub entity: String,
    /// Which remainder is played …
    pub index: i64,
    /// … of the key divided by this.
    pub of: i64,
}

impl Default for ReplayConfig {
    fn default() -> Self {
        let rules = TimeRules::default();
        Self {
            file: PathBuf::new(),
            name: "replay".into(),
            speed: 0.0,
            id: "event_id".into(),
            time_column: "event_time".into(),
            time: rules.time,
            lateness: rules.lateness,
            share: None,
        }
    }
}

impl ReplayConfig {
    fn rules(&self) -> TimeRules {
        TimeRules { time: self.time, lateness: self.lateness, ..TimeRules::default() }
    }
}

/// How the replay stands.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ReplayStatus {
    /// The file.
    pub file: PathBuf,
    /// Rows behind us.
    pub rows: u64,
    /// Rows in the file, where it says so.
    pub total: Option<u64>,
    /// Newest event time sent.
    pub position: Option<Micros>,
    /// Events accepted in this run of the agent.
    pub accepted: u64,
    /// Events that were there before.
    pub duplicates: u64,
    /// Rows refused.
    pub refused: u64,
    /// What was wrong with the last refused row.
    pub last_refusal: Option<String>,
    /// Why the source stopped before the end.
    pub error: Option<String>,
    /// The end of the file was reached.
    pub finished: bool,
}

/// A replay that is running or over.
#[derive(Debug, Clone)]
pub struct Replay {
    config: Arc<ReplayConfig>,
    status: Arc<Mutex<ReplayStatus>>,
}

impl Replay {
    /// One that has not begun.
    pub fn new(config: ReplayConfig) -> Self {
        let status = ReplayStatus { file: config.file.clone(), ..ReplayStatus::default() };
        Self { config: Arc::new(config), status: Arc::new(Mutex::new(status)) }
    }

    /// How it stands.
    pub fn status(&self) -> ReplayStatus {
        self.status_mut().clone()
    }

    fn status_mut(&self) -> MutexGuard<'_, ReplayStatus> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Plays until the end or the signal, from where `stored` says.
    pub async fn run(self, serving: Arc<Serving>, stored: Option<SourceState>, shutdown: Shutdown) {
        let of = self.config.file.display().to_string();
        let begin = stored.as_ref().filter(|stored| stored.of == of).map_or(0, |stored| stored.offset);
        if stored.as_ref().is_some_and(|stored| stored.of == of && stored.finished) {
            let mut status = self.status_mut();
            (status.rows, status.finished) = (begin, true);
            return;
        }
        self.status_mut().rows = begin;
        let newest = stored.and_then(|stored| stored.newest);
        let (chunks, queue) = mpsc::channel(CHUNKS_AHEAD);
        let (config, view, most) = (self.config.clone(), serving.view(), serving.limit().min(CHUNK_ROWS));
        let reading = tokio::task::spawn_blocking(move || read(&config, &view, begin, most, &chunks));
        let played = shutdown.unless_given(self.play(&serving, &of, newest, queue)).await;
        if played == Some(true)
            && let Ok(Err(error)) = reading.await
        {
            tracing::error!(%error, "the replay stops");
            self.status_mut().error = Some(error.to_string());
        }
    }

    /// Sends chunk after chunk; whether the reader came to its end (else the agent is stopping).
    async fn play(
        &self,
        serving: &Serving,
        of: &str,
        mut newest: Option<Micros>,
        mut queue: mpsc::Receiver<Chunk>,
    ) -> bool {
        let mut pace: Option<(tokio::time::Instant, Micros)> = None;
        while let Some(chunk) = queue.recv().await {
            self.note_problems(&chunk);
            for part in self.parts(chunk) {
                self.keep_pace(&mut pace, newest, part.events.first().map(|event| event.time)).await;
                let rows = part.next;
                let finished = part.finished;
                let Some(outcomes) = self.send(serving, of, part).await else { return false };
                let mut status = self.status_mut();
                (status.rows, status.finished) = (rows, finished);
                for (event, outcome) in outcomes {
                    match outcome {
                        Outcome::Accepted { .. } => status.accepted += 1,
                        Outcome::Duplicate { .. } => status.duplicates += 1,
                        Outcome::Refused(refusal) => {
                            status.refused += 1;
                            status.last_refusal = Some(format!("{of}: event {}: {refusal}", event.id));
                            continue;
                        }
                    }
                    newest = newest.max(Some(event.time));
                }
                status.position = status.position.max(newest);
            }
        }
        true
    }

    fn note_problems(&self, chunk: &Chunk) {
        if let Some(problem) = chunk.problems.last() {
            tracing::warn!(rows = chunk.problems.len(), last = %problem, "rows are no events");
            let mut status = self.status_mut();
            status.total = chunk.total;
            status.refused += chunk.problems.len() as u64;
            status.last_refusal = Some(problem.to_string());
        } else if chunk.total.is_some() {
            self.status_mut().total = chunk.total;
        }
    }

    /// At a chosen speed a chunk is sent in parts that are due within a tenth of a second of each other.
    fn parts(&self, chunk: Chunk) -> Vec<Part> {
        let malformed = chunk.problems.len() as u64;
        let step = (self.config.speed * 1e5) as i64;
        let mut parts: Vec<Part> = Vec::new();
        for (row, event) in chunk.rows {
            match parts.last_mut() {
                Some(part)
                    if self.config.speed <= 0.0
                        || part.events.first().is_some_and(|first| event.time.since(first.time).abs() <= step) =>
                {
                    part.next = row + 1;
                    part.events.push(event);
                }
                _ => parts.push(Part { events: vec![event], next: row + 1, malformed: 0, finished: false }),
            }
        }
        let empty = || Part { events: Vec::new(), next: chunk.next, malformed: 0, finished: false };
        let mut last = parts.pop().unwrap_or_else(empty);
        (last.next, last.malformed, last.finished) = (chunk.next, malformed, chunk.finished);
        parts.push(last);
        parts
    }

    /// Waits until a time is due. One that will be refused is not waited for: it may lie millennia ahead.
    async fn keep_pace(
        &self,
        pace: &mut Option<(tokio::time::Instant, Micros)>,
        newest: Option<Micros>,
        time: Option<Micros>,
    ) {
        let Some(time) = time.filter(|_| self.config.speed > 0.0) else { return };
        let now = Micros(tributary_process::clock::wall_now());
        if self.config.rules().check(&self.config.name, newest, time, now).is_err() {
            return;
        }
        let (begun, first) = *pace.get_or_insert_with(|| (tokio::time::Instant::now(), time));
        let seconds = time.since(first).max(0) as f64 / Micros::SECOND as f64 / self.config.speed;
        if let Some(due) = Duration::try_from_secs_f64(seconds).ok().and_then(|wait| begun.checked_add(wait)) {
            tokio::time::sleep_until(due).await;
        }
    }

    /// Sends one part until it is stored; `None` when the agent stops.
    async fn send(&self, serving: &Serving, of: &str, part: Part) -> Option<Vec<(Event, Outcome)>> {
        let submission = Submission {
            source: self.config.name.as_str().into(),
            rules: self.config.rules(),
            progress: Some(Progress {
                of: of.to_owned(),
                offset: part.next,
                malformed: part.malformed,
                finished: part.finished,
            }),
            durable: true,
            events: part.events,
        };
        loop {
            match serving.submit(submission.clone()).await {
                Ok(outcomes) => {
                    return Some(submission.events.into_iter().zip(outcomes).collect());
                }
                // Nothing of it was kept, so the same part may come again.
                Err(SubmitError::Storage(_)) => tokio::time::sleep(RETRY).await,
                Err(error) => {
                    if error != SubmitError::Stopped {
                        self.status_mut().error = Some(error.to_string());
                    }
                    return None;
                }
            }
        }
    }
}

struct Part {
    events: Vec<Event>,
    /// Rows behind us once it is stored.
    next: u64,
    malformed: u64,
    finished: bool,
}

/// Reads the file into chunks, in a thread that may block.
fn read(
    config: &ReplayConfig,
    view: &View,
    begin: u64,
    most: usize,
    chunks: &mpsc::Sender<Chunk>,
) -> Result<(), ReplayError> {
    let mut rows = reader::open(config, view, begin)?;
    let mut next = begin;
    loop {
        let mut chunk = Chunk { total: rows.total(), ..Chunk::default() };
        let mut failed = None;
        while chunk.rows.len() + chunk.problems.len() < most && next - chunk.begin.unwrap_or(next) < 100_000 {
            chunk.begin.get_or_insert(next);
            match rows.next() {
                Ok(Some(Ok(event))) => {
                    if reader::is_ours(config.share.as_ref(), &event) {
                        chunk.rows.push((next, event));
                    }
                }
                Ok(Some(Err(problem))) => {
                    let (file, row) = (config.file.clone(), next + 1);
                    chunk.problems.push(RowProblem { file, row, problem });
                }
                Ok(None) => {
                    chunk.finished = true;
                    break;
                }
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
            next += 1;
        }
        chunk.next = next;
        let finished = chunk.finished;
        // What was read before a failure is still good. An error means that nobody listens any more.
        if chunks.blocking_send(chunk).is_err() || finished {
            return Ok(());
        }
        if let Some(error) = failed {
            return Err(error);
        }
    }
}

#[cfg(test)]
mod tests;
