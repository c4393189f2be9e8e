//! Events and predictions.

use axum::Json;
use axum::body::{Body, to_bytes};
use axum::extract::{Query, Request};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value as Json_, json};
use tributary_features::{Event, Marks};
use tributary_wire::EventId;

use super::problem::Problem;
use super::{Api, State};
use crate::serve::{MALFORMED, Outcome, Submission};
use crate::sources::{API, event_json};
use crate::state::Answer;

/// Parameters of `POST /v1/events`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Options {
    /// Whether the answer waits until the events survive a power cut.
    durable: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { durable: true }
    }
}

type Parsed = (Option<EventId>, Result<Event, String>);

/// Takes one event or many.
pub(super) async fn accept(
    state: State,
    options: Result<Query<Options>, axum::extract::rejection::QueryRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let Query(options) = options.map_err(|error| Problem::new(StatusCode::BAD_REQUEST, "query", error.body_text()))?;
    let parsed = read_events(&state, request).await?;
    let mut ids = Vec::with_capacity(parsed.len());
    let mut events = Vec::with_capacity(parsed.len());
    for (id, event) in parsed {
        let error = match event {
            Ok(event) => {
                events.push(event);
                None
            }
            Err(error) => Some(error),
        };
        ids.push((id, error));
    }
    state.metrics.count_refused(MALFORMED, ids.iter().filter(|(_, error)| error.is_some()).count() as u64);
    let mut outcomes = if events.is_empty() {
        Vec::new()
    } else {
        let submission =
            Submission { source: API.into(), rules: state.rules, events, progress: None, durable: options.durable };
        state.serving.try_submit(submission).await?
    }
    .into_iter();
    let mut refused = 0;
    let results: Vec<Json_> = ids
        .into_iter()
        .map(|(id, error)| {
            let result = match error {
                Some(error) => refusal(id.as_ref(), MALFORMED, &error),
                None => match outcomes.next() {
                    Some(Outcome::Refused(refused)) => refusal(id.as_ref(), refused.reason(), &refused.to_string()),
                    Some(Outcome::Accepted { answer, durable }) => decision(id.as_ref(), "accepted", &answer, durable),
                    Some(Outcome::Duplicate { answer, durable }) => {
                        decision(id.as_ref(), "duplicate", &answer, durable)
                    }
                    None => refusal(id.as_ref(), "internal", "no outcome for this event"),
                },
            };
            refused += usize::from(result["status"] == "refused");
            result
        })
        .collect();
    let status = if refused == results.len() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
    Ok((status, Json(json!({ "results": results }))).into_response())
}

/// Scores one event or many and stores nothing.
pub(super) async fn predict(state: State, request: Request) -> Result<Response, Problem> {
    let mut results = Vec::new();
    let mut refused = 0;
    for (id, event) in read_events(&state, request).await? {
        let answer = match event {
            Ok(event) => {
                let answer = state.serving.predict(event).await?;
                answer.map_err(|error| (error.reason(), error.to_string()))
            }
            Err(error) => Err((MALFORMED, error)),
        };
        results.push(match answer {
            Ok(answer) => decision(id.as_ref(), "predicted", &answer, false),
            Err((reason, error)) => {
                refused += 1;
                refusal(id.as_ref(), reason, &error)
            }
        });
    }
    let status = if refused == results.len() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
    Ok((status, Json(json!({ "results": results }))).into_response())
}

fn refusal(id: Option<&EventId>, reason: &str, error: &str) -> Json_ {
    json!({ "id": id, "status": "refused", "reason": reason, "error": error })
}

fn decision(id: Option<&EventId>, status: &str, answer: &Answer, durable: bool) -> Json_ {
    json!({
        "id": id,
        "status": status,
        "durable": durable,
        "accepted": answer.number,
        "version": answer.version,
        "role": answer.challenger.as_deref().unwrap_or("primary"),
        "output": answer.output,
        "decision": answer.decision,
        "degraded": answer.degraded,
        "marks": Marks::from_bits(answer.marks).names().collect::<Vec<_>>(),
        "latency_us": answer.latency_us,
    })
}

async fn read_events(api: &Api, request: Request) -> Result<Vec<Parsed>, Problem> {
    let body = read_body(api, request).await?;
    let json: Json_ = serde_json::from_slice(&body)
        .map_err(|error| Problem::new(StatusCode::BAD_REQUEST, "json", format!("the body is not JSON: {error}")))?;
    let events = event_json::many(json);
    let (found, limit) = (events.len(), api.limits.events_per_request);
    if found == 0 {
        return Err(Problem::new(StatusCode::BAD_REQUEST, "no-events", "the body has no event"));
    }
    if found > limit {
        let detail = format!("{found} events in one request; at most {limit} are taken");
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-many-events", detail));
    }
    Ok(events
        .iter()
        .map(|json| {
            let (id, event) = event_json::read(json);
            (id, event.map_err(|error| error.to_string()))
        })
        .collect())
}

/// Reads the body up to the limit. One that announces more is refused before a byte of it is read.
async fn read_body(api: &Api, request: Request) -> Result<axum::body::Bytes, Problem> {
    let limit = api.limits.body.0;
    let too_large = |found: String| {
        let detail = format!("the body has {found}; at most {limit} bytes are taken");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", detail)
    };
    let announced = request.headers().get(header::CONTENT_LENGTH);
    let announced = announced.and_then(|length| length.to_str().ok()).and_then(|length| length.parse::<u64>().ok());
    if let Some(length) = announced.filter(|length| *length > limit) {
        return Err(too_large(format!("{length} bytes")));
    }
    let body: Body = request.into_body();
    to_bytes(body, limit as usize).await.map_err(|error| {
        let limited =
            std::error::Error::source(&error).is_some_and(|cause| cause.is::<http_body_util::LengthLimitError>());
        if limited {
            too_large("more bytes".into())
        } else {
            Problem::new(StatusCode::BAD_REQUEST, "body", format!("the body cannot be read: {error}"))
        }
    })
}
