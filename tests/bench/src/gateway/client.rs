//! The least that an MQTT 5 client can be, written by hand: cheap enough to have thousands beside the server that is
//! measured, on the same cores.

use anyhow::{Context, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::link::{Dialer, Link};

/// Seconds; longer than any measurement is silent.
const KEEP_ALIVE: u16 = 300;
/// No answer of a server is longer.
const ANSWER_MAX: usize = 4096;

/// A connected client.
#[derive(Debug)]
pub struct Client {
    link: Link,
    next_id: u16,
}

impl Client {
    /// Connects and waits for the CONNACK.
    pub async fn connect(dialer: &Dialer, id: &str) -> anyhow::Result<Self> {
        let mut client = Self { link: dialer.dial().await?, next_id: 1 };
        client.link.write_all(&connect_packet(id)).await?;
        client.link.flush().await?;
        let (kind, body) = client.read().await.context("no CONNACK")?;
        ensure!(kind == 2, "expected a CONNACK, got a packet of type {kind}");
        let code = body.get(1).copied().unwrap_or(0xff);
        ensure!(code == 0, "the server refused the connection with reason 0x{code:02x}");
        Ok(client)
    }

    /// The connection below.
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// Publishes with quality of service 1 and waits for the PUBACK.
    pub async fn publish(&mut self, topic: &str, payload: &[u8]) -> anyhow::Result<()> {
        let id = self.next_id;
        self.next_id = id.checked_add(1).unwrap_or(1);
        self.link.write_all(&publish_packet(id, topic, payload)).await?;
        self.link.flush().await?;
        loop {
            let (kind, body) = self.read().await.context("no PUBACK")?;
            match (kind, body.as_slice()) {
                (4, [high, low, rest @ ..]) if [*high, *low] == id.to_be_bytes() => {
                    // 0x10 says that nobody follows the topic.
                    let code = rest.first().copied().unwrap_or(0);
                    ensure!(code < 0x80, "the server refused a message with reason 0x{code:02x}");
                    return Ok(());
                }
                (14, _) => bail!("the server said goodbye: {body:?}"),
                _ => {}
            }
        }
    }

    /// Waits until the connection ends.
    pub async fn ended(&mut self) {
        while self.read().await.is_ok() {}
    }

    /// Says goodbye.
    pub async fn leave(mut self) {
        // The server may be gone already.
        let _ = self.link.write_all(&[0xe0, 0]).await;
        let _ = self.link.shutdown().await;
    }

    async fn read(&mut self) -> anyhow::Result<(u8, Vec<u8>)> {
        let first = self.link.read_u8().await?;
        let mut length = 0;
        for shift in [0, 7, 14, 21] {
            let byte = self.link.read_u8().await?;
            length |= usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        ensure!(length <= ANSWER_MAX, "a packet of {length} bytes, expected at most {ANSWER_MAX}");
        let mut body = vec![0; length];
        self.link.read_exact(&mut body).await?;
        Ok((first >> 4, body))
    }
}

fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes(), text.as_bytes()].concat()
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let mut length = body.len();
    while length >= 0x80 {
        bytes.push(length as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
    bytes.extend(body);
    bytes
}

/// Clean start, no will, no properties.
fn connect_packet(id: &str) -> Vec<u8> {
    let keep_alive = KEEP_ALIVE.to_be_bytes();
    packet(0x10, &[&string("MQTT")[..], &[5, 2], &keep_alive, &[0], &string(id)].concat())
}

fn publish_packet(id: u16, topic: &str, payload: &[u8]) -> Vec<u8> {
    packet(0x32, &[&string(topic)[..], &id.to_be_bytes(), &[0], payload].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_as_the_standard_has_them() {
        let expected = b"\x10\x0f\0\x04MQTT\x05\x02\x01\x2c\0\0\x02e1";
        assert_eq!(connect_packet("e1"), expected);
        assert_eq!(publish_packet(258, "t", b"xy"), b"\x32\x08\0\x01t\x01\x02\0xy");
        let long = publish_packet(1, "t", &[0; 300]);
        assert_eq!((&long[..3], long.len()), (&[0x32, 0xb2, 0x02][..], 309));
    }
}
