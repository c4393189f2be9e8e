//! Packets of one connection, through rumqttd's MQTT 5 codec: read with limits, written in one go.

use std::io;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use rumqttd::protocol::v5::V5;
use rumqttd::protocol::{
    ConnAck, ConnAckProperties, ConnectReturnCode, Disconnect, DisconnectProperties, DisconnectReasonCode, Error,
    Packet, PingResp, Protocol, PubAck, PubAckReason, Publish, SubAck, SubscribeReasonCode, UnsubAck, UnsubAckReason,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::tally::Refusal;

/// Packet types that a client may send, by the first four bits: CONNECT, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP,
/// SUBSCRIBE, UNSUBSCRIBE, PINGREQ, DISCONNECT. The codec panics on some of the others.
const FROM_CLIENTS: u16 = 1 << 1 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 10 | 1 << 12 | 1 << 14;

/// Why a connection ends.
#[derive(Debug)]
pub(crate) enum Ending {
    /// The peer closed it or it broke.
    Closed,
    /// We refuse to go on.
    Refused(Refusal, DisconnectReasonCode),
    /// Somebody else wants it gone, and says why.
    Told(DisconnectReasonCode, String),
}

impl Ending {
    /// What everybody is told when the hub ends.
    pub fn stopping() -> Self {
        Self::Told(DisconnectReasonCode::ServerShuttingDown, "the hub is stopping".to_owned())
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
}

impl<S: AsyncRead + AsyncWrite + Unpin> Packets<S> {
    pub fn new(stream: S, bytes_max: usize, write_timeout: Duration) -> Self {
        Self { stream, codec: V5, read: BytesMut::new(), write: BytesMut::new(), bytes_max, write_timeout }
    }

    /// The next packet that is already here.
    pub fn buffered(&mut self) -> Result<Option<Packet>, Ending> {
        let Some(first) = self.read.first() else { return Ok(None) };
        if FROM_CLIENTS & (1 << (first >> 4)) == 0 {
            return Err(Ending::protocol());
        }
        match self.codec.read_mut(&mut self.read, self.bytes_max) {
            Ok(packet) => Ok(Some(packet)),
            Err(Error::InsufficientBytes(_)) => Ok(None),
            Err(Error::PayloadSizeLimitExceeded(_)) => {
                Err(Ending::Refused(Refusal::TooLarge, DisconnectReasonCode::PacketTooLarge))
            }
            Err(_) => Err(Ending::Refused(Refusal::Protocol, DisconnectReasonCode::MalformedPacket)),
        }
    }

    /// Waits for more bytes. Safe to drop at any time: what was read stays.
    pub async fn fill(&mut self) -> Result<(), Ending> {
        match self.stream.read_buf(&mut self.read).await? {
            0 => Err(Ending::Closed),
            _ => Ok(()),
        }
    }

    /// The first packet, however long it takes. What does not begin like a CONNECT is refused at its first byte.
    pub async fn first(&mut self) -> Result<Packet, Ending> {
        loop {
            if self.read.first().is_some_and(|first| *first != 0x10) {
                return Err(Ending::protocol());
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

/// Packet id and quality of service of a PUBLISH; the codec keeps them to itself but writes them out.
pub(crate) fn publish_head(publish: &Publish) -> (u16, u8) {
    let mut head = publish.clone();
    (head.topic, head.payload) = (Bytes::new(), Bytes::new());
    let head = head.serialize();
    (u16::from_be_bytes([head[1], head[2]]), (head[0] >> 1) & 3)
}

/// A PUBLISH with quality of service 1.
pub(crate) fn publish(packet_id: u16, topic: &str, payload: &[u8]) -> Packet {
    let mut bytes = BytesMut::with_capacity(5 + topic.len() + payload.len());
    bytes.put_u8(0b0011_0010);
    bytes.put_u16(packet_id);
    bytes.put_u16(topic.len() as u16);
    bytes.put_slice(topic.as_bytes());
    bytes.put_slice(payload);
    Packet::Publish(Publish::deserialize(bytes.freeze()), None)
}

pub(crate) fn conn_ack(code: ConnectReturnCode, properties: ConnAckProperties) -> Packet {
    Packet::ConnAck(ConnAck { session_present: false, code }, Some(properties))
}

pub(crate) fn pub_ack(packet_id: u16, reason: PubAckReason) -> Packet {
    Packet::PubAck(PubAck { pkid: packet_id, reason }, None)
}

pub(crate) fn sub_ack(packet_id: u16, codes: Vec<SubscribeReasonCode>) -> Packet {
    Packet::SubAck(SubAck { pkid: packet_id, return_codes: codes }, None)
}

pub(crate) fn unsub_ack(packet_id: u16, filters: usize) -> Packet {
    Packet::UnsubAck(UnsubAck { pkid: packet_id, reasons: vec![UnsubAckReason::Success; filters] }, None)
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
