//! `Idempotency-Key`: a POST that carries one takes effect once; the same request again gets the same answer.
//!
//! The key is durable before the effect, its answer after it. A hub that was stopped between the two does not know
//! whether there was an effect, says so, and does not repeat it.
//!
//! Each token has keys of its own: nobody gets an answer that was given to somebody else, or takes a key away. For
//! whoever has no token the header does nothing: strangers would fill the catalog, and what devices and newcomers ask
//! may be asked again as it is.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use axum::body::{Body as HttpBody, to_bytes};
use axum::extract::{FromRequest, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tributary_release::Hasher;
use tributary_wire::Micros;

use super::extract::Body;
use super::problem::Problem;
use super::server::with_instance;
use crate::access::{Caller, Who};
use crate::hub::Hub;

const KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// How long an answer can be asked for again.
const KEPT_MICROS: i64 = Micros::DAY;
/// Instead of a status, while there is no answer yet.
const BEGUN: i64 = 0;
/// Instead of a status, when the answer held a secret, which is not kept.
const SHOWN_ONCE: i64 = 1;
/// Answers are small; a larger one is passed on but not kept.
const ANSWER_LIMIT: usize = 1 << 20;

/// Keys of requests that are being answered now.
#[derive(Debug, Default)]
pub struct InFlight(Mutex<HashSet<String>>);

impl InFlight {
    fn enter(self: &Arc<Self>, key: &str) -> Option<Entered> {
        let mut keys = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        keys.insert(key.to_owned()).then(|| Entered { all: self.clone(), key: key.to_owned() })
    }
}

struct Entered {
    all: Arc<InFlight>,
    key: String,
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.all.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).remove(&self.key);
    }
}

#[derive(sqlx::FromRow)]
struct Known {
    request: String,
    status: i64,
    content_type: String,
    body: Vec<u8>,
}

/// The layer.
pub async fn once(State(hub): State<Arc<Hub>>, request: Request, next: Next) -> Response {
    let Some(key) = request.headers().get(KEY).filter(|_| request.method() == Method::POST) else {
        return next.run(request).await;
    };
    let key = match key.to_str() {
        Ok(key) if (1..=128).contains(&key.len()) => key.to_owned(),
        _ => return Problem::malformed("Idempotency-Key is not 1 to 128 visible ASCII characters").into_response(),
    };
    let Caller { who: Who::Token { id: token, .. }, .. } = Caller::current() else {
        return next.run(request).await;
    };
    // A caller that hangs up must not stop the work between its effect and the keeping of its answer.
    match tokio::spawn(Caller::current().scope(answer(hub, token, key, request, next))).await {
        Ok(Ok(response)) => response,
        Ok(Err(problem)) => problem.into_response(),
        Err(error) => Problem::from(anyhow::Error::new(error).context("answer a request")).into_response(),
    }
}

async fn answer(hub: Arc<Hub>, token: String, name: String, request: Request, next: Next) -> Result<Response, Problem> {
    let key = format!("{token}/{name}");
    let Some(_entered) = hub.in_flight.enter(&key) else {
        return Err(Problem::conflict(format!("a request with Idempotency-Key {name:?} is being answered now")));
    };
    let (parts, body) = request.into_parts();
    let Body(bytes) = Body::from_request(Request::from_parts(parts.clone(), body), &()).await?;
    let mut hasher = Hasher::new();
    for part in [parts.method.as_str(), parts.uri.path(), parts.uri.query().unwrap_or_default()] {
        hasher.update(part.as_bytes());
        hasher.update(b"\n");
    }
    hasher.update(&bytes);
    let request_hash = hasher.finish().to_string();
    let now = hub.now();
    let known: Option<Known> = sqlx::query_as(
        "select request, status, content_type, body from idempotency_keys where key = $1 and created > $2",
    )
    .bind(&key)
    .bind(now.0 - KEPT_MICROS)
    .fetch_optional(hub.catalog.reader())
    .await?;
    if let Some(known) = known {
        if known.request != request_hash {
            let detail = format!("Idempotency-Key {name:?} was used for another request; every request needs its own");
            return Err(Problem::unacceptable(detail));
        }
        if known.status == BEGUN {
            let detail = format!(
                "a request with Idempotency-Key {name:?} was interrupted; look whether it took effect, then use another key"
            );
            return Err(Problem::conflict(detail));
        }
        if known.status == SHOWN_ONCE {
            let detail = format!(
                "the request with Idempotency-Key {name:?} took effect before; its answer held a secret and is not shown again"
            );
            return Err(Problem::conflict(detail));
        }
        return Ok(replay(known));
    }
    begin(&hub, &key, &request_hash, now).await?;
    let path = parts.uri.path().to_owned();
    let response = next.run(Request::from_parts(parts, HttpBody::from(bytes))).await;
    let response = with_instance(response, &path);
    // The hub's own failures are not answers to keep: the same request may pass later.
    if response.status().is_server_error() || response.status() == StatusCode::TOO_MANY_REQUESTS {
        let mut catalog = hub.catalog.write().await?;
        sqlx::query("delete from idempotency_keys where key = $1").bind(&key).execute(&mut *catalog).await?;
        catalog.commit().await?;
        return Ok(response);
    }
    keep(&hub, &key, response).await
}

async fn begin(hub: &Hub, key: &str, request: &str, now: Micros) -> Result<(), Problem> {
    let mut catalog = hub.catalog.write().await?;
    sqlx::query("delete from idempotency_keys where created <= $1")
        .bind(now.0 - KEPT_MICROS)
        .execute(&mut *catalog)
        .await?;
    let query = "insert into idempotency_keys (key, request, status, content_type, body, created)
                 values ($1, $2, $3, '', $4, $5)";
    let insert = sqlx::query(query).bind(key).bind(request).bind(BEGUN).bind(Vec::<u8>::new()).bind(now.0);
    insert.execute(&mut *catalog).await?;
    catalog.commit().await?;
    Ok(())
}

fn replay(known: Known) -> Response {
    let status = StatusCode::from_u16(known.status as u16).unwrap_or(StatusCode::OK);
    let mut response = (status, known.body).into_response();
    let content_type = HeaderValue::from_str(&known.content_type);
    response.headers_mut().insert(header::CONTENT_TYPE, content_type.unwrap_or(HeaderValue::from_static("text/plain")));
    response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    response
}

async fn keep(hub: &Hub, key: &str, response: Response) -> Result<Response, Problem> {
    let (parts, body) = response.into_parts();
    let bytes =
        to_bytes(body, ANSWER_LIMIT).await.map_err(|error| anyhow::Error::new(error).context("read an answer"))?;
    let content_type =
        parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let secret = parts.headers.get(header::CACHE_CONTROL).is_some_and(|value| value == "no-store");
    let (status, kept) = match secret {
        true => (SHOWN_ONCE, Vec::new()),
        false => (i64::from(parts.status.as_u16()), bytes.to_vec()),
    };
    let mut catalog = hub.catalog.write().await?;
    sqlx::query("update idempotency_keys set status = $2, content_type = $3, body = $4 where key = $1")
        .bind(key)
        .bind(status)
        .bind(content_type)
        .bind(kept)
        .execute(&mut *catalog)
        .await?;
    catalog.commit().await?;
    Ok(Response::from_parts(parts, HttpBody::from(bytes)))
}
