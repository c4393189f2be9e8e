//! Training runs: asked for, watched, cancelled.

use std::sync::Arc;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tributary_wire::LineName;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Instant, Json, Page, PageQuery, Path, Problem, Query, State};
use crate::hub::Hub;
use crate::lines::{self, story};
use crate::training::runs::{self, NewRun, Run, RunOrigin, RunState, RunStep};
use crate::training::{datasets, folder, progress};

pub(super) fn routes() -> OpenApiRouter<Arc<Hub>> {
    OpenApiRouter::new().routes(routes!(list, start)).routes(routes!(get)).routes(routes!(cancel))
}

/// A training run.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RunView {
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
    /// Decides chance.
    pub seed: u64,
    /// The number of its version; registered once the run has succeeded.
    pub version: Option<i64>,
    /// How often the child process was started.
    pub attempt: i64,
    /// Why it failed.
    pub error: Option<String>,
    /// When it was asked for, UTC microseconds.
    pub created: i64,
    /// When it began, UTC microseconds.
    pub started: Option<i64>,
    /// When it ended, UTC microseconds.
    pub finished: Option<i64>,
    /// What the trainer said so far: the newest step (in lists) or all of them.
    #[schema(value_type = Vec<Object>)]
    pub progress: Vec<Value>,
    /// What it found.
    #[schema(value_type = Option<Object>)]
    pub result: Option<Value>,
}

impl RunView {
    fn new(run: Run, progress: Vec<Value>) -> Self {
        Self {
            id: run.id,
            line: run.line,
            state: run.state,
            step: run.step,
            origin: run.origin,
            reason: run.reason,
            dataset: run.dataset,
            seed: run.seed as u64,
            version: run.version,
            attempt: run.attempt,
            error: run.error,
            created: run.created,
            started: run.started,
            finished: run.finished,
            progress,
            result: run.result_json.and_then(|text| serde_json::from_str(&text).ok()),
        }
    }
}

/// What a run is asked to do.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RunRequest {
    /// Its line.
    #[schema(value_type = String)]
    pub line: LineName,
    /// A dataset that is there; else one is made over the range.
    #[serde(default)]
    pub dataset: Option<i64>,
    /// Event time of the first rows: UTC microseconds or RFC 3339.
    #[schema(value_type = Option<String>)]
    #[serde(default, skip_serializing)]
    pub from: Option<Instant>,
    /// Event time before which the rows lie.
    #[schema(value_type = Option<String>)]
    #[serde(default, skip_serializing)]
    pub to: Option<Instant>,
    /// Decides chance; the line's own when left out.
    #[serde(default)]
    pub seed: Option<u64>,
    /// Why, in words.
    #[serde(default)]
    pub reason: Option<String>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// Only runs of this line.
    #[param(value_type = Option<String>)]
    line: Option<LineName>,
    /// How many at most; 100 unless given, 1000 at most.
    limit: Option<u32>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// Runs, newest first.
#[utoipa::path(get, path = "/runs", tag = "training",
    security(("token" = ["viewer"])), params(ListQuery),
    responses((status = 200, body = Page<RunView>), (status = "default", body = Problem)))]
async fn list(hub: State, Query(query): Query<ListQuery>) -> Result<Json<Page<RunView>>, Problem> {
    let page = PageQuery { limit: query.limit, cursor: query.cursor };
    let limit = page.limit()?;
    let mut catalog = hub.catalog.reader().acquire().await?;
    let found = runs::list(&mut catalog, query.line.as_ref(), page.before_number()?, limit + 1).await?;
    let views = found.into_iter().map(|run| {
        let newest = steps(&hub, run.id).pop();
        RunView::new(run, newest.into_iter().collect())
    });
    Ok(Json(Page::cut(views.collect(), limit, |run| run.id.to_string())))
}

/// One run with all that it said.
#[utoipa::path(get, path = "/runs/{run}", tag = "training",
    security(("token" = ["viewer"])), params(("run" = i64, Path)),
    responses((status = 200, body = RunView), (status = "default", body = Problem)))]
