//! Programs that are not ours against our acceptor. Rights to every topic exist here alone: shipped programs have no
//! such admission.

mod mosquitto;
mod paho;

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use cloud_hub_gateway::{
    Admission, Event, Gateway, Limits, Listeners, Peer, Refused, ResetKey, Rights, TlsSettings, Topics, Upward,
};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tributary_identity::tls::{ALPN_MQTT, Clients, Shown, hub_server};
use tributary_identity::{Authority, DeviceClock, Key, KeyFile};
use tributary_process::shutdown::Shutdown;
use tributary_wire::{DeviceId, Micros};

const DAY: Duration = Duration::from_secs(86_400);

/// The one filter that nobody may follow: one of Paho's scripts wants to be refused.
const REFUSED: &str = "test/nosubscribe";

/// Any topic.
struct Everything;

impl Topics for Everything {
    fn may_publish(&self, _: &str) -> bool {
        true
    }

    fn may_follow(&self, filter: &str) -> bool {
        filter != REFUSED
    }
}

/// Those with a certificate are that device, all others may do anything.
struct Anybody;

impl Admission for Anybody {
    fn admit<'a>(&'a self, peer: Peer<'a>) -> Pin<Box<dyn Future<Output = Result<Rights, Refused>> + Send + 'a>> {
        let device = peer.certificate.and_then(|certificate| DeviceId::new(certificate.common_name()).ok());
        let rights = device.map_or_else(|| Rights::Client(Arc::new(Everything)), Rights::Device);
        Box::pin(async move { Ok(rights) })
    }
}

/// A device's identity in files, as other programs want it.
struct Files {
    authority: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

/// Our acceptor, with an authority of its own. It ends with this.
struct Acceptor {
    authority: Authority,
    clock: DeviceClock,
    plain: SocketAddr,
    tls: SocketAddr,
    /// What devices said.
    up: mpsc::Receiver<Upward>,
    shutdown: Shutdown,
    serving: JoinHandle<()>,
    _events: JoinHandle<()>,
    folder: TempDir,
}

impl Acceptor {
    async fn start(limits: Limits) -> Self {
        let clock = DeviceClock::new(Micros(0));
        let (certificate, key) = Authority::create("interop", clock.now(), 30 * DAY).unwrap();
        let authority = Authority::new(&certificate, &key).unwrap();
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let (own, key) = authority.issue_hub(&names, clock.now(), DAY).unwrap();
        let shown = Arc::new(Shown::from_pem(&[own, authority.certificate().clone()], &key).unwrap());
        let authorities = [authority.certificate().clone()];
        let settings = |clients| Arc::new(hub_server(shown.clone(), &authorities, clients, ALPN_MQTT).unwrap());
        let optional = Clients::Optional { grace: Duration::ZERO };
        let tls =
            TlsSettings { tls: settings(optional), quic: settings(Clients::Required), reset: ResetKey::new([0; 32]) };
        let any = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
        let listeners = Listeners { quic: None, tls: any, insecure_plain_on_loopback: any };
        let gateway = Gateway::bind(&listeners, limits, Some(tls)).await.unwrap();
        let addresses = gateway.addresses();
        let (up, taken) = mpsc::channel(64);
        let (events, mut told) = mpsc::channel::<Event>(64);
        let shutdown = Shutdown::new();
        Self {
            authority,
            clock,
            plain: addresses.plain.unwrap(),
            tls: addresses.tls.unwrap(),
            up: taken,
            serving: tokio::spawn(gateway.run(Arc::new(Anybody), up, events, shutdown.clone())),
            shutdown,
            _events: tokio::spawn(async move { while told.recv().await.is_some() {} }),
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// Enrols a device: its files.
    fn enrol(&self, device: &str) -> Files {
        let (id, key) = (DeviceId::new(device).unwrap(), KeyFile::generate().unwrap());
        let certificate = self.authority.issue_device(&key.request(&id).unwrap(), &id, self.clock.now(), DAY).unwrap();
        let path = |name: &str| self.folder.path().join(format!("{device}-{name}.pem"));
        let files = Files { authority: path("authority"), certificate: path("certificate"), key: path("key") };
        let write = |path: &Path, text: String| std::fs::write(path, text).unwrap();
        write(&files.authority, self.authority.certificate().to_pem());
        write(&files.certificate, certificate.to_pem());
        key.save(&files.key).unwrap();
        files
    }

    async fn stop(self) {
        self.shutdown.give();
        self.serving.await.unwrap();
    }
}
