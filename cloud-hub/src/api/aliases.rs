//! Aliases: movable names of versions, with their whole history.

use std::sync::Arc;

use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tributary_wire::{LineName, VersionNumber};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Json, Page, PageQuery, Path, Problem, Query, State, if_match};
use crate::hub::Hub;
use crate::lines::{self, story};
use crate::registry::RegistryError;
use crate::registry::aliases::{self, AliasChange};

pub(super) fn routes() -> OpenApiRouter<Arc<Hub>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(get, put)).routes(routes!(history))
}

/// Where an alias should point.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AliasRequest {
    /// The version.
    #[schema(value_type = u32)]
    pub version: VersionNumber,
    /// Why, in words.
    #[serde(default)]
    pub reason: String,
}

/// Where the aliases of a line point now.
#[utoipa::path(get, path = "/lines/{line}/aliases", tag = "models",
    security(("token" = ["viewer"])), params(("line" = String, Path)),
    responses((status = 200, body = [AliasChange]), (status = "default", body = Problem)))]
async fn list(hub: State, Path(line): Path<LineName>) -> Result<Json<Vec<AliasChange>>, Problem> {
    let mut catalog = hub.catalog.reader().acquire().await?;
    lines::get(&mut catalog, &line).await?;
    Ok(Json(aliases::all(&mut catalog, &line).await?))
}

/// Where one alias points now.
#[utoipa::path(get, path = "/lines/{line}/aliases/{alias}", tag = "models",
    security(("token" = ["viewer"])),
    params(("line" = String, Path), ("alias" = String, Path)),
    responses((status = 200, body = AliasChange), (status = "default", body = Problem)))]
async fn get(hub: State, Path((line, alias)): Path<(LineName, String)>) -> Result<Response, Problem> {
    let current = aliases::current(&mut *hub.catalog.reader().acquire().await?, &line, &alias).await?;
    current.map(answer).ok_or_else(|| RegistryError::NoAlias(line, alias).into())
}

/// Moves an alias. `If-Match` with the `number` of its last change guards against moving what somebody else moved.
#[utoipa::path(put, path = "/lines/{line}/aliases/{alias}", tag = "models",
    security(("token" = ["operator"])),
    params(("line" = String, Path), ("alias" = String, Path), ("If-Match" = Option<String>, Header)),
    request_body = AliasRequest, responses((status = 200, body = AliasChange), (status = "default", body = Problem)))]
async fn put(
    hub: State,
    Path((line, alias)): Path<(LineName, String)>,
    headers: HeaderMap,
    Json(request): Json<AliasRequest>,
) -> Result<Response, Problem> {
    let (version, now) = (request.version, hub.now());
    let expected = if_match(&headers)?;
    let reason = if request.reason.is_empty() { "moved through the API" } else { &request.reason };
    let mut catalog = hub.catalog.write().await?;
    lines::get(&mut catalog, &line).await?;
    let before = aliases::current(&mut catalog, &line, &alias).await?.map(|change| change.number);
    let change = aliases::set(&mut catalog, &line, &alias, version, reason, expected, now).await?;
    if before != Some(change.number) {
        let message = format!("alias {alias} points to version {version}: {reason}");
        story::tell(&mut catalog, &line, "alias-moved", &message, json!({"version": version}), now).await?;
    }
    catalog.commit().await?;
    Ok(answer(change))
}

fn answer(change: AliasChange) -> Response {
    let revision = HeaderValue::from_str(&format!("\"{}\"", change.number));
    let mut response = Json(change).into_response();
    if let Ok(revision) = revision {
        response.headers_mut().insert(header::ETAG, revision);
    }
    response
}

/// Everywhere an alias has pointed, newest first.
#[utoipa::path(get, path = "/lines/{line}/aliases/{alias}/history", tag = "models",
    security(("token" = ["viewer"])),
    params(("line" = String, Path), ("alias" = String, Path), PageQuery),
    responses((status = 200, body = Page<AliasChange>), (status = "default", body = Problem)))]
async fn history(
    hub: State,
    Path((line, alias)): Path<(LineName, String)>,
    Query(page): Query<PageQuery>,
) -> Result<Json<Page<AliasChange>>, Problem> {
    let limit = page.limit()?;
    let mut catalog = hub.catalog.reader().acquire().await?;
    if aliases::current(&mut catalog, &line, &alias).await?.is_none() {
        return Err(RegistryError::NoAlias(line, alias).into());
    }
    let changes = aliases::history(&mut catalog, &line, &alias, page.before_number()?, limit + 1).await?;
    Ok(Json(Page::cut(changes, limit, |change| change.number.to_string())))
}
