//! The rows of runs and every change of their state.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::SqliteConnection;
use tributary_wire::{LineName, Micros, VersionNumber};
use utoipa::ToSchema;

use crate::audit::{self, Change};

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema, sqlx::Type)]
#[serde(rename_all = "lowercase")]
#[sqlx(rename_all = "lowercase")]
pub enum RunState {
    /// Waits for its turn.
    Queued,
    /// Is being carried out.
    Running,
    /// Has a registered version.
    Succeeded,
    /// Ended without one; `error` says why.
    Failed,
    /// Was stopped by a person.
    Cancelled,
}

impl RunState {
    /// Whether it will not change any more.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

/// What is done next in a run; stored before it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema, sqlx::Type)]
#[serde(rename_all = "lowercase")]
#[sqlx(rename_all = "lowercase")]
pub enum RunStep {
    /// The training set is made from the lake.
    Dataset,
    /// The child process trains.
    Train,
    /// Its package is verified, kept and registered.
    Register,
    /// The closed loop decides about promotion, publishing and rollout.
    Decide,
    /// Nothing.
    Done,
}

/// Why a run was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema, sqlx::Type)]
#[serde(rename_all = "lowercase")]
#[sqlx(rename_all = "lowercase")]
pub enum RunOrigin {
    /// A person or a program asked for it.
    Hand,
    /// A drift alert asked for it.
    Drift,
}

/// A run as the catalog keeps it.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct Run {
    /// Its number.
    pub id: i64,
    /// Its line.
    pub line: String,
    /// Where it stands.
    pub state: RunState,
    /// What is done next.
    pub step: RunStep,
    /// Who asked.
    pub origin: RunOrigin,
    /// Why, in words.
    pub reason: String,
    /// Its dataset, once there is one.
    pub dataset: Option<i64>,
    /// Event time from which rows are taken.
    pub from_time: Option<i64>,
    /// Event time before which rows are taken.
    pub to_time: Option<i64>,
    /// Decides chance.
    pub seed: i64,
    /// The number reserved for its version.
    pub version: Option<i64>,
    /// How often the child process was started.
    pub attempt: i64,
    /// Why it failed.
    pub error: Option<String>,
    /// What it found.
    pub result_json: Option<String>,
    /// When it was asked for.
    pub created: i64,
    /// When it began.
    pub started: Option<i64>,
    /// When it ended.
    pub finished: Option<i64>,
}

impl Run {
    /// Its line.
    pub fn line(&self) -> anyhow::Result<LineName> {
        Ok(LineName::new(&self.line)?)
    }
}

/// A run that is asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct NewRun {
    /// Its line.
    pub line: LineName,
    /// Who asks.
    pub origin: RunOrigin,
    /// Why, in words.
    pub reason: String,
    /// A dataset that is there; else one is made.
    pub dataset: Option<i64>,
    /// Event time from which rows are taken, when a dataset is made.
    pub from: Option<Micros>,
    /// Event time before which rows are taken, when a dataset is made.
    pub to: Option<Micros>,
    /// Decides chance.
    pub seed: u64,
}

/// Queues a run.
pub async fn queue(catalog: &mut SqliteConnection, new: NewRun, now: Micros) -> Result<Run, sqlx::Error> {
    let step = if new.dataset.is_some() { RunStep::Train } else { RunStep::Dataset };
    let run: Run = sqlx::query_as(
        "insert into runs (id, line, state, step, origin, reason, dataset, from_time, to_time, seed, created)
         values ((select coalesce(max(id), 0) + 1 from runs), $1, 'queued', $2, $3, $4, $5, $6, $7, $8, $9)
         returning *",
    )
    .bind(new.line.as_str())
    .bind(step)
    .bind(new.origin)
    .bind(new.reason)
    .bind(new.dataset)
    .bind(new.from.map(|time| time.0))
    .bind(new.to.map(|time| time.0))
    .bind(new.seed as i64)
    .bind(now.0)
    .fetch_one(&mut *catalog)
    .await?;
    let to = json!({
        "state": run.state, "line": run.line, "origin": run.origin, "reason": run.reason, "dataset": run.dataset,
        "from": run.from_time, "to": run.to_time, "seed": run.seed as u64,
    });
    record(catalog, "run.queue", run.id, (Value::Null, to), now).await?;
    Ok(run)
}

async fn record(
    catalog: &mut SqliteConnection,
    action: &str,
    id: i64,
    (from, to): (Value, Value),
    now: Micros,
) -> Result<(), sqlx::Error> {
    audit::record(catalog, Change { action, subject: &id.to_string(), from, to }, now).await
}

/// One run.
pub async fn find(catalog: &mut SqliteConnection, id: i64) -> Result<Option<Run>, sqlx::Error> {
    sqlx::query_as("select * from runs where id = $1").bind(id).fetch_optional(catalog).await
}

/// Runs below a number, newest first; of one line or of all.
pub async fn list(
    catalog: &mut SqliteConnection,
    line: Option<&LineName>,
    before: i64,
    limit: u32,
) -> Result<Vec<Run>, sqlx::Error> {
    sqlx::query_as("select * from runs where ($1 is null or line = $1) and id < $2 order by id desc limit $3")
        .bind(line.map(LineName::as_str))
        .bind(before)
        .bind(i64::from(limit))
        .fetch_all(catalog)
        .await
}

/// The run that has waited longest.
pub async fn next(catalog: &mut SqliteConnection) -> Result<Option<Run>, sqlx::Error> {
    sqlx::query_as("select * from runs where state = 'queued' order by id limit 1").fetch_optional(catalog).await
}

