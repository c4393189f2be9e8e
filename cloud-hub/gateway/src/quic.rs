//! Connections over QUIC: the first stream that the client opens carries MQTT, further ones of a device files.

use std::any::Any;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::QuicServerConfig;
use quinn::{
    Connecting, Connection, ConnectionError, Endpoint, EndpointConfig, IdleTimeout, RecvStream, SendStream,
    TokioRuntime, VarInt,
};
use rustls::pki_types::CertificateDer;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};
use tributary_identity::Certificate;

use crate::door::Ticket;
use crate::session::{self, Arrival, Rim};
use crate::tally::Refusal;
use crate::{Limits, ResetKey, Transport, acceptor, files, reset};

/// A peer that is silent for longer is gone; both ends' limits count, the shorter one holds.
const IDLE: Duration = Duration::from_secs(60);
/// How often the hub makes a silent peer answer: middle boxes forget a silent path after half a minute.
const KEEP_ALIVE: Duration = Duration::from_secs(25);
/// What a peer may send ahead of what is read: a full packet, or 16 MB/s over 60 ms.
const RECEIVE_WINDOW: u32 = 1 << 20;
/// What waits for a peer's acknowledgement, over all streams: MQTT must have room beside files that a device has let come
/// but not taken.
const SEND_WINDOW: u64 = 2 << 20;
/// Packets of one connection, and of all, that are kept until it is their turn to be accepted.
const WAITING_BYTES: (u64, u64) = (16 << 10, 16 << 20);
/// Resets come no faster than this: a fleet should learn within seconds that the hub was killed.
const RESETS_APART: Duration = Duration::from_millis(1);
/// How long the last packet may take to arrive.
const LAST_PACKET: Duration = Duration::from_secs(1);

/// Takes a port.
pub(crate) fn bind(
    address: SocketAddr,
    tls: Arc<rustls::ServerConfig>,
    key: &ResetKey,
    limits: &Limits,
) -> io::Result<Endpoint> {
    let crypto = QuicServerConfig::try_from(tls).map_err(io::Error::other)?;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    // An address that changes, as it does behind NAT and between networks, keeps its session.
    config.migration(true);
    config.max_incoming(limits.half_open);
    config.incoming_buffer_size(WAITING_BYTES.0).incoming_buffer_size_total(WAITING_BYTES.1);
    let mut transport = quinn::TransportConfig::default();
    transport
        .max_concurrent_bidi_streams((1 + u32::from(limits.files.at_once)).into())
        .max_concurrent_uni_streams(0_u8.into())
        .datagram_receive_buffer_size(None)
        .stream_receive_window(RECEIVE_WINDOW.into())
        .receive_window(RECEIVE_WINDOW.into())
        .send_window(SEND_WINDOW)
        // Several datagrams for one system call: each connection would keep 15 kB for it, of which most have no use.
        .enable_segmentation_offload(false)
        .max_idle_timeout(Some(IdleTimeout::try_from(IDLE).map_err(io::Error::other)?))
        .keep_alive_interval(Some(KEEP_ALIVE));
    config.transport_config(Arc::new(transport));
    let mut endpoint = EndpointConfig::new(Arc::new(key.clone()));
    endpoint.cid_generator(|| Box::new(reset::Ids)).min_reset_interval(RESETS_APART);
    Endpoint::new(endpoint, Some(config), UdpSocket::bind(address)?, Arc::new(TokioRuntime))
}

