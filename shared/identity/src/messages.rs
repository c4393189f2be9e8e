//! What device and hub say to each other over HTTPS about certificates, as JSON.

use serde::{Deserialize, Serialize};
use tributary_wire::{DeviceId, Micros};

/// `POST /api/v1/enrolments`, without a client certificate: the token speaks for the device.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrolRequest {
    /// The whole token.
    pub token: String,
    /// The id that the device asks for.
    pub device: DeviceId,
    /// Its certificate signing request: PKCS#10, PEM.
    pub request: String,
}

/// The token stays out of logs.
impl std::fmt::Debug for EnrolRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EnrolRequest").field("device", &self.device).finish_non_exhaustive()
    }
}

/// `POST /api/v1/certificates/renew`, with the old certificate in the TLS handshake.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RenewRequest {
    /// A signing request with the new key, or with the old one.
    pub request: String,
}

/// The answer to both. Unknown fields are left alone: a newer hub may say more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolled {
    /// For whom.
    pub device: DeviceId,
    /// Its certificate, PEM.
    pub certificate: String,
    /// The authorities to believe from now on, PEM.
    pub authorities: String,
    /// From when on to renew.
    pub renew_after: Micros,
    /// The hub's time.
    pub now: Micros,
    /// Where the hub listens.
    pub ports: Ports,
    /// The root of trust of the signed repository: the text of its newest `root.json`. None while the hub has none.
    #[serde(default)]
    pub root: Option<String>,
}

/// Where a hub listens.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ports {
    /// Name or address for devices; without one, that under which the device reached the hub.
    pub host: Option<String>,
    /// HTTPS, TCP.
    pub https: u16,
    /// MQTT over TLS, TCP.
    pub tls: Option<u16>,
    /// MQTT over QUIC, UDP.
    pub quic: Option<u16>,
}
