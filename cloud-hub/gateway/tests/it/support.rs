//! A gateway with all its listeners, its authority, and clients that reach it by each way.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cloud_hub_gateway::{
    Addresses, Admission, Connections, Event, FollowsHub, Gateway, Limits, Listeners, Peer, Refusal, Refused, ResetKey,
    Rights, TlsSettings, Topics, Transport, Upward,
};
use quinn::crypto::rustls::QuicClientConfig;
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v5::{Packet, PubAckReason, SubscribeReasonCode};
use rumqttc::{AsyncClient, EventLoop, MqttOptions, PublishOptions};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use tributary_identity::tls::{self, Clients, Shown};
use tributary_identity::{Authority, Certificate, DeviceClock, Key, KeyFile};
use tributary_process::shutdown::Shutdown;
use tributary_wire::{DeviceId, Micros};

pub const PATIENCE: Duration = Duration::from_secs(20);
pub const WAYS: [Transport; 3] = [Transport::Plain, Transport::Tls, Transport::Quic];
const DAY: Duration = Duration::from_secs(86_400);

pub struct Hub {
    pub addresses: Addresses,
    pub connections: Connections,
    pub up: mpsc::Receiver<Upward>,
    pub events: mpsc::Receiver<Event>,
    pub door: Arc<Door>,
    pub authority: Arc<Authority>,
    /// Shared by the shelf and every open file.
    pub open_files: Arc<()>,
    shutdown: Shutdown,
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.shutdown.give();
    }
}

/// Lets everybody in but `stranger`, the revoked, and over TLS and QUIC those whose certificate says another name.
#[derive(Default)]
pub struct Door {
    pub revoked: Mutex<HashSet<String>>,
    pub asked: AtomicUsize,
    pub seen: Mutex<Vec<(SocketAddr, Transport)>>,
    /// Devices that are revoked between being let in and having their place.
    pub late: Mutex<HashSet<DeviceId>>,
    /// Ends the rights of all clients that may do everything.
    pub withdrawn: CancellationToken,
}

impl Door {
    fn answer(&self, peer: Peer<'_>) -> Result<Rights, Refused> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.seen.lock().unwrap().push((peer.address, peer.transport));
        let refused = |refusal, reason: &str| Err(Refused { refusal, reason: reason.to_owned() });
        if peer.client_id.starts_with("app-") {
            return Ok(Rights::Client(Arc::new(FollowsHub)));
        }
        if peer.client_id.is_empty() || peer.client_id.starts_with("any-") {
            let narrow = peer.username == Some("narrow");
            return Ok(Rights::Client(Arc::new(Everything(self.withdrawn.clone(), narrow))));
        }
        let device = match DeviceId::new(peer.client_id) {
            Ok(device) => device,
            Err(error) => return refused(Refusal::ClientId, &error.to_string()),
        };
        if device.as_str() == "stranger" {
            return refused(Refusal::NotAdmitted, "device stranger is not known");
        }
        match (peer.transport, peer.certificate) {
            (Transport::Plain, None) => Ok(Rights::Device(device)),
            (Transport::Plain, Some(_)) => unreachable!("nobody shows a certificate on a plain connection"),
            (_, None) => refused(Refusal::Certificate, "no certificate"),
            (_, Some(shown)) if shown.common_name() != device.as_str() => {
                refused(Refusal::Certificate, "the certificate is another's")
            }
            (_, Some(shown)) if self.revoked.lock().unwrap().contains(shown.serial().as_str()) => {
                refused(Refusal::Revoked, "the certificate is revoked")
            }
            _ => Ok(Rights::Device(device)),
        }
    }
}

impl Admission for Door {
    fn admit<'a>(&'a self, peer: Peer<'a>) -> Pin<Box<dyn Future<Output = Result<Rights, Refused>> + Send + 'a>> {
        Box::pin(std::future::ready(self.answer(peer)))
    }

    fn seated(&self, device: &DeviceId, certificate: Option<&Certificate>) -> Result<(), Refused> {
        let late = self.late.lock().unwrap().contains(device);
        let reason = || format!("revoked just now: {:?}", certificate.map(Certificate::common_name));
        if late { Err(Refused { refusal: Refusal::Revoked, reason: reason() }) } else { Ok(()) }
    }
}

/// Everything but what begins with `no/`, until the door withdraws it: in tests only.
struct Everything(CancellationToken, bool);

impl Topics for Everything {
    fn may_publish(&self, topic: &str) -> bool {
        !topic.starts_with("no/")
    }

