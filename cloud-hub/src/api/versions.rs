//! Versions of a line: listed, shown, uploaded, published.

use std::sync::Arc;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tributary_release::Package;
use tributary_wire::{LineName, VersionNumber};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::extract::Body;
use super::{Json, Page, PageQuery, Path, Problem, Query, State};
use crate::hub::{Hub, HubEvent};
use crate::lines::{self, story};
use crate::publish::{self, Release, Withdrawing, Withdrawn};
use crate::registry::RegistryError;
use crate::registry::versions::{self, Origin, VersionRecord};
use crate::registry::{aliases, needs};

pub(super) fn routes() -> OpenApiRouter<Arc<Hub>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(get)).routes(routes!(publish)).routes(routes!(withdraw))
}

pub(super) fn upload_routes() -> OpenApiRouter<Arc<Hub>> {
    OpenApiRouter::new().routes(routes!(upload))
}

/// A version.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Version {
    /// Its line.
    pub line: String,
    /// Its number.
    pub version: i64,
    /// Hash of its package file; once it is published, `repository/targets/models/{line}/{sha256}.v{version}.tpk`.
    pub sha256: String,
    /// Length of its package file in bytes.
    pub length: i64,
    /// `trained` or `uploaded`.
    pub origin: String,
    /// The run that made it.
    pub run: Option<i64>,
    /// The dataset it was trained on.
    pub dataset: Option<i64>,
    /// The seed it was trained with.
    pub seed: Option<u64>,
    /// The champion it was measured against.
    pub parent: Option<i64>,
    /// Whether it was published.
    pub published: bool,
    /// State of its release: `waiting` for a person's signature, `published`, or `withdrawn`; absent while nobody asked
    /// for one.
    pub release: Option<String>,
    /// The aliases that point to it.
    pub aliases: Vec<String>,
    /// The package's manifest.
    #[schema(value_type = Object)]
    pub manifest: Value,
    /// What the run found.
    #[schema(value_type = Option<Object>)]
    pub result: Option<Value>,
    /// When it was registered, UTC microseconds.
    pub created: i64,
}

async fn view(catalog: &mut sqlx::SqliteConnection, record: VersionRecord) -> Result<Version, RegistryError> {
    let line = LineName::new(&record.line).map_err(|error| RegistryError::unreadable("a line", error))?;
    let release = publish::find(catalog, &line, VersionNumber(record.version as u32)).await?;
    let aliases = aliases::all(catalog, &line).await?.into_iter().filter(|change| change.version == record.version);
    let json = |text: &str| serde_json::from_str(text).map_err(|error| RegistryError::unreadable("a version", error));
    Ok(Version {
        aliases: aliases.map(|change| change.alias).collect(),
        manifest: json(&record.manifest_json)?,
        result: Some(json(&record.result_json)?).filter(|result| !result.is_null()),
        line: record.line,
        version: record.version,
        sha256: record.sha256,
        length: record.length,
        origin: record.origin,
        run: record.run,
        dataset: record.dataset,
        seed: record.seed.map(|seed| seed as u64),
        parent: record.parent,
        published: release.as_ref().is_some_and(Release::is_published),
        release: release.map(|release| release.state),
        created: record.created,
    })
}

/// The versions of a line, newest first.
#[utoipa::path(get, path = "/lines/{line}/versions", tag = "models",
    security(("token" = ["viewer"])), params(("line" = String, Path), PageQuery),
    responses((status = 200, body = Page<Version>), (status = "default", body = Problem)))]
async fn list(
    hub: State,
    Path(line): Path<LineName>,
    Query(page): Query<PageQuery>,
) -> Result<Json<Page<Version>>, Problem> {
    let limit = page.limit()?;
    let mut catalog = hub.catalog.reader().acquire().await?;
    lines::get(&mut catalog, &line).await?;
    let mut views = Vec::new();
    for record in versions::list(&mut catalog, &line, page.before_number()?, limit + 1).await? {
        views.push(view(&mut catalog, record).await?);
    }
    Ok(Json(Page::cut(views, limit, |version| version.version.to_string())))
}

/// One version with its manifest, lineage and scores.
#[utoipa::path(get, path = "/lines/{line}/versions/{version}", tag = "models",
    security(("token" = ["viewer"])),
    params(("line" = String, Path), ("version" = u32, Path)),
    responses((status = 200, body = Version), (status = "default", body = Problem)))]
async fn get(hub: State, Path((line, version)): Path<(LineName, VersionNumber)>) -> Result<Json<Version>, Problem> {
    let mut catalog = hub.catalog.reader().acquire().await?;
    let record = versions::get(&mut catalog, &line, version).await?;
    Ok(Json(view(&mut catalog, record).await?))
}

