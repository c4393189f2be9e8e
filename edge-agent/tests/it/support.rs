//! An agent in this process, on free sockets in a temporary folder.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use edge_agent::config::Config;
use edge_agent::sources::TimeDomain;
use edge_agent::{Agent, BuildError};
use hyper::Method;
use serde_json::{Value, json};
use tributary_process::http::{Client, Endpoint, Response};
use tributary_process::shutdown::Shutdown;

pub const VIEW: &str = r#"
name = "test"
version = 1
time_zone = "UTC"
lateness = "1h"
label_delay = "7d"

[[entity]]
name = "customer_id"
kind = "int"

[[value]]
name = "amount"
kind = "double"
unit = "EUR"
required = true

[[feature]]
name = "amount"
kind = "value"
value = "amount"

[[feature]]
name = "count_1d"
kind = "count"
scope = "device"
entity = "customer_id"
window = "1d"
"#;

/// Settings of an agent in `folder` that knows no hub.
pub fn config(folder: &tempfile::TempDir) -> Config {
    let view = folder.path().join("view.toml");
    std::fs::write(&view, VIEW).unwrap();
    let mut config = Config { state_dir: folder.path().join("state"), view: Some(view), ..Config::default() };
    config.listen.tcp = Some("127.0.0.1:0".parse().unwrap());
    config.sources.api.time = TimeDomain::Replay;
    config
}

pub struct Running {
    pub tcp: Client,
    pub unix: Client,
    pub address: std::net::SocketAddr,
    shutdown: Shutdown,
    task: tokio::task::JoinHandle<anyhow::Result<()>>,
}

impl Running {
    pub async fn start(config: Config) -> Self {
        Self::try_start(config).await.unwrap()
    }

    pub async fn try_start(config: Config) -> Result<Self, BuildError> {
        let agent = Agent::build(config).await?;
        let address = agent.tcp_address().unwrap();
        let path: PathBuf = agent.unix_path().unwrap().to_owned();
        let shutdown = Shutdown::new();
        let task = tokio::spawn(agent.run(shutdown.clone()));
        let client = |endpoint| Client::new(endpoint).with_timeout(Duration::from_secs(60));
        Ok(Self {
            tcp: client(Endpoint::Tcp(address.to_string())),
            unix: client(Endpoint::Unix(path)),
            address,
            shutdown,
            task,
        })
    }

    pub async fn stop(self) {
        self.shutdown.give();
        self.task.await.unwrap().unwrap();
    }

    pub async fn post(&self, path: &str, body: &Value) -> Response {
        self.post_bytes(path, serde_json::to_vec(body).unwrap()).await
    }

    pub async fn post_bytes(&self, path: &str, body: Vec<u8>) -> Response {
        self.tcp.send(Method::POST, path, "application/json", Bytes::from(body)).await.unwrap()
    }

    pub async fn status(&self) -> Value {
        self.unix.get("/v1/status").await.unwrap()
    }
}

/// Event `n` of customer `n` modulo 3, a minute after the one before.
pub fn event(n: i64) -> Value {
    json!({
        "id": format!("e-{n}"),
        "time": 1_522_540_800_000_000_i64 + n * 60_000_000,
        "entities": {"customer_id": n % 3},
        "values": {"amount": n as f64 + 0.5},
    })
}

pub fn results(response: &Response) -> Vec<Value> {
    let body: Value = response.json().unwrap();
    body["results"].as_array().unwrap_or_else(|| panic!("{body}")).clone()
}
