//! Frames: where a packet begins and ends, and what of it the codec does not look at or does not tell.

use rumqttd::protocol::DisconnectReasonCode;

use crate::packets::Ending;
use crate::tally::Refusal;

/// Packet types by the first four bits.
pub(crate) const CONNECT: u8 = 1;
pub(crate) const PUBLISH: u8 = 3;
pub(crate) const DISCONNECT: u8 = 14;

/// The largest CONNECT: anybody may send one, and thousands at once may stand at the door.
const CONNECT_MAX: usize = 16 << 10;
/// The largest packet that is neither a CONNECT nor a PUBLISH: the longest filter has room in it, and not so many short
/// ones that reading them would take much more than their bytes.
const CONTROL_MAX: usize = 80 << 10;

/// The flags that go with each packet type that a client may send. The codec panics on some of the types that it may
/// not send, and does not look at the flags.
const FROM_CLIENTS: [Option<u8>; 16] = [
    None,
    // CONNECT
    Some(0),
    None,
    // PUBLISH has flags of its own.
    None,
    // PUBACK, PUBREC, PUBREL, PUBCOMP
    Some(0),
    Some(0),
    Some(2),
    Some(0),
    // SUBSCRIBE
    Some(2),
    None,
    // UNSUBSCRIBE
    Some(2),
    None,
    // PINGREQ
    Some(0),
    None,
    // DISCONNECT
    Some(0),
    // AUTH: nobody was offered an extended authentication.
    None,
];

/// Lengths of the fixed header and of what follows, when the header is whole.
pub(crate) fn bounds(bytes: &[u8], bytes_max: usize) -> Result<Option<(usize, usize)>, Ending> {
    let Some(first) = bytes.first() else { return Ok(None) };
    let (kind, flags) = (first >> 4, first & 0x0f);
    if kind == PUBLISH {
        // Quality of service 3 does not exist, and what is sent at most once is never sent again.
        if flags & 6 == 6 || flags & 0b1110 == 0b1000 {
            return Err(Ending::malformed());
        }
    } else {
        match FROM_CLIENTS[usize::from(kind)] {
            None => return Err(Ending::protocol()),
            Some(expected) if expected != flags => return Err(Ending::malformed()),
            Some(_) => {}
        }
    }
    let most = match kind {
        PUBLISH => bytes_max,
        CONNECT => bytes_max.min(CONNECT_MAX),
        _ => bytes_max.min(CONTROL_MAX),
    };
    let mut length = 0;
    for (place, byte) in bytes[1..].iter().take(4).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            let head = 2 + place;
            if head + length > most {
                return Err(Ending::Refused(Refusal::TooLarge, DisconnectReasonCode::PacketTooLarge));
            }
            return Ok(Some((head, length)));
        }
    }
    if bytes.len() > 4 { Err(Ending::malformed()) } else { Ok(None) }
}

/// Whether a CONNECT, its first byte checked, is of MQTT 3.1.1 or 3.1.
pub(crate) fn is_older_version(bytes: &[u8]) -> bool {
    let Some(length) = bytes.iter().skip(1).take(4).position(|byte| byte & 0x80 == 0) else { return false };
    let body = &bytes[length + 2..];
    body.starts_with(b"\0\x04MQTT\x04") || body.starts_with(b"\0\x06MQIsdp\x03")
}

/// As the codec will read it, or anything when it will refuse it.
pub(crate) fn publish_head(bytes: &[u8], head: usize) -> (u16, u8) {
    let number = |at: usize| match bytes.get(at..at + 2) {
        Some(&[high, low]) => u16::from_be_bytes([high, low]),
        _ => 0,
    };
    let quality = (bytes[0] >> 1) & 3;
    let packet_id = if quality == 0 { 0 } else { number(head + 2 + usize::from(number(head))) };
    (packet_id, quality)
}
