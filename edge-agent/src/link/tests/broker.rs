//! The hub's side of one MQTT 5 connection, byte by byte: just what the link uses, and accidents on demand.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tributary_identity::Certificate;

/// What the device did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Heard {
    Connected { client: String, clean: bool, over: &'static str, serial: Option<String> },
    Subscribed(Vec<String>),
    Published { topic: String, payload: Vec<u8> },
    Left,
}

/// What all connections of a hub share.
#[derive(Clone)]
struct Shared {
    heard: mpsc::UnboundedSender<Heard>,
    writer: Arc<Mutex<Option<mpsc::UnboundedSender<Vec<u8>>>>>,
    cut: Arc<Notify>,
    /// The reason code of every CONNACK.
    code: Arc<Mutex<u8>>,
}

/// A listening hub. Dropping it closes its ports and cuts the connections.
pub(super) struct Broker {
    pub(super) address: String,
    heard: mpsc::UnboundedReceiver<Heard>,
    shared: Shared,
    tasks: Vec<JoinHandle<()>>,
}

impl Broker {
    fn new(address: String) -> Self {
        let (sender, heard) = mpsc::unbounded_channel();
        let shared = Shared { heard: sender, writer: Arc::default(), cut: Arc::default(), code: Arc::default() };
        Self { address, heard, shared, tasks: Vec::new() }
    }

    /// Without encryption.
    pub(super) async fn bind(address: &str) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let mut broker = Self::new(listener.local_addr().unwrap().to_string());
        let shared = broker.shared.clone();
        broker.tasks.push(tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                shared.serve(stream, "plain", None).await;
            }
        }));
        broker
    }

    /// Over TLS and QUIC; the ports of both.
    pub(super) async fn secure(tls: ServerConfig, quic: ServerConfig) -> (Self, SocketAddr, SocketAddr) {
        let mut broker = Self::new(String::new());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tcp = listener.local_addr().unwrap();
        let (shared, acceptor) = (broker.shared.clone(), TlsAcceptor::from(Arc::new(tls)));
        broker.tasks.push(tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (shared, acceptor) = (shared.clone(), acceptor.clone());
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        let serial = stream.get_ref().1.peer_certificates().map(|chain| serial(&chain[0]));
                        shared.serve(stream, "tls", serial).await;
                    }
                });
            }
        }));
        let crypto = quinn::crypto::rustls::QuicServerConfig::try_from(quic).unwrap();
        let config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
        let endpoint = quinn::Endpoint::server(config, "127.0.0.1:0".parse().unwrap()).unwrap();
        let udp = endpoint.local_addr().unwrap();
        let shared = broker.shared.clone();
        broker.tasks.push(tokio::spawn(async move {
            while let Some(incoming) = endpoint.accept().await {
                let shared = shared.clone();
                tokio::spawn(async move {
                    let Ok(connection) = incoming.await else { return };
                    let Ok((send, receive)) = connection.accept_bi().await else { return };
                    let shown = connection.peer_identity().unwrap();
                    let shown = shown.downcast::<Vec<tokio_rustls::rustls::pki_types::CertificateDer<'static>>>();
                    shared.serve(tokio::io::join(receive, send), "quic", Some(serial(&shown.unwrap()[0]))).await;
                    connection.close(7u32.into(), b"cut");
                });
            }
        }));
        (broker, tcp, udp)
    }

    /// The next thing the device does.
    pub(super) async fn next(&mut self) -> Heard {
        let heard = tokio::time::timeout(Duration::from_secs(60), self.heard.recv()).await;
        heard.expect("the device does something").expect("the broker listens")
    }

    /// The next connection of the device: over what, and with which certificate.
    pub(super) async fn connected(&mut self) -> (&'static str, Option<String>) {
        loop {
            if let Heard::Connected { over, serial, .. } = self.next().await {
                return (over, serial);
            }
        }
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
        let writer = self.shared.writer.lock().unwrap();
        writer.as_ref().expect("a device is connected").send(packet(0x32, &body)).unwrap();
    }

    /// Breaks the connection; the next one is accepted.
    pub(super) fn cut(&self) {
        self.shared.cut.notify_one();
    }

    /// Answers every CONNECT with this code.
    pub(super) fn answer(&self, code: u8) {
        *self.shared.code.lock().unwrap() = code;
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

fn serial(der: &[u8]) -> String {
    Certificate::from_der(der).unwrap().serial().to_string()
}

impl Shared {
    /// One connection, to its end.
    async fn serve(&self, stream: impl AsyncRead + AsyncWrite, over: &'static str, serial: Option<String>) {
        let (sender, packets) = mpsc::unbounded_channel();
        *self.writer.lock().unwrap() = Some(sender.clone());
        let (reading, writing) = tokio::io::split(stream);
        let code = *self.code.lock().unwrap();
        let connected = |client, clean| Heard::Connected { client, clean, over, serial: serial.clone() };
        tokio::select! {
            () = self.cut.notified() => {}
            _ = read(reading, &self.heard, &sender, code, connected) => {}
            _ = write(writing, packets) => {}
        }
    }
}

async fn write(mut stream: impl AsyncWrite + Unpin, mut packets: mpsc::UnboundedReceiver<Vec<u8>>) -> Option<()> {
    while let Some(packet) = packets.recv().await {
        stream.write_all(&packet).await.ok()?;
        stream.flush().await.ok()?;
    }
    None
}

async fn read(
    mut stream: impl AsyncRead + Unpin,
    heard: &mpsc::UnboundedSender<Heard>,
    answer: &mpsc::UnboundedSender<Vec<u8>>,
    code: u8,
    connected: impl Fn(String, bool) -> Heard,
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
                heard.send(connected(body.string(), flags & 2 != 0)).ok()?;
                answer.send(packet(0x20, &[0, code, 0])).ok()?;
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
            14 => heard.send(Heard::Left).ok()?,
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
