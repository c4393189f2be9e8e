//! A handshake with a hub's listener, and nothing said over it: whether peers would get that far.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::crypto::rustls::{NoInitialCipherSuite, QuicClientConfig};
use quinn::{ClientConfig, ConnectError, ConnectionError, Endpoint, VarInt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tributary_identity::tls::{HubProblem, hub_problem, hub_problem_of_quic};

/// Why there was no handshake.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// Nobody answered in time.
    #[error("no answer within {0:?}")]
    Silent(Duration),
    /// No socket, no connection, or a handshake that failed.
    #[error("no handshake")]
    Tls(#[from] io::Error),
    /// The TLS settings cannot be used for QUIC.
    #[error("tls settings")]
    Settings(#[from] NoInitialCipherSuite),
    /// The attempt cannot even begin.
    #[error("no handshake")]
    Connect(#[from] ConnectError),
    /// The handshake failed.
    #[error("no handshake")]
    Quic(#[from] ConnectionError),
}

impl ProbeError {
    /// What is wrong with the hub that answered, if that is why.
    pub fn hub_problem(&self) -> Option<HubProblem> {
        let (code, by_hub, words) = match self {
            Self::Quic(ConnectionError::TransportError(error)) => (u64::from(error.code), false, error.reason.as_str()),
            Self::Quic(ConnectionError::ConnectionClosed(close)) => (u64::from(close.error_code), true, ""),
            error => return hub_problem(error),
        };
        hub_problem_of_quic(code, by_hub, words)
    }
}

/// A handshake over TLS; how long it took.
pub async fn tls(
    settings: Arc<rustls::ClientConfig>,
    address: SocketAddr,
    patience: Duration,
) -> Result<Duration, ProbeError> {
    let began = Instant::now();
    let shake = async {
        let stream = TcpStream::connect(address).await?;
        TlsConnector::from(settings).connect(address.ip().into(), stream).await
    };
    timeout(patience, shake).await.map_err(|_| ProbeError::Silent(patience))??;
    Ok(began.elapsed())
}

/// A handshake over QUIC; how long it took.
pub async fn quic(
    settings: Arc<rustls::ClientConfig>,
    address: SocketAddr,
    patience: Duration,
) -> Result<Duration, ProbeError> {
    let began = Instant::now();
    let from = match address {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let endpoint = Endpoint::client(from)?;
    let settings = ClientConfig::new(Arc::new(QuicClientConfig::try_from(settings)?));
    let connecting = endpoint.connect_with(settings, address, &address.ip().to_string())?;
    let connection = timeout(patience, connecting).await.map_err(|_| ProbeError::Silent(patience))??;
    let took = began.elapsed();
    connection.close(VarInt::from_u32(0), b"");
    // So that the hub hears of the end; whether it does is no part of the answer.
    let _ = timeout(patience, endpoint.wait_idle()).await;
    Ok(took)
}
