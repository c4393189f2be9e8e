//! Servers within this program, to be measured as processes of their own.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use cloud_hub_gateway::{
    AddressLimits, Admission, Gateway, Limits, Listeners, Peer, Refusal, Refused, ResetKey, Rights, TlsSettings,
    Transport,
};
use rumqttd::{Broker, Config, ConnectionSettings, RouterConfig, ServerSettings};
use tokio::sync::mpsc;
use tributary_identity::Certificate;
use tributary_identity::tls::{ALPN_MQTT, Clients, Shown, hub_server};
use tributary_process::shutdown::Shutdown;
use tributary_wire::DeviceId;

use super::fleet::Files;
use super::servers::Settings;

/// Waiting messages and events, as in the hub.
const QUEUE: usize = 1024;

/// The rights that the hub gives: a device speaks under its own topics, and is who its certificate says. Plain ones are
/// believed, as on a hub for development.
struct Devices;

impl Devices {
    fn judge(peer: &Peer<'_>) -> Result<Rights, Refused> {
        let refused = |refusal, reason: &str| Refused { refusal, reason: reason.to_owned() };
        let device = DeviceId::new(peer.client_id).map_err(|_| refused(Refusal::ClientId, "not a device's id"))?;
        match peer.certificate {
            Some(certificate) if certificate.common_name() == device.as_str() => Ok(Rights::Device(device)),
            None if peer.transport == Transport::Plain => Ok(Rights::Device(device)),
            _ => Err(refused(Refusal::NotAdmitted, "not the device of the certificate")),
        }
    }
}

impl Admission for Devices {
    fn admit<'a>(&'a self, peer: Peer<'a>) -> Pin<Box<dyn Future<Output = Result<Rights, Refused>> + Send + 'a>> {
        Box::pin(async move { Self::judge(&peer) })
    }
}

/// The hub's gateway as it is shipped, with devices' rights; what they publish is thrown away.
pub async fn gateway(folder: &Path) -> anyhow::Result<()> {
    let Settings { places, identity } = Settings::read(folder)?;
    // As shipped, but for what one device and one address may do: here all devices have one address.
    let limits = Limits {
        messages_per_second: u32::MAX,
        bytes_per_second: 1 << 40,
        per_address: AddressLimits { connections: usize::MAX, per_second: u32::MAX, ..AddressLimits::default() },
        ..Limits::default()
    };
    let (tls, quic) = (Some(places.tls), Some(places.quic));
    let listeners = Listeners { quic, tls, insecure_plain_on_loopback: Some(places.plain) };
    let gateway = Gateway::bind(&listeners, limits, Some(settings(&identity)?)).await.context("the gateway")?;
    let (up, mut taken) = mpsc::channel(QUEUE);
    let (events, mut told) = mpsc::channel(QUEUE);
    tokio::spawn(async move { while taken.recv().await.is_some() {} });
    tokio::spawn(async move { while told.recv().await.is_some() {} });
    gateway.run(Arc::new(Devices), up, events, Shutdown::new()).await;
    Ok(())
}

/// As the hub has them.
fn settings(identity: &Path) -> anyhow::Result<TlsSettings> {
    let files = Files::within(identity);
    let read = |path: &Path| std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()));
    let authorities = Certificate::all_from_pem(&read(&files.authority)?)?;
    let mut chain = Certificate::all_from_pem(&read(&files.certificate)?)?;
    chain.extend(authorities.iter().cloned());
    let shown = Arc::new(Shown::from_pem(&chain, &read(&files.key)?)?);
    let optional = Clients::Optional { grace: Duration::ZERO };
    let tls = hub_server(shown.clone(), &authorities, optional, ALPN_MQTT)?;
    let quic = hub_server(shown, &authorities, Clients::Required, ALPN_MQTT)?;
    Ok(TlsSettings { tls: Arc::new(tls), quic: Arc::new(quic), reset: ResetKey::new([0; 32]) })
}

/// rumqttd's own server, with the sizes that it ships with.
pub async fn rumqttd(folder: &Path) -> anyhow::Result<()> {
    let settings = Settings::read(folder)?;
    let connections = ConnectionSettings {
        connection_timeout_ms: 60_000,
        max_payload_size: 1 << 20,
        max_inflight_count: 100,
        auth: None,
        external_auth: None,
        dynamic_filters: true,
    };
    let listener = ServerSettings {
        name: "plain".to_owned(),
        listen: settings.places.plain,
        tls: None,
        // It ships with one millisecond, which would be all that connections per second show.
        next_connection_delay_ms: 0,
        connections,
    };
    let router = RouterConfig {
        max_connections: 10_010,
        max_outgoing_packet_count: 200,
        max_segment_size: 100 << 20,
        max_segment_count: 10,
        ..RouterConfig::default()
    };
    let config = Config { router, v5: Some([("plain".to_owned(), listener)].into()), ..Config::default() };
    // It blocks its thread, and has runtimes of its own.
    let serve = move || Broker::new(config).start().map_err(|error| anyhow::anyhow!("{error}"));
    tokio::task::spawn_blocking(serve).await?
}