    fn may_follow(&self, filter: &str) -> bool {
        !(filter.starts_with("no/") || self.1 && filter.starts_with("wide/"))
    }

    fn ended<'a>(&'a self) -> Pin<Box<dyn Future<Output = String> + Send + 'a>> {
        Box::pin(async {
            self.0.cancelled().await;
            "the token is revoked".to_owned()
        })
    }
}

pub fn now() -> Micros {
    DeviceClock::new(Micros(0)).now()
}

pub fn authority() -> Authority {
    let (certificate, key) = Authority::create("test", now(), 400 * DAY).unwrap();
    Authority::new(&certificate, &key).unwrap()
}

pub fn plain(address: &str) -> Listeners {
    Listeners { insecure_plain_on_loopback: Some(address.parse().unwrap()), ..Listeners::default() }
}

pub fn settings(authority: &Authority) -> TlsSettings {
    let (own, key) = authority.issue_hub(&["localhost".into()], now(), DAY).unwrap();
    let shown = Arc::new(Shown::from_pem(&[own], &key).unwrap());
    let server = |clients| {
        let authorities = [authority.certificate().clone()];
        Arc::new(tls::hub_server(shown.clone(), &authorities, clients, tls::ALPN_MQTT).unwrap())
    };
    let (tls, quic) = (server(Clients::Optional { grace: Duration::ZERO }), server(Clients::Required));
    TlsSettings { tls, quic, reset: ResetKey::new([0; 32]) }
}

pub async fn hub(limits: Limits) -> Hub {
    let free = Some("127.0.0.1:0".parse().unwrap());
    let listeners = Listeners { quic: free, tls: free, insecure_plain_on_loopback: free };
    let authority = Arc::new(authority());
    let gateway = Gateway::bind(&listeners, limits, Some(settings(&authority))).await.unwrap();
    let (addresses, connections) = (gateway.addresses(), gateway.connections());
    let (up_sender, up) = mpsc::channel(8);
    let (event_sender, events) = mpsc::channel(64);
    let (shutdown, door) = (Shutdown::new(), Arc::new(Door::default()));
    let open_files = Arc::new(());
    let gateway = gateway.with_files(Arc::new(crate::files::Shelf(open_files.clone())));
    tokio::spawn(gateway.run(door.clone(), up_sender, event_sender, shutdown.clone()));
    Hub { addresses, connections, up, events, door, authority, open_files, shutdown }
}

pub trait Io: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Io for T {}
pub type Stream = Box<dyn Io>;

/// A device's certificate and key, issued so long ago for so long.
pub fn issued(authority: &Authority, id: &str, age: Duration, lifetime: Duration) -> (Arc<Shown>, String) {
    let (device, key) = (DeviceId::new(id).unwrap(), KeyFile::generate().unwrap());
    let at = Micros(now().0 - age.as_micros() as i64);
    let certificate = authority.issue_device(&key.request(&device).unwrap(), &device, at, lifetime).unwrap();
    let serial = certificate.serial().to_string();
    (Arc::new(Shown::new(&[certificate], &key).unwrap()), serial)
}

impl Hub {
    pub fn device(&self, id: &str) -> Arc<Shown> {
        issued(&self.authority, id, Duration::ZERO, DAY).0
    }

    pub fn tls_config(&self, shown: Option<Arc<Shown>>) -> Arc<ClientConfig> {
        let clock = Arc::new(DeviceClock::new(Micros(0)));
        let authorities = [self.authority.certificate().clone()];
        Arc::new(tls::device_client(&authorities, shown, tls::ALPN_MQTT, clock).unwrap())
    }

    /// Bytes to the hub and back.
    pub async fn open(&self, way: Transport, config: Arc<ClientConfig>) -> std::io::Result<Stream> {
        open(self.addresses, way, config).await
    }

    pub async fn open_as(&self, way: Transport, id: &str) -> Stream {
        self.open(way, self.tls_config(Some(self.device(id)))).await.unwrap()
    }

    pub fn client(&self, way: Transport, id: &str) -> (AsyncClient, EventLoop) {
        // What stands for a client that is not a device needs a certificate all the same: QUIC asks for one.
        let shown = DeviceId::new(id).map_or_else(|_| self.device("other"), |_| self.device(id));
        let (addresses, config) = (self.addresses, self.tls_config(Some(shown)));
        let mut options = MqttOptions::new(id, ("127.0.0.1", 1));
        options.set_keep_alive(30);
        options.set_socket_connector(move |_, _| open(addresses, way, config.clone()));
        AsyncClient::builder(options).capacity(16).build()
    }

