//! The connection of a client that is not a device.

use std::time::Duration;

use rumqttd::protocol::{ConnAckProperties, ConnectReturnCode, DisconnectReasonCode, Packet, PubComp, PubCompReason};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep, sleep_until};

use super::Clients;
use super::parting::{Parting, Will};
use super::session::Session;
use crate::Refused;
use crate::admission::Topics;
use crate::door::Ticket;
use crate::pace::Pace;
use crate::packets::{self, Ending, Packets};
use crate::session::{self as connection, Greeting, Rim};
use crate::tally::Refusal;
use crate::topics;

/// Bytes put together before they are written.
const WRITE_CHUNK: usize = 64 << 10;
/// The longest that a session is kept for a client that is away.
const SESSION_SECONDS: u32 = 3600;

/// Serves one client, from its admission to its end; its session may go on for a while.
pub(crate) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    greeting: Box<Greeting>,
    topics: &dyn Topics,
    keep_alive: Duration,
    ticket: &mut Ticket,
    packets: &mut Packets<S>,
    rim: &Rim,
) -> Ending {
    let Greeting { connect, properties, will, .. } = *greeting;
    let will = match will.map(|(will, properties)| Will::read(will, properties, topics)).transpose() {
        Ok(will) => will,
        Err(refused) => return Ending::not_let_in(refused),
    };
    if let Err(ending) = connection::enter(ticket, false) {
        return ending;
    }
    let clients = rim.connections.clients();
    let named = !connect.client_id.is_empty();
    let id = if named { connect.client_id } else { format!("client-{}", clients.number()) };
    let (hold, before) = clients.hold(id.clone(), !connect.clean_session).await;
    // Rights are those of this connection: a session that follows more is not gone on with.
    let before = before.filter(|session| session.may_go_on(topics));
    let resumed = before.is_some();
    let session = match before {
        Some(session) => session,
        None => match clients.session().await {
            Some(session) => session,
            None => {
                clients.release(&hold);
                let reason = "too many clients and sessions".to_owned();
                return Ending::not_let_in(Refused { refusal: Refusal::Full, reason });
            }
        },
    };
    let asked = |read: fn(&_) -> Option<u32>| properties.as_ref().and_then(read);
    let expiry = asked(|properties| properties.session_expiry_interval).unwrap_or(0);
    let offer = ConnAckProperties {
        retain_available: None,
        max_qos: None,
        shared_subscription_available: None,
        subscription_identifiers_available: None,
        assigned_client_identifier: (!named).then_some(id),
        session_expiry_interval: (expiry > SESSION_SECONDS).then_some(SESSION_SECONDS),
        ..connection::offer(keep_alive, rim)
    };
    packets.put(packets::conn_ack(ConnectReturnCode::Success, resumed, offer));
    let now = Instant::now();
    let mut client = Client {
        session,
        topics,
        clients: clients.clone(),
        keep_alive,
        window: asked(|properties| properties.receive_maximum.map(u32::from)).unwrap_or(u16::MAX.into()).max(1)
            as usize,
        packet_max: asked(|properties| properties.max_packet_size).unwrap_or(u32::MAX) as usize,
        expiry: expiry.min(SESSION_SECONDS),
        will,
        messages: Pace::new(rim.limits.messages_per_second.into(), now),
        bytes: Pace::new(rim.limits.bytes_per_second, now),
    };
    client.session.resend(packets, client.packet_max);
    let mut hold = hold;
    let ended = tokio::select! {
        biased;
        Ok(claim) = &mut hold.claims => Err(claim),
        why = topics.ended() => {
            // Neither its session nor its will outlives its rights.
            (client.expiry, client.will) = (0, None);
            Ok(Ending::Told(DisconnectReasonCode::AdministrativeAction, why))
        }
        () = rim.shutdown.given() => Ok(Ending::stopping()),
        ending = client.serve(packets, rim) => Ok(ending),
    };
    let Client { session, clients, expiry, will, .. } = client;
    Parting { session, clients, expiry, will }.end(ended, hold, &rim.shutdown)
}

