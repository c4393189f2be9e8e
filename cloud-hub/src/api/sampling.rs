//! What devices send of their raw observations.

use std::sync::Arc;

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use cloud_hub_core::selector::Selector;
use serde::{Deserialize, Serialize};
use tributary_wire::GroupName;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::rollouts::parse_selector;
use super::{Json, Page, PageQuery, Path, Problem, Query, State, if_match};
use crate::hub::Hub;
use crate::rollout;
use crate::sampling::{self, Policies, Policy, PolicyError, Stored};

pub(super) fn routes() -> OpenApiRouter<Arc<Hub>> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(get, put, clear))
        .routes(routes!(preview))
        .routes(routes!(history))
}

impl From<PolicyError> for Problem {
    fn from(error: PolicyError) -> Self {
        match error {
            PolicyError::Refused(source) => {
                Self::unacceptable("the sampling policy is refused").with(source.key, &source)
            }
            PolicyError::NotFound(_) => Self::not_found(error),
            PolicyError::Changed { .. } => Self::precondition_failed(error),
            PolicyError::TooMany(_) => Self::conflict(error),
            PolicyError::Unreadable(_) | PolicyError::Catalog(_) => anyhow::Error::new(error).into(),
        }
    }
}

/// A sampling policy that holds.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SamplingView {
    /// Its name.
    pub name: String,
    /// Number of the change that made it what it is: what `If-Match` is compared with, and what devices report.
    pub number: i64,
    /// Labels of the devices that it is for; empty: all devices.
    pub selector: String,
    /// What it says.
    pub policy: Policy,
    /// Since when, UTC microseconds.
    pub changed: i64,
}

impl From<&Stored> for SamplingView {
    fn from(stored: &Stored) -> Self {
        Self {
            name: stored.name.to_string(),
            number: stored.number,
            selector: stored.selector.to_string(),
            policy: stored.policy.clone(),
            changed: stored.changed.0,
        }
    }
}

/// All sampling policies.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SamplingList {
    /// Those with more labels first; of several that mean a device the first one counts.
    pub items: Vec<SamplingView>,
}

/// What a policy shall say, and to whom.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SamplingRequest {
    /// Labels that devices must have, such as `site=lyon,gpu=true`; all devices when left out.
    #[serde(default)]
    pub selector: String,
    /// What is sent; what is left out takes its default: everything, without limits.
    #[serde(default)]
    pub policy: Policy,
}

/// Sampling policies of all groups.
#[utoipa::path(get, path = "/sampling", tag = "sampling", security(("token" = ["viewer"])),
    responses((status = 200, body = SamplingList), (status = "default", body = Problem)))]
async fn list(hub: State) -> Result<Json<SamplingList>, Problem> {
    let policies = Policies::read(&mut *hub.catalog.reader().acquire().await?).await?;
    Ok(Json(SamplingList { items: policies.all().iter().map(SamplingView::from).collect() }))
}

/// One sampling policy.
#[utoipa::path(get, path = "/sampling/{name}", tag = "sampling",
    security(("token" = ["viewer"])), params(("name" = String, Path)),
    responses((status = 200, body = SamplingView), (status = "default", body = Problem)))]
async fn get(hub: State, Path(name): Path<GroupName>) -> Result<Response, Problem> {
    let stored = sampling::get(&mut *hub.catalog.reader().acquire().await?, &name).await?;
    Ok(answer(StatusCode::OK, &stored))
}

/// Sets a sampling policy. Devices that it concerns get a newer assignment. `If-Match: "3"` changes it only where change
/// 3 is its newest; `"0"` only makes it.
#[utoipa::path(put, path = "/sampling/{name}", tag = "sampling",
    security(("token" = ["operator"])),
    params(("name" = String, Path), ("If-Match" = Option<String>, Header)), request_body = SamplingRequest,
    responses((status = 200, body = SamplingView), (status = 201, body = SamplingView),
              (status = "default", body = Problem)))]
async fn put(
    hub: State,
    Path(name): Path<GroupName>,
    headers: HeaderMap,
    Json(request): Json<SamplingRequest>,
) -> Result<Response, Problem> {
    let (selector, expected) = (parse_selector(&request.selector)?, if_match(&headers)?);
    let mut catalog = hub.catalog.write().await?;
    let is_there = match sampling::get(&mut catalog, &name).await {
        Ok(_) => true,
        Err(PolicyError::NotFound(_)) => false,
        Err(error) => return Err(error.into()),
    };
    let (stored, changed) =
        sampling::put(&mut catalog, &name, (&selector, &request.policy), expected, hub.now()).await?;
    catalog.commit().await?;
    if changed {
        rollout::refresh(&hub, hub.now()).await?;
    }
    Ok(answer(if is_there { StatusCode::OK } else { StatusCode::CREATED }, &stored))
}

