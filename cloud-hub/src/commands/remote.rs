//! Calls to a hub's web API, and what their failures mean for the exit code.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::header::{AUTHORIZATION, HeaderValue};
use hyper::{Method, StatusCode};
use rustls::ClientConfig;
use serde_json::{Value, json};
use tributary_identity::{Certificate, DeviceClock, tls};
use tributary_process::http::{Client, ClientError, Download, Endpoint};
use tributary_process::{out, outln};
use tributary_wire::Micros;

use super::Global;
use super::show;

/// Where a hub listens when nobody says otherwise.
const DEFAULT_HUB: &str = "https://127.0.0.1:8443";

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
        if matches!(&self, Self::Call(error) if error.status() == Some(StatusCode::UNAUTHORIZED)) {
            eprintln!(
                "Give an API token with --token-file FILE, CLOUD_HUB_TOKEN_FILE or CLOUD_HUB_TOKEN. The first one of a \
                 hub lies in its data folder: keys/admin.token; `cloud-hub access create` makes more."
            );
        }
        ExitCode::from(code)
    }
}

impl Remote {
    /// From the flags and the environment.
    pub fn new(global: &Global) -> Result<Self, Failure> {
        let address = global.hub.clone().or(set("CLOUD_HUB_URL")).unwrap_or_else(|| DEFAULT_HUB.to_owned());
        let endpoint: Endpoint = address.parse().map_err(Failure::Usage)?;
        // Datasets and comparisons read the lake; the hub has its own limit below this.
        let mut client = Client::new(endpoint.clone()).with_timeout(Duration::from_secs(1_000));
        if let Endpoint::Tls(_) = endpoint {
            client = client.with_tls(trust(&address, global.ca.clone().or(set("CLOUD_HUB_CA").map(PathBuf::from)))?);
        }
        if let Some(token) = token(global)? {
            if let Endpoint::Tcp(authority) = &endpoint
                && !is_loopback(authority)
            {
                let problem = format!("a token is not sent unencrypted to {address}; use https://");
                return Err(Failure::Usage(problem));
            }
            let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
                .map_err(|_| Failure::Usage("the API token holds characters that no token has".to_owned()))?;
            value.set_sensitive(true);
            client = client.with_header(AUTHORIZATION, value);
        }
        Ok(Self { client, json: global.json })
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

    /// DELETE, answered with what was there.
    pub async fn delete(&self, path: &str) -> Result<Value, Failure> {
        let answer = self.client.send(Method::DELETE, &address(path), "", Bytes::new()).await?;
        Ok(answer.accepted()?.json()?)
    }

    /// POST with any body.
    pub async fn send(&self, path: &str, content_type: &str, body: Bytes) -> Result<Value, Failure> {
        let answer = self.client.send(Method::POST, &address(path), content_type, body).await?;
        Ok(answer.accepted()?.json()?)
    }

    /// GET of any body, in pieces.
    pub(super) async fn download(&self, path: &str) -> Result<Download, Failure> {
        Ok(self.client.download(&address(path), 0).await?)
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

/// A variable of the environment that says something.
fn set(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The API token, if one was given.
fn token(global: &Global) -> Result<Option<String>, Failure> {
    let from_file = |path: PathBuf| {
        let read = std::fs::read_to_string(&path);
        let text = read.map_err(|error| Failure::Usage(format!("the token in {}: {error}", path.display())))?;
        Ok::<_, Failure>(text.trim().to_owned())
    };
    // The flag is nearest to the person who types; of the variables the token itself says more than a file's name.
    match (&global.token_file, set("CLOUD_HUB_TOKEN"), set("CLOUD_HUB_TOKEN_FILE")) {
        (Some(path), _, _) => from_file(path.clone()).map(Some),
        (None, Some(token), _) => Ok(Some(token.trim().to_owned())),
        (None, None, Some(path)) => from_file(path.into()).map(Some),
        (None, None, None) => Ok(None),
    }
}

/// TLS that believes the authority in that file alone.
fn trust(address: &str, file: Option<PathBuf>) -> Result<Arc<ClientConfig>, Failure> {
    let Some(file) = file else {
        return Err(Failure::Usage(format!(
            "whom to trust at {address}? Name the file of the hub's authority with --ca FILE or CLOUD_HUB_CA; it is \
             identity/authority.pem in the hub's data folder"
        )));
    };
    let wrong = |error: &dyn std::error::Error| {
        let problem = crate::api::chain(error);
        Failure::Usage(format!("the authority's certificate in {}: {problem}", file.display()))
    };
    let text = std::fs::read_to_string(&file).map_err(|error| wrong(&error))?;
    let authorities = Certificate::all_from_pem(&text).map_err(|error| wrong(&error))?;
    let clock = Arc::new(DeviceClock::new(Micros(0)));
    let config = tls::device_client(&authorities, None, tls::ALPN_HTTP, clock).map_err(|error| wrong(&error))?;
    Ok(Arc::new(config))
}

fn is_loopback(authority: &str) -> bool {
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
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
    fn tokens_go_unencrypted_to_this_machine_alone() {
        for own in ["localhost:8080", "127.0.0.1:80", "[::1]:8080"] {
            assert!(is_loopback(own), "{own}");
        }
        for other in ["hub:80", "10.0.0.1:80", "localhost.example:80", "[2001:db8::1]:80"] {
            assert!(!is_loopback(other), "{other}");
        }
    }

    #[test]
    fn what_people_type_becomes_an_address() {
        let path = "/lines/card-fraud/aliases/Bad Name/é?from=2026-02-01T00:00:00%2B01:00";
        let expected = "/api/v1/lines/card-fraud/aliases/Bad%20Name/%C3%A9?from=2026-02-01T00:00:00%2B01:00";
        assert_eq!(address(path), expected);
    }
}
