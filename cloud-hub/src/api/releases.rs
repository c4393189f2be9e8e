//! Releases, listed for people. Devices learn of them from the signed repository.

use std::sync::Arc;

use tributary_wire::LineName;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Json, Page, PageQuery, Path, Problem, Query, State};
use crate::hub::Hub;
use crate::lines;
use crate::publish::{self, Release};

pub(super) fn routes() -> OpenApiRouter<Arc<Hub>> {
    OpenApiRouter::new().routes(routes!(list))
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
