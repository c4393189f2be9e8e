//! Rollouts: begin, look, pause, resume, abort.

use std::sync::Arc;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use cloud_hub_core::rollout::{Policy, RolloutState};
use serde::{Deserialize, Serialize};
use sqlx::SqliteConnection;
use tributary_wire::{LineName, Micros, ReleaseRef, UpdaterState, VersionNumber};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Json, Page, PageQuery, Path, Problem, Query, State};
use crate::hub::Hub;
use crate::rollout::{self, Command, Member, RolloutError, Stored, read};

/// Routes of this part.
pub fn routes() -> OpenApiRouter<Arc<Hub>> {
    OpenApiRouter::new()
        .routes(routes!(list, begin))
        .routes(routes!(get))
        .routes(routes!(pause))
        .routes(routes!(resume))
        .routes(routes!(abort))
}

impl From<RolloutError> for Problem {
    fn from(error: RolloutError) -> Self {
        match error {
            RolloutError::NotFound { .. } => Self::not_found(error),
            RolloutError::NotPublished { .. } => Self::unacceptable(error),
            RolloutError::Policy(ref source) => Self::unacceptable(&error).with(source.setting, source),
            RolloutError::UnderWay { .. } | RolloutError::Command(_) | RolloutError::Fenced { .. } => {
                Self::conflict(error)
            }
            RolloutError::Registry(source) => source.into(),
            RolloutError::Unreadable { .. } | RolloutError::Id(_) | RolloutError::Catalog(_) => {
                anyhow::Error::new(error).into()
            }
        }
    }
}

/// A rollout in a list.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RolloutSummary {
    /// Its number.
    pub id: i64,
    /// Model line.
    pub line: String,
    /// Role of the package.
    pub role: String,
    /// Version that is rolled out.
    pub version: u32,
    /// `running`, `paused`, `stopping`, `stopped` or `completed`.
    pub state: String,
    /// Since when, UTC microseconds.
    pub since: i64,
    /// Wave under way, from 1; absent when none is.
    pub wave: Option<usize>,
    /// Why it is paused or was stopped.
    pub stop_reason: Option<String>,
    /// Why it was begun.
    pub reason: String,
    /// When it was begun, UTC microseconds.
    pub created: i64,
    /// When it last changed, UTC microseconds.
    pub changed: i64,
    /// Devices that were assigned the release.
    pub devices: usize,
}

impl RolloutSummary {
    fn new(stored: &Stored) -> Self {
        let rollout = &stored.rollout;
        let (wave, since, stop_reason) = match &rollout.state {
            RolloutState::Running { wave, since } => (Some(wave + 1), since, None),
            RolloutState::Paused { wave, since, reason } => (Some(wave + 1), since, Some(reason.clone())),
            RolloutState::Stopping { since, reason } | RolloutState::Stopped { since, reason } => {
                (None, since, Some(reason.clone()))
            }
            RolloutState::Completed { since } => (None, since, None),
        };
        Self {
            id: rollout.id,
            line: rollout.line.to_string(),
            role: rollout.role.to_string(),
            version: rollout.target.version.0,
            state: rollout.state.name().to_owned(),
            since: since.0,
            wave,
            stop_reason,
            reason: stored.reason.clone(),
            created: rollout.created.0,
            changed: stored.changed.0,
            devices: rollout.taken.len(),
        }
    }
}

/// A rollout with everything that is known of it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RolloutView {
    /// As in a list.
    #[serde(flatten)]
    pub summary: RolloutSummary,
    /// The rules.
    #[schema(value_type = Object)]
    pub policy: Policy,
    /// Share of the fleet after each wave, in percent.
    pub waves: Vec<u8>,
    /// What it waits for now.
    pub waiting: Vec<String>,
    /// What devices did since the wave began.
    pub evidence: EvidenceView,
    /// One per device that was assigned the release.
    pub members: Vec<RolloutDevice>,
    /// What it did and why, oldest first.
    pub steps: Vec<StepView>,
}

/// What devices did since the wave began.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
pub struct EvidenceView {
    /// Predictions with the release.
    pub predictions: u64,
    /// Of those, how many failed.
    pub errors: u64,
    /// Predictions without it.
    pub control_predictions: u64,
    /// Of those, how many failed.
    pub control_errors: u64,
}

/// A device that was assigned the release.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RolloutDevice {
    /// Which device.
    pub device: String,
    /// In which wave, from 1.
    pub wave: usize,
    /// When it was assigned, UTC microseconds.
    pub assigned: i64,
    /// Version that it had before.
    pub before: Option<u32>,
    /// When it was assigned back, UTC microseconds.
    pub rolled_back: Option<i64>,
    /// `assigned`, `fetching`, `staged`, `trial`, `committed`, `undone`, `going-back` or `back`.
    pub state: String,
    /// Version that it reports as committed.
    pub committed: Option<u32>,
    /// Why it undid the release, or what its updater complains of.
    pub detail: Option<String>,
    /// When it last said anything, UTC microseconds.
    pub last_seen: Option<i64>,
}

