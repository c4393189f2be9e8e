//! What the hub offers beside a whole package, and why not more.

use std::sync::Arc;

use serde::Serialize;
use tributary_wire::{LineName, VersionNumber};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Json, Path, Problem, State};
use crate::hub::Hub;
use crate::patches;
use crate::registry::versions;

pub(super) fn routes() -> OpenApiRouter<Arc<Hub>> {
    OpenApiRouter::new().routes(routes!(get))
}

/// A way to a package.
#[derive(Debug, Serialize, ToSchema)]
struct Patch {
    /// The version it starts from; none for the whole package compressed.
    from: Option<i64>,
    /// The package it starts from.
    from_sha256: Option<String>,
    /// How it is written.
    format: String,
    /// `made`, `skipped` when it was not worth it, or `failed`.
    state: &'static str,
    /// Bytes that a device fetches; of a skipped one, those it would have fetched.
    length: i64,
    /// Of those of the whole package.
    of_whole: f64,
    /// Why there is none.
    reason: String,
    /// What making it took, rests included.
    seconds: f64,
    /// When it was made, UTC microseconds.
    made: i64,
}

/// The patches that lead to a version: the compressed whole first, then from each package in the field.
#[utoipa::path(get, path = "/patches/{line}/{version}", tag = "models",
    security(("token" = ["viewer"])), params(("line" = String, Path), ("version" = u32, Path)),
    responses((status = 200, body = Vec<Patch>), (status = "default", body = Problem)))]
async fn get(hub: State, Path((line, version)): Path<(LineName, VersionNumber)>) -> Result<Json<Vec<Patch>>, Problem> {
    let mut catalog = hub.catalog.reader().acquire().await?;
    let target = versions::get(&mut catalog, &line, version).await?.reference()?;
    let known: Vec<(i64, String)> = sqlx::query_as("select version, sha256 from versions where line = $1")
        .bind(line.as_str())
        .fetch_all(&mut *catalog)
        .await?;
    let rows = patches::of_target(&mut *catalog, &target.sha256).await?;
    let view = |row: patches::Stored| Patch {
        from: known.iter().find(|(_, sha256)| *sha256 == row.base).map(|(version, _)| *version),
        state: row.state.name(),
        of_whole: row.length as f64 / target.length.max(1) as f64,
        from_sha256: Some(row.base).filter(|base| !base.is_empty()),
        format: row.format,
        length: row.length,
        reason: row.reason,
        seconds: row.seconds,
        made: row.made,
    };
    Ok(Json(rows.into_iter().map(view).collect()))
}
