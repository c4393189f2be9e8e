//! Commands to devices: asked, watched, taken back; and what came of them.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tributary_wire::{DeviceId, Order};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Json, Page, PageQuery, Path, Problem, Query, State};
use crate::hub::Hub;
use crate::orders::decide::State as CommandState;
use crate::orders::{self, Asked, LINES_MAX, OrderError, store};

pub(super) fn routes() -> OpenApiRouter<Arc<Hub>> {
    OpenApiRouter::new().routes(routes!(list, ask)).routes(routes!(get, cancel)).routes(routes!(result))
}

/// Lines of the log when nobody says how many.
const LINES: u32 = 200;

/// A command to a device.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Command {
    /// Its id.
    pub id: String,
    /// Of which device.
    pub device: String,
    /// What: `logs`, `diagnostics`, `restart` or `rotate-key`.
    pub order: String,
    /// At most so many lines, of `logs`.
    pub lines: Option<u32>,
    /// When it was asked, UTC microseconds.
    pub created: i64,
    /// Who asked.
    pub created_by: String,
    /// Until when it is tried, UTC microseconds.
    pub deadline: i64,
    /// Where it stands.
    pub state: CommandState,
    /// When it was sent last, UTC microseconds.
    pub sent: Option<i64>,
    /// How often it was sent.
    pub times: i64,
    /// Why it failed or was refused by the device.
    pub reason: String,
    /// Media type of the result; `result` has its body.
    pub media: Option<String>,
    /// Length of the result's body.
    pub bytes: Option<i64>,
    /// When it was finished by the device's clock, UTC microseconds.
    pub finished: Option<i64>,
    /// When it ended by the hub's clock, UTC microseconds. Later than the deadline: the device did it, and could tell
    /// only then.
    pub ended: Option<i64>,
}

impl From<store::Command> for Command {
    fn from(command: store::Command) -> Self {
        let lines = match command.order() {
            Ok(Order::Logs { lines }) => Some(lines),
            _ => None,
        };
        Self {
            id: command.id,
            device: command.device,
            order: command.name,
            lines,
            created: command.created,
            created_by: command.created_by,
            deadline: command.deadline,
            state: command.state,
            sent: command.sent,
            times: command.times,
            reason: command.reason,
            media: Some(command.media).filter(|_| command.bytes.is_some()),
            bytes: command.bytes,
            finished: command.finished,
            ended: command.ended,
        }
    }
}

impl From<OrderError> for Problem {
    fn from(error: OrderError) -> Self {
        match error {
            OrderError::NoDevice(_) | OrderError::NoCommand(..) => Self::not_found(error),
            OrderError::Refused(_) => Self::against_rules(error),
            OrderError::Deadline { .. } => Self::unacceptable("a field is refused").with("deadline_seconds", error),
            OrderError::TooOld(..) | OrderError::TooMany(_) | OrderError::NotQueued { .. } => Self::conflict(error),
            OrderError::Catalog(error) => error.into(),
        }
    }
}

/// What a device is asked for.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CommandRequest {
    /// `logs`, `diagnostics`, `restart` or `rotate-key`.
    pub order: String,
    /// At most so many lines, of `logs`; 200 unless given.
    #[serde(default)]
    pub lines: Option<u32>,
    /// How long it is tried; the hub's setting `commands.deadline` unless given.
    #[serde(default)]
    pub deadline_seconds: Option<u32>,
}

impl CommandRequest {
    fn order(&self) -> Result<Order, Problem> {
        let field = |name: &str, detail: String| Err(Problem::unacceptable("a field is refused").with(name, detail));
        if self.order != "logs" && self.lines.is_some() {
            return field("lines", format!("only logs have lines, not {}", self.order));
        }
        match self.order.as_str() {
            "logs" => match self.lines.unwrap_or(LINES) {
                lines @ 1..=LINES_MAX => Ok(Order::Logs { lines }),
                lines => field("lines", format!("{lines} is not between 1 and {LINES_MAX}")),
            },
            "diagnostics" => Ok(Order::Diagnostics),
            "restart" => Ok(Order::Restart),
            "rotate-key" => Ok(Order::RotateKey),
            other => field("order", format!("{other:?} is none of {}", Order::NAMES.join(", "))),
        }
    }
}