/// Serves an endpoint until the shutdown, then waits for its sessions.
pub(crate) async fn serve(endpoint: Endpoint, rim: &Arc<Rim>) {
    let mut sessions = JoinSet::new();
    let tally = rim.connections.tally();
    loop {
        let incoming = tokio::select! {
            () = rim.shutdown.given() => break,
            Some(_) = sessions.join_next(), if !sessions.is_empty() => continue,
            incoming = endpoint.accept() => incoming,
        };
        // The endpoint is gone only when its socket is.
        let Some(incoming) = incoming else { break };
        let address = incoming.remote_address();
        // Nothing is kept of a peer that was asked to prove its address. While many wait, everybody is asked.
        if !incoming.remote_address_validated() && rim.door.is_crowded() {
            let _ = incoming.retry();
            continue;
        }
        let ticket = match rim.door.knock(address.ip(), tally) {
            Ok(ticket) => ticket,
            Err(refusal) => {
                tally.refused(refusal, &address, &"too many or too fast from one address");
                incoming.refuse();
                continue;
            }
        };
        // The greeting is answered in here, so one at a time: sessions are served meanwhile.
        let connecting = match incoming.accept() {
            Ok(connecting) => connecting,
            Err(error) => {
                tally.refused(why(&error), &address, &error);
                continue;
            }
        };
        let (number, rim_of_session) = (ticket.number(), rim.clone());
        let task = sessions.spawn(async move { one(connecting, address, ticket, &rim_of_session).await });
        rim.door.attach(number, task);
        // A flood of greetings must leave room for everybody else on this thread.
        tokio::task::yield_now().await;
    }
    acceptor::drain(sessions).await;
    endpoint.close(VarInt::from_u32(0), b"the hub is stopping");
    let _ = timeout(LAST_PACKET, endpoint.wait_idle()).await;
}

async fn one(connecting: Connecting, address: SocketAddr, ticket: Ticket, rim: &Arc<Rim>) {
    let deadline = Instant::now() + rim.limits.handshake;
    let tally = rim.connections.tally();
    let (connection, send, recv) = match timeout_at(deadline, Box::pin(shake_hands(connecting))).await {
        Ok(Ok(shaken)) => shaken,
        Ok(Err(error)) => return tally.refused(why(&error), &address, &error),
        Err(_) => return tally.refused(Refusal::HandshakeTimeout, &address, &"no QUIC handshake and stream in time"),
    };
    let certificate = match certificate(connection.peer_identity()) {
        Ok(certificate) => certificate,
        Err(error) => return tally.refused(Refusal::Certificate, &address, &error),
    };
    let address = connection.remote_address();
    let (seat, seated) = oneshot::channel();
    let arrival = Arrival { address, transport: Transport::Quic, certificate, deadline, ticket, seated: Some(seat) };
    let stopped = send.stopped();
    // Files end with the session: a device that must go takes nothing more along.
    tokio::select! {
        biased;
        () = session::serve(tokio::io::join(recv, send), arrival, rim) => {}
        () = Box::pin(files::serve(connection.clone(), seated, rim)) => {}
    }
    // Closing the connection throws away what is still on its way.
    let _ = timeout(LAST_PACKET, stopped).await;
    connection.close(VarInt::from_u32(0), b"");
}

async fn shake_hands(connecting: Connecting) -> Result<(Connection, SendStream, RecvStream), ConnectionError> {
    let connection = connecting.await?;
    let (send, recv) = connection.accept_bi().await?;
    Ok((connection, send, recv))
}

fn certificate(identity: Option<Box<dyn Any>>) -> Result<Option<Certificate>, tributary_identity::CertificateError> {
    let chain = identity.and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok());
    chain.and_then(|chain| chain.into_iter().next()).map(|der| Certificate::from_der(&der)).transpose()
}

/// QUIC tells of a failed handshake by TLS's alerts.
fn why(error: &ConnectionError) -> Refusal {
    let ConnectionError::TransportError(error) = error else { return Refusal::Handshake };
    match u64::from(error.code).checked_sub(0x100) {
        // CertificateExpired
        Some(45) => Refusal::Expired,
        // UnknownCA, DecryptError
        Some(48 | 51) => Refusal::UnknownAuthority,
        // BadCertificate, UnsupportedCertificate, CertificateRevoked, CertificateUnknown, CertificateRequired
        Some(42..=44 | 46 | 116) => Refusal::Certificate,
        _ => Refusal::Handshake,
    }
}
