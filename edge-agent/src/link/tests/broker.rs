//! The hub's side of one MQTT 5 connection, byte by byte: just what the link uses, and accidents on demand.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};

/// What the device did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Heard {
    Connected { client: String, clean: bool },
    Subscribed(Vec<String>),
    Published { topic: String, payload: Vec<u8> },
}

/// A listening hub. Dropping it closes the port and cuts the connection.
pub(super) struct Broker {
    pub(super) address: String,
    heard: mpsc::UnboundedReceiver<Heard>,
    writer: Arc<Mutex<Option<mpsc::UnboundedSender<Vec<u8>>>>>,
    cut: Arc<Notify>,
    task: tokio::task::JoinHandle<()>,
}

impl Broker {
    pub(super) async fn bind(address: &str) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (sender, heard) = mpsc::unbounded_channel();
        let (writer, cut) = (Arc::new(Mutex::new(None)), Arc::new(Notify::new()));
        let task = tokio::spawn(accept(listener, sender, writer.clone(), cut.clone()));
        Self { address, heard, writer, cut, task }
    }

    /// The next thing the device does.
    pub(super) async fn next(&mut self) -> Heard {
        let heard = tokio::time::timeout(Duration::from_secs(20), self.heard.recv()).await;
        heard.expect("the device does something").expect("the broker listens")
    }

    /// The next message of the device on topics that end so.
    pub(super) async fn published(&mut self, suffix: &str) -> Vec<u8> {
        loop {
            match self.next().await {
                Heard::Published { topic, payload } if topic.ends_with(suffix) => return payload,
                _ => {}
            }
        }
    }

    pub(super) fn send(&self, topic: &str, payload: &[u8]) {
        let mut body = string(topic);
        body.extend([0, 1, 0]); // packet id 1, no properties
        body.extend_from_slice(payload);
        let writer = self.writer.lock().unwrap();
        writer.as_ref().expect("a device is connected").send(packet(0x32, &body)).unwrap();
    }

    /// Breaks the connection; the next one is accepted.
    pub(super) fn cut(&self) {
        self.cut.notify_one();
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(
    listener: TcpListener,
    heard: mpsc::UnboundedSender<Heard>,
    writer: Arc<Mutex<Option<mpsc::UnboundedSender<Vec<u8>>>>>,
    cut: Arc<Notify>,
) {
    while let Ok((stream, _)) = listener.accept().await {
        let (sender, packets) = mpsc::unbounded_channel();
        *writer.lock().unwrap() = Some(sender.clone());
        let (reading, writing) = TcpStream::into_split(stream);
        tokio::select! {
            () = cut.notified() => {}
            _ = read(reading, &heard, &sender) => {}
            _ = write(writing, packets) => {}
        }
    }
}

async fn write(mut stream: OwnedWriteHalf, mut packets: mpsc::UnboundedReceiver<Vec<u8>>) -> Option<()> {
    while let Some(packet) = packets.recv().await {
        stream.write_all(&packet).await.ok()?;
    }
    None
}

async fn read(
    mut stream: OwnedReadHalf,
    heard: &mpsc::UnboundedSender<Heard>,
    answer: &mpsc::UnboundedSender<Vec<u8>>,
) -> Option<()> {
    loop {
        let first = stream.read_u8().await.ok()?;
        let (mut length, mut shift) = (0usize, 0);
        loop {
            let byte = stream.read_u8().await.ok()?;
            length |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.ok()?;
        let mut body = Reader(&body);
        match first >> 4 {
            1 => {
                let (_name, _version, flags, _keep_alive) =
                    (body.string(), body.take(1), body.take(1)[0], body.take(2));
                body.properties();
                heard.send(Heard::Connected { client: body.string(), clean: flags & 2 != 0 }).ok()?;
                answer.send(packet(0x20, &[0, 0, 0])).ok()?;
            }
            3 => {
                let topic = body.string();
                let id = body.take(2).to_vec();
                body.properties();
                answer.send(packet(0x40, &id)).ok()?;
                heard.send(Heard::Published { topic, payload: body.0.to_vec() }).ok()?;
            }
            8 => {
                let id = body.take(2).to_vec();
                body.properties();
                let mut filters = Vec::new();
                while !body.0.is_empty() {
                    filters.push(body.string());
                    body.take(1);
                }
                answer.send(packet(0x90, &[&id[..], &[0], &vec![1; filters.len()]].concat())).ok()?;
                heard.send(Heard::Subscribed(filters)).ok()?;
            }
            12 => answer.send(packet(0xd0, &[])).ok()?,
            _ => {}
        }
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken
    }

    fn string(&mut self) -> String {
        let length = self.take(2);
        let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
        String::from_utf8(self.take(length).to_vec()).unwrap()
    }

    /// Skips them; these tests use less than 128 bytes of properties.
    fn properties(&mut self) {
        let length = usize::from(self.take(1)[0]);
        assert!(length < 128);
        self.take(length);
    }
}

fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes()[..], text.as_bytes()].concat()
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let mut length = body.len();
    loop {
        let more = length > 127;
        bytes.push((length & 0x7f) as u8 | if more { 0x80 } else { 0 });
        length >>= 7;
        if !more {
            break;
        }
    }
    bytes.extend_from_slice(body);
    bytes
}