/// Uploads a package file as a version. Every byte is checked first; a damaged member is named.
#[utoipa::path(post, path = "/lines/{line}/versions", tag = "models",
    security(("token" = ["operator"])),
    params(("line" = String, Path), ("Idempotency-Key" = Option<String>, Header)),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 201, body = Version), (status = 200, body = Version), (status = "default", body = Problem)))]
async fn upload(hub: State, Path(line): Path<LineName>, Body(body): Body) -> Result<Response, Problem> {
    lines::get(&mut *hub.catalog.reader().acquire().await?, &line).await?;
    let packages = hub.packages.clone();
    let expected = line.clone();
    let read = tokio::task::spawn_blocking(move || {
        let package = Package::read(&body)?;
        // Nothing is kept of a package that will be refused.
        if package.manifest.line != expected {
            return Err(RegistryError::OtherLine { expected, found: package.manifest.line });
        }
        needs::check(&package)?;
        let stored = (packages.put(&body)?, body.len() as u64);
        Ok((package, stored))
    });
    let (package, stored) = read.await.map_err(anyhow::Error::new)??;
    let (version, now) = (package.manifest.version, hub.now());
    let mut catalog = hub.catalog.write().await?;
    let (record, new) = versions::register(&mut catalog, &line, &package, stored, Origin::Uploaded, now).await?;
    if new {
        aliases::set(&mut catalog, &line, aliases::CANDIDATE, version, "uploaded", None, now).await?;
        let message = format!("version {version} was uploaded");
        let detail = json!({"version": version, "package": record.sha256});
        story::tell(&mut catalog, &line, "version-registered", &message, detail, now).await?;
    }
    let version = view(&mut catalog, record).await?;
    catalog.commit().await?;
    Ok((if new { StatusCode::CREATED } else { StatusCode::OK }, Json(version)).into_response())
}

/// Publishes a version. The hub signs the release of an unattended line at once; that of an attended one has the state
/// `waiting` until metadata that a person signed is applied. Asking again gives the same release.
#[utoipa::path(post, path = "/lines/{line}/versions/{version}/publish", tag = "models",
    security(("token" = ["operator"])),
    params(("line" = String, Path), ("version" = u32, Path)),
    responses((status = 201, body = Release), (status = 200, body = Release), (status = "default", body = Problem)))]
async fn publish(hub: State, Path((line, version)): Path<(LineName, VersionNumber)>) -> Result<Response, Problem> {
    let now = hub.now();
    let mut catalog = hub.catalog.write().await?;
    let (release, new) = publish::publish(&hub, &mut catalog, &line, version, now).await?;
    catalog.commit().await?;
    Ok((if new { StatusCode::CREATED } else { StatusCode::OK }, Json(release)).into_response())
}

/// Longest reason for a withdrawal.
const REASON_MAX: usize = 500;

/// Why a release is taken back.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WithdrawRequest {
    /// In words; kept in the audit log.
    pub reason: String,
    /// Also when a rollout leads to it, or devices are to run it. These keep what they have; who has not fetched it yet
    /// cannot any more.
    #[serde(default)]
    pub even_if_wanted: bool,
}

/// Takes a release back: it is signed no more, and devices refuse it. The hub does that for an unattended line; that of an
/// attended one has to be signed without it by its key. What was withdrawn never becomes a release again. Asking again
/// changes nothing.
#[utoipa::path(post, path = "/lines/{line}/versions/{version}/withdraw", tag = "models",
    security(("token" = ["operator"])), request_body = WithdrawRequest,
    params(("line" = String, Path), ("version" = u32, Path)),
    responses((status = 200, body = Withdrawn), (status = "default", body = Problem)))]
async fn withdraw(
    hub: State,
    Path((line, version)): Path<(LineName, VersionNumber)>,
    Json(WithdrawRequest { reason, even_if_wanted }): Json<WithdrawRequest>,
) -> Result<Json<Withdrawn>, Problem> {
    let (reason, length) = (reason.trim(), reason.chars().count());
    if reason.is_empty() || length > REASON_MAX {
        let detail = format!("the reason has {length} characters, expected 1 to {REASON_MAX}");
        return Err(Problem::unacceptable(detail).with("reason", "tell in a few words why"));
    }
    let mut catalog = hub.catalog.write().await?;
    let withdrawing = Withdrawing { reason, even_if_wanted };
    let done = publish::withdraw(&hub, &mut catalog, (&line, version), withdrawing, hub.now()).await?;
    catalog.commit().await?;
    hub.bus.publish(HubEvent::TakenBack);
    Ok(Json(done))
}
