//! Is it alive, is it ready, what does it count, what can it do.

use std::sync::Arc;

use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::problem::Problem;
use super::{Json, State};
use crate::hub::Hub;

pub(super) fn routes() -> OpenApiRouter<Arc<Hub>> {
    OpenApiRouter::new()
        .routes(routes!(health))
        .routes(routes!(ready))
        .routes(routes!(metrics))
        .routes(routes!(openapi))
}

/// The hub as a whole.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
struct Health {
    /// `ok`.
    status: String,
    /// Version of the hub.
    version: String,
}

fn ok() -> Json<Health> {
    Json(Health { status: "ok".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() })
}

/// Whether the process answers.
#[utoipa::path(get, path = "/health", tag = "hub",
    security(()), responses((status = 200, body = Health)))]
async fn health() -> Json<Health> {
    ok()
}

/// Whether the catalog answers too.
#[utoipa::path(get, path = "/ready", tag = "hub",
    security(()), responses((status = 200, body = Health), (status = 503, body = Problem)))]
async fn ready(hub: State) -> Result<Json<Health>, Problem> {
    let one: Result<i64, sqlx::Error> = sqlx::query_scalar("select 1").fetch_one(hub.catalog.reader()).await;
    one.map(|_| ok()).map_err(|error| Problem::unavailable(format!("the catalog does not answer: {error}")))
}

/// Counters in the text form of Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "hub",
    security(("token" = ["viewer"])), responses((status = 200, body = String, content_type = "application/openmetrics-text")))]
async fn metrics(hub: State) -> Result<Response, Problem> {
    let text = hub.metrics_text().await?;
    Ok(([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response())
}

/// This description.
#[utoipa::path(get, path = "/openapi.json", tag = "hub",
    security(("token" = ["viewer"])), responses((status = 200, body = Object)))]
async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], super::openapi_text()).into_response()
}
