//! A package's way to an agent, as an operator would send it: upload, publish, roll out.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use hyper::Method;
use serde_json::{Value, json};
use tributary_fraud::{Transaction, VIEW_TOML};

use super::body;
use crate::local::Local;
use crate::package::TRIAL;
use crate::programs::{Agent, Hub, LINE, PATIENCE};

/// Returns when the agent has committed the package. Its trial needs events; those come from `payments`.
pub async fn ship<'a>(
    hub: &Hub,
    agent: &Agent,
    package: &[u8],
    local: &mut Local,
    payments: &mut impl Iterator<Item = &'a Transaction>,
) -> anyhow::Result<()> {
    let upload = async |path: &str, kind: &str, body: Vec<u8>| {
        let path = format!("/api/v1/{path}");
        let answer = hub.api.send(Method::POST, &path, kind, body.into()).await?;
        answer.accepted().with_context(|| format!("POST {path}"))
    };
    let tell = async |method: Method, path: &str, body: Value| -> anyhow::Result<Value> {
        let path = format!("/api/v1/{path}");
        hub.api.call(method.clone(), &path, &body).await.with_context(|| format!("{method} {path}"))
    };
    upload("views", "application/toml", VIEW_TOML.into()).await?;
    let view = tributary_features::View::from_toml(VIEW_TOML)?;
    let settings = json!({ "view": view.name(), "retrain": "manual" });
    tell(Method::PUT, &format!("lines/{LINE}"), settings).await?;
    upload(&format!("lines/{LINE}/versions"), "application/octet-stream", package.to_vec()).await?;
    tell(Method::POST, &format!("lines/{LINE}/versions/1/publish"), json!({})).await?;
    // A rollout is for the devices that the hub knows.
    let deadline = Instant::now() + PATIENCE;
    while hub
        .api
        .get::<Value>("/api/v1/devices/edge-1")
        .await
        .map_or(Value::Null, |device| device["report"].clone())
        .is_null()
    {
        wait(deadline, "the hub has no report of the agent").await?;
    }
    let rollout = json!({ "line": LINE, "version": 1, "policy": { "strategy": "all", "min_predictions": TRIAL } });
    tell(Method::POST, "rollouts", rollout).await?;
    loop {
        let status: Value = agent.local.get("/v1/status").await?;
        let line = &status["lines"][0];
        if line["committed"] == 1 && line["candidate"].is_null() && status["serving"]["version"] == 1 {
            return Ok(());
        }
        wait(deadline, &format!("the agent has not committed the package: {line}")).await?;
        if status["serving"]["version"] == 1 {
            let payment = payments.next().context("there are too few payments for a trial")?;
            local.post("/v1/events?durable=true", &body(payment))?;
        }
    }
}

async fn wait(deadline: Instant, missing: &str) -> anyhow::Result<()> {
    if Instant::now() > deadline {
        bail!("not in time: {missing}");
    }
    tokio::time::sleep(Duration::from_millis(20)).await;
    Ok(())
}