    pub fn counted(&self, refusal: Refusal) -> u64 {
        self.connections.tally().of(refusal)
    }

    pub async fn until_counted(&self, refusal: Refusal, count: u64) {
        let wait = async {
            while self.counted(refusal) < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = timeout(PATIENCE, wait).await;
        waited.unwrap_or_else(|_| panic!("{} of {count} {}", self.counted(refusal), refusal.name()));
    }

    /// Sends raw bytes and reads until the hub closes the connection.
    pub async fn raw(&self, way: Transport, bytes: &[u8]) -> Vec<u8> {
        let mut stream = self.open_as(way, "edge-1").await;
        stream.write_all(bytes).await.unwrap();
        stream.flush().await.unwrap();
        rest(&mut stream).await
    }
}

async fn open(addresses: Addresses, way: Transport, config: Arc<ClientConfig>) -> std::io::Result<Stream> {
    match way {
        Transport::Plain => Ok(Box::new(TcpStream::connect(addresses.plain.unwrap()).await?)),
        Transport::Tls => {
            let stream = TcpStream::connect(addresses.tls.unwrap()).await?;
            let name = ServerName::try_from("localhost").unwrap();
            Ok(Box::new(TlsConnector::from(config).connect(name, stream).await?))
        }
        Transport::Quic => {
            let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap())?;
            let (_, stream) = quic(&endpoint, addresses, config).await?;
            Ok(stream)
        }
    }
}

pub async fn quic(
    endpoint: &quinn::Endpoint,
    addresses: Addresses,
    config: Arc<ClientConfig>,
) -> std::io::Result<(quinn::Connection, Stream)> {
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).unwrap()));
    let connecting = endpoint.connect_with(config, addresses.quic.unwrap(), "localhost").unwrap();
    let connection = connecting.await?;
    let (send, recv) = connection.open_bi().await?;
    Ok((connection, Box::new(tokio::io::join(recv, send))))
}

/// All that comes until the hub ends the connection.
pub async fn rest(stream: &mut Stream) -> Vec<u8> {
    let mut answer = Vec::new();
    let read = async {
        let mut chunk = [0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut chunk).await {
            answer.extend_from_slice(&chunk[..count]);
        }
    };
    timeout(PATIENCE, read).await.expect("the hub closed the connection");
    answer
}

/// Polls until a packet fits.
pub async fn until<T>(events: &mut EventLoop, fits: impl Fn(&Packet) -> Option<T>) -> T {
    let wait = async {
        loop {
            match events.poll().await {
                Ok(rumqttc::Event::Incoming(packet)) => {
                    if let Some(found) = fits(&packet) {
                        return found;
                    }
                }
                Ok(_) => {}
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    timeout(PATIENCE, wait).await.expect("the packet came")
}

/// Polls until the connection ends.
pub async fn ending(events: &mut EventLoop) -> String {
    let ending = async {
        loop {
            if let Err(error) = events.poll().await {
                return format!("{error:?}");
            }
        }
    };
    timeout(PATIENCE, ending).await.expect("the connection is ended")
}

pub async fn pub_ack(events: &mut EventLoop) -> PubAckReason {
    until(events, |packet| match packet {
        Packet::PubAck(ack) => Some(ack.reason),
        _ => None,
    })
    .await
}

pub async fn sub_ack(events: &mut EventLoop) -> Vec<SubscribeReasonCode> {
    until(events, |packet| match packet {
        Packet::SubAck(ack) => Some(ack.return_codes.clone()),
        _ => None,
    })
    .await
}

pub fn once() -> PublishOptions {
    PublishOptions::new(QoS::AtLeastOnce)
}

/// A packet of this first byte.
pub fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let mut length = body.len();
    loop {
        let byte = (length % 128) as u8;
        length /= 128;
        bytes.push(byte | if length > 0 { 0x80 } else { 0 });
        if length == 0 {
            break;
        }
    }
    bytes.extend_from_slice(body);
    bytes
}

/// A string with its length before it.
pub fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes(), text.as_bytes()].concat()
}

pub fn connect(id: &str) -> Vec<u8> {
    packet(0x10, &[&[0, 4, b'M', b'Q', b'T', b'T', 5, 2, 0, 60, 0][..], &text(id)].concat())
}
