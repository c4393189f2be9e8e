//! API tokens: made, listed, revoked. A token's text is in the answer that makes it and nowhere else.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tributary_process::config::HumanDuration;
use tributary_wire::Micros;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Json, Page, PageQuery, Path, Problem, Query, State};
use crate::access::tokens::{self, ApiToken, Listed, NAME_BYTES, Wish};
use crate::access::{Caller, Role, Who};
use crate::hub::Hub;

pub(super) fn routes() -> OpenApiRouter<Arc<Hub>> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(get, revoke))
}

/// How long a token lasts unless its maker says otherwise.
const LIFETIME: Duration = Duration::from_secs(90 * 86_400);

/// A token to make.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// What or whom it is for.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// How long it lasts, such as `12h` or `30d`; 90 days unless given.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub expires_in: Option<HumanDuration>,
    /// It lasts until it is revoked.
    #[serde(default)]
    pub never_expires: bool,
}

impl TokenRequest {
    fn wish(self, now: Micros) -> Result<Wish, Problem> {
        let name = self.name.trim();
        if name.is_empty() || name.len() > NAME_BYTES || name.chars().any(char::is_control) {
            let detail = format!("name {name:?} is not 1 to {NAME_BYTES} bytes without control characters");
            return Err(Problem::unacceptable(detail));
        }
        let lifetime = match (self.expires_in, self.never_expires) {
            (Some(_), true) => return Err(Problem::unacceptable("expires_in and never_expires contradict each other")),
            (Some(HumanDuration(Duration::ZERO)), _) => return Err(Problem::unacceptable("expires_in is zero")),
            (Some(lifetime), false) => Some(lifetime.0),
            (None, false) => Some(LIFETIME),
            (None, true) => None,
        };
        let end = |lifetime: Duration| {
            let micros = i64::try_from(lifetime.as_micros()).ok().and_then(|micros| now.0.checked_add(micros));
            micros.map(Micros).ok_or_else(|| Problem::unacceptable("expires_in is too long; use never_expires"))
        };
        Ok(Wish { name: name.to_owned(), role: self.role, expires: lifetime.map(end).transpose()? })
    }
}

/// A token that was made.
#[derive(Debug, Clone, Serialize, ToSchema)]
struct TokenMade {
    /// The token itself. It is shown only now.
    token: String,
    #[serde(flatten)]
    listed: Listed,
}

/// All tokens, also those that have ended, by id.
#[utoipa::path(get, path = "/tokens", tag = "access",
    security(("token" = ["admin"])), params(PageQuery),
    responses((status = 200, body = Page<Listed>), (status = "default", body = Problem)))]
async fn list(hub: State, Query(page): Query<PageQuery>) -> Result<Json<Page<Listed>>, Problem> {
    let limit = page.limit()?;
    let tokens = tokens::list(hub.catalog.reader(), &page.after_text()?, limit + 1).await?;
    Ok(Json(Page::cut(tokens, limit, |token| token.id.clone())))
}

/// One token.
#[utoipa::path(get, path = "/tokens/{token}", tag = "access",
    security(("token" = ["admin"])), params(("token" = String, Path)),
    responses((status = 200, body = Listed), (status = "default", body = Problem)))]
async fn get(hub: State, Path(id): Path<String>) -> Result<Json<Listed>, Problem> {
    find(&hub, &id).await.map(Json)
}

/// Makes a token. Its text is in this answer and is kept nowhere.
#[utoipa::path(post, path = "/tokens", tag = "access",
    security(("token" = ["admin"])), params(("Idempotency-Key" = Option<String>, Header)),
    request_body = TokenRequest,
    responses((status = 201, body = TokenMade), (status = "default", body = Problem)))]
async fn create(hub: State, caller: Caller, Json(request): Json<TokenRequest>) -> Result<Response, Problem> {
    let now = hub.now();
    let wish = request.wish(now)?;
    let token = ApiToken::random()?;
    let maker = match caller.who {
        Who::Token { id, .. } => Some(id),
        _ => None,
    };
    let mut catalog = hub.catalog.write().await?;
    tokens::add(&mut catalog, &token, &wish, maker.as_deref(), now).await?;
    catalog.commit().await?;
    let made = TokenMade { token: token.reveal(), listed: find(&hub, &token.id).await? };
    Ok((StatusCode::CREATED, [(header::CACHE_CONTROL, "no-store")], Json(made)).into_response())
}

/// Revokes a token: it and its sessions end at once. The last admin's is not revoked, because nobody could make another.
#[utoipa::path(delete, path = "/tokens/{token}", tag = "access",
    security(("token" = ["admin"])), params(("token" = String, Path)),
    responses((status = 200, body = Listed), (status = "default", body = Problem)))]
async fn revoke(hub: State, Path(id): Path<String>) -> Result<Json<Listed>, Problem> {
    let now = hub.now();
    let mut catalog = hub.catalog.write().await?;
    let token = tokens::get(&mut *catalog, &id).await?.ok_or_else(|| missing(&id))?;
    if token.role == Role::Admin.name()
        && token.revoked.is_none()
        && tokens::admins_without(&mut *catalog, &id, now).await? == 0
    {
        let detail = format!("token {id} is the last of an admin; make another one first");
        return Err(Problem::conflict(detail));
    }
    tokens::revoke(&mut catalog, &token, now).await?;
    catalog.commit().await?;
    hub.access.revoked();
    find(&hub, &id).await.map(Json)
}

async fn find(hub: &Hub, id: &str) -> Result<Listed, Problem> {
    tokens::get(hub.catalog.reader(), id).await?.ok_or_else(|| missing(id))
}

fn missing(id: &str) -> Problem {
    Problem::not_found(format!("there is no token {id:?}"))
}
