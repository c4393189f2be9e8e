//! One connection, from its first byte to its last.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rumqttd::protocol::{
    ConnAckProperties, Connect, ConnectProperties, ConnectReturnCode, DisconnectReasonCode, Packet, PubAckReason,
    Publish, Subscribe, SubscribeReasonCode,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, sleep_until, timeout};
use tributary_process::shutdown::Shutdown;
use tributary_wire::DeviceId;
use tributary_wire::topic::Topic;

use crate::connections::{Connections, Leave, Place};
use crate::integrations;
use crate::pace::Pace;
use crate::packets::{self, Ending, Packets};
use crate::tally::Refusal;
use crate::{Admission, Event, Limits, Peer, Refused, Rights, Room, Topics, Transport, Upward};

/// Bytes put together before they are written.
const WRITE_CHUNK: usize = 64 << 10;

/// What every session needs.
pub(crate) struct Rim {
    pub limits: Limits,
    pub queue: Arc<Semaphore>,
    pub connections: Connections,
    pub admission: Arc<dyn Admission>,
    pub up: mpsc::Sender<Upward>,
    pub events: mpsc::Sender<Event>,
    pub shutdown: Shutdown,
}

/// Serves one peer until either side ends it.
pub(crate) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    address: SocketAddr,
    transport: Transport,
    rim: &Rim,
) {
    let mut packets = Packets::new(stream, rim.limits.packet_bytes, rim.limits.write_timeout);
    let ending = match greet(&mut packets, address, transport, rim).await {
        Ok(Greeted::Device(session, leave)) => session.run(leave, &mut packets, rim).await,
        Ok(Greeted::Client { client, topics, keep_alive }) => {
            let integrations = rim.connections.integrations();
            integrations::follow(integrations, &client, &*topics, keep_alive, &mut packets, rim).await
        }
        Err(ending) => ending,
    };
    let last = match ending {
        Ending::Closed => return,
        Ending::Told(code, why) => packets::disconnect(code, &why),
        Ending::Refused(refusal, reason) => {
            rim.connections.tally().count(refusal);
            packets::disconnect(reason, refusal.name())
        }
    };
    packets.put(last);
    let _ = packets.flush().await;
}

enum Greeted {
    Device(Session, Leave),
    Client { client: String, topics: Arc<dyn Topics>, keep_alive: Duration },
}

async fn greet<S: AsyncRead + AsyncWrite + Unpin>(
    packets: &mut Packets<S>,
    address: SocketAddr,
    transport: Transport,
    rim: &Rim,
) -> Result<Greeted, Ending> {
    let first = timeout(rim.limits.handshake, packets.first()).await;
    let first = first.map_err(|_| {
        rim.connections.tally().count(Refusal::HandshakeTimeout);
        Ending::Closed
    })??;
    let Packet::Connect(connect, properties, _, _, login) = first else { return Err(Ending::protocol()) };
    let keep_alive = keep_alive(&connect, rim);
    let peer = Peer {
        address,
        transport,
        certificate: None,
        client_id: &connect.client_id,
        username: login.as_ref().map(|login| login.username.as_str()),
        password: login.as_ref().map(|login| login.password.as_bytes()),
    };
    let device = match rim.admission.admit(peer).await {
        Ok(Rights::Device(device)) => device,
        Ok(Rights::Client(topics)) => {
            packets.put(packets::conn_ack(ConnectReturnCode::Success, offer(keep_alive, rim)));
            packets.flush().await?;
            return Ok(Greeted::Client { client: connect.client_id, topics, keep_alive });
        }
        Err(refused) => {
            tracing::warn!(client_id = connect.client_id, reason = refused.reason, "connection refused");
            return Err(refuse(packets, rim, refused).await);
        }
    };
    let (place, leave) = rim.connections.enter(&device, transport);
    if place.took_over {
        let _ = rim.events.send(Event::TakenOver(device.clone())).await;
    }
    packets.put(packets::conn_ack(ConnectReturnCode::Success, offer(keep_alive, rim)));
    let in_flight_max = receive_maximum(properties.as_ref());
    let session = Session {
        device,
        transport,
        place,
        keep_alive,
        in_flight_max,
        in_flight: HashSet::new(),
        next_id: 1,
        listens: false,
        pace: Pace::new(rim.limits.messages_per_second, Instant::now()),
    };
    Ok(Greeted::Device(session, leave))
}

async fn refuse<S: AsyncRead + AsyncWrite + Unpin>(packets: &mut Packets<S>, rim: &Rim, refused: Refused) -> Ending {
    rim.connections.tally().count(refused.refusal);
    let properties = ConnAckProperties { reason_string: Some(refused.reason), ..Default::default() };
    packets.put(packets::conn_ack(refused.refusal.code(), properties));
    let _ = packets.flush().await;
    Ending::Closed
}

fn keep_alive(connect: &Connect, rim: &Rim) -> Duration {
    match Duration::from_secs(connect.keep_alive.into()) {
        Duration::ZERO => rim.limits.keep_alive,
        asked => asked.min(rim.limits.keep_alive),
    }
}

fn receive_maximum(properties: Option<&ConnectProperties>) -> usize {
    // Without the property the standard's default holds.
    properties.and_then(|properties| properties.receive_maximum).unwrap_or(u16::MAX).max(1).into()
}

