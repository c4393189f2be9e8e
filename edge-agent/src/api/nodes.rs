//! Orders to sensor nodes: `POST /v1/nodes/{node}/orders` with `{"rate": 2000}`, `{"threshold": 9000}`,
//! `{"send_raw": 2}`, `"report"` or `"restart"`.

use axum::Json;
use axum::extract::Path;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value as Json_, json};
use tributary_wire::link::{Order, Outcome};

use super::State;
use super::problem::Problem;

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

/// Passes an order on and waits for the node's own word.
pub(super) async fn order(
    state: State,
    Path(name): Path<String>,
    order: Result<Json<NodeOrder>, JsonRejection>,
) -> Result<Json<Json_>, Problem> {
    let Json(order) = order.map_err(|error| Problem::new(error.status(), "order", error.body_text()))?;
    let Some(node) = state.status.nodes.iter().find(|node| node.node() == name) else {
        let known: Vec<&str> = state.status.nodes.iter().map(|node| node.node()).collect();
        let name: String = name.chars().take(80).collect();
        let detail = format!("no node {name:?} is configured; there is {known:?}");
        return Err(Problem::new(StatusCode::NOT_FOUND, "node", detail));
    };
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
