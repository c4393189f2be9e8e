//! Backups on the hub's side, and what a restored hub waits for.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tributary_wire::{DeviceId, LineName, VersionNumber};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Json, Path, Problem, State};
use crate::backup::status::{RestoreStatus, status};
use crate::backup::{self, BackupError, Restore, schedule};
use crate::hub::Hub;

pub(super) fn routes() -> OpenApiRouter<Arc<Hub>> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(restored))
        .routes(routes!(go_on))
        .routes(routes!(overrule))
        .routes(routes!(accept))
}

pub(super) fn work_routes() -> OpenApiRouter<Arc<Hub>> {
    OpenApiRouter::new().routes(routes!(make))
}

impl From<BackupError> for Problem {
    fn from(error: BackupError) -> Self {
        match error {
            BackupError::Busy | BackupError::InTheWay { .. } | BackupError::NoRoom { .. } => Self::conflict(error),
            BackupError::TooSoon { .. } => Self::too_many(error),
            error => anyhow::Error::new(error).into(),
        }
    }
}

/// A backup in the hub's folder.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct BackupView {
    /// Its file on the hub's machine.
    pub file: String,
    /// How long it is.
    pub bytes: u64,
    /// When it was taken, UTC microseconds.
    pub made: Option<i64>,
    /// Why it cannot be read, if so.
    pub problem: Option<String>,
    /// What the catalog names and was not there; empty unless the hub itself is damaged.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub missing: Vec<String>,
}

/// All backups.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct BackupList {
    /// Oldest first.
    pub items: Vec<BackupView>,
}

fn folder(hub: &Hub) -> Result<std::path::PathBuf, Problem> {
    let none = || Problem::conflict("this hub has no folder for backups: the setting backup.folder is empty");
    hub.config.backup.folder().cloned().ok_or_else(none)
}

/// The backups in the folder of the setting `backup.folder`.
#[utoipa::path(get, path = "/backups", tag = "backups", security(("token" = ["operator"])),
    responses((status = 200, body = BackupList), (status = "default", body = Problem)))]
async fn list(hub: State) -> Result<Json<BackupList>, Problem> {
    let folder = folder(&hub)?;
    if !folder.is_dir() {
        return Ok(Json(BackupList { items: Vec::new() }));
    }
    let listed = tokio::task::spawn_blocking(move || backup::list(&folder)).await.map_err(anyhow::Error::from)??;
    let view = |listed: backup::Listed| BackupView {
        file: listed.path.display().to_string(),
        bytes: listed.bytes,
        made: listed.made,
        problem: listed.problem,
        missing: Vec::new(),
    };
    Ok(Json(BackupList { items: listed.into_iter().map(view).collect() }))
}

/// Makes a backup now, in the folder of the setting `backup.folder`. It stays on the hub's machine: there are keys
/// inside. One at a time, and not sooner after the last one asked for than `backup.pause`.
#[utoipa::path(post, path = "/backups", tag = "backups", security(("token" = ["admin"])),
    responses((status = 201, body = BackupView), (status = "default", body = Problem)))]
async fn make(hub: State) -> Result<(axum::http::StatusCode, Json<BackupView>), Problem> {
    folder(&hub)?;
    let hub = hub.0;
    // To its end, even when whoever asked goes away.
    let caller = crate::access::Caller::current();
    let made = tokio::spawn(caller.scope(async move { schedule::make_asked(&hub).await })).await;
    let made = made.map_err(anyhow::Error::from)??;
    let view = BackupView {
        file: made.path.display().to_string(),
        bytes: made.bytes,
        made: Some(made.manifest.made.0),
        problem: None,
        missing: made.missing,
    };
    Ok((axum::http::StatusCode::CREATED, Json(view)))
}

async fn found(hub: &Hub) -> Result<RestoreStatus, Problem> {
    let mut catalog = hub.catalog.reader().acquire().await?;
    let found = status(&mut catalog, &hub.config.backup).await?;
    found.ok_or_else(|| Problem::not_found("this hub was never restored from a backup"))
}

/// Where a restored hub stands.
#[utoipa::path(get, path = "/restore", tag = "backups", security(("token" = ["viewer"])),
    responses((status = 200, body = RestoreStatus), (status = "default", body = Problem)))]
async fn restored(hub: State) -> Result<Json<RestoreStatus>, Problem> {
    found(&hub).await.map(Json)
}

/// Why something is decided.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Decision {
    /// In words, for the audit log.
    pub reason: String,
}

impl Decision {
    fn checked(self) -> Result<String, Problem> {
        let problem = |text: &str| Problem::unacceptable("the reason cannot be used").with("reason", text);
        match self.reason.trim() {
            "" => Err(problem("expected some words")),
            long if long.len() > 500 => Err(problem("expected at most 500 bytes")),
            reason => Ok(reason.to_owned()),
        }
    }
}

/// Lets rollouts go on after a restore although not enough devices have reported.
#[utoipa::path(post, path = "/restore/continue", tag = "backups", security(("token" = ["admin"])),
    request_body = Decision, responses((status = 200, body = RestoreStatus), (status = "default", body = Problem)))]
async fn go_on(hub: State, Json(decision): Json<Decision>) -> Result<Json<RestoreStatus>, Problem> {
    let reason = decision.checked()?;
    let restore = Restore::newest(&mut *hub.catalog.reader().acquire().await?).await?;
    let never = || Problem::not_found("this hub was never restored from a backup");
    if !backup::go_on(&hub, &restore.ok_or_else(never)?, &reason, hub.now()).await? {
        return Err(Problem::conflict("rollouts do not wait: they have gone on already"));
    }
    found(&hub).await.map(Json)
}

/// Lets devices be moved away from a package that this hub does not know.
#[utoipa::path(post, path = "/restore/packages/{line}/{version}/overrule", tag = "backups",
    security(("token" = ["admin"])),
    params(("line" = String, Path), ("version" = u32, Path)), request_body = Decision,
    responses((status = 200, body = RestoreStatus), (status = "default", body = Problem)))]
async fn overrule(
    hub: State,
    Path((line, version)): Path<(LineName, u32)>,
    Json(decision): Json<Decision>,
) -> Result<Json<RestoreStatus>, Problem> {
    let reason = decision.checked()?;
    let mut catalog = hub.catalog.write().await?;
    if !backup::overrule(&mut catalog, &line, VersionNumber(version), &reason, hub.now()).await? {
        return Err(Problem::not_found(format!("no device runs an unknown version {version} of {line}")));
    }
    catalog.commit().await?;
    found(&hub).await.map(Json)
}

/// Takes in the certificates that a device showed and that were issued after the backup.
#[utoipa::path(post, path = "/restore/devices/{device}/accept", tag = "backups", security(("token" = ["admin"])),
    params(("device" = String, Path)), request_body = Decision,
    responses((status = 200, body = RestoreStatus), (status = "default", body = Problem)))]
async fn accept(
    hub: State,
    Path(device): Path<DeviceId>,
    Json(decision): Json<Decision>,
) -> Result<Json<RestoreStatus>, Problem> {
    let reason = decision.checked()?;
    if !hub.identity.accept_again(&device, &reason, hub.now()).await? {
        let problem = format!("{device} has shown no certificate that was issued after the backup");
        return Err(Problem::not_found(problem));
    }
    found(&hub).await.map(Json)
}
