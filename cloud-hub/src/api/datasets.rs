//! Datasets: made from the lake on demand, immutable from then on.

use std::sync::Arc;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tributary_process::config::HumanDuration;
use tributary_wire::LineName;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Instant, Json, Page, PageQuery, Path, Problem, Query, State};
use crate::hub::Hub;
use crate::lines;
use crate::training::datasets::{self, DatasetRecord, Wish, WishError};

pub(super) fn routes() -> OpenApiRouter<Arc<Hub>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(get))
}

pub(super) fn work_routes() -> OpenApiRouter<Arc<Hub>> {
    OpenApiRouter::new().routes(routes!(make))
}

/// A dataset.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Dataset {
    /// Its number.
    pub id: i64,
    /// Hash of its file.
    pub hash: String,
    /// The line it was made for.
    pub line: Option<String>,
    /// Name of its feature view.
    pub view: String,
    /// Version of its feature view.
    pub view_version: i64,
    /// Event time of its first rows, UTC microseconds.
    pub from: i64,
    /// Event time before which its rows lie, UTC microseconds.
    pub to: i64,
    /// How long after an event its label was taken to be known, microseconds.
    pub label_delay: i64,
    /// Rows.
    pub rows: i64,
    /// Rows with a true label.
    pub positives: i64,
    /// Rows whose replayed features differ from those served.
    pub mismatches: i64,
    /// Everything that was counted while it was made.
    #[schema(value_type = Object)]
    pub summary: Value,
    /// When it was made, UTC microseconds.
    pub created: i64,
}

impl From<DatasetRecord> for Dataset {
    fn from(record: DatasetRecord) -> Self {
        Self {
            id: record.id,
            hash: record.sha256,
            line: record.line,
            view: record.view_name,
            view_version: record.view_version,
            from: record.from_time,
            to: record.to_time,
            label_delay: record.label_delay,
            rows: record.rows,
            positives: record.positives,
            mismatches: record.mismatches,
            summary: serde_json::from_str(&record.summary_json).unwrap_or_default(),
            created: record.created,
        }
    }
}

impl From<WishError> for Problem {
    fn from(error: WishError) -> Self {
        match error {
            WishError::Registry(error) => error.into(),
            WishError::NoEvents | WishError::Empty { .. } => Self::unacceptable(error),
        }
    }
}

/// What a dataset is made from.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DatasetRequest {
    /// The line; it names the feature view and, where the range is left out, how far back it reaches.
    #[schema(value_type = String)]
    pub line: LineName,
    /// Event time of its first rows: UTC microseconds or RFC 3339.
    #[schema(value_type = Option<String>)]
    #[serde(default, skip_serializing)]
    pub from: Option<Instant>,
    /// Event time before which its rows lie.
    #[schema(value_type = Option<String>)]
    #[serde(default, skip_serializing)]
    pub to: Option<Instant>,
    /// How long after an event its label is taken to be known; the line's own when left out.
    #[schema(value_type = Option<String>)]
    #[serde(default)]
    pub label_delay: Option<HumanDuration>,
}

/// All datasets, newest first.
#[utoipa::path(get, path = "/datasets", tag = "training",
    security(("token" = ["viewer"])), params(PageQuery),
    responses((status = 200, body = Page<Dataset>), (status = "default", body = Problem)))]
async fn list(hub: State, Query(page): Query<PageQuery>) -> Result<Json<Page<Dataset>>, Problem> {
    let limit = page.limit()?;
    let mut catalog = hub.catalog.reader().acquire().await?;
    let records = datasets::list(&mut catalog, page.before_number()?, limit + 1).await?;
    Ok(Json(Page::cut(records.into_iter().map(Dataset::from).collect(), limit, |dataset| dataset.id.to_string())))
}

/// One dataset.
#[utoipa::path(get, path = "/datasets/{dataset}", tag = "training",
    security(("token" = ["viewer"])), params(("dataset" = i64, Path)),
    responses((status = 200, body = Dataset), (status = "default", body = Problem)))]
async fn get(hub: State, Path(id): Path<i64>) -> Result<Json<Dataset>, Problem> {
    let record = datasets::find(&mut *hub.catalog.reader().acquire().await?, id).await?;
    record.map(|record| Json(record.into())).ok_or_else(|| Problem::not_found(format!("there is no dataset {id}")))
}

/// Makes a dataset by replaying the lake's events through the line's feature view.
#[utoipa::path(post, path = "/datasets", tag = "training",
    security(("token" = ["operator"])), params(("Idempotency-Key" = Option<String>, Header)),
    request_body = DatasetRequest, responses((status = 201, body = Dataset), (status = "default", body = Problem)))]
async fn make(hub: State, Json(request): Json<DatasetRequest>) -> Result<Response, Problem> {
    let line = lines::get(&mut *hub.catalog.reader().acquire().await?, &request.line).await?;
    let delay = request.label_delay.map(|delay| delay.0.as_micros() as i64);
    let wish = Wish::of_line(&hub, line, request.from.map(|at| at.0), request.to.map(|at| at.0), delay).await?;
    let record = datasets::make(&hub, wish).await?;
    Ok((StatusCode::CREATED, Json(Dataset::from(record))).into_response())
}