/// Asks a device to do something once. It is sent at once when the device is connected, else when it comes, until there
/// is a result or the deadline has passed.
#[utoipa::path(post, path = "/devices/{device}/commands", tag = "commands", security(("token" = ["operator"])),
    params(("device" = String, Path), ("Idempotency-Key" = Option<String>, Header)), request_body = CommandRequest,
    responses((status = 202, body = Command), (status = "default", body = Problem)))]
async fn ask(
    hub: State,
    Path(device): Path<DeviceId>,
    Json(request): Json<CommandRequest>,
) -> Result<Response, Problem> {
    let deadline = request.deadline_seconds.map(|seconds| Duration::from_secs(seconds.into()));
    let command = orders::ask(&hub, Asked { device, order: request.order()?, deadline }).await?;
    Ok((StatusCode::ACCEPTED, Json(Command::from(command))).into_response())
}

/// Commands of a device, newest first.
#[utoipa::path(get, path = "/devices/{device}/commands", tag = "commands", security(("token" = ["viewer"])),
    params(("device" = String, Path), PageQuery),
    responses((status = 200, body = Page<Command>), (status = "default", body = Problem)))]
async fn list(
    hub: State,
    Path(device): Path<DeviceId>,
    Query(page): Query<PageQuery>,
) -> Result<Json<Page<Command>>, Problem> {
    let (limit, before) = (page.limit()?, page.after_text()?);
    let before = (!before.is_empty()).then_some(before.as_str());
    let mut catalog = hub.catalog.reader().acquire().await?;
    store::device(&mut catalog, &device).await?.ok_or_else(|| OrderError::NoDevice(device.clone()))?;
    let commands = store::list(&mut catalog, &device, before, limit + 1).await?;
    Ok(Json(Page::cut(commands.into_iter().map(Command::from).collect(), limit, |command| command.id.clone())))
}

/// One command.
#[utoipa::path(get, path = "/devices/{device}/commands/{command}", tag = "commands",
    security(("token" = ["viewer"])), params(("device" = String, Path), ("command" = String, Path)),
    responses((status = 200, body = Command), (status = "default", body = Problem)))]
async fn get(hub: State, Path((device, id)): Path<(DeviceId, String)>) -> Result<Json<Command>, Problem> {
    Ok(Json(find(&hub, device, id).await?.into()))
}

async fn find(hub: &Hub, device: DeviceId, id: String) -> Result<store::Command, OrderError> {
    let found = store::find(&mut *hub.catalog.reader().acquire().await?, &device, &id).await?;
    found.ok_or(OrderError::NoCommand(device, id))
}

/// Takes a command back that was not sent yet.
#[utoipa::path(delete, path = "/devices/{device}/commands/{command}", tag = "commands",
    security(("token" = ["operator"])), params(("device" = String, Path), ("command" = String, Path)),
    responses((status = 200, body = Command), (status = "default", body = Problem)))]
async fn cancel(hub: State, Path((device, id)): Path<(DeviceId, String)>) -> Result<Json<Command>, Problem> {
    Ok(Json(orders::cancel(&hub, &device, &id).await?.into()))
}

/// What the device sent: a text, or a bundle. For operators, since logs and settings may say more than a viewer should
/// know.
#[utoipa::path(get, path = "/devices/{device}/commands/{command}/result", tag = "commands",
    security(("token" = ["operator"])), params(("device" = String, Path), ("command" = String, Path)),
    responses((status = 200, body = Vec<u8>, content_type = "application/octet-stream"),
              (status = "default", body = Problem)))]
async fn result(hub: State, Path((device, id)): Path<(DeviceId, String)>) -> Result<Response, Problem> {
    let command = find(&hub, device, id).await?;
    let body = store::body(&mut *hub.catalog.reader().acquire().await?, &command.id).await?;
    let body = body.ok_or_else(|| {
        let state = command.state.name();
        Problem::not_found(format!("command {} is {state} and has no result to show", command.id))
    })?;
    // A device's word is shown as what it says it is, but never opened as a page of the hub.
    let media = HeaderValue::from_str(&command.media);
    let media = media.unwrap_or(HeaderValue::from_static("application/octet-stream"));
    let attachment = HeaderValue::from_static("attachment");
    let headers = [
        (header::CONTENT_TYPE, media),
        (header::CONTENT_DISPOSITION, attachment),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::CACHE_CONTROL, HeaderValue::from_static("private, no-store")),
    ];
    Ok((headers, body).into_response())
}
