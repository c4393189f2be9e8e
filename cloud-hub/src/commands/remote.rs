//! Calls to a hub's web API, and what their failures mean for the exit code.

use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use tributary_process::http::{Client, ClientError};
use tributary_process::{out, outln};

use super::Global;
use super::show;

/// Where a hub listens when nobody says otherwise.
const DEFAULT_HUB: &str = "http://127.0.0.1:8080";

/// A hub, and how its answers are shown.
#[derive(Debug)]
pub struct Remote {
    client: Client,
    json: bool,
}

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The arguments make no sense together.
    #[error("{0}")]
    Usage(String),
    /// The call failed.
    #[error(transparent)]
    Call(#[from] ClientError),
    /// Anything else.
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

impl Failure {
    /// Prints it to standard error; the exit code.
    pub fn report(self, json: bool) -> ExitCode {
        let (code, body) = match &self {
            Self::Usage(_) => (2, None),
            Self::Call(ClientError::Unreachable { .. } | ClientError::TimedOut { .. }) => (3, None),
            Self::Call(ClientError::Refused { status, body, .. }) => match *status {
                StatusCode::NOT_FOUND => (4, Some(body.clone())),
                status if status.is_client_error() => (5, Some(body.clone())),
                _ => (1, Some(body.clone())),
            },
            Self::Call(_) | Self::Other(_) => (1, None),
        };
        let problem: Option<Value> = body.and_then(|body| serde_json::from_slice(&body).ok());
        let message = match &self {
            Self::Other(error) => format!("{error:#}"),
            other => crate::api::chain(other),
        };
        if json {
            let problem = problem.unwrap_or_else(|| json!({"detail": message}));
            eprintln!("{problem:#}");
            return ExitCode::from(code);
        }
        eprintln!("error: {message}");
        for error in problem.iter().filter_map(|problem| problem["errors"].as_array()).flatten() {
            eprintln!("  {}: {}", show::text(&error["at"]), show::text(&error["detail"]));
        }
        if code == 3 {
            eprintln!("Is the hub running? Name its address with --hub URL or CLOUD_HUB_URL.");
        }
        ExitCode::from(code)
    }
}

impl Remote {
    /// From the flags and the environment.
    pub fn new(global: &Global) -> Result<Self, Failure> {
        let set = std::env::var("CLOUD_HUB_URL").ok().filter(|url| !url.is_empty());
        let address = global.hub.clone().or(set).unwrap_or_else(|| DEFAULT_HUB.to_owned());
        let endpoint = address.parse().map_err(Failure::Usage)?;
        // Datasets and comparisons read the lake; the hub has its own limit below this.
        Ok(Self { client: Client::new(endpoint).with_timeout(Duration::from_secs(1_000)), json: global.json })
    }

    /// Whether answers are printed as they are.
    pub fn json(&self) -> bool {
        self.json
    }

    /// GET.
    pub async fn get(&self, path: &str) -> Result<Value, Failure> {
        Ok(self.client.get(&address(path)).await?)
    }

    /// POST with a JSON body.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        Ok(self.client.call(Method::POST, &address(path), body).await?)
    }

    /// PUT with a JSON body.
    pub async fn put(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        Ok(self.client.call(Method::PUT, &address(path), body).await?)
    }

    /// POST with any body.
    pub async fn send(&self, path: &str, content_type: &str, body: Bytes) -> Result<Value, Failure> {
        let answer = self.client.send(Method::POST, &address(path), content_type, body).await?;
        Ok(answer.accepted()?.json()?)
    }

    /// All pages of a list, up to `most` items.
    pub async fn list(&self, path: &str, most: usize) -> Result<Vec<Value>, Failure> {
        let (mut items, mut cursor) = (Vec::new(), String::new());
        loop {
            let glue = if path.contains('?') { '&' } else { '?' };
            let limit = (most - items.len()).clamp(1, 1000);
            let after = if cursor.is_empty() { String::new() } else { format!("&cursor={cursor}") };
            let page = self.get(&format!("{path}{glue}limit={limit}{after}")).await?;
            items.extend(page["items"].as_array().cloned().unwrap_or_default());
            match page["next"].as_str() {
                Some(next) if items.len() < most => cursor = next.to_owned(),
                _ => return Ok(items),
            }
        }
    }

    /// Shows a list: as JSON, or as a table of these columns (heading, path of the field).
    pub fn show_list(&self, items: &[Value], columns: &[(&str, &str)]) {
        match self.json {
            true => outln!("{:#}", Value::from(items.to_vec())),
            false => out!("{}", show::table(items, columns)),
        }
    }

    /// Shows one thing: as JSON, or as lines of name and value.
    pub fn show(&self, item: &Value) {
        match self.json {
            true => outln!("{item:#}"),
            false => out!("{}", show::lines(item)),
        }
    }

    /// Shows what was done: as JSON, or as one sentence.
    pub fn done(&self, item: &Value, sentence: &str) {
        match self.json {
            true => outln!("{item:#}"),
            false => outln!("{sentence}"),
        }
    }
}

/// The path within the API. What people type may hold anything; the hub says whether it is a name.
fn address(path: &str) -> String {
    let mut address = "/api/v1".to_owned();
    for byte in path.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'/' | b'?' | b'&' | b'=' | b'%' | b':' | b'-' | b'_' | b'.' => {
                address.push(byte.into());
            }
            other => address.push_str(&format!("%{other:02X}")),
        }
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_type_becomes_an_address() {
        let path = "/lines/card-fraud/aliases/Bad Name/é?from=2026-02-01T00:00:00%2B01:00";
        let expected = "/api/v1/lines/card-fraud/aliases/Bad%20Name/%C3%A9?from=2026-02-01T00:00:00%2B01:00";
        assert_eq!(address(path), expected);
    }
}
