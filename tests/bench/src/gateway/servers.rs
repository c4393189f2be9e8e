//! The servers that are measured, each as a process of its own: ours, Debian's mosquitto, rumqttd's own listener.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::client::Client;
use super::fleet::{Files, Fleet};
use super::link::{Sessions, Transport, quic_endpoint};
use crate::programs::Process;

/// Where a server's settings lie in its folder.
const SETTINGS: &str = "serve.json";

/// Whose server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Peer {
    /// The hub's gateway.
    Tributary,
    /// mosquitto that keeps nothing.
    Mosquitto,
    /// mosquitto as Debian configures it, with its database.
    MosquittoPersistent,
    /// rumqttd's own server.
    Rumqttd,
}

impl Peer {
    /// All, ours first.
    pub const ALL: [Self; 4] = [Self::Tributary, Self::Mosquitto, Self::MosquittoPersistent, Self::Rumqttd];

    /// As in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tributary => "tributary",
            Self::Mosquitto => "mosquitto",
            Self::MosquittoPersistent => "mosquitto, persistence on",
            Self::Rumqttd => "rumqttd",
        }
    }

    /// What it is measured over.
    pub fn transports(self) -> &'static [Transport] {
        match self {
            Self::Tributary => &[Transport::Plain, Transport::Tls, Transport::Quic],
            Self::Mosquitto => &[Transport::Plain, Transport::Tls],
            // Its own TLS needs an older library than ours.
            Self::MosquittoPersistent | Self::Rumqttd => &[Transport::Plain],
        }
    }

    /// Its version, or `None` if it is not installed.
    pub fn version(self) -> Option<String> {
        match self {
            Self::Tributary => Some(env!("CARGO_PKG_VERSION").to_owned()),
            Self::Rumqttd => Some("0.20".to_owned()),
            Self::Mosquitto | Self::MosquittoPersistent => {
                // Its help ends with an error, but says the version.
                let told = Command::new(mosquitto()?).arg("-h").output().ok()?;
                let told = String::from_utf8_lossy(&told.stdout).into_owned();
                Some(told.lines().next()?.trim_start_matches("mosquitto version").trim().to_owned())
            }
        }
    }
}

/// Debian puts it where only root's path leads.
fn mosquitto() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin"), PathBuf::from("/usr/local/sbin")]);
    folders.map(|folder| folder.join("mosquitto")).find(|path| path.is_file())
}

/// Where a server listens.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Places {
    /// TCP.
    pub plain: SocketAddr,
    /// TLS.
    pub tls: SocketAddr,
    /// QUIC.
    pub quic: SocketAddr,
}

impl Places {
    /// Free ports of this machine, as far as one can know.
    pub fn free() -> anyhow::Result<Self> {
        let any = (Ipv4Addr::LOCALHOST, 0);
        // All are held until the last is known, so that they differ.
        let (plain, tls, quic) = (TcpListener::bind(any)?, TcpListener::bind(any)?, UdpSocket::bind(any)?);
        Ok(Self { plain: plain.local_addr()?, tls: tls.local_addr()?, quic: quic.local_addr()? })
    }

    /// For one transport.
    pub fn of(&self, transport: Transport) -> SocketAddr {
        match transport {
            Transport::Plain => self.plain,
            Transport::Tls => self.tls,
            Transport::Quic => self.quic,
        }
    }
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    /// Its process.
    pub process: Process,
    /// Where it listens.
    pub places: Places,
}

impl Server {
    /// Starts one on `places`, with its files in `folder` and the server's identity in `identity`, and waits until it
    /// answers the first device of the fleet.
    pub async fn start(
        peer: Peer,
        places: Places,
        folder: &Path,
        identity: &Path,
        fleet: &Fleet,
    ) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let process = match peer {
            Peer::Tributary | Peer::Rumqttd => {
                let settings = Settings { places, identity: identity.to_owned() };
                std::fs::write(folder.join(SETTINGS), serde_json::to_vec(&settings)?)?;
                let what = if peer == Peer::Tributary { "serve-gateway" } else { "serve-rumqttd" };
                let program = std::env::current_exe().context("the path of this program")?;
                let arguments = [what, "--folder", &folder.display().to_string()];
                Process::start(peer.name(), &program, folder, &arguments)?
            }
            Peer::Mosquitto | Peer::MosquittoPersistent => {
                let path = folder.join("mosquitto.conf").display().to_string();
                let persistent = peer == Peer::MosquittoPersistent;
                std::fs::write(&path, mosquitto_config(places, folder, &Files::within(identity), persistent))?;
                let program = mosquitto().context("mosquitto is not installed")?;
                Process::start(peer.name(), &program, folder, &["-c", &path])?
            }
        };
        let mut server = Self { process, places };
        let endpoint = quic_endpoint()?;
        for transport in peer.transports() {
            let dialer = fleet.dialer(0, *transport, places.of(*transport), Sessions::Forgotten, &endpoint)?;
            let id = fleet.id(0);
            let client =
                server.process.until("the server answers", async || Client::connect(&dialer, &id).await).await?;
            client.leave().await;
        }
        Ok(server)
    }
}

/// What a server of this program is told.
#[derive(Debug, Serialize, Deserialize)]
pub struct Settings {
    /// Where to listen.
    pub places: Places,
    /// Folder of the server's identity.
    pub identity: PathBuf,
}

impl Settings {
    /// Reads them from a server's folder.
    pub fn read(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join(SETTINGS);
        let text = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("the settings in {}", path.display()))
    }
}

/// As fast as it can be: no access rules, no delays, the window that our clients use.
fn mosquitto_config(places: Places, folder: &Path, files: &Files, persistent: bool) -> String {
    let Files { authority, certificate, key } = files;
    let (plain, tls) = (places.plain, places.tls);
    format!(
        "user root\nallow_anonymous true\nset_tcp_nodelay true\nmax_inflight_messages 100\nlog_dest none\n\
         persistence {persistent}\npersistence_location {folder}/\n\
         listener {} {}\n\
         listener {} {}\ncafile {}\ncertfile {}\nkeyfile {}\nrequire_certificate true\ntls_version tlsv1.3\n",
        plain.port(),
        plain.ip(),
        tls.port(),
        tls.ip(),
        authority.display(),
        certificate.display(),
        key.display(),
        folder = folder.display(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_differ_and_mosquitto_is_told_them() {
        let places = Places::free().unwrap();
        assert_ne!(places.plain.port(), places.tls.port());
        let files = Files::within(Path::new("/identity"));
        let config = mosquitto_config(places, Path::new("/data"), &files, true);
        assert!(config.contains(&format!("listener {} 127.0.0.1\n", places.plain.port())), "{config}");
        assert!(config.contains("persistence true\npersistence_location /data/\n"), "{config}");
        assert!(config.contains("cafile /identity/authority.pem\n"), "{config}");
    }
}