fn offer(keep_alive: Duration, rim: &Rim) -> ConnAckProperties {
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

/// A device's connection.
struct Session {
    device: DeviceId,
    transport: Transport,
    place: Place,
    keep_alive: Duration,
    in_flight_max: usize,
    in_flight: HashSet<u16>,
    next_id: u16,
    /// Whether it has subscribed: nothing is sent down before.
    listens: bool,
    pace: Pace,
}

impl Session {
    async fn run<S: AsyncRead + AsyncWrite + Unpin>(
        mut self,
        mut leave: Leave,
        packets: &mut Packets<S>,
        rim: &Rim,
    ) -> Ending {
        // Whatever it waits for, a session that is told to go goes at once.
        let ending = tokio::select! {
            biased;
            ending = leave.told() => ending,
            () = rim.shutdown.given() => Ending::stopping(),
            ending = self.serve(packets, rim) => ending,
        };
        if rim.connections.leave(&self.device, self.place.number) && self.listens {
            let _ = rim.events.send(Event::Disconnected(self.device)).await;
        }
        ending
    }

    async fn serve<S: AsyncRead + AsyncWrite + Unpin>(&mut self, packets: &mut Packets<S>, rim: &Rim) -> Ending {
        let silence = self.keep_alive.mul_f64(1.5);
        let mut deadline = Instant::now() + silence;
        // A client may send on without waiting for its CONNACK.
        if let Err(ending) = self.take(packets, rim).await {
            return ending;
        }
        loop {
            if let Err(ending) = packets.flush().await {
                return ending;
            }
            let may_send = self.listens && self.in_flight.len() < self.in_flight_max;
            tokio::select! {
                biased;
                Some(message) = self.place.messages.recv(), if may_send => {
                    let packet_id = self.packet_id();
                    packets.put(packets::publish(packet_id, &message.topic, &message.payload));
                    while packets.waiting() < WRITE_CHUNK && self.in_flight.len() < self.in_flight_max {
                        let Ok(message) = self.place.messages.try_recv() else { break };
                        let packet_id = self.packet_id();
                        packets.put(packets::publish(packet_id, &message.topic, &message.payload));
                    }
                }
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

    fn packet_id(&mut self) -> u16 {
        // Ids in flight are skipped; there are always free ones because the window is smaller than their number.
        loop {
            let id = self.next_id;
            self.next_id = self.next_id.checked_add(1).unwrap_or(1);
            if self.in_flight.insert(id) {
                return id;
            }
        }
    }

    /// Handles every packet that is here.
    async fn take<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        packets: &mut Packets<S>,
        rim: &Rim,
    ) -> Result<(), Ending> {
        while let Some(packet) = packets.buffered()? {
            match packet {
                Packet::Publish(publish, properties) => {
                    if properties.is_some_and(|properties| properties.topic_alias.is_some()) {
                        return Err(Ending::Refused(Refusal::Protocol, DisconnectReasonCode::TopicAliasInvalid));
                    }
                    self.publish(publish, packets, rim).await?;
                }
                Packet::PubAck(ack, _) => {
                    self.in_flight.remove(&ack.pkid);
                }
                Packet::Subscribe(subscribe, _) => self.subscribe(&subscribe, packets, rim).await,
                Packet::Unsubscribe(unsubscribe, _) => {
                    if unsubscribe.filters.contains(&Topic::down_filter(&self.device)) {
                        self.listens = false;
                    }
                    packets.put(packets::unsub_ack(unsubscribe.pkid, unsubscribe.filters.len()));
                }
                Packet::PingReq(_) => packets.put(packets::ping_resp()),
                Packet::Disconnect(..) => return Err(Ending::Closed),
                _ => return Err(Ending::protocol()),
            }
        }
        Ok(())
    }

    async fn publish<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        publish: Publish,
        packets: &mut Packets<S>,
        rim: &Rim,
    ) -> Result<(), Ending> {
        let (packet_id, quality) = packets::publish_head(&publish);
        if quality > 1 {
            return Err(Ending::Refused(Refusal::Protocol, DisconnectReasonCode::QoSNotSupported));
        }
        let topic = std::str::from_utf8(&publish.topic).ok().and_then(Topic::parse);
        let own = topic.filter(|topic| topic.device == self.device && topic.channel.is_up());
        let reason = match own {
            Some(topic) => {
                // Waiting here stops reading, so a device cannot send faster than it may, or than the hub takes.
                let wait = self.pace.take(Instant::now());
                if !wait.is_zero() {
                    tokio::time::sleep(wait).await;
                }
                let bytes = publish.payload.len().min(rim.limits.queue_bytes) as u32;
                let room = rim.queue.clone().acquire_many_owned(bytes).await.map_err(|_| Ending::Closed)?;
                let (device, channel, payload) = (topic.device, topic.channel, publish.payload);
                let message = Upward { device, channel, payload, room: Room::new(room) };
                rim.up.send(message).await.map_err(|_| Ending::Closed)?;
                PubAckReason::Success
            }
            None => {
                rim.connections.tally().count(Refusal::Topic);
                tracing::warn!(device_id = %self.device, topic = ?publish.topic, "publish refused");
                PubAckReason::NotAuthorized
            }
        };
        if quality == 1 {
            packets.put(packets::pub_ack(packet_id, reason));
        }
        Ok(())
    }

    async fn subscribe<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        subscribe: &Subscribe,
        packets: &mut Packets<S>,
        rim: &Rim,
    ) {
        let own = Topic::down_filter(&self.device);
        let listened = self.listens;
        let codes = subscribe.filters.iter().map(|filter| {
            if filter.path == own {
                self.listens = true;
                SubscribeReasonCode::QoS1
            } else {
                rim.connections.tally().count(Refusal::Topic);
                tracing::warn!(device_id = %self.device, filter = filter.path, "subscription refused");
                SubscribeReasonCode::NotAuthorized
            }
        });
        packets.put(packets::sub_ack(subscribe.pkid, codes.collect()));
        if self.listens && !listened {
            let _ = rim.events.send(Event::Connected(self.device.clone(), self.transport)).await;
        }
    }
}
