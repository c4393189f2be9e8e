//! The signed repository over HTTPS: metadata, packages, patches.

use std::sync::Arc;

use axum::http::HeaderMap;
use axum::response::Response;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Path, Problem, State, range};
use crate::access::{Caller, Who};
use crate::hub::Hub;
use crate::publish::files::{self, Reader};

pub(super) fn routes() -> OpenApiRouter<Arc<Hub>> {
    OpenApiRouter::new().routes(routes!(get))
}

/// A file of the signed repository, whole or one range of it, by its path: `metadata/timestamp.json`,
/// `metadata/{version}.{role}.json`, `targets/models/{line}/{sha256}.v{version}.tpk`, `patches/{sha256}/index.json`.
///
/// Devices get all metadata, and packages and patches of releases that they are or were assigned.
#[utoipa::path(get, path = "/repository/{*path}", tag = "repository",
    security(("device" = []), ("token" = ["viewer"])),
    params(("path" = String, Path), ("Range" = Option<String>, Header), ("If-Range" = Option<String>, Header),
        ("If-None-Match" = Option<String>, Header)),
    responses((status = 200, body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 206, body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 304), (status = "default", body = Problem)))]
async fn get(hub: State, caller: Caller, Path(path): Path<String>, headers: HeaderMap) -> Result<Response, Problem> {
    let reader = match caller.who {
        Who::Device(device) => Reader::Device(device),
        _ => Reader::Everyone,
    };
    // Another device's package does not exist, as far as this one is concerned.
    let missing = || Problem::not_found(format!("the repository has no file {path:?} for this caller"));
    let found = files::open(&hub, &reader, &path).await?.ok_or_else(missing)?;
    range::answer(found, &headers).await
}
