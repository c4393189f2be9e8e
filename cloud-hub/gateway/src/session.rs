//! A connection from its first packet to its last: who it is, what it may do, and who serves it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rumqttd::protocol::{
    ConnAckProperties, Connect, ConnectProperties, ConnectReturnCode, DisconnectReasonCode, LastWill,
    LastWillProperties, Login, Packet,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use tributary_identity::Certificate;
use tributary_process::shutdown::Shutdown;
use tributary_wire::DeviceId;

use crate::clients;
use crate::connections::Connections;
use crate::device::Device;
use crate::door::{Door, Ticket};
use crate::packets::{self, Ending, Packets};
use crate::tally::Refusal;
use crate::{Admission, Event, Files, Limits, Peer, Refused, Rights, Transport, Upward};

/// What every session needs.
pub(crate) struct Rim {
    pub limits: Limits,
    pub door: Door,
    pub handshakes: Semaphore,
    pub queue: Arc<Semaphore>,
    pub connections: Connections,
    pub admission: Arc<dyn Admission>,
    pub files: Arc<dyn Files>,
    pub up: mpsc::Sender<Upward>,
    pub events: mpsc::Sender<Event>,
    pub shutdown: Shutdown,
}

/// A peer whose bytes can be read, but who has not said who it is.
pub(crate) struct Arrival {
    pub address: SocketAddr,
    pub transport: Transport,
    pub certificate: Option<Certificate>,
    /// Until when it has to be let in.
    pub deadline: Instant,
    pub ticket: Ticket,
    /// Is told which device got its place on this connection, if one does.
    pub seated: Option<oneshot::Sender<DeviceId>>,
}

/// Serves one peer until either side ends it.
pub(crate) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(stream: S, arrival: Arrival, rim: &Rim) {
    let mut packets = Packets::new(stream, rim.limits.packet_bytes, rim.limits.write_timeout);
    let Arrival { address, transport, certificate, deadline, mut ticket, seated } = arrival;
    let tally = rim.connections.tally();
    let greeting = Box::pin(greet(&mut packets, address, transport, certificate, rim));
    let mut who = address.to_string();
    let ending = match timeout_at(deadline, greeting).await {
        Ok(Ok(greeting)) => {
            // Whoever reads of its faults should not have to look up an address.
            who = format!("{} at {address}", packets::shown(greeting.connect.client_id.as_bytes()));
            seat(greeting, transport, &mut ticket, seated, &mut packets, rim).await
        }
        Ok(Err(ending)) => ending,
        Err(_) => return tally.refused(Refusal::HandshakeTimeout, &address, &"no CONNECT in time"),
    };
    match ending {
        Ending::Closed => {
            // Answers to what came just before its DISCONNECT.
            let _ = packets.flush().await;
            return;
        }
        Ending::Told(code, why) => packets.put(packets::disconnect(code, &why)),
        Ending::Refused(refusal, code) => {
            let why = format!("{}: {}", refusal.name(), words(code));
            tally.refused(refusal, &who, &why);
            packets.put(packets::disconnect(code, &why));
        }
        Ending::NotLetIn(code, refused) => {
            tally.refused(refused.refusal, &who, &refused.reason);
            let properties = ConnAckProperties { reason_string: Some(refused.reason), ..Default::default() };
            packets.put(packets::conn_ack(code, false, properties));
        }
        Ending::OlderVersion => {
            tally.refused(Refusal::Version, &address, &"an MQTT version before 5");
            packets.put_not_this_version();
        }
    }
    packets.finish().await;
}

/// What a peer did wrong, for its own log and for ours.
fn words(code: DisconnectReasonCode) -> &'static str {
    use DisconnectReasonCode as Code;
    match code {
        Code::MalformedPacket => "a packet that is not one of MQTT 5",
        Code::ProtocolError => "a packet that may not come here",
        Code::PacketTooLarge => "a packet larger than its kind may be",
        Code::QuotaExceeded => "too many filters in one packet",
        Code::KeepAliveTimeout => "silent for longer than its keep-alive",
        Code::QoSNotSupported => "a quality of service that was not offered",
        Code::RetainNotSupported => "a retained message, which was not offered",
        Code::TopicAliasInvalid => "a topic alias, which was not offered",
        Code::SubscriptionIdentifiersNotSupported => "a subscription identifier, which was not offered",
        Code::ReceiveMaximumExceeded => "more messages at once than were offered",
        Code::TopicNameInvalid => "a topic that nobody can publish to",
        Code::UnspecifiedError => "it did not take what was sent to it",
        _ => "it had to go",
    }
}

