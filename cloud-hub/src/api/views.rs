//! Feature views: sent as TOML, kept as they were sent.

use std::sync::Arc;

use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::extract::{Body, content_type};
use super::{Json, Page, PageQuery, Path, Problem, Query, State};
use crate::hub::Hub;
use crate::registry::views::{self, ViewRecord};

pub(super) fn routes() -> OpenApiRouter<Arc<Hub>> {
    OpenApiRouter::new().routes(routes!(list, add)).routes(routes!(get))
}

/// All feature views, by name and version.
#[utoipa::path(get, path = "/views", tag = "lines",
    security(("token" = ["viewer"])), params(PageQuery),
    responses((status = 200, body = Page<ViewRecord>), (status = "default", body = Problem)))]
async fn list(hub: State, Query(page): Query<PageQuery>) -> Result<Json<Page<ViewRecord>>, Problem> {
    let limit = page.limit()?;
    let mut catalog = hub.catalog.reader().acquire().await?;
    let views = views::list(&mut catalog, &page.after_text()?, limit + 1).await?;
    Ok(Json(Page::cut(views, limit, views::list_key)))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct VersionQuery {
    /// Which version; the newest when left out.
    version: Option<u32>,
}

/// One feature view.
#[utoipa::path(get, path = "/views/{name}", tag = "lines",
    security(("token" = ["viewer"])), params(("name" = String, Path), VersionQuery),
    responses((status = 200, body = ViewRecord), (status = "default", body = Problem)))]
async fn get(
    hub: State,
    Path(name): Path<String>,
    Query(query): Query<VersionQuery>,
) -> Result<Json<ViewRecord>, Problem> {
    Ok(Json(views::get(&mut *hub.catalog.reader().acquire().await?, &name, query.version).await?))
}

/// Adds a feature view (body: TOML). A changed view needs a new version; the same text again changes nothing.
#[utoipa::path(post, path = "/views", tag = "lines",
    security(("token" = ["operator"])),
    request_body(content = String, content_type = "application/toml"),
    responses((status = 201, body = ViewRecord), (status = 200, body = ViewRecord), (status = "default", body = Problem)))]
async fn add(hub: State, headers: HeaderMap, Body(body): Body) -> Result<Response, Problem> {
    match content_type(&headers).as_str() {
        "" | "application/toml" | "text/plain" | "application/octet-stream" => {}
        found => return Err(Problem::unsupported_media(found, "application/toml")),
    }
    let source =
        std::str::from_utf8(&body).map_err(|error| Problem::malformed(format!("the view is not text: {error}")))?;
    let mut catalog = hub.catalog.write().await?;
    let (view, new) = views::add(&mut catalog, source, hub.now()).await?;
    catalog.commit().await?;
    Ok((if new { StatusCode::CREATED } else { StatusCode::OK }, Json(view)).into_response())
}