/// Runs that succeeded and about which nothing is decided yet.
pub async fn undecided(catalog: &mut SqliteConnection) -> Result<Vec<Run>, sqlx::Error> {
    sqlx::query_as("select * from runs where state = 'succeeded' and step = 'decide' order by id")
        .fetch_all(catalog)
        .await
}

/// The run of a line that is not finished, decision included.
pub async fn unfinished(catalog: &mut SqliteConnection, line: &LineName) -> Result<Option<Run>, sqlx::Error> {
    let query = "select * from runs where line = $1 and (state in ('queued', 'running') or
                 (state = 'succeeded' and step = 'decide')) order by id limit 1";
    sqlx::query_as(query).bind(line.as_str()).fetch_optional(catalog).await
}

/// When the last run that drift asked for ended.
pub async fn last_drift_end(catalog: &mut SqliteConnection, line: &LineName) -> Result<Option<Micros>, sqlx::Error> {
    let query = "select max(finished) from runs where line = $1 and origin = 'drift'";
    let end: Option<i64> = sqlx::query_scalar(query).bind(line.as_str()).fetch_one(catalog).await?;
    Ok(end.map(Micros))
}

/// queued → running; `false` when it was cancelled meanwhile.
pub async fn begin(catalog: &mut SqliteConnection, id: i64, now: Micros) -> Result<bool, sqlx::Error> {
    let query = "update runs set state = 'running', started = coalesce(started, $2) where id = $1 and state = 'queued'";
    let begun = sqlx::query(query).bind(id).bind(now.0).execute(&mut *catalog).await?.rows_affected() == 1;
    if begun {
        let states = (json!({"state": RunState::Queued}), json!({"state": RunState::Running}));
        record(catalog, "run.begin", id, states, now).await?;
    }
    Ok(begun)
}

/// Names the dataset; training is next.
pub async fn has_dataset(catalog: &mut SqliteConnection, id: i64, dataset: i64) -> Result<(), sqlx::Error> {
    let query = "update runs set dataset = $2, step = 'train' where id = $1";
    sqlx::query(query).bind(id).bind(dataset).execute(catalog).await.map(|_| ())
}

/// Reserves the version's number and counts the attempt, before the child process starts.
pub async fn begin_attempt(catalog: &mut SqliteConnection, id: i64, version: VersionNumber) -> Result<(), sqlx::Error> {
    let query = "update runs set version = $2, attempt = attempt + 1 where id = $1";
    sqlx::query(query).bind(id).bind(i64::from(version.0)).execute(catalog).await.map(|_| ())
}

/// The child process left a package; registering is next.
pub async fn trained(catalog: &mut SqliteConnection, id: i64) -> Result<(), sqlx::Error> {
    sqlx::query("update runs set step = 'register' where id = $1").bind(id).execute(catalog).await.map(|_| ())
}

/// running → succeeded; the decision is next.
pub async fn succeed(catalog: &mut SqliteConnection, id: i64, result: &str, now: Micros) -> Result<(), sqlx::Error> {
    let query = "update runs set state = 'succeeded', step = 'decide', result_json = $2, finished = $3 where id = $1";
    sqlx::query(query).bind(id).bind(result).bind(now.0).execute(&mut *catalog).await?;
    let result = tributary_release::digest(result.as_bytes());
    let states = (json!({"state": RunState::Running}), json!({"state": RunState::Succeeded, "result_sha256": result}));
    record(catalog, "run.succeed", id, states, now).await
}

/// The decision is made and carried out; or could not be, and why.
pub async fn decided(
    catalog: &mut SqliteConnection,
    id: i64,
    error: Option<&str>,
    now: Micros,
) -> Result<(), sqlx::Error> {
    sqlx::query("update runs set step = 'done' where id = $1").bind(id).execute(&mut *catalog).await?;
    let steps = (json!({"step": RunStep::Decide}), json!({"step": RunStep::Done, "error": error}));
    record(catalog, "run.decide", id, steps, now).await
}

/// queued or running → failed or cancelled; `false` when it had ended already.
pub async fn end(
    catalog: &mut SqliteConnection,
    id: i64,
    state: RunState,
    error: &str,
    now: Micros,
) -> Result<bool, sqlx::Error> {
    let before: Option<RunState> =
        sqlx::query_scalar("select state from runs where id = $1").bind(id).fetch_optional(&mut *catalog).await?;
    let query = "update runs set state = $2, step = 'done', error = $3, finished = $4
                 where id = $1 and state in ('queued', 'running')";
    let done = sqlx::query(query).bind(id).bind(state).bind(error).bind(now.0).execute(&mut *catalog).await?;
    let ended = done.rows_affected() == 1;
    if ended {
        let action = if state == RunState::Cancelled { "run.cancel" } else { "run.fail" };
        let states = (json!({"state": before}), json!({"state": state, "error": error}));
        record(catalog, action, id, states, now).await?;
    }
    Ok(ended)
}

/// Runs that a stopped hub left in the middle.
pub async fn interrupted(catalog: &mut SqliteConnection) -> Result<Vec<Run>, sqlx::Error> {
    sqlx::query_as("select * from runs where state = 'running' order by id").fetch_all(catalog).await
}

/// running → queued, to go on at the step it had reached.
pub async fn requeue(catalog: &mut SqliteConnection, id: i64, now: Micros) -> Result<(), sqlx::Error> {
    let query = "update runs set state = 'queued' where id = $1 and state = 'running'";
    sqlx::query(query).bind(id).execute(&mut *catalog).await?;
    let states = (json!({"state": RunState::Running}), json!({"state": RunState::Queued}));
    record(catalog, "run.requeue", id, states, now).await
}