/// A CONNECT that admission said yes to.
pub(crate) struct Greeting {
    pub connect: Connect,
    pub properties: Option<ConnectProperties>,
    pub will: Option<(LastWill, Option<LastWillProperties>)>,
    pub rights: Rights,
    pub certificate: Option<Certificate>,
}

async fn greet<S: AsyncRead + AsyncWrite + Unpin>(
    packets: &mut Packets<S>,
    address: SocketAddr,
    transport: Transport,
    certificate: Option<Certificate>,
    rim: &Rim,
) -> Result<Box<Greeting>, Ending> {
    let first = packets.first().await?;
    let Packet::Connect(connect, properties, will, will_properties, login) = first else {
        return Err(Ending::protocol());
    };
    if properties.as_ref().is_some_and(|properties| properties.authentication_method.is_some()) {
        let reason = "extended authentication is not available".to_owned();
        let refused = Refused { refusal: Refusal::Unsupported, reason };
        return Err(Ending::NotLetIn(ConnectReturnCode::BadAuthenticationMethod, refused));
    }
    let login: Option<&Login> = login.as_ref();
    let peer = Peer {
        address,
        transport,
        certificate: certificate.as_ref(),
        client_id: &connect.client_id,
        username: login.map(|login| login.username.as_str()),
        password: login.map(|login| login.password.as_bytes()),
    };
    let rights = rim.admission.admit(peer).await.map_err(Ending::not_let_in)?;
    let will = will.map(|will| (will, will_properties));
    // On the heap: a session should not keep the room of its first packet.
    Ok(Box::new(Greeting { connect, properties, will, rights, certificate }))
}

/// Gives a peer that may come in its place, and serves it there.
async fn seat<S: AsyncRead + AsyncWrite + Unpin>(
    greeting: Box<Greeting>,
    transport: Transport,
    ticket: &mut Ticket,
    seated: Option<oneshot::Sender<DeviceId>>,
    packets: &mut Packets<S>,
    rim: &Rim,
) -> Ending {
    let keep_alive = keep_alive(&greeting.connect, rim);
    match &greeting.rights {
        Rights::Client(topics) => {
            let topics = topics.clone();
            Box::pin(clients::serve(greeting, &*topics, keep_alive, ticket, packets, rim)).await
        }
        Rights::Device(device) => {
            let device = device.clone();
            if greeting.will.is_some() {
                let reason = "a device may not leave a will".to_owned();
                return Ending::not_let_in(Refused { refusal: Refusal::Topic, reason });
            }
            if let Err(ending) = enter(ticket, rim.connections.is_connected(&device)) {
                return ending;
            }
            let properties = greeting.properties.as_ref();
            let (session, leave) = Device::enter(device.clone(), transport, keep_alive, properties, rim);
            // Whoever revokes its certificate from now on finds it in its place; whoever did so since it was let in has
            // not, and admission knows.
            if let Err(refused) = rim.admission.seated(&device, greeting.certificate.as_ref()) {
                session.gone(rim).await;
                return Ending::not_let_in(refused);
            }
            packets.put(packets::conn_ack(ConnectReturnCode::Success, false, offer(keep_alive, rim)));
            drop(greeting);
            seated.map(|seated| seated.send(device));
            Box::pin(session.run(leave, packets, rim)).await
        }
    }
}

pub(crate) fn enter(ticket: &mut Ticket, replaces: bool) -> Result<(), Ending> {
    ticket.enter(replaces).map_err(|refusal| {
        let reason = "the hub has no room for another connection now".to_owned();
        Ending::not_let_in(Refused { refusal, reason })
    })
}

fn keep_alive(connect: &Connect, rim: &Rim) -> Duration {
    match Duration::from_secs(connect.keep_alive.into()) {
        Duration::ZERO => rim.limits.keep_alive,
        asked => asked.min(rim.limits.keep_alive),
    }
}

pub(crate) fn offer(keep_alive: Duration, rim: &Rim) -> ConnAckProperties {
    ConnAckProperties {
        receive_max: Some(rim.limits.receive_maximum),
        max_qos: Some(1),
        retain_available: Some(0),
        max_packet_size: Some(rim.limits.packet_bytes as u32),
        // An alias would carry a topic that nobody has checked.
        topic_alias_max: Some(0),
        shared_subscription_available: Some(0),
        subscription_identifiers_available: Some(0),
        server_keep_alive: Some(keep_alive.as_secs() as u16),
        ..Default::default()
    }
}
