//! Rollouts: begin, look, pause, resume, abort.

mod view;

use std::sync::Arc;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use cloud_hub_core::rollout::Policy;
use cloud_hub_core::selector::Selector;
use serde::Deserialize;
use tributary_wire::{LineName, Role, VersionNumber};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::view::view;
use super::{Json, Page, PageQuery, Path, Problem, Query, State};
use crate::hub::Hub;
use crate::rollout::{self, Command, Order, RolloutError, read};

/// Why, when nobody says.
const ASKED: &str = "asked for by an operator";

pub use self::view::{EvidenceView, RolloutDevice, RolloutSummary, RolloutView, StepView};

/// Routes of this part.
pub fn routes() -> OpenApiRouter<Arc<Hub>> {
    OpenApiRouter::new()
        .routes(routes!(list, begin))
        .routes(routes!(get))
        .routes(routes!(pause))
        .routes(routes!(resume))
        .routes(routes!(abort))
        .routes(routes!(end))
        .routes(routes!(share))
}

impl From<RolloutError> for Problem {
    fn from(error: RolloutError) -> Self {
        match error {
            RolloutError::NotFound { .. } => Self::not_found(error),
            RolloutError::NotPublished { .. }
            | RolloutError::Withdrawn { .. }
            | RolloutError::Role { .. }
            | RolloutError::NoShare { .. }
            | RolloutError::Shares { .. }
            | RolloutError::Primary { .. }
            | RolloutError::Flag(_) => Self::unacceptable(error),
            RolloutError::Waiting { .. } | RolloutError::Superseded { .. } => Self::conflict(error),
            RolloutError::Policy(ref source) => Self::unacceptable(&error).with(source.setting, source),
            RolloutError::UnderWay { .. } | RolloutError::Command(_) | RolloutError::Fenced { .. } => {
                Self::conflict(error)
            }
            RolloutError::Registry(source) => source.into(),
            RolloutError::Sampling(source) => source.into(),
            RolloutError::Unreadable { .. } | RolloutError::Id(_) | RolloutError::Catalog(_) => {
                anyhow::Error::new(error).into()
            }
        }
    }
}

/// What is asked for.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RolloutRequest {
    /// Model line.
    #[schema(value_type = String)]
    pub line: LineName,
    /// A published version of it.
    #[schema(value_type = u32)]
    pub version: VersionNumber,
    /// What it does on a device: `primary` (when left out), `shadow` (scored, never answers) or `challenger-<name>`.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub role: Option<Role>,
    /// Of how many entities in 10 000 a challenger answers; 0, or left out: it is only scored.
    #[serde(default)]
    pub share: u16,
    /// Labels that a device must have, such as `site=lyon,gpu=true`; all devices when left out.
    #[serde(default)]
    pub selector: String,
    /// The rules; what is left out keeps its default. The line's own rules when left out altogether.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub policy: Option<Policy>,
    /// Why.
    #[serde(default)]
    pub reason: Option<String>,
}

/// Why a command is given.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CommandRequest {
    /// In words; kept with the rollout.
    pub reason: Option<String>,
}

/// Rollouts, newest first.
#[utoipa::path(get, path = "/rollouts", tag = "rollouts",
    security(("token" = ["viewer"])), params(PageQuery),
    responses((status = 200, body = Page<RolloutSummary>), (status = "default", body = Problem)))]
async fn list(hub: State, Query(page): Query<PageQuery>) -> Result<Json<Page<RolloutSummary>>, Problem> {
    let limit = page.limit()?;
    let mut catalog = hub.catalog.reader().acquire().await?;
    let rows = read::list(&mut catalog, page.before_number()?, limit + 1).await?;
    let items = rows.iter().map(RolloutSummary::new).collect();
    Ok(Json(Page::cut(items, limit, |rollout: &RolloutSummary| rollout.id.to_string())))
}

/// Begins a rollout; its first wave is assigned at once.
#[utoipa::path(post, path = "/rollouts", tag = "rollouts",
    security(("token" = ["operator"])), request_body = RolloutRequest,
    responses((status = 201, body = RolloutView), (status = "default", body = Problem)))]
async fn begin(hub: State, Json(request): Json<RolloutRequest>) -> Result<Response, Problem> {
    let RolloutRequest { line, version, role, share, selector, policy, reason } = request;
    let order = Order {
        line,
        role: role.unwrap_or_else(Role::primary),
        version,
        share,
        selector: parse_selector(&selector)?,
        policy,
        reason: reason.unwrap_or_else(|| ASKED.to_owned()),
    };
    let id = rollout::start(&hub, order, hub.now()).await?;
    let view = view(&hub, id).await?;
    Ok((StatusCode::CREATED, Json(view)).into_response())
}