/// One thing a rollout did.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct StepView {
    /// When, UTC microseconds.
    pub time: i64,
    /// State after it.
    pub state: String,
    /// In words.
    pub message: String,
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
    let reason = request.reason.as_deref().unwrap_or("asked for by an operator");
    let id = rollout::start(&hub, &request.line, request.version, request.policy, reason, hub.now()).await?;
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

async fn command(
    hub: &Arc<Hub>,
    id: i64,
    command: Command,
    body: super::extract::Body,
) -> Result<Json<RolloutView>, Problem> {
    // No body, and `null`, mean that no reason is given.
    let request: Option<CommandRequest> = if body.0.is_empty() { None } else { super::extract::parse_json(&body.0)? };
    let reason = request.and_then(|request| request.reason);
    rollout::command(hub, id, command, reason.as_deref().unwrap_or("asked for by an operator")).await?;
    view(hub, id).await.map(Json)
}

async fn view(hub: &Arc<Hub>, id: i64) -> Result<RolloutView, Problem> {
    let mut catalog = hub.catalog.reader().acquire().await?;
    let catalog: &mut SqliteConnection = &mut catalog;
    let stored = read::get(catalog, id).await?;
    let (plan, fleet, evidence) = read::outlook(catalog, &stored, hub.now()).await?;
    let steps = read::steps(catalog, id).await?;
    let rollout = &stored.rollout;
    let members = rollout.taken.iter().map(|(device, taken)| {
        let member = fleet.iter().find(|member| member.device == *device);
        let line = member.and_then(|member| member.line(&rollout.line, &rollout.role));
        let undone = line.and_then(|line| line.undone.as_ref()).filter(|(it, _)| it.sha256 == rollout.target.sha256);
        RolloutDevice {
            device: device.to_string(),
            wave: taken.wave + 1,
            assigned: taken.at.0,
            before: taken.before.as_ref().map(|before| before.version.0),
            rolled_back: taken.rolled_back.map(|at| at.0),
            state: device_state(member, stored_role(&stored), taken.rolled_back).to_owned(),
            committed: line.and_then(|line| line.committed).map(|package| package.version.0),
            detail: undone.map(|(_, why)| why.clone()).or_else(|| line.and_then(|line| line.error.clone())),
            last_seen: member.map(|member| member.last_seen.0),
        }
    });
    // What a plan would change is about to happen; what it only says is what is waited for.
    let waiting = if plan.next == rollout.state && plan.assign.is_empty() { plan.reasons } else { Vec::new() };
    Ok(RolloutView {
        summary: RolloutSummary::new(&stored),
        policy: rollout.policy.clone(),
        waves: rollout.policy.waves().to_vec(),
        waiting,
        evidence: EvidenceView {
            predictions: evidence.canary.trials,
            errors: evidence.canary.failures,
            control_predictions: evidence.control.trials,
            control_errors: evidence.control.failures,
        },
        members: members.collect(),
        steps: steps
            .into_iter()
            .map(|step| StepView { time: step.time, state: step.state, message: step.message })
            .collect(),
    })
}

type Wanted<'a> = (&'a LineName, &'a tributary_wire::Role, &'a ReleaseRef);

fn stored_role(stored: &Stored) -> Wanted<'_> {
    (&stored.rollout.line, &stored.rollout.role, &stored.rollout.target)
}

/// Where a device stands between its assignment and the end, in one word.
fn device_state(member: Option<&Member>, (line, role, target): Wanted<'_>, back: Option<Micros>) -> &'static str {
    let report = member.and_then(|member| member.line(line, role));
    let is_target = |package: &tributary_wire::PackageRef| package.sha256 == target.sha256;
    let runs = report.is_some_and(|report| report.committed.as_ref().is_some_and(is_target));
    let tries = report.is_some_and(|report| report.candidate.as_ref().is_some_and(is_target));
    if back.is_some() {
        return if runs || tries { "going-back" } else { "back" };
    }
    if report.is_some_and(|report| report.undone.as_ref().is_some_and(|(package, _)| is_target(package))) {
        return "undone";
    }
    match report.map(|report| report.state) {
        _ if runs => "committed",
        Some(UpdaterState::Fetching) if tries => "fetching",
        Some(UpdaterState::Staged) if tries => "staged",
        Some(UpdaterState::Trial) if tries => "trial",
        _ => "assigned",
    }
}
