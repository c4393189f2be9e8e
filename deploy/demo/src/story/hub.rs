//! What the story asks the hub, over its web API like everybody else.

use anyhow::{Context, Result};
use bytes::Bytes;
use hyper::Method;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::Story;
use crate::fleet::LINE;
use crate::summary;

/// A page of a list.
#[derive(Debug, Deserialize)]
pub struct Page<T> {
    pub items: Vec<T>,
}

/// A training run.
#[derive(Debug, Clone, Deserialize)]
pub struct Run {
    pub id: i64,
    pub state: String,
    pub origin: String,
    pub reason: String,
    pub version: Option<u32>,
    pub error: Option<String>,
    #[serde(default)]
    pub progress: Vec<Value>,
    pub result: Option<RunResult>,
}

/// What a run found on the later days of its dataset.
#[derive(Debug, Clone, Deserialize)]
pub struct RunResult {
    pub serve: String,
    pub package_bytes: u64,
    pub f32: Scores,
    pub int8: Scores,
    pub training: Part,
    pub test: Part,
    pub quantization: Quantization,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Scores {
    pub auc_roc: f64,
    pub average_precision: f64,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Part {
    pub rows: u64,
    pub positives: u64,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Quantization {
    pub reason: String,
}

/// A rollout.
#[derive(Debug, Clone, Deserialize)]
pub struct Rollout {
    pub id: i64,
    pub version: u32,
    pub state: String,
    pub wave: Option<usize>,
    pub stop_reason: Option<String>,
    #[serde(default)]
    pub waiting: Vec<String>,
    #[serde(default)]
    pub members: Vec<Member>,
}

/// A device in a rollout.
#[derive(Debug, Clone, Deserialize)]
pub struct Member {
    pub device: String,
    pub wave: usize,
    pub assigned: i64,
    pub state: String,
    pub detail: Option<String>,
}

/// A version of the line.
#[derive(Debug, Clone, Deserialize)]
pub struct Version {
    pub version: u32,
    pub sha256: String,
    pub length: u64,
}

impl Story {
    pub async fn ask<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.fleet.api.get(&format!("/api/v1/{path}")).await.with_context(|| format!("GET {path}"))
    }

    pub async fn tell_hub<T: DeserializeOwned>(&self, method: Method, path: &str, body: &Value) -> Result<T> {
        let answer = self.fleet.api.call(method, &format!("/api/v1/{path}"), body).await;
        answer.with_context(|| path.to_owned())
    }

    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T> {
        self.tell_hub(Method::POST, path, body).await
    }

    pub async fn send(&self, path: &str, content_type: &str, body: Vec<u8>) -> Result<Value> {
        let path = format!("/api/v1/{path}");
        let answer = self.fleet.api.send(Method::POST, &path, content_type, Bytes::from(body)).await?;
        answer.accepted().and_then(|answer| answer.json()).with_context(|| format!("POST {path}"))
    }

    /// The settings of the demo's line: small nets and short trials, because a person is watching.
    pub async fn set_line(&self, rollout: Value) -> Result<()> {
        let settings = json!({
            "view": "card-risk",
            "training": {
                "range": "21d",
                "split": {"validation_days": 3, "test_days": 4},
                "trial": {"min_predictions": 100, "max_latency_p99_us": 2_000_000, "timeout_s": 600},
            },
            "promotion": {"min_score": 0.8},
            "rollout": rollout,
            "retrain": "on-drift",
            "cool_down": "5s",
            "auto_rollout": true,
        });
        self.tell_hub::<Value>(Method::PUT, &format!("lines/{LINE}"), &settings).await?;
        Ok(())
    }

    pub async fn runs(&self) -> Result<Vec<Run>> {
        Ok(self.ask::<Page<Run>>(&format!("runs?line={LINE}")).await?.items)
    }

    pub async fn run(&self, id: i64) -> Result<Run> {
        self.ask(&format!("runs/{id}")).await
    }

    /// The newest rollout of a version, with its devices.
    pub async fn rollout_of(&self, version: u32) -> Result<Option<Rollout>> {
        let rollouts: Page<Rollout> = self.ask("rollouts").await?;
        match rollouts.items.iter().find(|rollout| rollout.version == version) {
            Some(rollout) => self.ask(&format!("rollouts/{}", rollout.id)).await.map(Some),
            None => Ok(None),
        }
    }

    /// Alerts that are about models, not about transport.
    pub async fn model_alerts(&self) -> Result<Vec<Value>> {
        let alerts: Page<Value> = self.ask("alerts").await?;
        let about_models = |alert: &Value| {
            let kind = alert["kind"].as_str().unwrap_or_default();
            kind.contains("drift") || kind.contains("quality")
        };
        Ok(alerts.items.into_iter().filter(about_models).collect())
    }

    /// Writes down what a run found.
    pub fn note_version(&mut self, version: u32, result: &RunResult) {
        self.summary.versions.insert(
            version,
            summary::Version {
                auc_f32: result.f32.auc_roc,
                auc_int8: result.int8.auc_roc,
                average_precision_f32: result.f32.average_precision,
                average_precision_int8: result.int8.average_precision,
                package_bytes: result.package_bytes,
                serves: result.serve.clone(),
            },
        );
    }
}
