//! Packets of MQTT 5, as far as a light device needs them.

use anyhow::bail;
use bytes::{Buf, BytesMut};

/// The next whole packet: its first byte and what follows its length.
pub fn packet(buffer: &mut BytesMut) -> anyhow::Result<Option<(u8, BytesMut)>> {
    let mut length = 0;
    for (place, shift) in [7, 14, 21, 28].into_iter().enumerate() {
        let Some(byte) = buffer.get(1 + place) else { return Ok(None) };
        length |= usize::from(byte & 0x7f) << (shift - 7);
        if *byte < 0x80 {
            if buffer.len() < 2 + place + length {
                return Ok(None);
            }
            let first = buffer[0];
            buffer.advance(2 + place);
            return Ok(Some((first, buffer.split_to(length))));
        }
    }
    bail!("a packet without an end")
}

fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes(), text.as_bytes()].concat()
}

fn framed(first: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = vec![first];
    let mut length: usize = parts.iter().map(|part| part.len()).sum();
    while length >= 0x80 {
        bytes.push(length as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
    parts.iter().for_each(|part| bytes.extend_from_slice(part));
    bytes
}

/// Clean start, a minute and a half of silence, no will, no properties.
pub fn connect_packet(id: &str) -> Vec<u8> {
    framed(0x10, &[&string("MQTT"), &[5, 2, 0, 90, 0], &string(id)])
}

/// For everything below a filter, at least once.
pub fn subscribe_packet(filter: &str) -> Vec<u8> {
    framed(0x82, &[&[0, 1, 0], &string(filter), &[1]])
}

/// At least once, without properties.
pub fn publish_packet(id: u16, topic: &str, payload: &[u8]) -> Vec<u8> {
    framed(0x32, &[&string(topic), &id.to_be_bytes(), &[0], payload])
}
