//! A repository by its web address.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, Result};
use hyper::{Method, StatusCode};
use tributary_process::http::{Client, ClientError, Endpoint};
use tributary_release::chain::{Fetched, Source, SourceError};

/// For one file, from asking to its last byte.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Metadata below one address, targets below another.
pub(super) struct HttpSource {
    metadata: Base,
    targets: Option<Base>,
}

struct Base {
    client: Client,
    path: String,
}

impl HttpSource {
    pub(super) fn new(metadata: &str, targets: Option<&str>) -> Result<Self> {
        Ok(Self { metadata: Base::parse(metadata)?, targets: targets.map(Base::parse).transpose()? })
    }
}

impl Base {
    fn parse(url: &str) -> Result<Self> {
        let rest = url.find("://").map_or(0, |at| at + 3);
        let (authority, path) = match url[rest..].find('/') {
            Some(at) => url.split_at(rest + at),
            None => (url, ""),
        };
        let endpoint: Endpoint = authority.parse().map_err(anyhow::Error::msg).with_context(|| format!("{url:?}"))?;
        Ok(Self { client: Client::new(endpoint).with_timeout(TIMEOUT), path: path.trim_end_matches('/').to_owned() })
    }

    async fn get(&self, name: &str, max: u64) -> Result<Option<Vec<u8>>, SourceError> {
        let client = self.client.clone().with_body_limit(usize::try_from(max).unwrap_or(usize::MAX));
        let path = format!("{}/{}", self.path, escaped(name));
        let answer = client.send(Method::GET, &path, "", bytes::Bytes::new()).await?;
        match answer.status {
            // Object stores say 403 for what is not there.
            StatusCode::NOT_FOUND | StatusCode::FORBIDDEN => Ok(None),
            _ => Ok(Some(answer.accepted().map_err(|error: ClientError| Box::new(error))?.body.to_vec())),
        }
    }
}

impl Source for HttpSource {
    fn metadata<'a>(&'a self, name: &'a str, max: u64) -> Fetched<'a> {
        Box::pin(self.metadata.get(name, max))
    }

    fn target<'a>(&'a self, path: &'a str, max: u64) -> Fetched<'a> {
        Box::pin(async move {
            match &self.targets {
                Some(targets) => targets.get(path, max).await,
                None => Err("no address of targets is known".into()),
            }
        })
    }
}

/// A path as an address may hold it. What is escaped already (names of roles are) stays as it is.
fn escaped(path: &str) -> String {
    let mut escaped = String::new();
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~/%!$&'()*+,;=:@".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart_and_odd_paths_escaped() {
        let base = Base::parse("http://127.0.0.1:8080/repo/metadata/").unwrap();
        assert_eq!(
            (base.client.endpoint().to_string().as_str(), base.path.as_str()),
            ("http://127.0.0.1:8080", "/repo/metadata")
        );
        assert_eq!(Base::parse("http://host").unwrap().path, "");
        assert!(Base::parse("nowhere").is_err());
        assert_eq!(escaped("1.models%2Fx.json"), "1.models%2Fx.json");
        assert_eq!(escaped("a b?c#d/ü"), "a%20b%3Fc%23d/%C3%BC");
    }
}
