//! One place that files come from: a stream of the hub, a hub's web API, or a mirror.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tributary_identity::Certificate;
use tributary_identity::tls::{ALPN_HTTP, stranger_client};
use tributary_process::http::{Client, Download, Endpoint};
use tributary_wire::Sha256;

use super::config::DownloadConfig;
use super::error::OriginError;
use crate::identity::{Identity, Time, TlsSettings, Web};
use crate::link::{FileStream, FileStreams};

/// Where the hub's repository begins.
const HUB_BASE: &str = "/api/v1/repository/";

/// Why a further hub is not asked.
pub(super) const NOT_ENROLLED: &str = "it gives files to enrolled devices alone, and this one shows no certificate; \
                                       enrol it, or name a mirror in `download.mirrors`";

/// The hubs of the settings that cannot be asked.
pub(super) fn unusable<'a>(config: &'a DownloadConfig, web: &Web) -> &'a [String] {
    if matches!(web, Web::Secure(_)) { &[] } else { &config.hubs }
}

/// A place that files come from.
#[derive(Debug)]
pub(super) enum Origin {
    /// Beside MQTT.
    Quic(FileStreams),
    /// The hub that the device belongs to.
    Hub(Web),
    /// Another one, at this `host:port`.
    OtherHub(String, Arc<Identity>),
    /// A copy: its address, the path of its base, and whom to believe there.
    Mirror { endpoint: Endpoint, base: String, trust: MirrorTrust },
}

/// Whom a mirror's certificate must come from.
#[derive(Debug, Clone)]
pub(super) enum MirrorTrust {
    /// Nobody: without encryption, on this machine.
    Plain,
    /// The hub's authorities.
    Hub(Arc<Identity>),
    /// Those of a file.
    File(Arc<TlsSettings>),
}

/// What comes of a file.
#[derive(Debug)]
pub(super) enum Body {
    Quic(FileStream),
    Http(Box<Download>),
}

/// Addresses of mirrors that are none, or authorities that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    /// Not an address.
    #[error("`download.mirrors`: {found:?} is not an address such as https://mirror.example/repository")]
    Address {
        /// As set.
        found: String,
    },
    /// Nobody to believe.
    #[error("`download.mirrors` needs `download.mirror_authorities` on a device that is not enrolled")]
    NoAuthorities,
    /// The file of authorities.
    #[error("`download.mirror_authorities`: {path}: {problem}")]
    Authorities {
        /// Which file.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl Origin {
    /// All of them, in the order in which they are asked.
    pub(super) fn all(
        config: &DownloadConfig,
        web: &Web,
        streams: FileStreams,
        time: &Time,
    ) -> Result<Vec<Self>, MirrorError> {
        let mut origins = Vec::new();
        if config.quic {
            origins.push(Self::Quic(streams));
        }
        let identity = match web {
            Web::Secure(identity) => Some(identity.clone()),
            _ => None,
        };
        if !matches!(web, Web::Nowhere) {
            origins.push(Self::Hub(web.clone()));
        }
        if let Some(identity) = &identity {
            origins.extend(config.hubs.iter().map(|hub| Self::OtherHub(hub.clone(), identity.clone())));
        }
        let trust = match &config.mirror_authorities {
            Some(path) => Some(MirrorTrust::File(authorities(path, time)?)),
            None => identity.map(MirrorTrust::Hub),
        };
        for found in &config.mirrors {
            let trust = trust.clone().ok_or(MirrorError::NoAuthorities)?;
            origins.push(mirror(found, trust)?);
        }
        for found in &config.insecure_plain_mirrors {
            origins.push(mirror(found, MirrorTrust::Plain)?);
        }
        Ok(origins)
    }

    /// For status and logs.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Quic(_) => "quic".into(),
            Self::Hub(Web::Secure(identity)) => format!("https://{}", identity.current().reach.https),
            Self::Hub(web) => web.client().map_or("hub".into(), |client| client.endpoint().to_string()),
            Self::OtherHub(address, _) => format!("https://{address}"),
            Self::Mirror { endpoint, base, .. } => format!("{endpoint}{}", base.trim_end_matches('/')),
        }
    }

    /// For metrics: a fixed set.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Quic(_) => "quic",
            Self::Hub(_) | Self::OtherHub(..) => "https",
            Self::Mirror { .. } => "mirror",
        }
    }

    /// Whether its word that a file is not there settles it.
    pub(super) fn is_hub(&self) -> bool {
        !matches!(self, Self::Mirror { .. })
    }

    /// Whether it can be asked now.
    pub(super) fn is_there(&self) -> bool {
        match self {
            Self::Quic(streams) => streams.are_open(),
            _ => true,
        }
    }

    /// Asks for a file from byte `start` on. With the hash of its content, a hub continues only that file.
    pub(super) async fn open(
        &self,
        path: &str,
        start: u64,
        content: Option<&Sha256>,
        patience: Duration,
    ) -> Result<Body, OriginError> {
        let client = match self {
            Self::Quic(streams) => return Ok(Body::Quic(streams.open(path, start, patience).await?)),
            Self::Hub(web) => web.client().ok_or(OriginError::Absent)?,
            Self::OtherHub(address, identity) => {
                Client::new(Endpoint::Tls(address.clone())).with_tls(identity.current().neighbour.clone())
            }
            Self::Mirror { endpoint, base, trust } => {
                let client = Client::new(endpoint.clone());
                let client = match trust {
                    MirrorTrust::Plain => client,
                    MirrorTrust::Hub(identity) => client.with_tls(identity.mirror_settings()?),
                    MirrorTrust::File(settings) => client.with_tls(settings.clone()),
                };
                // There the file is called as the path says, and in an address a percent sign is written so. Mirrors have
                // tags of their own; what they send is held together by the hash alone.
                let path = format!("{base}{}", path.replace('%', "%25"));
                return Ok(Body::Http(Box::new(client.with_timeout(patience).resume(&path, start, None).await?)));
            }
        };
        let tag = content.map(|sha256| format!("\"{sha256}\""));
        let client = client.with_timeout(patience);
        Ok(Body::Http(Box::new(client.resume(&format!("{HUB_BASE}{path}"), start, tag.as_deref()).await?)))
    }
}

