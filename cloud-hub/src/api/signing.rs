//! Who signs the repository: its standing, the hub's public keys, and what people signed elsewhere.

use std::sync::Arc;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tributary_process::config::HumanDuration;
use tributary_release::{RESERVED_ROLES, line_role};
use tributary_wire::{LineName, Sha256};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::extract::Body;
use super::{Json, Path, Problem, Query, State};
use crate::audit::{self, Change};
use crate::hub::Hub;
use crate::publish::ceremony::{self, ASSIGNMENTS, LIFE};
use crate::publish::roles::key_id;
use crate::publish::status::{RoleStatus, status};
use crate::publish::{self, Applied, Applying, Purpose};

pub(super) fn routes() -> OpenApiRouter<Arc<Hub>> {
    OpenApiRouter::new().routes(routes!(standing)).routes(routes!(online, make)).routes(routes!(draft))
}

/// Signed files and what they name may be larger than other bodies.
pub(super) fn upload_routes() -> OpenApiRouter<Arc<Hub>> {
    OpenApiRouter::new().routes(routes!(apply)).routes(routes!(content))
}

/// Where the repository stands.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Standing {
    /// Every role; none while the hub has no repository.
    pub roles: Vec<RoleStatus>,
}

/// Every role of the signed repository: who may sign it, until when it is good, what to do next.
#[utoipa::path(get, path = "/signing", tag = "signing", security(("token" = ["viewer"])),
    responses((status = 200, body = Standing), (status = "default", body = Problem)))]
async fn standing(hub: State) -> Result<Json<Standing>, Problem> {
    let mut catalog = hub.catalog.reader().acquire().await?;
    Ok(Json(Standing { roles: status(&mut catalog, &hub.keys, hub.now()).await? }))
}

/// A public key whose secret half the hub holds.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct OnlineKey {
    /// What for: `snapshot`, `timestamp`, `assignments`, or the role of an unattended line.
    pub role: String,
    /// Its name in metadata.
    pub id: String,
    /// The key, 64 hexadecimal digits.
    pub public: String,
}

/// The hub's public keys.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct OnlineKeys {
    /// In the order in which they were made, per role.
    pub items: Vec<OnlineKey>,
}

fn online_keys(hub: &Hub, purpose: &Purpose) -> Vec<OnlineKey> {
    let key = |key: &tributary_release::SigningKey| {
        let public = key.verifying_key();
        OnlineKey { role: role(purpose), id: key_id(&public), public: public.to_hex() }
    };
    hub.keys.of(purpose).iter().map(key).collect()
}

fn role(purpose: &Purpose) -> String {
    match purpose {
        Purpose::Snapshot => "snapshot".to_owned(),
        Purpose::Timestamp => "timestamp".to_owned(),
        Purpose::Assignment => ASSIGNMENTS.to_owned(),
        Purpose::Line(line) => line_role(line),
    }
}

/// The purpose of a role that the hub can have a key for.
fn purpose(role: &str) -> Result<Purpose, Problem> {
    match (role, role.strip_prefix("models/")) {
        ("snapshot", _) => Ok(Purpose::Snapshot),
        ("timestamp", _) => Ok(Purpose::Timestamp),
        (ASSIGNMENTS, _) => Ok(Purpose::Assignment),
        (_, Some(line)) => Ok(Purpose::Line(LineName::new(line)?)),
        (other, None) => {
            let expected = format!("snapshot, timestamp, {ASSIGNMENTS} or models/LINE");
            Err(Problem::unacceptable(format!("the hub has no keys for {other:?}; it can have them for {expected}")))
        }
    }
}

/// The public halves of the keys that the hub holds.
#[utoipa::path(get, path = "/signing/keys", tag = "signing", security(("token" = ["viewer"])),
    responses((status = 200, body = OnlineKeys), (status = "default", body = Problem)))]
async fn online(hub: State) -> Result<Json<OnlineKeys>, Problem> {
    let lines: Vec<String> =
        sqlx::query_scalar("select name from lines order by name").fetch_all(hub.catalog.reader()).await?;
    let lines = lines.iter().filter_map(|line| LineName::new(line).ok()).map(Purpose::Line);
    let purposes = [Purpose::Snapshot, Purpose::Timestamp, Purpose::Assignment].into_iter().chain(lines);
    Ok(Json(OnlineKeys { items: purposes.flat_map(|purpose| online_keys(&hub, &purpose)).collect() }))
}

/// A key that the hub shall have.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyRequest {
    /// What for: `snapshot`, `timestamp`, `assignments` or `models/LINE`.
    pub role: String,
    /// A new one even if there is one, to replace it.
    #[serde(default)]
    pub further: bool,
}

/// Keys that the hub keeps for one role at most. Old ones stay until a person deletes them.
const MAX_PER_ROLE: usize = 16;
/// Keys that the hub keeps at most. A line need not exist yet when it gets its key.
const MAX_KEYS: usize = 4096;

/// Makes a key on the hub, or shows the one that is there. It counts once root or targets list it.
#[utoipa::path(post, path = "/signing/keys", tag = "signing", security(("token" = ["admin"])), request_body = KeyRequest,
    responses((status = 200, body = OnlineKey), (status = "default", body = Problem)))]
