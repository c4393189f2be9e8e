//! MQTT over QUIC: one connection, whose first stream carries MQTT; further ones bring files. The only module that names
//! quinn.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use edge_agent_core::transport::End;
use quinn::crypto::rustls::{NoInitialCipherSuite, QuicClientConfig};
use quinn::{ClientConfig, ConnectError, ConnectionError, Endpoint, RecvStream, SendStream, TransportConfig, VarInt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tributary_identity::tls::{HubProblem, hub_problem_of_quic};

use crate::identity::TlsSettings;

/// Keep-alives in an idle time-out: two may be lost.
const KEEP_ALIVES: u32 = 3;
/// What the hub may send on one stream before this side has read it: 8 MB/s over 60 ms.
const STREAM_WINDOW: u32 = 512 << 10;
/// The same over all streams: files that wait for their budget or a disk, at most two at once, must leave MQTT its own.
const RECEIVE_WINDOW: u32 = 4 * STREAM_WINDOW;
/// What this side keeps until the hub has acknowledged it.
const SEND_WINDOW: u64 = 4 << 20;
/// Time for the last bytes of a connection that is given up.
const FAREWELL: Duration = Duration::from_secs(1);

/// Why there is no QUIC connection.
#[derive(Debug, thiserror::Error)]
pub enum QuicError {
    /// No socket.
    #[error("no UDP socket")]
    Socket(#[from] io::Error),
    /// The TLS settings cannot be used for QUIC.
    #[error("tls settings")]
    Settings(#[from] NoInitialCipherSuite),
    /// The attempt cannot even begin.
    #[error("quic")]
    Connect(#[from] ConnectError),
    /// The handshake failed.
    #[error("quic")]
    Connection(#[from] ConnectionError),
}

impl QuicError {
    /// What is wrong with the hub, if that is why.
    pub(super) fn hub_problem(&self) -> Option<HubProblem> {
        let (code, by_hub, words) = match self {
            Self::Connection(ConnectionError::TransportError(error)) => {
                (u64::from(error.code), false, error.reason.as_str())
            }
            Self::Connection(ConnectionError::ConnectionClosed(close)) => (u64::from(close.error_code), true, ""),
            _ => return None,
        };
        hub_problem_of_quic(code, by_hub, words)
    }
}

/// The device's UDP socket, kept over connections: a connection follows its device to another address.
#[derive(Debug)]
pub(super) struct Quic {
    endpoint: Mutex<Option<Endpoint>>,
    idle: Duration,
}

impl Quic {
    /// Connections that are silent for `idle` are over.
    pub(super) fn new(idle: Duration) -> Self {
        Self { endpoint: Mutex::new(None), idle }
    }

    /// A handshake, and a stream on which nothing has been said yet.
    pub(super) async fn connect(
        &self,
        tls: Arc<TlsSettings>,
        address: SocketAddr,
        name: &str,
    ) -> Result<Stream, QuicError> {
        let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
        config.transport_config(Arc::new(self.transport()));
        let connection = self.endpoint()?.connect_with(config, address, name)?.await?;
        let (send, receive) = connection.open_bi().await?;
        Ok(Stream { connection, send: Some(send), receive })
    }

    fn transport(&self) -> TransportConfig {
        let mut transport = TransportConfig::default();
        let idle = u32::try_from(self.idle.as_millis()).unwrap_or(u32::MAX);
        transport.max_idle_timeout(Some(VarInt::from_u32(idle).into()));
        transport.keep_alive_interval(Some(self.idle / KEEP_ALIVES));
        // The hub opens no stream and sends no datagram.
        transport.max_concurrent_bidi_streams(VarInt::from_u32(0));
        transport.max_concurrent_uni_streams(VarInt::from_u32(0));
        transport.datagram_receive_buffer_size(None);
        transport.stream_receive_window(VarInt::from_u32(STREAM_WINDOW));
        transport.receive_window(VarInt::from_u32(RECEIVE_WINDOW));
        transport.send_window(SEND_WINDOW);
        transport
    }

    fn endpoint(&self) -> io::Result<Endpoint> {
        let mut kept = self.endpoint.lock().unwrap_or_else(PoisonError::into_inner);
        // One whose socket has broken knows no address any more.
        if let Some(endpoint) = kept.as_ref().filter(|endpoint| endpoint.local_addr().is_ok()) {
            return Ok(endpoint.clone());
        }
        // For both families where there are both.
        let endpoint = Endpoint::client((Ipv6Addr::UNSPECIFIED, 0).into())
            .or_else(|_| Endpoint::client((Ipv4Addr::UNSPECIFIED, 0).into()))?;
        Ok(kept.insert(endpoint).clone())
    }

    /// Forgets the socket: after a failure that lies in it, the next attempt begins with a new one.
    pub(super) fn forget(&self) {
        *self.endpoint.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Moves to another local address, as a device does that changes its network; connections go on.
    #[cfg(test)]
    pub(super) fn rebind(&self) {
        let kept = self.endpoint.lock().unwrap();
        kept.as_ref().unwrap().rebind(std::net::UdpSocket::bind("[::]:0").unwrap()).unwrap();
    }
}

/// The two halves of the stream as one.
#[derive(Debug)]
pub(super) struct Stream {
    connection: quinn::Connection,
    /// Taken when this is dropped.
    send: Option<SendStream>,
    receive: RecvStream,
}

impl Stream {
    /// To ask later how the connection ended.
    pub(super) fn lifeline(&self) -> Lifeline {
        Lifeline(self.connection.clone())
    }

    /// Whether the connection still stands.
    pub(super) fn is_open(&self) -> bool {
        self.connection.close_reason().is_none()
    }

    fn send(&mut self) -> Pin<&mut SendStream> {
        Pin::new(self.send.as_mut().expect("only dropping takes it"))
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        AsyncRead::poll_read(Pin::new(&mut self.receive), cx, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write(self.send(), cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(self.send(), cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_shutdown(self.send(), cx)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let (connection, send) = (self.connection.clone(), self.send.take());
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        // Closing throws away what is not sent yet, such as the word that this device leaves.
        runtime.spawn(async move {
            if let Some(mut send) = send.filter(|_| connection.close_reason().is_none())
                && send.finish().is_ok()
            {
                let _ = tokio::time::timeout(FAREWELL, send.stopped()).await;
            }
            connection.close(VarInt::from_u32(0), b"");
        });
    }
}

/// Knows how a connection ended, and opens further streams while it stands.
#[derive(Debug, Clone)]
pub(super) struct Lifeline(quinn::Connection);

/// What comes on a further stream. Dropped before its end, it tells the hub to stop.
#[derive(Debug)]
pub(super) struct Incoming(RecvStream);

impl Lifeline {
    /// Whether it still stands.
    pub(super) fn is_open(&self) -> bool {
        self.0.close_reason().is_none()
    }

    /// Says one thing on a new stream, and nothing more.
    pub(super) async fn ask(&self, request: &[u8]) -> io::Result<Incoming> {
        let (mut send, receive) = self.0.open_bi().await?;
        send.write_all(request).await?;
        send.finish().map_err(io::Error::other)?;
        Ok(Incoming(receive))
    }

    /// How it ended, if the other side or silence ended it.
    pub(super) fn end(&self) -> Option<End> {
        match self.0.close_reason()? {
            ConnectionError::TimedOut => Some(End::Lost),
            ConnectionError::LocallyClosed => None,
            _ => Some(End::Closed),
        }
    }
}

impl Incoming {
    /// Exactly so many bytes.
    pub(super) async fn read_exact(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        self.0.read_exact(bytes).await.map_err(io::Error::other)
    }

    /// What comes next, at most so many bytes; `None` at the end.
    pub(super) async fn piece(&mut self, most: usize) -> io::Result<Option<Bytes>> {
        let chunk = self.0.read_chunk(most, true).await.map_err(io::Error::other)?;
        Ok(chunk.map(|chunk| chunk.bytes))
    }
}
