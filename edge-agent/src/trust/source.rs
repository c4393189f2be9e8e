//! The repository as the hub serves it over HTTPS.

use std::time::Duration;

use bytes::Bytes;
use hyper::{Method, StatusCode};
use tributary_process::http::ClientError;
use tributary_release::chain::{Fetched, Source, SourceError};

use crate::identity::Web;

/// Below this the hub serves metadata, targets and patches.
pub const REPOSITORY: &str = "/api/v1/repository";
/// For one file of metadata, from asking to its last byte: a source that trickles is cut off.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The hub's web API as a source.
#[derive(Debug, Clone)]
pub struct WebSource(Web);

impl WebSource {
    /// Of this hub.
    pub fn new(hub: Web) -> Self {
        Self(hub)
    }

    async fn get(&self, path: String, max: u64) -> Result<Option<Vec<u8>>, SourceError> {
        let hub = self.0.client().ok_or("no hub is known")?;
        let hub = hub.with_timeout(TIMEOUT).with_body_limit(usize::try_from(max).unwrap_or(usize::MAX));
        let answer = hub.send(Method::GET, &format!("{REPOSITORY}/{path}"), "", Bytes::new()).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        Ok(Some(answer.accepted().map_err(|error: ClientError| Box::new(error))?.body.to_vec()))
    }
}

impl Source for WebSource {
    fn metadata<'a>(&'a self, name: &'a str, max: u64) -> Fetched<'a> {
        Box::pin(self.get(format!("metadata/{name}"), max))
    }

    fn target<'a>(&'a self, path: &'a str, max: u64) -> Fetched<'a> {
        Box::pin(self.get(format!("targets/{path}"), max))
    }
}
