//! Package files by hash: streamed, in ranges, so that a device that lost the link goes on where it was.

use std::sync::Arc;

use axum::http::HeaderMap;
use axum::response::Response;
use tributary_wire::Sha256;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Path, Problem, State, range};
use crate::access::{Caller, Who, own};
use crate::hub::Hub;
use crate::publish::files;
use crate::registry::{RegistryError, versions};

pub(super) fn routes() -> OpenApiRouter<Arc<Hub>> {
    OpenApiRouter::new().routes(routes!(get))
}

/// The package file of that hash, whole or one range of it.
#[utoipa::path(get, path = "/packages/{sha256}", tag = "models",
    security(("device" = []), ("token" = ["viewer"])),
    params(("sha256" = String, Path), ("Range" = Option<String>, Header)),
    responses((status = 200, body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 206, body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 304), (status = "default", body = Problem)))]
async fn get(hub: State, caller: Caller, Path(sha256): Path<Sha256>, headers: HeaderMap) -> Result<Response, Problem> {
    // Another device's package does not exist, as far as this one is concerned.
    if let Who::Device(device) = &caller.who
        && !own::has_package(hub.catalog.reader(), device, &sha256).await?
    {
        return Err(RegistryError::NoPackage(sha256).into());
    }
    // Only what a version names is served: a file that a crash left behind is nobody's.
    if !versions::has_package(&mut *hub.catalog.reader().acquire().await?, &sha256).await? {
        return Err(RegistryError::NoPackage(sha256).into());
    }
    let found = files::on_disk(&hub, sha256).await?.ok_or(RegistryError::NoPackage(sha256))?;
    range::answer(found, &headers).await
}
