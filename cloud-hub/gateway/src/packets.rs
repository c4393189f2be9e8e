//! Packets of one connection, through rumqttd's MQTT 5 codec: read with limits, written in one go.

use std::io;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use rumqttd::protocol::v5::V5;
use rumqttd::protocol::{
    ConnAck, ConnAckProperties, ConnectReturnCode, Disconnect, DisconnectProperties, DisconnectReasonCode, Packet,
    PingResp, Protocol, PubAck, PubAckReason, Publish, PublishProperties, SubAck, SubscribeReasonCode, UnsubAck,
    UnsubAckReason,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::Refused;
use crate::frame::{self, CONNECT, DISCONNECT, PUBLISH};
use crate::tally::Refusal;

/// Room for a read: little while a connection is idle, more with each read that fills it.
const READ_MIN: usize = 256;
const READ_MAX: usize = 64 << 10;
/// How long a peer that is told to go may take to read why.
const LINGER: Duration = Duration::from_secs(1);

/// Why a connection ends.
#[derive(Debug)]
pub(crate) enum Ending {
    /// The peer closed it or it broke.
    Closed,
    /// We refuse to go on.
    Refused(Refusal, DisconnectReasonCode),
    /// Somebody else wants it gone, and says why.
    Told(DisconnectReasonCode, String),
    /// It may not come in; what its CONNACK says.
    NotLetIn(ConnectReturnCode, Refused),
    /// It speaks MQTT 3.
    OlderVersion,
}

impl Ending {
    /// What everybody is told when the hub ends.
    pub fn stopping() -> Self {
        Self::Told(DisconnectReasonCode::ServerShuttingDown, "the hub is stopping".to_owned())
    }

    pub fn not_let_in(refused: Refused) -> Self {
        Self::NotLetIn(refused.refusal.code(), refused)
    }

    pub fn malformed() -> Self {
        Self::Refused(Refusal::Protocol, DisconnectReasonCode::MalformedPacket)
    }

    pub fn protocol() -> Self {
        Self::Refused(Refusal::Protocol, DisconnectReasonCode::ProtocolError)
    }
}

impl From<io::Error> for Ending {
    fn from(_: io::Error) -> Self {
        Self::Closed
    }
}

/// Reads and writes packets over a stream.
pub(crate) struct Packets<S> {
    stream: S,
    codec: V5,
    read: BytesMut,
    write: BytesMut,
    bytes_max: usize,
    write_timeout: Duration,
    publish_head: (u16, u8),
    /// Of the last packet.
    bytes: usize,
    /// Room for the next read.
    ahead: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Packets<S> {
    pub fn new(stream: S, bytes_max: usize, write_timeout: Duration) -> Self {
        Self {
            stream,
            codec: V5,
            read: BytesMut::new(),
            write: BytesMut::new(),
            bytes_max,
            write_timeout,
            publish_head: (0, 0),
            bytes: 0,
            ahead: READ_MIN,
        }
    }

    /// The next packet that is already here.
    pub fn buffered(&mut self) -> Result<Option<Packet>, Ending> {
        let Some((head, length)) = frame::bounds(&self.read, self.bytes_max)? else { return Ok(None) };
        if self.read.len() < head + length {
            return Ok(None);
        }
        self.bytes = head + length;
        if self.read[0] >> 4 == DISCONNECT && length == 1 {
            // The codec does not know that only its reason may be there.
            let reason_code = match self.read.split_to(head + length)[head] {
                4 => DisconnectReasonCode::DisconnectWithWillMessage,
                _ => DisconnectReasonCode::NormalDisconnection,
            };
            return Ok(Some(Packet::Disconnect(Disconnect { reason_code }, None)));
        }
        if self.read[0] >> 4 == PUBLISH {
            self.publish_head = frame::publish_head(&self.read, head);
        }
        match self.codec.read_mut(&mut self.read, self.bytes_max) {
            Ok(packet) => Ok(Some(packet)),
            // The frame is whole, so also what the codec takes for a missing byte is a wrong length within.
            Err(_) => Err(Ending::malformed()),
        }
    }

    /// Packet id and quality of service of the last PUBLISH: the codec keeps them to itself.
    pub fn publish_head(&self) -> (u16, u8) {
        self.publish_head
    }

    /// Length of the last packet.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Waits for more bytes. Safe to drop at any time: what was read stays.
    pub async fn fill(&mut self) -> Result<(), Ending> {
        if self.read.is_empty() && self.read.capacity() > 2 * self.ahead {
            // What a burst needed should not be held while nothing comes.
            self.read = BytesMut::new();
        }
        self.read.reserve(self.ahead);
        let room = self.read.capacity() - self.read.len();
        let count = self.stream.read_buf(&mut self.read).await?;
        if count == 0 {
            return Err(Ending::Closed);
        }
        self.ahead = if count == room { (4 * self.ahead).min(READ_MAX) } else { count.clamp(READ_MIN, READ_MAX) };
        Ok(())
    }

    /// Ends our side, and waits a moment for the other: what it does not read before its own bytes meet a closed
    /// socket, it never reads.
    pub async fn finish(&mut self) {
        let ended = async {
            self.flush().await.ok()?;
            self.stream.shutdown().await.ok()?;
            let mut rest = self.bytes_max;
            while rest > 0 {
                self.read.clear();
                self.ahead = READ_MIN;
                let before = rest;
                self.fill().await.ok()?;
                rest = before.saturating_sub(self.read.len());
            }
            Some(())
        };
        let _ = tokio::time::timeout(LINGER, ended).await;
    }

    /// The first packet, however long it takes. What does not begin like a CONNECT is refused at its first byte.
    pub async fn first(&mut self) -> Result<Packet, Ending> {
        loop {
            if self.read.first().is_some_and(|first| *first != CONNECT << 4) {
                return Err(Ending::protocol());
            }
            if frame::is_older_version(&self.read) {
                return Err(Ending::OlderVersion);
            }
            if let Some(packet) = self.buffered()? {
                return Ok(packet);
            }
            self.fill().await?;
        }
    }

    /// Puts a packet at the end of what is written next.
    pub fn put(&mut self, packet: Packet) {
        // The codec fails only for packets over 256 MB, which our own limits exclude.
        let _ = self.codec.write(packet, &mut self.write);
    }

    /// As [`Self::put`], unless the packet is larger than the peer takes; whether it was put.
    pub fn put_within(&mut self, packet: Packet, bytes_max: usize) -> bool {
        let before = self.write.len();
        self.put(packet);
        let within = self.write.len() - before <= bytes_max;
        if !within {
            self.write.truncate(before);
        }
        within
    }

    /// Says in the words of MQTT 3 that its version is not spoken here.
    pub fn put_not_this_version(&mut self) {
        self.write.extend_from_slice(&[0x20, 2, 0, 1]);
    }

    /// Bytes that wait to be written.
    pub fn waiting(&self) -> usize {
        self.write.len()
    }

    /// Writes all that was put. A peer that does not read in time is cut off.
    pub async fn flush(&mut self) -> Result<(), Ending> {
        if self.write.is_empty() {
            return Ok(());
        }
        let written = tokio::time::timeout(self.write_timeout, async {
            while !self.write.is_empty() {
                // What was written is gone from the buffer: if this is dropped half-way, the next one goes on there.
                if self.stream.write_buf(&mut self.write).await? == 0 {
                    return Err(io::ErrorKind::WriteZero.into());
                }
            }
            self.stream.flush().await
        });
        match written.await {
            Ok(result) => result?,
            Err(_) => return Err(Ending::Refused(Refusal::SlowReader, DisconnectReasonCode::UnspecifiedError)),
        }
        // One large message should not hold its memory for the life of a connection.
        if self.write.capacity() > 1 << 16 {
            self.write = BytesMut::new();
        }
        Ok(())
    }
}

/// A topic as in a log line, not longer than one.
pub(crate) fn shown(topic: &[u8]) -> String {
    const LONGEST: usize = 100;
    let (text, more) = match topic.get(..LONGEST) {
        Some(start) if topic.len() > LONGEST => (start, format!(" and {} bytes more", topic.len() - LONGEST)),
        _ => (topic, String::new()),
    };
    format!("{:?}{more}", String::from_utf8_lossy(text))
}

/// A PUBLISH with quality of service 1.
pub(crate) fn publish(packet_id: u16, topic: &str, payload: &[u8]) -> Packet {
    publish_as(0b0010, packet_id, topic.as_bytes(), payload, None)
}

/// A PUBLISH with these flags. The codec keeps some of its fields to itself, but reads them from bytes.
pub(crate) fn publish_as(
    flags: u8,
    packet_id: u16,
    topic: &[u8],
    payload: &[u8],
    properties: Option<PublishProperties>,
) -> Packet {
    let mut bytes = BytesMut::with_capacity(5 + topic.len() + payload.len());
    bytes.put_u8(PUBLISH << 4 | flags);
    bytes.put_u16(packet_id);
    bytes.put_u16(topic.len() as u16);
    bytes.put_slice(topic);
    bytes.put_slice(payload);
    Packet::Publish(Publish::deserialize(bytes.freeze()), properties)
}

pub(crate) fn conn_ack(code: ConnectReturnCode, session_present: bool, properties: ConnAckProperties) -> Packet {
    Packet::ConnAck(ConnAck { session_present, code }, Some(properties))
}

pub(crate) fn pub_ack(packet_id: u16, reason: PubAckReason) -> Packet {
    Packet::PubAck(PubAck { pkid: packet_id, reason }, None)
}

pub(crate) fn sub_ack(packet_id: u16, codes: Vec<SubscribeReasonCode>) -> Packet {
    Packet::SubAck(SubAck { pkid: packet_id, return_codes: codes }, None)
}

pub(crate) fn unsub_ack(packet_id: u16, reasons: Vec<UnsubAckReason>) -> Packet {
    Packet::UnsubAck(UnsubAck { pkid: packet_id, reasons }, None)
}

pub(crate) fn ping_resp() -> Packet {
    Packet::PingResp(PingResp)
}

/// A DISCONNECT that says why. Without properties the codec writes a byte more than it announces, which clients cannot
/// read.
pub(crate) fn disconnect(reason_code: DisconnectReasonCode, why: &str) -> Packet {
    let properties = DisconnectProperties {
        session_expiry_interval: None,
        reason_string: Some(why.to_owned()),
        user_properties: Vec::new(),
        server_reference: None,
    };
    Packet::Disconnect(Disconnect { reason_code }, Some(properties))
}
