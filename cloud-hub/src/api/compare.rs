//! Two versions on the same labelled rows, scored by the code that devices run.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tributary_wire::{LineName, VersionNumber};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Instant, Json, Path, Problem, Query, State};
use crate::hub::Hub;
use crate::lines;
use crate::registry::versions;
use crate::training::compare::{self, Scored};
use crate::training::datasets::Wish;

pub(super) fn routes() -> OpenApiRouter<Arc<Hub>> {
    OpenApiRouter::new().routes(routes!(get))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct CompareQuery {
    /// The other version.
    #[param(value_type = u32)]
    against: VersionNumber,
    /// Event time of the first rows: UTC microseconds or RFC 3339.
    #[param(value_type = Option<String>)]
    from: Option<Instant>,
    /// Event time before which the rows lie.
    #[param(value_type = Option<String>)]
    to: Option<Instant>,
}

/// What two versions score on the same rows.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
struct Comparison {
    /// Event time of the first rows, UTC microseconds.
    from: i64,
    /// Event time before which the rows lie, UTC microseconds.
    to: i64,
    /// Labelled rows that both scored.
    rows: usize,
    /// Of these positive.
    positives: usize,
    /// The version in the path.
    version: Scored,
    /// The version it was compared with.
    against: Scored,
    /// AUC of the version less that of the other.
    auc_difference: f64,
    /// 95 % limits of that difference.
    auc_difference_limits: (f64, f64),
}

/// Replays the lake's events over a range and lets both versions score the labelled ones.
#[utoipa::path(get, path = "/lines/{line}/versions/{version}/compare", tag = "models",
    security(("token" = ["viewer"])),
    params(("line" = String, Path), ("version" = u32, Path), CompareQuery),
    responses((status = 200, body = Comparison), (status = "default", body = Problem)))]
async fn get(
    hub: State,
    Path((line, version)): Path<(LineName, VersionNumber)>,
    Query(query): Query<CompareQuery>,
) -> Result<Json<Comparison>, Problem> {
    let (settings, package, other) = {
        let mut catalog = hub.catalog.reader().acquire().await?;
        let settings = lines::get(&mut catalog, &line).await?;
        let package = versions::get(&mut catalog, &line, version).await?.reference()?.sha256;
        let other = versions::get(&mut catalog, &line, query.against).await?.reference()?.sha256;
        (settings, package, other)
    };
    let wish = Wish::of_line(&hub, settings, query.from.map(|at| at.0), query.to.map(|at| at.0), None).await?;
    let (from, to) = (wish.from.0, wish.to.0);
    let found = compare::compare(&hub, wish, package, other).await;
    let found = found.map_err(|error| match error {
        compare::CompareError::Hub(error) => error.into(),
        other => Problem::unacceptable(super::chain(&other)),
    })?;
    Ok(Json(Comparison {
        from,
        to,
        rows: found.rows,
        positives: found.positives,
        version: found.challenger,
        against: found.champion,
        auc_difference: found.auc.difference,
        auc_difference_limits: (found.auc.lower, found.auc.upper),
    }))
}
