//! How long a device waits for the acknowledgement of a batch: alone, beside a large file on a low-priority stream of
//! its own QUIC connection, and beside the same file over HTTPS's TLS.
//!
//! Device and server share this process and the loopback, which has no bottleneck: what shows is the cost of sharing a
//! connection and the cores, not of a narrow link.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use cloud_hub_gateway::{
    Admission, Files, Gateway, Limits, Listeners, OpenFile, Opened, Peer, Refused, ResetKey, Rights, TlsSettings,
};
use quinn::crypto::rustls::QuicClientConfig;
use rustls::ServerConfig;
use rustls::pki_types::ServerName;
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tributary_identity::tls::{ALPN_HTTP, ALPN_MQTT, Clients, Shown, device_client, hub_server};
use tributary_identity::{Authority, DeviceClock, Key, KeyFile};
use tributary_process::shutdown::Shutdown;
use tributary_wire::file::{FileAnswer, FileRequest};
use tributary_wire::{DeviceId, Micros};

use crate::figures::{Spread, megabytes, seconds};

/// The file.
const FILE_BYTES: usize = 50 << 20;
/// A batch of observations.
const BATCH_BYTES: usize = 8 << 10;
/// Batches without a file beside them.
const ALONE: usize = 500;
/// Between two batches.
const PACE: Duration = Duration::from_millis(2);
const DAY: Duration = Duration::from_secs(86_400);

/// One neighbour.
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    /// What came beside.
    pub beside: &'static str,
    /// From a batch to its acknowledgement.
    pub acknowledged: Spread,
    /// Seconds for the file.
    pub took: Option<f64>,
}

struct Anybody;

impl Admission for Anybody {
    fn admit<'a>(&'a self, peer: Peer<'a>) -> Pin<Box<dyn Future<Output = Result<Rights, Refused>> + Send + 'a>> {
        let device = DeviceId::new(peer.client_id).expect("the one device of this benchmark");
        Box::pin(std::future::ready(Ok(Rights::Device(device))))
    }
}

struct One;

impl Files for One {
    fn open<'a>(
        &'a self,
        _: &'a DeviceId,
        _: &'a str,
        start: u64,
    ) -> Pin<Box<dyn Future<Output = Opened> + Send + 'a>> {
        let reader = Box::new(tokio::io::repeat(7));
        Box::pin(std::future::ready(Opened::Found(OpenFile { length: FILE_BYTES as u64, start, reader })))
    }
}

/// A device's two ways to the hub.
struct Device {
    connection: quinn::Connection,
    send: quinn::SendStream,
    receive: quinn::RecvStream,
    next: u16,
    web: (SocketAddr, Arc<rustls::ClientConfig>),
}

/// Measures in this process.
pub async fn measure() -> anyhow::Result<Vec<Figure>> {
    let clock = || Arc::new(DeviceClock::new(Micros(0)));
    let now = clock().now();
    let (certificate, key) = Authority::create("bench", now, 400 * DAY)?;
    let authority = Authority::new(&certificate, &key)?;
    let believed = [authority.certificate().clone()];
    let (own, key) = authority.issue_hub(&["localhost".to_owned()], now, DAY)?;
    let shown = Arc::new(Shown::from_pem(&[own], &key)?);
    let mqtt = Arc::new(hub_server(shown.clone(), &believed, Clients::Required, ALPN_MQTT)?);
    let https = hub_server(shown, &believed, Clients::Required, ALPN_HTTP)?;
    let listeners = Listeners { quic: Some(SocketAddr::from(([127, 0, 0, 1], 0))), ..Listeners::default() };
    let tls = TlsSettings { tls: mqtt.clone(), quic: mqtt, reset: ResetKey::new([0; 32]) };
    let gateway = Gateway::bind(&listeners, Limits::default(), Some(tls)).await?.with_files(Arc::new(One));
    let address = gateway.addresses().quic.context("the gateway's QUIC address")?;
    let (up, mut taken) = mpsc::channel(1024);
    let (events, mut told) = mpsc::channel(1024);
    let shutdown = Shutdown::new();
    tokio::spawn(async move { while taken.recv().await.is_some() {} });
    tokio::spawn(async move { while told.recv().await.is_some() {} });
    tokio::spawn(gateway.run(Arc::new(Anybody), up, events, shutdown.clone()));
    let web = web(https).await?;

    let (id, key) = (DeviceId::new("edge-1")?, KeyFile::generate()?);
    let own = authority.issue_device(&key.request(&id)?, &id, now, DAY)?;
    let shown = Arc::new(Shown::new(&[own], &key)?);
    let config = |alpn| device_client(&believed, Some(shown.clone()), alpn, clock());
    let endpoint = quinn::Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let quic = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(config(ALPN_MQTT)?)?));
    let connection = endpoint.connect_with(quic, address, "localhost")?.await?;
    let (send, receive) = connection.open_bi().await?;
    let web = (web, Arc::new(config(ALPN_HTTP)?));
    let mut device = Device { connection, send, receive, next: 1, web };
    device.begin().await?;

    let mut alone = Vec::new();
    for _ in 0..ALONE {
        alone.push(device.batch().await?);
    }
    let mut figures = vec![figure("nothing", alone, None)?];
    let connection = device.connection.clone();
    figures.push(device.beside("the file over QUIC", async move { over_quic(connection).await }).await?);
    let (address, config) = device.web.clone();
    figures.push(device.beside("the file over HTTPS", async move { over_tls(address, config).await }).await?);
    shutdown.give();
    Ok(figures)
}

