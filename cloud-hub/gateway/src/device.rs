//! A device's connection: it speaks under its own `up/` and listens to its own `down/#`, and nothing else.

use std::collections::HashSet;
use std::time::Duration;

use rumqttd::protocol::{
    ConnectProperties, DisconnectReasonCode, Packet, PubAckReason, Publish, Subscribe, SubscribeReasonCode,
    UnsubAckReason,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep, sleep_until};
use tributary_wire::DeviceId;
use tributary_wire::topic::Topic;

use crate::connections::{Downward, Leave, Place};
use crate::pace::Pace;
use crate::packets::{self, Ending, Packets};
use crate::session::Rim;
use crate::tally::Refusal;
use crate::{Event, Room, Transport, Upward, topics};

/// Bytes put together before they are written.
const WRITE_CHUNK: usize = 64 << 10;
/// What a PUBLISH has beside topic and payload, at most.
const PUBLISH_HEAD: usize = 16;

/// A device that was let in.
pub(crate) struct Device {
    id: DeviceId,
    transport: Transport,
    place: Place,
    keep_alive: Duration,
    /// What the device takes at once, and how large.
    in_flight_max: usize,
    packet_max: usize,
    in_flight: HashSet<u16>,
    next_id: u16,
    /// Whether it has subscribed: nothing is sent down before.
    listens: bool,
    packets: Pace,
    bytes: Pace,
}

impl Device {
    /// Takes the device's place in the table; an older connection loses it.
    pub fn enter(
        id: DeviceId,
        transport: Transport,
        keep_alive: Duration,
        properties: Option<&ConnectProperties>,
        rim: &Rim,
    ) -> (Self, Leave) {
        let (place, leave) = rim.connections.enter(&id, transport);
        let now = Instant::now();
        // Without the properties the standard's defaults hold.
        let in_flight_max = properties.and_then(|properties| properties.receive_maximum).unwrap_or(u16::MAX);
        let packet_max = properties.and_then(|properties| properties.max_packet_size).unwrap_or(u32::MAX);
        let device = Self {
            id,
            transport,
            place,
            keep_alive,
            in_flight_max: in_flight_max.max(1).into(),
            packet_max: packet_max as usize,
            in_flight: HashSet::new(),
            next_id: 1,
            listens: false,
            packets: Pace::new(rim.limits.messages_per_second.into(), now),
            bytes: Pace::new(rim.limits.bytes_per_second, now),
        };
        (device, leave)
    }

    /// Serves it until either side ends it.
    pub async fn run<S: AsyncRead + AsyncWrite + Unpin>(
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
        self.gone(rim).await;
        ending
    }

    /// Gives the place back.
    pub async fn gone(self, rim: &Rim) {
        // One whose place was taken over did not say that it is gone.
        if rim.connections.leave(&self.id, self.place.number) && (self.listens || self.place.took_over) {
            let _ = rim.events.send(Event::Disconnected(self.id)).await;
        }
    }

