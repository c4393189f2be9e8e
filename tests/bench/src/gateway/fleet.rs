//! The identities of a measurement: one authority, one server, as many devices as are needed.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use rustls::ClientConfig;
use tributary_identity::tls::{ALPN_MQTT, Shown, device_client};
use tributary_identity::{Authority, Certificate, DeviceClock, Key, KeyFile};
use tributary_wire::topic::{Channel, Topic};
use tributary_wire::{DeviceId, Micros};

use super::link::{Dialer, SERVER_NAME, Sessions, Transport};

const DAY: Duration = Duration::from_secs(86_400);

/// Where the server's identity lies, for our own and for others' servers.
#[derive(Debug, Clone)]
pub struct Files {
    /// Certificate of the authority.
    pub authority: PathBuf,
    /// The server's own certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl Files {
    /// In this folder.
    pub fn within(folder: &Path) -> Self {
        let path = |name| folder.join(name);
        Self { authority: path("authority.pem"), certificate: path("server.pem"), key: path("server.key") }
    }
}

/// Devices with a certificate each.
#[derive(Debug)]
pub struct Fleet {
    authority: Certificate,
    devices: Vec<Device>,
    clock: Arc<DeviceClock>,
}

#[derive(Debug)]
struct Device {
    id: DeviceId,
    shown: Arc<Shown>,
}

impl Fleet {
    /// Makes everybody's identity and writes the server's into `folder`.
    pub fn create(folder: &Path, devices: usize) -> anyhow::Result<Self> {
        let clock = Arc::new(DeviceClock::new(Micros(0)));
        let (certificate, key) = Authority::create("bench", clock.now(), 30 * DAY)?;
        let authority = Authority::new(&certificate, &key)?;
        let names = [SERVER_NAME.to_owned(), "127.0.0.1".to_owned()];
        let (server, key) = authority.issue_hub(&names, clock.now(), DAY)?;
        let files = Files::within(folder);
        for (path, text) in [(&files.authority, certificate), (&files.certificate, server.to_pem()), (&files.key, key)]
        {
            std::fs::write(path, text).with_context(|| format!("write {}", path.display()))?;
        }
        // One key for all is enough to measure with, and saves the time to make thousands.
        let key = KeyFile::generate()?;
        let device = |index: usize| {
            let id = DeviceId::new(&format!("bench-{index}"))?;
            let issued = authority.issue_device(&key.request(&id)?, &id, clock.now(), DAY)?;
            anyhow::Ok(Device { id, shown: Arc::new(Shown::new(&[issued], &key)?) })
        };
        let devices = (0..devices).map(device).collect::<anyhow::Result<_>>().context("the devices' certificates")?;
        Ok(Self { authority: authority.certificate().clone(), devices, clock })
    }

    /// A device's id.
    pub fn id(&self, index: usize) -> String {
        self.devices[index].id.to_string()
    }

    /// Where a device publishes.
    pub fn topic(&self, index: usize) -> String {
        Topic::new(self.devices[index].id.clone(), Channel::Batch).to_string()
    }

    /// A device's TLS settings.
    pub fn settings(&self, index: usize) -> anyhow::Result<ClientConfig> {
        let shown = self.devices[index].shown.clone();
        Ok(device_client(std::slice::from_ref(&self.authority), Some(shown), ALPN_MQTT, self.clock.clone())?)
    }

    /// A device's way to a server; `endpoint` is its socket for QUIC.
    pub fn dialer(
        &self,
        index: usize,
        transport: Transport,
        server: SocketAddr,
        sessions: Sessions,
        endpoint: &quinn::Endpoint,
    ) -> anyhow::Result<Dialer> {
        match transport {
            Transport::Plain => Ok(Dialer::plain(server)),
            Transport::Tls => Ok(Dialer::tls(server, self.settings(index)?, sessions)),
            Transport::Quic => Dialer::quic(server, self.settings(index)?, sessions, endpoint.clone()),
        }
    }
}
