//! What handlers take: bodies, queries and paths, read strictly, each mistake named as a problem.

use std::time::Duration;

use axum::body::{BodyDataStream, Bytes};
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::problem::Problem;

/// A JSON body. Reading refuses what the type does not name (all our request types deny unknown fields).
#[derive(Debug, Clone, Copy)]
pub struct Json<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let found = content_type(request.headers());
        if !(found.is_empty() || found == "application/json" || found.ends_with("+json")) {
            return Err(Problem::unsupported_media(&found, "application/json"));
        }
        let body = Body::from_request(request, state).await?;
        parse_json(&body.0).map(Self)
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

/// Reads JSON; the problem says at which line and column it stopped making sense.
pub fn parse_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => Problem::malformed("a field of the body is wrong")
            .with(format!("line {} column {}", error.line(), error.column()), strip_position(&error.to_string())),
        _ => Problem::malformed(format!("the body is not JSON: {error}")),
    })
}

/// serde_json ends its texts with the position, which we say apart.
fn strip_position(text: &str) -> &str {
    text.rsplit_once(" at line ").map_or(text, |(text, _)| text)
}

/// A whole body within the route's limit.
#[derive(Debug, Clone)]
pub struct Body(pub Bytes);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let none = BodyLimit { bytes: 0, piece: Duration::ZERO };
        let BodyLimit { bytes: limit, piece: patience } = *request.extensions().get::<BodyLimit>().unwrap_or(&none);
        let mut stream = request.into_body().into_data_stream();
        let mut body = Vec::new();
        // A body that drips in would hold what was read of it for as long as the whole request may take.
        let slow = |_| Problem::slow(format!("no byte of the body came for {} ms", patience.as_millis()));
        while let Some(piece) = tokio::time::timeout(patience, stream.next()).await.map_err(slow)? {
            let piece = piece.map_err(|error| Problem::malformed(format!("the body could not be read: {error}")))?;
            if body.len() + piece.len() > limit {
                forget(stream).await;
                return Err(Problem::too_large(limit));
            }
            body.extend_from_slice(&piece);
        }
        Ok(Self(body.into()))
    }
}

/// Reads on for a while and keeps nothing: a caller that is still sending would see a broken connection instead of
/// the answer. Bounded in time, so that nobody can make the hub listen for ever.
pub(crate) async fn forget(mut stream: BodyDataStream) {
    let rest = async { while let Some(Ok(_)) = stream.next().await {} };
    let _ = tokio::time::timeout(Duration::from_secs(5), rest).await;
}

/// How large and how slow a body the present route takes; set by the router, told in the problem.
#[derive(Debug, Clone, Copy)]
pub struct BodyLimit {
    /// In all.
    pub bytes: usize,
    /// Longest wait for the next piece.
    pub piece: Duration,
}

/// The query string, read strictly.
#[derive(Debug, Clone, Copy)]
pub struct Query<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match axum::extract::Query::<T>::from_request_parts(parts, state).await {
            Ok(query) => Ok(Self(query.0)),
            Err(QueryRejection::FailedToDeserializeQueryString(error)) => {
                Err(Problem::malformed("a parameter of the query is wrong").with("query", error.body_text()))
            }
            Err(other) => Err(Problem::malformed(other.body_text())),
        }
    }
}

/// The variable parts of the path, read into ids.
#[derive(Debug, Clone, Copy)]
pub struct Path<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match axum::extract::Path::<T>::from_request_parts(parts, state).await {
            Ok(path) => Ok(Self(path.0)),
            Err(PathRejection::FailedToDeserializePathParams(error)) => Err(Problem::malformed(error.body_text())),
            Err(other) => Err(Problem::malformed(other.body_text())),
        }
    }
}

/// The content type without its parameters, in lower case; empty when the header is missing.
pub fn content_type(headers: &HeaderMap) -> String {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// The revision in `If-Match` (`"3"`), when the header is there.
pub fn if_match(headers: &HeaderMap) -> Result<Option<i64>, Problem> {
    let Some(value) = headers.get(header::IF_MATCH) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim();
    if text == "*" {
        return Ok(None);
    }
    match text.trim_matches('"').parse() {
        Ok(revision) => Ok(Some(revision)),
        Err(_) => Err(Problem::malformed(format!("If-Match {text:?} is not a revision such as \"3\""))),
    }
}
