//! Who this device is: its key and certificate, the hub that it belongs to, and the time it may believe.
//!
//! [`enrol`] gets the first certificate for a token; [`renew`] every later one for the one before. [`Identity`] is what
//! counts now, for whoever connects: it changes under a running agent, so everybody asks it anew.

mod files;
mod look;
mod answer;
mod compare;
mod enrol;
mod renew;
mod time;
#[cfg(test)]
pub(crate) mod tests;

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use edge_agent_core::renewal::Term;
use tokio::sync::watch;
use tributary_identity::tls::{ALPN_HTTP, ALPN_MQTT, Shown, TlsError, device_client, stranger_client};
use tributary_identity::{Certificate, Serial};
use tributary_process::http::{Client, Endpoint};
use tributary_wire::{DeviceId, Micros};

pub use answer::AnswerError;
pub use compare::{compare, date};
pub use enrol::{Done, EnrolError, Enrolment, enrol, token_from};
pub use files::{FilesError, Folder};
pub use renew::{RenewError, Renewal, RenewalStatus, RenewalView, Requests, run as renew};
/// TLS settings of one connection.
pub use rustls::ClientConfig as TlsSettings;
pub use time::{AGREES, ClockView, KeepFloor, Time, WRONG};

use crate::config::Hub;
use files::Stored;

/// Why there is no identity to work with.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// What is on disk.
    #[error("identity")]
    Files(#[from] FilesError),
    /// The certificate's name is no device id.
    #[error("the certificate's name {found:?} is not a device id")]
    Name {
        /// The name.
        found: String,
    },
    /// The TLS library takes none of it.
    #[error("identity")]
    Tls(#[from] TlsError),
}

/// Where the hub listens, each `host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    /// Web API.
    pub https: String,
    /// MQTT over QUIC.
    pub quic: Option<String>,
    /// MQTT over TLS.
    pub tls: Option<String>,
}

/// What counts at one moment.
#[derive(Debug)]
pub struct Current {
    number: u64,
    /// This device.
    pub device: DeviceId,
    /// Its certificate.
    pub certificate: Certificate,
    /// When to renew it.
    pub term: Term,
    /// Where the hub is.
    pub reach: Reach,
    /// The root of trust of the signed repository, if the hub had one when this device was enrolled.
    pub root: Option<String>,
    /// For MQTT.
    pub mqtt: Arc<TlsSettings>,
    /// For the web API.
    pub https: Arc<TlsSettings>,
    /// For another hub of the same authorities, which has no say about the time.
    pub neighbour: Arc<TlsSettings>,
    stored: Arc<Stored>,
}

impl std::fmt::Debug for Stored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stored").field("hub", &self.hub).finish_non_exhaustive()
    }
}

impl Current {
    fn new(number: u64, stored: Stored, overrides: &Hub, time: &Time) -> Result<Self, IdentityError> {
        let certificate = stored.chain[0].clone();
        let found = certificate.common_name();
        let device = DeviceId::new(found).map_err(|_| IdentityError::Name { found: found.to_owned() })?;
        // Made anew each time: a session that was begun with the old certificate must not be resumed, because to the
        // hub it would still be the old certificate's.
        let shown = Arc::new(Shown::new(&stored.chain, &*stored.key)?);
        let settings = |alpn| device_client(&stored.authorities, Some(shown.clone()), alpn, time.clock()).map(Arc::new);
        let ports = &stored.hub.ports;
        let host = ports.host.as_deref().unwrap_or(&stored.hub.called);
        let given = |own: &Option<String>, port: Option<u16>| match own.as_deref() {
            Some("") => None,
            Some(own) => Some(own.to_owned()),
            None => port.map(|port| join(host, port)),
        };
        Ok(Self {
            number,
            device,
            term: Term { renew_after: stored.hub.renew_after, not_after: certificate.not_after() },
            reach: Reach {
                https: overrides.https.clone().unwrap_or_else(|| join(host, ports.https)),
                quic: given(&overrides.quic, ports.quic),
                tls: given(&overrides.tls, ports.tls),
            },
            root: stored.root.clone(),
            mqtt: settings(ALPN_MQTT)?,
            https: settings(ALPN_HTTP)?,
            neighbour: Arc::new(stranger_client(&stored.authorities, Some(shown), ALPN_HTTP, time.clock())?),
            certificate,
            stored: Arc::new(stored),
        })
    }

