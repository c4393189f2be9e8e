//! Releases: listed for people, signed bytes for devices, and the keys that they are checked with.

use std::sync::Arc;

use axum::http::header;
use axum::response::{IntoResponse, Response};
use tributary_wire::{LineName, VersionNumber};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Json, Page, PageQuery, Path, Problem, Query, State};
use crate::access::{Caller, Who, own};
use crate::hub::Hub;
use crate::lines;
use crate::publish::{self, Release};

pub(super) fn routes() -> OpenApiRouter<Arc<Hub>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(get)).routes(routes!(keys))
}

/// The releases of a line, newest first.
#[utoipa::path(get, path = "/releases/{line}", tag = "models",
    security(("token" = ["viewer"])), params(("line" = String, Path), PageQuery),
    responses((status = 200, body = Page<Release>), (status = "default", body = Problem)))]
async fn list(
    hub: State,
    Path(line): Path<LineName>,
    Query(page): Query<PageQuery>,
) -> Result<Json<Page<Release>>, Problem> {
    let limit = page.limit()?;
    let mut catalog = hub.catalog.reader().acquire().await?;
    lines::get(&mut catalog, &line).await?;
    let releases = publish::list(&mut catalog, &line, page.before_number()?, limit + 1).await?;
    Ok(Json(Page::cut(releases, limit, |release| release.version.to_string())))
}

/// The signed release in the byte form that devices check.
#[utoipa::path(get, path = "/releases/{line}/{version}", tag = "models",
    security(("device" = []), ("token" = ["viewer"])),
    params(("line" = String, Path), ("version" = u32, Path)),
    responses((status = 200, body = Vec<u8>, content_type = "application/octet-stream"), (status = "default", body = Problem)))]
async fn get(
    hub: State,
    caller: Caller,
    Path((line, version)): Path<(LineName, VersionNumber)>,
) -> Result<Response, Problem> {
    // Another device's release does not exist, as far as this one is concerned.
    let own = match &caller.who {
        Who::Device(device) => own::has_release(hub.catalog.reader(), device, &line, version).await?,
        _ => true,
    };
    let missing = || Problem::not_found(format!("version {version} of line {line} is not published"));
    if !own {
        return Err(missing());
    }
    let signed = publish::signed(&mut *hub.catalog.reader().acquire().await?, &line, version).await?;
    let signed = signed.ok_or_else(missing)?;
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], signed).into_response())
}

/// The hub's public keys, in the form of a device's trust file. Fetch them over a way you trust.
#[utoipa::path(get, path = "/keys", tag = "models",
    security(("device" = []), ("token" = ["viewer"])), responses((status = 200, body = Object)))]
async fn keys(hub: State) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], hub.keys.trust().to_json()).into_response()
}