    async fn serve<S: AsyncRead + AsyncWrite + Unpin>(&mut self, packets: &mut Packets<S>, rim: &Rim) -> Ending {
        if self.place.took_over {
            let _ = rim.events.send(Event::TakenOver(self.id.clone())).await;
        }
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
                    self.put(message, packets, rim);
                    while packets.waiting() < WRITE_CHUNK && self.in_flight.len() < self.in_flight_max {
                        let Ok(message) = self.place.messages.try_recv() else { break };
                        self.put(message, packets, rim);
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

    fn put<S: AsyncRead + AsyncWrite + Unpin>(&mut self, message: Downward, packets: &mut Packets<S>, rim: &Rim) {
        let topic = Topic::new(self.id.clone(), message.channel).to_string();
        if topic.len() + message.payload.len() + PUBLISH_HEAD > self.packet_max {
            let why =
                format!("{} bytes on {topic}, the device takes packets of {}", message.payload.len(), self.packet_max);
            rim.connections.tally().refused(Refusal::TooLarge, &self.id, &why);
            return;
        }
        let packet_id = self.packet_id();
        packets.put(packets::publish(packet_id, &topic, &message.payload));
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
            // Acknowledgements of what was sent come as fast as that; others count like all else.
            if let Packet::PubAck(ack, _) = &packet
                && self.in_flight.remove(&ack.pkid)
            {
                continue;
            }
            // Waiting here stops reading, so a device cannot send faster than it may, whatever becomes of it.
            let (weight, now) = (topics::weight(&packet)?, Instant::now());
            let wait = self.packets.take(weight, now).max(self.bytes.take(packets.bytes(), now));
            if !wait.is_zero() {
                packets.flush().await?;
                sleep(wait).await;
            }
            match packet {
                Packet::Publish(publish, properties) => {
                    if properties.is_some_and(|properties| properties.topic_alias.is_some()) {
                        return Err(Ending::Refused(Refusal::Protocol, DisconnectReasonCode::TopicAliasInvalid));
                    }
                    if publish.retain {
                        return Err(Ending::Refused(Refusal::Protocol, DisconnectReasonCode::RetainNotSupported));
                    }
                    self.publish(publish, packets, rim).await?;
                }
                Packet::Subscribe(subscribe, properties) => {
                    if properties.is_some_and(|properties| properties.id.is_some()) {
                        let code = DisconnectReasonCode::SubscriptionIdentifiersNotSupported;
                        return Err(Ending::Refused(Refusal::Protocol, code));
                    }
                    self.subscribe(&subscribe, packets, rim).await;
                }
                Packet::Unsubscribe(unsubscribe, _) => {
                    let own = Topic::down_filter(&self.id);
                    let reasons = unsubscribe.filters.iter().map(|filter| match (*filter == own, self.listens) {
                        (false, _) => {
                            rim.connections.tally().refused(
                                Refusal::Topic,
                                &self.id,
                                &"UNSUBSCRIBE from others' topics",
                            );
                            UnsubAckReason::NotAuthorized
                        }
                        (true, true) => {
                            self.listens = false;
                            UnsubAckReason::Success
                        }
                        (true, false) => UnsubAckReason::NoSubscriptionExisted,
                    });
                    packets.put(packets::unsub_ack(unsubscribe.pkid, reasons.collect()));
                }
                Packet::PingReq(_) => packets.put(packets::ping_resp()),
                Packet::PubAck(..) => {}
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
        let (packet_id, quality) = packets.publish_head();
        if quality > 1 {
            return Err(Ending::Refused(Refusal::Protocol, DisconnectReasonCode::QoSNotSupported));
        }
        let topic = std::str::from_utf8(&publish.topic).ok().and_then(Topic::parse);
        let own = topic.filter(|topic| topic.device == self.id && topic.channel.is_up());
        let reason = match own {
            Some(topic) => {
                // Nor may it send faster than the hub takes.
                let bytes = publish.payload.len().min(rim.limits.queue_bytes) as u32;
                let room = rim.queue.clone().acquire_many_owned(bytes).await.map_err(|_| Ending::Closed)?;
                let (device, channel, payload) = (topic.device, topic.channel, publish.payload);
                let message = Upward { device, channel, payload, room: Room::new(room) };
                rim.up.send(message).await.map_err(|_| Ending::Closed)?;
                PubAckReason::Success
            }
            None => {
                let why = format!("PUBLISH to {}", packets::shown(&publish.topic));
                rim.connections.tally().refused(Refusal::Topic, &self.id, &why);
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
        let own = Topic::down_filter(&self.id);
        let listened = self.listens;
        let codes = subscribe.filters.iter().map(|filter| {
            if filter.path == own {
                self.listens = true;
                SubscribeReasonCode::QoS1
            } else {
                let why = format!("SUBSCRIBE to {}", packets::shown(filter.path.as_bytes()));
                rim.connections.tally().refused(Refusal::Topic, &self.id, &why);
                SubscribeReasonCode::NotAuthorized
            }
        });
        packets.put(packets::sub_ack(subscribe.pkid, codes.collect()));
        if self.listens && !listened {
            let _ = rim.events.send(Event::Connected(self.id.clone(), self.transport)).await;
        }
    }
}
