//! What holds for every request: an id, a log line, limits, a time-out, problems with their path.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use tracing::Instrument;
use tributary_process::shutdown::Shutdown;
use ulid::Ulid;
use utoipa_axum::router::OpenApiRouter;

use super::extract::BodyLimit;
use super::listen::{Listeners, Peer};
use super::problem::Problem;
use super::security::Rules;
use super::{Groups, groups, idempotency};
use crate::access::guard::{Guard, guard};
use crate::hub::Hub;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Answers requests until the hub stops.
pub async fn serve(hub: Arc<Hub>, listeners: Listeners, shutdown: Shutdown) -> anyhow::Result<()> {
    let config = hub.config.api.clone();
    listeners.serve(router(hub)?, &config, shutdown).await;
    Ok(())
}

/// The whole API with everything that holds for all of it. Fails when an operation does not declare whom it is for.
pub fn router(hub: Arc<Hub>) -> anyhow::Result<Router> {
    let rules = Rules::read(&super::openapi()).context("who may call what is not declared")?;
    let guarding = Guard(hub.clone(), Arc::new(rules));
    let Groups { quick, labels, uploads, work } = groups();
    let config = hub.config.api.clone();
    let (body, short, piece) = (config.body_limit.0, config.request_timeout.0, config.body_timeout.0);
    let group = |routes: OpenApiRouter<Arc<Hub>>, limit: u64, timeout: Duration| {
        routes
            .layer(from_fn_with_state(hub.clone(), idempotency::once))
            .layer(Extension(BodyLimit { bytes: limit as usize, piece }))
            .layer(from_fn(move |request, next| limit_time(timeout, request, next)))
    };
    let all = group(quick, body, short)
        .merge(group(labels, config.labels_limit.0, short))
        .merge(group(uploads, config.package_limit.0, config.work_timeout.0))
        .merge(group(work, body, config.work_timeout.0));
    let (router, _) = OpenApiRouter::new().nest("/api/v1", all).split_for_parts();
    let router = router
        .fallback(|request: Request| async move { Problem::not_found(format!("there is no {}", request.uri().path())) })
        .method_not_allowed_fallback(|| async { Problem::method_not_allowed() })
        .layer(from_fn_with_state(guarding, guard))
        .merge(crate::pages::routes(hub.clone()))
        .layer(from_fn(harden))
        .layer(from_fn(observe))
        .with_state(hub);
    Ok(router)
}

/// What every answer says unless its handler said otherwise: keep no copy, show it in no frame, run nothing of it.
async fn harden(request: Request, next: Next) -> Response {
    // For a development machine's own name the browser would insist on HTTPS with every other program there.
    let own = |host: &HeaderValue| host.as_bytes().split(|byte| *byte == b':').next() == Some(b"localhost");
    let local = request.headers().get(header::HOST).is_some_and(own);
    let secure = request.extensions().get::<Peer>().is_some_and(|peer| peer.secure) && !local;
    let mut response = next.run(request).await;
    let unauthorized = response.status() == StatusCode::UNAUTHORIZED;
    let headers = response.headers_mut();
    let mut set = |name: HeaderName, value: &'static str| {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    };
    set(header::CACHE_CONTROL, "no-store");
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(header::REFERRER_POLICY, "no-referrer");
    set(header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'");
    set(header::X_FRAME_OPTIONS, "DENY");
    if unauthorized {
        set(header::WWW_AUTHENTICATE, "Bearer realm=\"tributary\"");
    }
    if secure {
        set(header::STRICT_TRANSPORT_SECURITY, "max-age=31536000");
    }
    response
}

async fn limit_time(timeout: Duration, request: Request, next: Next) -> Response {
    match tokio::time::timeout(timeout, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            Problem::timed_out(format!("the hub did not finish within {} ms", timeout.as_millis())).into_response()
        }
    }
}

/// Gives every request an id that its log lines and its answer carry.
async fn observe(request: Request, next: Next) -> Response {
    let given = request.headers().get(REQUEST_ID).and_then(|id| id.to_str().ok());
    let usable = |id: &&str| (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic());
    let id = given.filter(usable).map_or_else(|| Ulid::new().to_string(), str::to_owned);
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let span = tracing::info_span!("request", request_id = %id, %method, path);
    let start = Instant::now();
    let response = next.run(request).instrument(span.clone()).await;
    let mut response = with_instance(response, &path);
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    let _entered = span.entered();
    let (status, ms) = (response.status().as_u16(), start.elapsed().as_millis() as u64);
    match method {
        // Probes, dashboards and devices ask all the time; changes are what a person looks for.
        Method::GET | Method::HEAD => tracing::debug!(status, ms, "answered"),
        _ => tracing::info!(status, ms, "answered"),
    }
    response
}

/// Writes the path into a problem: handlers do not know it.
pub(super) fn with_instance(mut response: Response, path: &str) -> Response {
    let Some(problem) = response.extensions_mut().remove::<Problem>() else { return response };
    let mut again = Problem { instance: path.to_owned(), ..problem }.into_response();
    again.extensions_mut().remove::<Problem>();
    // Headers that were added to the problem stay; those of the body are made anew.
    for (name, value) in response.headers() {
        if !again.headers().contains_key(name) && *name != header::CONTENT_LENGTH {
            again.headers_mut().insert(name.clone(), value.clone());
        }
    }
    again
}
