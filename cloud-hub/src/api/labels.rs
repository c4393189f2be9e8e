//! Labels: sent as JSON or CSV, durable when the answer comes.

use std::sync::Arc;

use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::extract::{Body, content_type};
use super::{FieldError, Json, Problem, State};
use crate::hub::Hub;
use crate::ingest::SubmitError;
use crate::labels::{self, LabelStats};

pub(super) fn routes() -> OpenApiRouter<Arc<Hub>> {
    OpenApiRouter::new().routes(routes!(add)).routes(routes!(stats))
}

/// The truth about one event, as it is sent.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[allow(dead_code, reason = "describes the body, which is read row by row")]
struct LabelRequest {
    /// Which event; it may come after its label.
    event_id: String,
    /// The truth.
    label: bool,
    /// When the event happened: UTC microseconds or RFC 3339.
    event_time: Option<String>,
    /// When the truth became known; now when left out.
    known_at: Option<String>,
}

/// What became of the labels.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
struct LabelsStored {
    /// Labels that are durable now.
    stored: usize,
    /// Rows that were refused.
    refused: usize,
    /// Why, row by row; the first hundred.
    errors: Vec<FieldError>,
}

/// More would only repeat the same mistake.
const ERRORS_SHOWN: usize = 100;

/// Stores labels: a JSON object, a JSON list, or CSV with the columns event_id, label, event_time, known_at. Wrong rows
/// are refused alone; the labels of the others are durable when the answer comes.
#[utoipa::path(post, path = "/labels", tag = "labels",
    security(("token" = ["operator"])), params(("Idempotency-Key" = Option<String>, Header)),
    request_body(content((Vec<LabelRequest> = "application/json"), (String = "text/csv"))),
    responses((status = 200, body = LabelsStored), (status = "default", body = Problem)))]
async fn add(hub: State, headers: HeaderMap, Body(body): Body) -> Result<Response, Problem> {
    let now = hub.now();
    let read = match content_type(&headers).as_str() {
        "" | "application/json" => labels::from_json(&body, now),
        "text/csv" => labels::from_csv(&body, now),
        found => return Err(Problem::unsupported_media(found, "application/json or text/csv")),
    };
    let mut read = read.map_err(Problem::malformed)?;
    let refused = read.errors.len();
    read.errors.truncate(ERRORS_SHOWN);
    if read.labels.is_empty() {
        return Err(Problem::unacceptable(format!("all {refused} rows are refused")).with_all(read.errors));
    }
    let stored = read.labels.len();
    labels::store(&hub, read.labels, tributary_release::digest(&body)).await.map_err(|error| match error {
        SubmitError::Stopping | SubmitError::Holding => Problem::unavailable(error),
        other => anyhow::Error::new(other).context("store labels").into(),
    })?;
    Ok((StatusCode::OK, Json(LabelsStored { stored, refused, errors: read.errors })).into_response())
}

/// How many labels there are, and for how many events none has come yet. Reads the lake.
#[utoipa::path(get, path = "/labels/stats", tag = "labels",
    security(("token" = ["viewer"])),
    responses((status = 200, body = LabelStats), (status = "default", body = Problem)))]
async fn stats(hub: State) -> Result<Json<LabelStats>, Problem> {
    Ok(Json(labels::stats(&hub).await?))
}
