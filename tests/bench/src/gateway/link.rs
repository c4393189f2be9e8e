//! Connections of simulated devices: TCP, TLS and QUIC as one kind of stream, with the settings of a real device.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use quinn::crypto::rustls::QuicClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, HandshakeKind};
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// What the servers call themselves in their certificates.
pub const SERVER_NAME: &str = "localhost";
/// A link with nothing to say lives on; servers close silent ones after half a minute.
const QUIC_KEEP_ALIVE: Duration = Duration::from_secs(10);

/// How a device reaches a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// TCP without protection.
    Plain,
    /// TLS 1.3 with certificates on both sides.
    Tls,
    /// One stream of a QUIC connection, with certificates on both sides.
    Quic,
}

impl Transport {
    /// As in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Tls => "TLS",
            Self::Quic => "QUIC",
        }
    }
}

/// Whether a device may go on with a TLS session that it had before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sessions {
    /// Every handshake is a full one, and nothing is kept for another.
    Forgotten,
    /// As devices do it.
    Kept,
}

/// A device's way to a server, to be used again and again.
#[derive(Debug, Clone)]
pub struct Dialer {
    server: SocketAddr,
    source: Option<IpAddr>,
    way: Way,
}

#[derive(Debug, Clone)]
enum Way {
    Plain,
    Tls(Arc<ClientConfig>),
    Quic(quinn::Endpoint, quinn::ClientConfig),
}

/// A socket for QUIC connections of one or of many devices.
pub fn quic_endpoint() -> io::Result<quinn::Endpoint> {
    quinn::Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0)))
}

impl Dialer {
    /// Over TCP.
    pub fn plain(server: SocketAddr) -> Self {
        Self { server, source: None, way: Way::Plain }
    }

    /// Over TLS, with a device's settings.
    pub fn tls(server: SocketAddr, mut config: ClientConfig, sessions: Sessions) -> Self {
        if sessions == Sessions::Forgotten {
            config.resumption = Resumption::disabled();
        }
        Self { server, source: None, way: Way::Tls(Arc::new(config)) }
    }

    /// Over QUIC, with a device's settings and a socket.
    pub fn quic(
        server: SocketAddr,
        mut config: ClientConfig,
        sessions: Sessions,
        endpoint: quinn::Endpoint,
    ) -> anyhow::Result<Self> {
        if sessions == Sessions::Forgotten {
            config.resumption = Resumption::disabled();
        }
        let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(config)?));
        let mut transport = quinn::TransportConfig::default();
        transport.keep_alive_interval(Some(QUIC_KEEP_ALIVE));
        config.transport_config(Arc::new(transport));
        Ok(Self { server, source: None, way: Way::Quic(endpoint, config) })
    }

    /// From this address of the machine; not for QUIC, whose socket has one already.
    pub fn leaving(self, source: IpAddr) -> Self {
        Self { source: Some(source), ..self }
    }

    /// Where to.
    pub fn server(&self) -> SocketAddr {
        self.server
    }

    /// Connects, with the whole handshake.
    pub async fn dial(&self) -> io::Result<Link> {
        match &self.way {
            Way::Plain => Ok(Link::Plain(self.tcp().await?)),
            Way::Tls(config) => {
                let name = ServerName::try_from(SERVER_NAME).map_err(io::Error::other)?;
                let stream = TlsConnector::from(config.clone()).connect(name, self.tcp().await?).await?;
                Ok(Link::Tls(Box::new(stream)))
            }
            Way::Quic(endpoint, config) => {
                let connecting = endpoint.connect_with(config.clone(), self.server, SERVER_NAME);
                let connection = connecting.map_err(io::Error::other)?.await.map_err(io::Error::other)?;
                let (send, receive) = connection.open_bi().await.map_err(io::Error::other)?;
                Ok(Link::Quic { send, receive })
            }
        }
    }

    /// Only the TCP connection, and without any delay of small packets.
    pub async fn tcp(&self) -> io::Result<TcpStream> {
        let socket = if self.server.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let Some(source) = self.source {
            socket.bind(SocketAddr::new(source, 0))?;
        }
        let stream = socket.connect(self.server).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// The bytes with which a device would begin a TLS connection.
pub fn client_hello(config: &ClientConfig) -> anyhow::Result<Vec<u8>> {
    let name = ServerName::try_from(SERVER_NAME)?;
    let mut connection = ClientConnection::new(Arc::new(config.clone()), name)?;
    let mut bytes = Vec::new();
    while connection.wants_write() {
        connection.write_tls(&mut bytes)?;
    }
    Ok(bytes)
}

/// A connection.
#[derive(Debug)]
pub enum Link {
    /// TCP.
    Plain(TcpStream),
    /// TLS.
    Tls(Box<TlsStream<TcpStream>>),
    /// A stream of QUIC; the connection ends with it.
    Quic {
        /// Out.
        send: quinn::SendStream,
        /// In.
        receive: quinn::RecvStream,
    },
}

impl Link {
    /// Whether the handshake went on with an earlier session; known for TLS only.
    pub fn resumed(&self) -> bool {
        match self {
            Self::Tls(stream) => stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed),
            Self::Plain(_) | Self::Quic { .. } => false,
        }
    }
}

impl AsyncRead for Link {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, buffer),
            Self::Quic { receive, .. } => AsyncRead::poll_read(Pin::new(receive), cx, buffer),
        }
    }
}

impl AsyncWrite for Link {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, bytes),
            Self::Quic { send, .. } => AsyncWrite::poll_write(Pin::new(send), cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
            Self::Quic { send, .. } => AsyncWrite::poll_flush(Pin::new(send), cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
            Self::Quic { send, .. } => AsyncWrite::poll_shutdown(Pin::new(send), cx),
        }
    }
}