fn figure(beside: &'static str, seconds: Vec<f64>, took: Option<f64>) -> anyhow::Result<Figure> {
    Ok(Figure { beside, acknowledged: Spread::of(seconds).context("the file came faster than a batch")?, took })
}

impl Device {
    async fn begin(&mut self) -> anyhow::Result<()> {
        self.send.write_all(b"\x10\x13\0\x04MQTT\x05\x02\0\x3c\0\0\x06edge-1").await?;
        ensure!(self.packet().await? == 0x20, "no CONNACK");
        Ok(())
    }

    async fn packet(&mut self) -> anyhow::Result<u8> {
        let (kind, length) = (self.receive.read_u8().await?, self.receive.read_u8().await?);
        // No answer that comes here is longer than its length's first byte can say.
        let mut rest = vec![0; length.into()];
        self.receive.read_exact(&mut rest).await?;
        Ok(kind)
    }

    /// Seconds from a batch to its acknowledgement.
    async fn batch(&mut self) -> anyhow::Result<f64> {
        let topic = b"\0\x14v1/d/edge-1/up/batch";
        let length = topic.len() + 3 + BATCH_BYTES;
        let head = [0x32, (length & 0x7f) as u8 | 0x80, (length >> 7) as u8];
        let bytes = [&head[..], topic, &self.next.to_be_bytes(), &[0], &[9; BATCH_BYTES]].concat();
        self.next = self.next.checked_add(1).unwrap_or(1);
        let began = Instant::now();
        self.send.write_all(&bytes).await?;
        ensure!(self.packet().await? == 0x40, "no PUBACK");
        let took = began.elapsed().as_secs_f64();
        tokio::time::sleep(PACE).await;
        Ok(took)
    }

    /// Batches for as long as something else goes on.
    async fn beside(
        &mut self,
        what: &'static str,
        other: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) -> anyhow::Result<Figure> {
        let began = Instant::now();
        let other = tokio::spawn(async move { other.await.map(|()| began.elapsed().as_secs_f64()) });
        let mut times = Vec::new();
        while !other.is_finished() {
            times.push(self.batch().await?);
        }
        figure(what, times, Some(other.await??))
    }
}

async fn over_quic(connection: quinn::Connection) -> anyhow::Result<()> {
    let (mut send, mut receive) = connection.open_bi().await?;
    let request = FileRequest::V1 { path: "file".to_owned(), start: 0 }.encode();
    send.write_all(&[&(request.len() as u16).to_le_bytes()[..], &request].concat()).await?;
    send.finish()?;
    let mut answer = vec![0; receive.read_u16_le().await?.into()];
    receive.read_exact(&mut answer).await?;
    ensure!(matches!(FileAnswer::decode(&answer)?, FileAnswer::Found { .. }), "the file was not found");
    let mut read = 0;
    while let Some(piece) = receive.read_chunk(64 << 10, true).await? {
        read += piece.bytes.len();
    }
    ensure!(read == FILE_BYTES, "{read} bytes came");
    Ok(())
}

/// A server that answers everything with the file.
async fn web(settings: ServerConfig) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let (address, acceptor) = (listener.local_addr()?, TlsAcceptor::from(Arc::new(settings)));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let piece = vec![7; 64 << 10];
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {FILE_BYTES}\r\n\r\n");
            let mut sent = stream.read(&mut [0; 4096]).await.and(stream.write_all(head.as_bytes()).await);
            for _ in 0..FILE_BYTES / piece.len() {
                sent = sent.and(stream.write_all(&piece).await);
            }
            let _ = sent.and(stream.shutdown().await);
        }
    });
    Ok(address)
}

async fn over_tls(address: SocketAddr, config: Arc<rustls::ClientConfig>) -> anyhow::Result<()> {
    let stream = TcpStream::connect(address).await?;
    let mut stream = TlsConnector::from(config).connect(ServerName::try_from("localhost")?, stream).await?;
    stream.write_all(b"GET /file HTTP/1.1\r\nhost: localhost\r\n\r\n").await?;
    let (mut read, mut piece) = (0, vec![0; 64 << 10]);
    while read < FILE_BYTES {
        match stream.read(&mut piece).await? {
            0 => break,
            more => read += more,
        }
    }
    ensure!(read >= FILE_BYTES, "{read} bytes came");
    Ok(())
}

/// As a table.
pub(super) fn table(figures: &[Figure]) -> String {
    let file = megabytes(FILE_BYTES as u64);
    let mut text = format!(
        "acknowledgement of a batch of {BATCH_BYTES} bytes over QUIC, beside a file of {file}; no bottleneck but the cores\n\
         {:<20} {:>8} {:>10} {:>10} {:>10} {:>12} {:>10}\n",
        "beside", "batches", "min", "p50", "p99", "p50 to alone", "file took"
    );
    let alone = figures.first().map_or(1.0, |figure| figure.acknowledged.p50);
    for Figure { beside, acknowledged, took } in figures {
        let [min, p50, p99] = [acknowledged.min, acknowledged.p50, acknowledged.p99].map(seconds);
        let (batches, ratio) = (acknowledged.repetitions, acknowledged.p50 / alone);
        let took = took.map_or(String::new(), seconds);
        text += &format!("{beside:<20} {batches:>8} {min:>10} {p50:>10} {p99:>10} {ratio:>11.1}x {took:>10}\n");
    }
    text
}