impl Body {
    /// The byte that comes first.
    pub(super) fn start(&self) -> u64 {
        match self {
            Self::Quic(stream) => stream.start,
            Self::Http(download) => download.start,
        }
    }

    /// Length of the whole file, if the origin says so.
    pub(super) fn length(&self) -> Option<u64> {
        match self {
            Self::Quic(stream) => Some(stream.length),
            Self::Http(download) => download.length,
        }
    }

    /// The tag of another content than this, if the origin gives one that names content by its hash.
    pub(super) fn other_content(&self, expected: &Sha256) -> Option<String> {
        let Self::Http(download) = self else { return None };
        let tag = download.headers.get("etag")?.to_str().ok()?.trim_matches('"');
        tag.parse::<Sha256>().ok().filter(|found| found != expected).map(|_| tag.to_owned())
    }

    /// The next piece; `None` at the end.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, OriginError> {
        Ok(match self {
            Self::Quic(stream) => stream.chunk().await?,
            Self::Http(download) => download.chunk().await?,
        })
    }
}

/// Takes an address and its path apart.
pub fn address(found: &str) -> Option<(Endpoint, String)> {
    let host = found.find("://")? + 3;
    let path = found[host..].find('/').map_or(found.len(), |at| host + at);
    let plain = found[path..].bytes().all(|byte| byte.is_ascii_graphic() && byte != b'?' && byte != b'#');
    let endpoint = found[..path].parse().ok().filter(|_| plain)?;
    Some((endpoint, format!("{}/", found[path..].trim_end_matches('/'))))
}

fn mirror(found: &str, trust: MirrorTrust) -> Result<Origin, MirrorError> {
    let (endpoint, base) = address(found).ok_or_else(|| MirrorError::Address { found: found.to_owned() })?;
    Ok(Origin::Mirror { endpoint, base, trust })
}

fn authorities(path: &Path, time: &Time) -> Result<Arc<TlsSettings>, MirrorError> {
    let failed = |problem: String| MirrorError::Authorities { path: path.display().to_string(), problem };
    let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    let certificates = Certificate::all_from_pem(&text).map_err(|error| failed(error.to_string()))?;
    let settings = stranger_client(&certificates, None, ALPN_HTTP, time.clock());
    settings.map(Arc::new).map_err(|error| failed(error.to_string()))
}
