//! Errors as the web API shows them: `application/problem+json` after RFC 9457.

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Seconds after which somebody may ask again for what was not available.
const AGAIN_AFTER: header::HeaderValue = header::HeaderValue::from_static("2");

/// What went wrong, for programs (`type`, `status`) and for people (`title`, `detail`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// Stable name of the kind of problem, such as `/problems/not-found`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind in words.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// What exactly was wrong, what was expected and what was found.
    pub detail: String,
    /// Path of the request; filled in on the way out.
    #[serde(default)]
    pub instance: String,
    /// One per part of the request that was wrong.
    #[serde(default)]
    pub errors: Vec<FieldError>,
}

/// One wrong part of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FieldError {
    /// Where: a field, a row or a line, such as `rows[3].label`.
    pub at: String,
    /// What was wrong there.
    pub detail: String,
}

impl Problem {
    pub(super) fn new(status: StatusCode, kind: &str, title: &str, detail: impl ToString) -> Self {
        Self {
            kind: format!("/problems/{kind}"),
            title: title.to_owned(),
            status: status.as_u16(),
            detail: detail.to_string(),
            instance: String::new(),
            errors: Vec::new(),
        }
    }

    /// Nobody known calls.
    pub fn unauthorized(detail: impl ToString) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", "Who calls is not known", detail)
    }

    /// Who calls may not do this.
    pub fn forbidden(detail: impl ToString) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", "Not allowed", detail)
    }

    /// The request was meant for another listener.
    pub fn misdirected(detail: impl ToString) -> Self {
        Self::new(StatusCode::MISDIRECTED_REQUEST, "misdirected", "Wrong listener", detail)
    }

    /// Too much came from this caller.
    pub fn too_many(detail: impl ToString) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "too-many-requests", "Too many requests", detail)
    }

    /// The thing named in the path does not exist.
    pub fn not_found(detail: impl ToString) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "Not found", detail)
    }

    /// The request is malformed: not JSON, an unknown field, a wrong type.
    pub fn malformed(detail: impl ToString) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed", "Malformed request", detail)
    }

    /// The hub's settings do not allow it, whoever asks.
    pub fn against_rules(detail: impl ToString) -> Self {
        Self::new(StatusCode::FORBIDDEN, "against-rules", "Not allowed by the hub's settings", detail)
    }

    /// The request can be read, but what it says is not acceptable.
    pub fn unacceptable(detail: impl ToString) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "unacceptable", "Request cannot be carried out", detail)
    }

    /// What is there now contradicts the request.
    pub fn conflict(detail: impl ToString) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", "Conflict", detail)
    }

    /// `If-Match` named something else than what is there.
    pub fn precondition_failed(detail: impl ToString) -> Self {
        Self::new(StatusCode::PRECONDITION_FAILED, "precondition-failed", "Changed by somebody else", detail)
    }

    /// A part of the hub is full or stopping; the same request may pass later.
    pub fn unavailable(detail: impl ToString) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Not available now", detail)
    }

    /// The request took longer than the hub allows.
    pub fn timed_out(detail: impl ToString) -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, "timed-out", "Took too long", detail)
    }

    /// The caller took too long to send its request.
    pub fn slow(detail: impl ToString) -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "slow-request", "Request came too slowly", detail)
    }

    /// The body is larger than this route takes.
    pub fn too_large(limit_bytes: usize) -> Self {
        let detail = format!("the body is larger than {limit_bytes} bytes, the limit of this route");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "Body too large", detail)
    }

    /// The body is of a kind that this route does not read.
    pub fn unsupported_media(found: &str, expected: &str) -> Self {
        let detail = format!("content type {found:?} is not read here; expected {expected}");
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", "Unsupported content type", detail)
    }

    /// The range asked for lies outside the file.
    pub fn range_not_satisfiable(detail: impl ToString) -> Self {
        Self::new(StatusCode::RANGE_NOT_SATISFIABLE, "range-not-satisfiable", "Range outside the file", detail)
    }

    /// The path exists, the method does not.
    pub fn method_not_allowed() -> Self {
        let detail = "this path does not take this method; see /api/v1/openapi.json";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "Method not allowed", detail)
    }

    /// The hub failed. The cause goes into the log, under the request id, not to the caller.
    pub fn internal() -> Self {
        let detail = "the hub failed; its log has the cause under the x-request-id of this answer";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "Internal error", detail)
    }

    /// Adds one wrong part.
    #[must_use]
    pub fn with(mut self, at: impl ToString, detail: impl ToString) -> Self {
        self.errors.push(FieldError { at: at.to_string(), detail: detail.to_string() });
        self
    }

    /// Adds many wrong parts.
    #[must_use]
    pub fn with_all(mut self, errors: Vec<FieldError>) -> Self {
        self.errors.extend(errors);
        self
    }
}

