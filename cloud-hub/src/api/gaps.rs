//! What devices gave up for want of room or time, so that whoever counts knows what is missing.

use std::sync::Arc;

use serde::Deserialize;
use tributary_wire::{DeviceId, LossReason, StreamName};
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::time::Instant;
use super::{Json, Page, PageQuery, Problem, Query, State};
use crate::catalog::gaps::{self, Gap};
use crate::hub::Hub;

pub(super) fn routes() -> OpenApiRouter<Arc<Hub>> {
    OpenApiRouter::new().routes(routes!(list))
}

/// Which gaps.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
struct GapQuery {
    /// Only of this device.
    #[param(value_type = Option<String>)]
    device: Option<DeviceId>,
    /// Only of this stream.
    #[param(value_type = Option<String>)]
    stream: Option<StreamName>,
    /// Only for this reason: `disk-budget`, `age` or `corrupt`.
    reason: Option<String>,
    /// Only with records from this event time on, UTC microseconds or RFC 3339; where it is not known, received since.
    from: Option<String>,
    /// Only with records before this event time; where it is not known, received before.
    to: Option<String>,
    /// How many at most; 100 unless given, 1000 at most.
    limit: Option<u32>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// What devices gave up, newest first.
#[utoipa::path(get, path = "/lake/gaps", tag = "lake", security(("token" = ["viewer"])), params(GapQuery),
    responses((status = 200, body = Page<Gap>), (status = "default", body = Problem)))]
async fn list(hub: State, Query(query): Query<GapQuery>) -> Result<Json<Page<Gap>>, Problem> {
    let wrong = |name: &'static str| {
        move |problem: String| Problem::malformed("a parameter of the query is wrong").with(name, problem)
    };
    let instant = |name: &'static str, text: &Option<String>| {
        text.as_ref().map(|text| text.parse::<Instant>().map(|it| it.0).map_err(wrong(name))).transpose()
    };
    let known = |reason: &String| LossReason::ALL.iter().any(|it| it.name() == reason);
    if let Some(reason) = query.reason.as_ref().filter(|reason| !known(reason)) {
        return Err(wrong("reason")(format!("{reason:?} is none of disk-budget, age and corrupt")));
    }
    let page = PageQuery { limit: query.limit, cursor: query.cursor };
    let (limit, before) = (page.limit()?, page.before_number()?);
    let filter = gaps::Filter {
        from: instant("from", &query.from)?,
        to: instant("to", &query.to)?,
        device: query.device,
        stream: query.stream,
        reason: query.reason,
    };
    let mut catalog = hub.catalog.reader().acquire().await?;
    let found = gaps::list(&mut catalog, &filter, before, limit + 1).await?;
    Ok(Json(Page::cut(found, limit, |gap| gap.number.to_string())))
}