async fn make(hub: State, Json(request): Json<KeyRequest>) -> Result<Json<OnlineKey>, Problem> {
    let purpose = purpose(&request.role)?;
    let _alone = hub.keys.making.lock().await;
    let known = hub.keys.of(&purpose);
    let key = match known.first() {
        Some(key) if !request.further => key.clone(),
        _ => {
            let (role, of_role, all) = (&request.role, known.len(), hub.keys.all().len());
            if of_role >= MAX_PER_ROLE || all >= MAX_KEYS {
                return Err(Problem::conflict(format!(
                    "the hub holds {of_role} keys for {role} ({MAX_PER_ROLE} at most) and {all} in all ({MAX_KEYS} at \
                     most); delete those in its folder `keys` that `cloud-hub keys status` does not show, and restart it"
                )));
            }
            let key = publish::new_key()?;
            // Told first: there is never a key that the audit log does not know.
            let to = json!({"key": key_id(&key.verifying_key())});
            let change = Change { action: "key.make", subject: role, from: Value::Null, to };
            let mut catalog = hub.catalog.write().await?;
            audit::record(&mut catalog, change, hub.now()).await?;
            catalog.commit().await?;
            let (keeper, made) = (hub.0.clone(), key.clone());
            let kept = tokio::task::spawn_blocking(move || keeper.keys.keep(&purpose, &made));
            kept.await.map_err(anyhow::Error::new)??;
            key
        }
    };
    let public = key.verifying_key();
    Ok(Json(OnlineKey { role: request.role, id: key_id(&public), public: public.to_hex() }))
}

/// What a draft shall say.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct DraftQuery {
    /// How long it shall be good, such as `90d`; a year unless given.
    #[serde(default)]
    #[param(value_type = Option<String>)]
    life: Option<HumanDuration>,
}

/// The next version of a line's role with its published releases and those that wait, unsigned.
#[utoipa::path(get, path = "/signing/lines/{line}/draft", tag = "signing", security(("token" = ["viewer"])),
    params(("line" = String, Path), DraftQuery),
    responses((status = 200, body = Value, description = "Metadata without signatures"),
        (status = "default", body = Problem)))]
async fn draft(hub: State, Path(line): Path<LineName>, Query(query): Query<DraftQuery>) -> Result<Response, Problem> {
    let mut catalog = hub.catalog.reader().acquire().await?;
    let life = query.life.map_or(LIFE, |life| life.0);
    let expires = ceremony::expiry(hub.now(), life).map_err(Problem::unacceptable)?;
    let bytes = publish::draft_line(&mut catalog, &line, expires).await?;
    Ok(([(header::CONTENT_TYPE, "application/json")], bytes).into_response())
}

/// Signed files.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApplyRequest {
    /// Their texts, exactly as they were signed: root, targets, delegated roles, in any order. All are taken or none.
    pub files: Vec<String>,
    /// Releases, files and roles that are no longer named are to go.
    #[serde(default)]
    pub withdraw: bool,
}

/// Takes files that people signed.
#[utoipa::path(post, path = "/signing/files", tag = "signing", security(("token" = ["admin"])), request_body = ApplyRequest,
    responses((status = 200, body = Applied), (status = "default", body = Problem)))]
async fn apply(hub: State, Json(request): Json<ApplyRequest>) -> Result<Json<Applied>, Problem> {
    let files: Vec<Vec<u8>> = request.files.into_iter().map(String::into_bytes).collect();
    Ok(Json(publish::apply(&hub, &files, Applying { withdraw: request.withdraw }).await?))
}

/// Content that was stored.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ContentStored {
    /// Its hash.
    #[schema(value_type = String)]
    pub sha256: Sha256,
    /// Its length in bytes.
    pub length: u64,
}

/// Stores the content of a file of the agent, nodes or features, before the metadata that names it is applied.
#[utoipa::path(post, path = "/signing/contents", tag = "signing", security(("token" = ["admin"])),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 201, body = ContentStored), (status = "default", body = Problem)))]
async fn content(hub: State, Body(body): Body) -> Result<Response, Problem> {
    if body.is_empty() {
        let roles = RESERVED_ROLES.map(|(role, _)| role).join(", ");
        return Err(Problem::malformed(format!("the body is empty; expected a file for {roles}")));
    }
    let length = body.len() as u64;
    let (hub, kept) = (hub.0.clone(), hub.0.clone());
    let put = tokio::task::spawn_blocking(move || hub.packages.put(&body)).await.map_err(anyhow::Error::new)?;
    let sha256 = put.map_err(crate::registry::RegistryError::File)?;
    let subject = sha256.to_string();
    let change =
        Change { action: "content.store", subject: &subject, from: Value::Null, to: json!({"length": length}) };
    let mut catalog = kept.catalog.write().await?;
    audit::record(&mut catalog, change, kept.now()).await?;
    catalog.commit().await?;
    Ok((StatusCode::CREATED, axum::Json(ContentStored { sha256, length })).into_response())
}