    /// The certificate's number.
    pub fn serial(&self) -> &Serial {
        self.certificate.serial()
    }
}

/// An IPv6 address needs brackets before a port.
fn join(host: &str, port: u16) -> String {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if bare.contains(':') { format!("[{bare}]:{port}") } else { format!("{bare}:{port}") }
}

/// The identity of a running agent.
#[derive(Debug)]
pub struct Identity {
    folder: Folder,
    overrides: Hub,
    time: Time,
    current: RwLock<Arc<Current>>,
    changed: watch::Sender<u64>,
    status: RenewalStatus,
}

impl Identity {
    /// Reads what enrolment has left; none before enrolment. Addresses in the settings are stronger than the hub's word.
    pub fn open(folder: Folder, overrides: &Hub, time: Time) -> Result<Option<Arc<Self>>, IdentityError> {
        let Some((number, stored)) = folder.load()? else { return Ok(None) };
        let current = Arc::new(Current::new(number, stored, overrides, &time)?);
        Ok(Some(Arc::new(Self {
            folder,
            overrides: overrides.clone(),
            time,
            current: RwLock::new(current),
            changed: watch::channel(0).0,
            status: RenewalStatus::default(),
        })))
    }

    /// What counts now.
    pub fn current(&self) -> Arc<Current> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Fires when a new certificate counts.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// The time that this identity goes by.
    pub fn time(&self) -> &Time {
        &self.time
    }

    /// How renewal goes.
    pub fn renewal(&self) -> &RenewalStatus {
        &self.status
    }

    /// For servers that have a certificate of the hub's authorities but are none of its business: shows nothing.
    pub fn mirror_settings(&self) -> Result<Arc<TlsSettings>, TlsError> {
        let current = self.current();
        stranger_client(&current.stored.authorities, None, ALPN_HTTP, self.time.clock()).map(Arc::new)
    }

    /// A client of the hub's web API that shows this device's certificate.
    pub fn web(&self) -> Client {
        let current = self.current();
        Client::new(Endpoint::Tls(current.reach.https.clone())).with_tls(current.https.clone())
    }

    fn replace(&self, current: Current) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(current);
        self.changed.send_modify(|count| *count += 1);
    }
}

/// The hub's web API as this device may call it.
#[derive(Debug, Clone)]
pub enum Web {
    /// No hub is known.
    Nowhere,
    /// Without encryption, on this machine.
    Plain(Client),
    /// With the device's certificate.
    Secure(Arc<Identity>),
}

impl Web {
    /// Whom to call, if anybody.
    pub fn client(&self) -> Option<Client> {
        match self {
            Self::Nowhere => None,
            Self::Plain(client) => Some(client.clone()),
            Self::Secure(identity) => Some(identity.web()),
        }
    }
}

/// A certificate's end and number, for status and reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateView {
    /// Its number.
    pub serial: Serial,
    /// Its end.
    pub not_after: Micros,
    /// When the next one is asked for.
    pub next_attempt: Option<Micros>,
    /// Why the last attempt failed, if it did.
    pub error: Option<String>,
    /// What a person must know.
    pub problem: Option<String>,
}

impl Identity {
    /// For status and reports.
    pub fn view(&self) -> CertificateView {
        let current = self.current();
        let renewal = self.status.view();
        CertificateView {
            serial: current.serial().clone(),
            not_after: current.certificate.not_after(),
            next_attempt: renewal.next_attempt,
            error: renewal.error,
            problem: renewal.problem,
        }
    }
}

/// Longest wait for the hub's answer about a certificate.
const PATIENCE: Duration = Duration::from_secs(30);