/// One rollout: state, wave, every device, what it waits for, and what it did.
#[utoipa::path(get, path = "/rollouts/{rollout}", tag = "rollouts",
    security(("token" = ["viewer"])), params(("rollout" = i64, Path)),
    responses((status = 200, body = RolloutView), (status = "default", body = Problem)))]
async fn get(hub: State, Path(id): Path<i64>) -> Result<Json<RolloutView>, Problem> {
    view(&hub, id).await.map(Json)
}

/// Holds a rollout: nobody is assigned, no trial is allowed to begin.
#[utoipa::path(post, path = "/rollouts/{rollout}/pause", tag = "rollouts",
    security(("token" = ["operator"])), params(("rollout" = i64, Path)),
    request_body = Option<CommandRequest>,
    responses((status = 200, body = RolloutView), (status = "default", body = Problem)))]
async fn pause(hub: State, Path(id): Path<i64>, body: super::extract::Body) -> Result<Json<RolloutView>, Problem> {
    command(&hub, id, Command::Pause, body).await
}

/// Goes on with a paused rollout; the wave's time begins anew.
#[utoipa::path(post, path = "/rollouts/{rollout}/resume", tag = "rollouts",
    security(("token" = ["operator"])), params(("rollout" = i64, Path)),
    request_body = Option<CommandRequest>,
    responses((status = 200, body = RolloutView), (status = "default", body = Problem)))]
async fn resume(hub: State, Path(id): Path<i64>, body: super::extract::Body) -> Result<Json<RolloutView>, Problem> {
    command(&hub, id, Command::Resume, body).await
}

/// Stops a rollout for good; every device that was assigned the release goes back.
#[utoipa::path(post, path = "/rollouts/{rollout}/abort", tag = "rollouts",
    security(("token" = ["operator"])), params(("rollout" = i64, Path)),
    request_body = Option<CommandRequest>,
    responses((status = 200, body = RolloutView), (status = "default", body = Problem)))]
async fn abort(hub: State, Path(id): Path<i64>, body: super::extract::Body) -> Result<Json<RolloutView>, Problem> {
    command(&hub, id, Command::Abort, body).await
}

/// Takes a role beside the primary from every device that has it: a newer assignment names it no more.
#[utoipa::path(post, path = "/rollouts/{rollout}/end", tag = "rollouts",
    security(("token" = ["operator"])), params(("rollout" = i64, Path)),
    request_body = Option<CommandRequest>,
    responses((status = 200, body = RolloutView), (status = "default", body = Problem)))]
async fn end(hub: State, Path(id): Path<i64>, body: super::extract::Body) -> Result<Json<RolloutView>, Problem> {
    command(&hub, id, Command::End, body).await
}

/// What a challenger shall answer.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ShareRequest {
    /// Of how many entities in 10 000; 0: it is only scored.
    pub share: u16,
    /// Why.
    #[serde(default)]
    pub reason: Option<String>,
}

/// Changes the share of a challenger, by a newer assignment to every device that has it.
#[utoipa::path(post, path = "/rollouts/{rollout}/share", tag = "rollouts",
    security(("token" = ["operator"])), params(("rollout" = i64, Path)), request_body = ShareRequest,
    responses((status = 200, body = RolloutView), (status = "default", body = Problem)))]
async fn share(
    hub: State,
    Path(id): Path<i64>,
    Json(request): Json<ShareRequest>,
) -> Result<Json<RolloutView>, Problem> {
    rollout::share(&hub, id, request.share, request.reason.as_deref().unwrap_or(ASKED)).await?;
    view(&hub, id).await.map(Json)
}

/// Labels as people write them.
pub(super) fn parse_selector(text: &str) -> Result<Selector, Problem> {
    text.parse().map_err(|error| Problem::unacceptable(&error).with("selector", &error))
}

async fn command(
    hub: &Arc<Hub>,
    id: i64,
    command: Command,
    body: super::extract::Body,
) -> Result<Json<RolloutView>, Problem> {
    // No body, and `null`, mean that no reason is given.
    let request: Option<CommandRequest> = if body.0.is_empty() { None } else { super::extract::parse_json(&body.0)? };
    let reason = request.and_then(|request| request.reason);
    rollout::command(hub, id, command, reason.as_deref().unwrap_or(ASKED)).await?;
    view(hub, id).await.map(Json)
}