/// Takes a sampling policy back. Devices that it concerned keep to the next one that means them, or to their own.
#[utoipa::path(delete, path = "/sampling/{name}", tag = "sampling",
    security(("token" = ["operator"])), params(("name" = String, Path), ("If-Match" = Option<String>, Header)),
    responses((status = 200, body = SamplingView), (status = "default", body = Problem)))]
async fn clear(hub: State, Path(name): Path<GroupName>, headers: HeaderMap) -> Result<Json<SamplingView>, Problem> {
    let mut catalog = hub.catalog.write().await?;
    let stored = sampling::clear(&mut catalog, &name, if_match(&headers)?, hub.now()).await?;
    catalog.commit().await?;
    rollout::refresh(&hub, hub.now()).await?;
    Ok(Json(SamplingView::from(&stored)))
}

fn answer(status: StatusCode, stored: &Stored) -> Response {
    let tag = HeaderValue::from_str(&format!("\"{}\"", stored.number));
    let mut response = (status, Json(SamplingView::from(stored))).into_response();
    if let Ok(tag) = tag {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

/// Whom to look for.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
struct PreviewQuery {
    /// Labels that devices must have; all devices when left out.
    selector: String,
}

/// Whom a policy would be for.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SamplingPreview {
    /// Devices that have the labels.
    pub matched: u64,
    /// Of those, how many would keep to it: for the others there is a narrower policy, or one before it by name.
    pub would_keep_to_it: u64,
    /// Of those, how many run an agent that reads policies.
    pub would_read_it: u64,
    /// The first of those that would keep to it.
    pub devices: Vec<String>,
}

/// Devices that a preview names.
const NAMED: usize = 20;

/// How many devices a policy of this name with that selector would be for. Nothing is changed.
#[utoipa::path(get, path = "/sampling/{name}/preview", tag = "sampling",
    security(("token" = ["viewer"])), params(("name" = String, Path), PreviewQuery),
    responses((status = 200, body = SamplingPreview), (status = "default", body = Problem)))]
async fn preview(
    hub: State,
    Path(name): Path<GroupName>,
    Query(query): Query<PreviewQuery>,
) -> Result<Json<SamplingPreview>, Problem> {
    let selector: Selector = parse_selector(&query.selector)?;
    let mut catalog = hub.catalog.reader().acquire().await?;
    let wished = Stored {
        name: name.clone(),
        number: 0,
        selector: selector.clone(),
        policy: Policy::default(),
        changed: hub.now(),
    };
    let policies = Policies::read(&mut catalog).await?.with(wished);
    let mut found = SamplingPreview { matched: 0, would_keep_to_it: 0, would_read_it: 0, devices: Vec::new() };
    for member in rollout::members(&mut catalog).await? {
        found.matched += u64::from(selector.matches(&member.labels));
        if policies.of(&member.labels).is_none_or(|policy| policy.name != name) {
            continue;
        }
        found.would_keep_to_it += 1;
        found.would_read_it += u64::from(member.report.as_ref().is_some_and(|report| report.reads >= 3));
        if found.devices.len() < NAMED {
            found.devices.push(member.device.to_string());
        }
    }
    Ok(Json(found))
}

/// One change of a sampling policy.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SamplingChange {
    /// Its number.
    pub number: i64,
    /// Labels of the devices that it was for.
    pub selector: String,
    /// What it said; absent: the policy was taken back.
    pub policy: Option<Policy>,
    /// When, UTC microseconds.
    pub changed: i64,
}

/// Everything that a sampling policy ever was, newest first; also of one that was taken back.
#[utoipa::path(get, path = "/sampling/{name}/history", tag = "sampling",
    security(("token" = ["viewer"])), params(("name" = String, Path), PageQuery),
    responses((status = 200, body = Page<SamplingChange>), (status = "default", body = Problem)))]
async fn history(
    hub: State,
    Path(name): Path<GroupName>,
    Query(page): Query<PageQuery>,
) -> Result<Json<Page<SamplingChange>>, Problem> {
    let limit = page.limit()?;
    let mut catalog = hub.catalog.reader().acquire().await?;
    let changes = sampling::history(&mut catalog, &name, page.before_number()?, limit + 1).await?;
    let changes = changes.into_iter().map(|change| SamplingChange {
        number: change.number,
        selector: change.selector,
        policy: change.policy,
        changed: change.changed.0,
    });
    Ok(Json(Page::cut(changes.collect(), limit, |change| change.number.to_string())))
}