pub(super) struct Client<'a> {
    pub session: Session,
    pub topics: &'a dyn Topics,
    pub clients: Clients,
    pub keep_alive: Duration,
    /// What the client takes at once, and how large.
    pub window: usize,
    pub packet_max: usize,
    /// Seconds that the session is kept.
    pub expiry: u32,
    pub will: Option<Will>,
    pub messages: Pace,
    pub bytes: Pace,
}

impl Client<'_> {
    async fn serve<S: AsyncRead + AsyncWrite + Unpin>(&mut self, packets: &mut Packets<S>, rim: &Rim) -> Ending {
        let silence = self.keep_alive.mul_f64(1.5);
        let mut deadline = Instant::now() + silence;
        // A client may send on without waiting for its CONNACK.
        if let Err(ending) = self.take(packets, rim).await {
            return ending;
        }
        loop {
            self.session.send(packets, (self.window, self.packet_max, WRITE_CHUNK));
            if let Err(ending) = packets.flush().await {
                return ending;
            }
            let may_send = self.session.is_idle();
            // With a full window and more to send, only the client can go on; otherwise there is more to write now.
            if !may_send && self.session.has_window(self.window) {
                continue;
            }
            tokio::select! {
                arrived = self.session.link.next(), if may_send => match arrived {
                    Some(arrived) => self.session.arrived(arrived),
                    None => return Ending::Closed,
                },
                filled = packets.fill() => {
                    if let Err(ending) = filled {
                        return ending;
                    }
                    deadline = Instant::now() + silence;
                    if let Err(ending) = self.take(packets, rim).await {
                        return ending;
                    }
                }
                () = sleep_until(deadline) => {
                    return Ending::Refused(Refusal::KeepAlive, DisconnectReasonCode::KeepAliveTimeout);
                }
            }
        }
    }

    async fn take<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        packets: &mut Packets<S>,
        rim: &Rim,
    ) -> Result<(), Ending> {
        while let Some(packet) = packets.buffered()? {
            match packet {
                Packet::PubAck(ack, _) => self.session.pub_ack(ack.pkid),
                Packet::PubRec(received, _) => {
                    if let Some(answer) = self.session.pub_rec(&received) {
                        packets.put(answer);
                    }
                }
                Packet::PubComp(complete, _) => self.session.pub_comp(complete.pkid),
                Packet::PubRel(released, _) if self.session.received.remove(&released.pkid) => {
                    let reason = PubCompReason::Success;
                    packets.put(Packet::PubComp(PubComp { pkid: released.pkid, reason }, None));
                }
                packet => {
                    let (weight, now) = (topics::weight(&packet)?, Instant::now());
                    let wait = self.messages.take(weight, now).max(self.bytes.take(packets.bytes(), now));
                    if !wait.is_zero() {
                        packets.flush().await?;
                        sleep(wait).await;
                    }
                    self.asked(packet, packets, rim).await?;
                }
            }
        }
        Ok(())
    }

    async fn asked<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        packet: Packet,
        packets: &mut Packets<S>,
        rim: &Rim,
    ) -> Result<(), Ending> {
        match packet {
            Packet::Publish(publish, properties) => {
                self.publish(publish, properties.unwrap_or_default(), packets, rim).await?;
            }
            Packet::Subscribe(subscribe, properties) => self.subscribe(&subscribe, properties, packets, rim)?,
            Packet::Unsubscribe(unsubscribe, _) => self.unsubscribe(&unsubscribe, packets),
            Packet::PingReq(_) => packets.put(packets::ping_resp()),
            Packet::PubRel(released, _) => {
                let reason = PubCompReason::PacketIdentifierNotFound;
                packets.put(Packet::PubComp(PubComp { pkid: released.pkid, reason }, None));
            }
            Packet::Disconnect(disconnect, properties) => {
                if let Some(expiry) = properties.and_then(|properties| properties.session_expiry_interval) {
                    if self.expiry == 0 && expiry > 0 {
                        return Err(Ending::protocol());
                    }
                    self.expiry = expiry.min(SESSION_SECONDS);
                }
                if disconnect.reason_code == DisconnectReasonCode::NormalDisconnection {
                    self.will = None;
                }
                return Err(Ending::Closed);
            }
            _ => return Err(Ending::protocol()),
        }
        Ok(())
    }
}
