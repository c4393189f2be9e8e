//! From an address to a stream of bytes, over whichever transport.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::{InvalidDnsNameError, ServerName};
use tributary_identity::tls::{HubProblem, hub_problem};

use super::quic::{self, Quic, QuicError};
use crate::config::host_and_port;
use crate::identity::TlsSettings;

/// A name may have many addresses; no more of them are tried.
const MOST_ADDRESSES: usize = 6;
/// Each address gets this head start before the next one is tried beside it.
const HEAD_START: Duration = Duration::from_millis(200);

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// Not an address.
    #[error("{found:?} is not host:port")]
    Address {
        /// As configured.
        found: String,
    },
    /// The name leads nowhere.
    #[error("{name} has no address")]
    Resolve {
        /// The name.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// The name cannot stand in a certificate.
    #[error("{name:?} is not a name")]
    Name {
        /// The name.
        name: String,
        /// Why.
        source: InvalidDnsNameError,
    },
    /// Nothing came back.
    #[error("no answer over {transport} from {address} within {} ms", after.as_millis())]
    Silent {
        /// Over what.
        transport: &'static str,
        /// From where.
        address: String,
        /// How long was waited.
        after: Duration,
    },
    /// TCP, or TLS over it.
    #[error("{0}")]
    Stream(#[source] io::Error),
    /// QUIC.
    #[error(transparent)]
    Quic(#[from] QuicError),
}

impl DialError {
    /// What is wrong with the hub, if that is why.
    pub fn hub_problem(&self) -> Option<HubProblem> {
        match self {
            Self::Quic(error) => error.hub_problem(),
            error => hub_problem(error),
        }
    }
}

/// A stream of any kind.
pub(super) trait Bytes: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Bytes for T {}

/// Without encryption.
pub(super) async fn plain(address: &str, patience: Duration) -> Result<Box<dyn Bytes>, DialError> {
    let work = async {
        let stream = TcpStream::connect(address).await.map_err(DialError::Stream)?;
        stream.set_nodelay(true).map_err(DialError::Stream)?;
        Ok(Box::new(stream) as Box<dyn Bytes>)
    };
    within(patience, "tcp", address, work).await
}

/// TLS over TCP.
pub(super) async fn tls(
    settings: Arc<TlsSettings>,
    address: &str,
    patience: Duration,
) -> Result<Box<dyn Bytes>, DialError> {
    let work = async {
        let (name, addresses) = resolve(address).await?;
        let server = ServerName::try_from(name.clone()).map_err(|source| DialError::Name { name, source })?;
        let stream =
            race(addresses, |address| async move { TcpStream::connect(address).await.map_err(DialError::Stream) });
        let stream = stream.await?;
        stream.set_nodelay(true).map_err(DialError::Stream)?;
        let stream = TlsConnector::from(settings).connect(server, stream).await.map_err(DialError::Stream)?;
        Ok(Box::new(stream) as Box<dyn Bytes>)
    };
    within(patience, "tls", address, work).await
}

/// QUIC.
pub(super) async fn quic(
    quic: Arc<Quic>,
    settings: Arc<TlsSettings>,
    address: &str,
    patience: Duration,
) -> Result<quic::Stream, DialError> {
    let endpoint = quic.clone();
    let work = async {
        let (name, addresses) = resolve(address).await?;
        race(addresses, move |address| {
            let (quic, settings, name) = (endpoint.clone(), settings.clone(), name.clone());
            async move { Ok(quic.connect(settings, address, &name).await?) }
        })
        .await
    };
    let dialled = within(patience, "quic", address, work).await;
    if dialled.is_err() {
        quic.forget();
    }
    dialled
}

async fn within<T>(
    after: Duration,
    transport: &'static str,
    address: &str,
    work: impl Future<Output = Result<T, DialError>>,
) -> Result<T, DialError> {
    let silent = |_| DialError::Silent { transport, address: address.to_owned(), after };
    tokio::time::timeout(after, work).await.map_err(silent)?
}

/// The name without brackets, and its addresses.
async fn resolve(address: &str) -> Result<(String, Vec<SocketAddr>), DialError> {
    let (host, port) = host_and_port(address).ok_or_else(|| DialError::Address { found: address.to_owned() })?;
    let name = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let failed = |source| DialError::Resolve { name: name.clone(), source };
    let found = tokio::net::lookup_host((name.as_str(), port)).await.map_err(failed)?;
    let found: Vec<_> = found.take(MOST_ADDRESSES).collect();
    if found.is_empty() {
        return Err(failed(io::Error::other("the resolver found nothing")));
    }
    Ok((name, found))
}

/// Tries the addresses one a little after the other and takes the first that works; else says what the first one said.
async fn race<T, F>(addresses: Vec<SocketAddr>, connect: impl Fn(SocketAddr) -> F) -> Result<T, DialError>
where
    T: Send + 'static,
    F: Future<Output = Result<T, DialError>> + Send + 'static,
{
    // Dropping it, also when this is given up half-way, ends all of them.
    let mut attempts = JoinSet::new();
    for (index, address) in addresses.into_iter().enumerate() {
        let attempt = connect(address);
        attempts.spawn(async move {
            tokio::time::sleep(HEAD_START * index as u32).await;
            (index, attempt.await)
        });
    }
    let mut first = None;
    while let Some(ended) = attempts.join_next().await {
        match ended {
            Ok((_, Ok(stream))) => return Ok(stream),
            Ok((index, Err(error))) => {
                if first.as_ref().is_none_or(|(earlier, _)| index < *earlier) {
                    first = Some((index, error));
                }
            }
            Err(panicked) => first = first.or(Some((usize::MAX, DialError::Stream(io::Error::other(panicked))))),
        }
    }
    Err(first.map_or_else(|| DialError::Stream(io::Error::other("no address")), |(_, error)| error))
}
