//! Connections over TCP: plain on loopback, and TLS 1.3.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::{CertificateError, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use tributary_identity::Certificate;

use crate::door::Ticket;
use crate::session::{self, Arrival, Rim};
use crate::tally::Refusal;
use crate::{Transport, acceptor};

/// Errors of `accept` that mean that the process or the system has no room for another connection, not that this one
/// was bad: ENOMEM, ENFILE, EMFILE, ENOBUFS.
const NO_ROOM: [i32; 4] = [12, 23, 24, 105];

/// Serves a listener until the shutdown, then waits for its sessions.
pub(crate) async fn serve(listener: TcpListener, tls: Option<Arc<ServerConfig>>, rim: &Arc<Rim>) {
    let mut sessions = JoinSet::new();
    let tally = rim.connections.tally();
    loop {
        let accepted = tokio::select! {
            () = rim.shutdown.given() => break,
            Some(_) = sessions.join_next(), if !sessions.is_empty() => continue,
            accepted = listener.accept() => accepted,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) if error.raw_os_error().is_some_and(|code| NO_ROOM.contains(&code)) => {
                tally.refused(Refusal::NoRoom, &"the listener", &error);
                rim.door.make_room(tally);
                // Until a connection has ended, accepting again would only burn time.
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
            // One connection was gone before it was accepted.
            Err(_) => continue,
        };
        let ticket = match rim.door.knock(address.ip(), tally) {
            Ok(ticket) => ticket,
            Err(refusal) => {
                tally.refused(refusal, &address, &"too many or too fast from one address");
                continue;
            }
        };
        // Small packets that wait for each other would wait for the peer's delayed acknowledgements.
        let _ = stream.set_nodelay(true);
        let number = ticket.number();
        let (rim_of_session, tls) = (rim.clone(), tls.clone());
        let task = sessions.spawn(async move { one(stream, address, tls, ticket, &rim_of_session).await });
        rim.door.attach(number, task);
    }
    acceptor::drain(sessions).await;
}

async fn one(stream: TcpStream, address: SocketAddr, tls: Option<Arc<ServerConfig>>, ticket: Ticket, rim: &Rim) {
    let deadline = Instant::now() + rim.limits.handshake;
    let arrival = Arrival { address, transport: Transport::Plain, certificate: None, deadline, ticket, seated: None };
    let Some(tls) = tls else { return Box::pin(session::serve(stream, arrival, rim)).await };
    let tally = rim.connections.tally();
    // Its own allocation: a session should not keep the room of its handshake.
    let shaken = timeout_at(deadline, Box::pin(shake_hands(stream, tls, rim))).await;
    let (stream, certificate) = match shaken {
        Ok(Ok(shaken)) => shaken,
        Ok(Err(error)) => return tally.refused(why(&error), &address, &error),
        Err(_) => return tally.refused(Refusal::HandshakeTimeout, &address, &"no TLS handshake in time"),
    };
    Box::pin(session::serve(stream, Arrival { transport: Transport::Tls, certificate, ..arrival }, rim)).await;
}

type Shaken = (Box<TlsStream<TcpStream>>, Option<Certificate>);

async fn shake_hands(stream: TcpStream, tls: Arc<ServerConfig>, rim: &Rim) -> io::Result<Shaken> {
    let start = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream).await?;
    // Answering a greeting costs most of a handshake's computing, and is done inside `into_stream`: so few at a time
    // that sessions are served meanwhile. Nobody waits for a peer while it holds this.
    let permit = rim.handshakes.acquire().await.map_err(io::Error::other)?;
    let accept = start.into_stream(tls);
    drop(permit);
    let stream = Box::new(accept.await?);
    let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let certificate = shown.map(|der| Certificate::from_der(der)).transpose().map_err(io::Error::other)?;
    Ok((stream, certificate))
}

fn why(error: &io::Error) -> Refusal {
    let Some(error) = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>()) else {
        return Refusal::Handshake;
    };
    match error {
        rustls::Error::InvalidCertificate(problem) => match problem {
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => Refusal::Expired,
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Refusal::UnknownAuthority,
            _ => Refusal::Certificate,
        },
        rustls::Error::NoCertificatesPresented => Refusal::Certificate,
        _ => Refusal::Handshake,
    }
}