async fn get(hub: State, Path(id): Path<i64>) -> Result<Json<RunView>, Problem> {
    let run = find(&hub, id).await?;
    Ok(Json(RunView::new(run, steps(&hub, id))))
}

/// Queues a run. It is carried out by a child process, one run at a time.
#[utoipa::path(post, path = "/runs", tag = "training",
    security(("token" = ["operator"])), params(("Idempotency-Key" = Option<String>, Header)),
    request_body = RunRequest, responses((status = 202, body = RunView), (status = "default", body = Problem)))]
async fn start(hub: State, Json(request): Json<RunRequest>) -> Result<Response, Problem> {
    let now = hub.now();
    let mut catalog = hub.catalog.write().await?;
    let line = lines::get(&mut catalog, &request.line).await?;
    let range = request.from.is_some() || request.to.is_some();
    if let Some(id) = request.dataset {
        if range {
            return Err(Problem::unacceptable("a run has either a dataset or a range, not both"));
        }
        if datasets::find(&mut catalog, id).await?.is_none() {
            return Err(
                Problem::unacceptable("a field is refused").with("dataset", format!("there is no dataset {id}"))
            );
        }
    }
    if let (Some(from), Some(to)) = (request.from, request.to)
        && from >= to
    {
        return Err(Problem::unacceptable("the range is empty").with("from", "must lie before `to`"));
    }
    let new = NewRun {
        line: request.line,
        origin: RunOrigin::Hand,
        reason: request.reason.unwrap_or_else(|| "asked for through the API".to_owned()),
        dataset: request.dataset,
        from: request.from.map(|at| at.0),
        to: request.to.map(|at| at.0),
        seed: request.seed.unwrap_or(line.settings.training.seed),
    };
    let run = runs::queue(&mut catalog, new, now).await?;
    let message = format!("run {} was queued: {}", run.id, run.reason);
    story::tell(&mut catalog, &line.name, "run-queued", &message, json!({"run": run.id}), now).await?;
    catalog.commit().await?;
    hub.training.ring();
    Ok((StatusCode::ACCEPTED, Json(RunView::new(run, Vec::new()))).into_response())
}

/// Stops a run that is queued or running.
#[utoipa::path(post, path = "/runs/{run}/cancel", tag = "training",
    security(("token" = ["operator"])), params(("run" = i64, Path)),
    responses((status = 200, body = RunView), (status = "default", body = Problem)))]
async fn cancel(hub: State, Path(id): Path<i64>) -> Result<Json<RunView>, Problem> {
    let run = find(&hub, id).await?;
    if run.state.is_final() {
        return Err(Problem::conflict(format!("run {id} has ended already")));
    }
    let now = hub.now();
    let mut catalog = hub.catalog.write().await?;
    // The row first: a worker that looks at it after this never begins, and one that is in the middle is stopped.
    if runs::end(&mut catalog, id, RunState::Cancelled, "cancelled", now).await? {
        let line = LineName::new(&run.line)?;
        let message = format!("run {id} was cancelled");
        story::tell(&mut catalog, &line, "run-cancelled", &message, json!({"run": id}), now).await?;
    }
    catalog.commit().await?;
    hub.training.cancel(id);
    let run = find(&hub, id).await?;
    Ok(Json(RunView::new(run, steps(&hub, id))))
}

async fn find(hub: &Hub, id: i64) -> Result<Run, Problem> {
    let run = runs::find(&mut *hub.catalog.reader().acquire().await?, id).await?;
    run.ok_or_else(|| Problem::not_found(format!("there is no run {id}")))
}

fn steps(hub: &Hub, id: i64) -> Vec<Value> {
    let steps = progress::read(&folder(hub.data(), id)).unwrap_or_default();
    steps.iter().filter_map(|step| serde_json::to_value(step).ok()).collect()
}
