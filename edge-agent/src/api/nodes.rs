//! Orders to sensor nodes: `POST /v1/nodes/{node}/orders` with `{"rate": 2000}`, `{"threshold": 9000}`,
//! `{"send_raw": 2}`, `"report"` or `"restart"`. Images for them: `POST /v1/nodes/{node}/update` with
//! `{"version": 3}` brings that version of the signed repository, `POST /v1/nodes/{node}/image` the signed bytes of its body.
//! The first asks the whole chain of metadata; the second only whose signature it is (`image_keys`).

use axum::Json;
use axum::body::Bytes;
use axum::extract::Path;
use axum::extract::rejection::{BytesRejection, JsonRejection};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value as Json_, json};
use tributary_wire::link::{BlobKind, Order, Outcome};

use super::State;
use super::problem::Problem;
use crate::sources::serial::{ImageError, Serial};

/// What a node shall do.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum NodeOrder {
    /// Take so many samples per second.
    Rate(u32),
    /// Take a score above this as an anomaly.
    Threshold(u32),
    /// Send so many of the next windows raw.
    SendRaw(u8),
    /// Say how it is.
    Report,
    /// Start again.
    Restart,
}

impl From<NodeOrder> for Order {
    fn from(order: NodeOrder) -> Self {
        match order {
            NodeOrder::Rate(rate) => Self::Rate(rate),
            NodeOrder::Threshold(score) => Self::Threshold(score),
            NodeOrder::SendRaw(windows) => Self::SendRaw { windows },
            NodeOrder::Report => Self::Report,
            NodeOrder::Restart => Self::Restart,
        }
    }
}

/// The node of a name.
fn find<'a>(state: &'a State, name: &str) -> Result<&'a Serial, Problem> {
    state.status.nodes.iter().find(|node| node.node() == name).ok_or_else(|| {
        let known: Vec<&str> = state.status.nodes.iter().map(|node| node.node()).collect();
        let name: String = name.chars().take(80).collect();
        let detail = format!("no node {name:?} is configured; there is {known:?}");
        Problem::new(StatusCode::NOT_FOUND, "node", detail)
    })
}

/// Takes an image for a node; the status says how far it is and what became of it.
pub(super) async fn image(
    state: State,
    Path(name): Path<String>,
    bytes: Result<Bytes, BytesRejection>,
) -> Result<(StatusCode, Json<Json_>), Problem> {
    let bytes = bytes.map_err(|error| Problem::new(error.status(), "image", error.body_text()))?;
    taken(&name, find(&state, &name)?.bring(&bytes).await)
}

/// A version of the signed repository.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Update {
    version: u32,
}

/// Fetches a version for a node.
pub(super) async fn update(
    state: State,
    Path(name): Path<String>,
    update: Result<Json<Update>, JsonRejection>,
) -> Result<(StatusCode, Json<Json_>), Problem> {
    let Json(Update { version }) = update.map_err(|error| Problem::new(error.status(), "update", error.body_text()))?;
    taken(&name, find(&state, &name)?.update(version).await)
}

fn taken(name: &str, taken: Result<(BlobKind, u32), ImageError>) -> Result<(StatusCode, Json<Json_>), Problem> {
    match taken {
        Ok((kind, version)) => {
            let kind = format!("{kind:?}").to_lowercase();
            Ok((StatusCode::ACCEPTED, Json(json!({ "node": name, "kind": kind, "version": version }))))
        }
        Err(error @ (ImageError::Store(_) | ImageError::Keys(_))) => {
            tracing::error!(node = name, error = %anyhow::Error::new(error), "an image for a sensor node was not taken");
            Err(Problem::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "image",
                "the agent could not keep it; its log says why",
            ))
        }
        Err(error @ ImageError::Full) => Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy", error.to_string())),
        Err(error) => Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "image", error.to_string())),
    }
}

/// Passes an order on and waits for the node's own word.
pub(super) async fn order(
    state: State,
    Path(name): Path<String>,
    order: Result<Json<NodeOrder>, JsonRejection>,
) -> Result<Json<Json_>, Problem> {
    let Json(order) = order.map_err(|error| Problem::new(error.status(), "order", error.body_text()))?;
    let node = find(&state, &name)?;
    match node.order(order.into()).await {
        Ok(Outcome::Done) => Ok(Json(json!({ "node": name, "outcome": "done" }))),
        Ok(Outcome::OutOfRange) => Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "out-of-range",
            "the node cannot do that much or so little",
        )),
        Ok(Outcome::Unsupported) => {
            Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "unsupported", "this node has no such thing"))
        }
        Err(error) => Err(Problem::new(StatusCode::GATEWAY_TIMEOUT, "no-answer", error.to_string())),
    }
}