/// Whatever a handler did not foresee: logged once, here, with its whole chain. What may pass is told as that.
impl From<anyhow::Error> for Problem {
    fn from(error: anyhow::Error) -> Self {
        tracing::error!(error = format!("{error:#}"), "request failed");
        error.chain().find_map(passing).map_or_else(Self::internal, Self::unavailable)
    }
}

/// In words, if the same request may well succeed a moment later, or once somebody has made room.
fn passing(cause: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    const BUSY: &str = "the catalog is busy with other requests";
    const FULL: &str = "the hub's disk is full, or the one that it writes to";
    if let Some(error) = cause.downcast_ref::<std::io::Error>() {
        return (error.kind() == std::io::ErrorKind::StorageFull).then_some(FULL);
    }
    let code = match cause.downcast_ref::<sqlx::Error>()? {
        sqlx::Error::PoolTimedOut => return Some(BUSY),
        error => error.as_database_error()?.code()?.parse::<i32>().ok()?,
    };
    // SQLITE_BUSY, SQLITE_LOCKED and SQLITE_FULL, and what is derived from them.
    match code & 0xff {
        5 | 6 => Some(BUSY),
        13 => Some(FULL),
        _ => None,
    }
}

impl From<sqlx::Error> for Problem {
    fn from(error: sqlx::Error) -> Self {
        anyhow::Error::new(error).context("catalog").into()
    }
}

impl From<tributary_wire::IdError> for Problem {
    fn from(error: tributary_wire::IdError) -> Self {
        Self::malformed(error)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, [(header::CONTENT_TYPE, "application/problem+json")], Json(&self)).into_response();
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, const { header::HeaderValue::from_static("application/problem+json") });
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, AGAIN_AFTER);
        }
        // The outermost layer writes the path into it: handlers do not know it.
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use sqlx::sqlite::SqliteConnectOptions;
    use sqlx::{ConnectOptions as _, Connection as _};

    use super::*;

    #[tokio::test]
    async fn what_passes_is_not_told_as_a_failure_of_the_hub() {
        let folder = tempfile::tempdir().unwrap();
        let options = SqliteConnectOptions::new().filename(folder.path().join("catalog.db")).create_if_missing(true);
        let options = options.busy_timeout(std::time::Duration::ZERO);
        let (mut one, mut other) = (options.connect().await.unwrap(), options.connect().await.unwrap());
        let writing = one.begin_with("begin immediate").await.unwrap();
        let busy = other.begin_with("begin immediate").await.map(drop).unwrap_err();
        drop(writing);
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        for (error, words) in [
            (anyhow::Error::new(busy).context("make a dataset"), "busy"),
            (sqlx::Error::PoolTimedOut.into(), "busy"),
            (anyhow::Error::new(full).context("write"), "disk is full"),
        ] {
            let problem = Problem::from(error);
            assert_eq!(problem.status, 503);
            assert!(problem.detail.contains(words), "{}", problem.detail);
            assert!(problem.into_response().headers().contains_key(header::RETRY_AFTER));
        }
        for error in [sqlx::Error::RowNotFound.into(), anyhow::anyhow!("a cause")] {
            let response = Problem::from(error).into_response();
            assert_eq!(response.status(), 500);
            assert!(!response.headers().contains_key(header::RETRY_AFTER));
        }
    }
}
