//! Sessions of browsers, and who one is.

use std::sync::Arc;

use axum::Extension;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tributary_wire::Micros;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Json, Peer, Problem, State};
use crate::access::guard::{Shown, from_elsewhere, limited};
use crate::access::secret::Secret;
use crate::access::tokens::Verified;
use crate::access::{Caller, Denied, Role, Who, sessions};
use crate::hub::Hub;

pub(super) fn routes() -> OpenApiRouter<Arc<Hub>> {
    OpenApiRouter::new().routes(routes!(get, begin, end))
}

/// Signs in.
#[derive(Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SessionRequest {
    /// The API token.
    token: String,
}

/// Who calls.
#[derive(Debug, Clone, Serialize, ToSchema)]
struct Session {
    /// Id of the token.
    token: String,
    /// Its name.
    name: String,
    /// What it may do.
    role: Role,
    /// When the session or the token ends, UTC microseconds; absent: when it is revoked.
    expires: Option<i64>,
    /// In a session: what every change must carry as `x-csrf-token`.
    csrf: Option<String>,
}

impl Session {
    fn new(token: &Verified, session: Option<(Micros, &Secret)>) -> Self {
        let ends = [token.expires, session.map(|(expires, _)| expires)];
        Self {
            token: token.id.clone(),
            name: token.name.clone(),
            role: token.role,
            expires: ends.into_iter().flatten().min().map(|end| end.0),
            csrf: session.map(|(_, secret)| sessions::csrf(secret).reveal()),
        }
    }
}

/// Who calls, by token or session.
#[utoipa::path(get, path = "/session", tag = "access",
    security(("token" = ["viewer"])),
    responses((status = 200, body = Session), (status = "default", body = Problem)))]
async fn get(Extension(shown): Extension<Shown>) -> Result<Json<Session>, Problem> {
    match &shown {
        Shown::Token(token) => Ok(Json(Session::new(token, None))),
        Shown::Session(session, secret) => Ok(Json(Session::new(&session.token, Some((session.expires, secret))))),
        Shown::Nothing | Shown::Certificate(_) => Err(Problem::forbidden("there is neither token nor session")),
    }
}

/// Begins a session in a browser: the answer sets its cookie.
#[utoipa::path(post, path = "/session", tag = "access",
    security(()), request_body = SessionRequest,
    responses((status = 201, body = Session), (status = "default", body = Problem)))]
async fn begin(
    hub: State,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    Json(request): Json<SessionRequest>,
) -> Result<Response, Problem> {
    // Else another site's page could sign a browser in under the attacker's name.
    if from_elsewhere(&peer, &headers) {
        return Err(Problem::forbidden("a session begins on a page of this hub"));
    }
    let token = match hub.access.check(&request.token, peer.address.ip()).await {
        Ok(token) => token,
        Err(Denied::Limited { after }) => return Ok(limited(after)),
        Err(Denied::Wrong(problem)) => return Err(Problem::unauthorized(problem)),
        Err(Denied::Catalog(error)) => return Err(error.into()),
    };
    let (now, secret, length) = (hub.now(), Secret::random()?, hub.access.config().session.0);
    let end = Micros(now.0.saturating_add(i64::try_from(length.as_micros()).unwrap_or(i64::MAX)));
    let end = token.expires.map_or(end, |expires| expires.min(end));
    let who = Who::Token { id: token.id.clone(), role: token.role };
    let begin = async {
        let mut catalog = hub.catalog.write().await?;
        let begun = sessions::begin(&mut catalog, &secret, &token, end, now).await?;
        catalog.commit().await?;
        Ok::<bool, sqlx::Error>(begun)
    };
    if !(Caller { who, from: Some(peer.address), certificate: None }).scope(begin).await? {
        return Err(Problem::unauthorized(format!("the token {} was revoked", token.id)));
    }
    hub.access.begun(&secret, peer.address.ip());
    let cookie = sessions::set_cookie(Some(&secret), length.as_secs(), peer.secure);
    let headers = [(header::SET_COOKIE, cookie), (header::CACHE_CONTROL, "no-store".to_owned())];
    Ok((StatusCode::CREATED, headers, Json(Session::new(&token, Some((end, &secret))))).into_response())
}

/// Ends the session.
#[utoipa::path(delete, path = "/session", tag = "access",
    security(("token" = ["viewer"])),
    responses((status = 204), (status = "default", body = Problem)))]
async fn end(
    hub: State,
    Extension(peer): Extension<Peer>,
    Extension(shown): Extension<Shown>,
) -> Result<Response, Problem> {
    let Shown::Session(session, _) = shown else {
        return Err(Problem::not_found("the call came with a token: there is no session to end"));
    };
    let mut catalog = hub.catalog.write().await?;
    sessions::end(&mut catalog, &session, hub.now()).await?;
    catalog.commit().await?;
    let cookie = sessions::set_cookie(None, 0, peer.secure);
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie)]).into_response())
}
