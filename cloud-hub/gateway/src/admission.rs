//! Who stands at the door, and what those who are let in may do.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use tributary_identity::Certificate;
use tributary_wire::DeviceId;
use tributary_wire::topic::HUB_PREFIX;

use crate::tally::Refusal;

/// How a peer is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// MQTT on a QUIC stream.
    Quic,
    /// MQTT over TLS 1.3.
    Tls,
    /// MQTT over TCP, on loopback only.
    Plain,
}

impl Transport {
    /// As in settings, metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::Tls => "tls",
            Self::Plain => "plain",
        }
    }
}

/// One that has sent its CONNECT.
#[derive(Clone, Copy)]
pub struct Peer<'a> {
    /// From where.
    pub address: SocketAddr,
    /// By which way.
    pub transport: Transport,
    /// The certificate that it proved to hold, in this handshake or in the one whose session it resumed: whether it was
    /// revoked or has expired since then, nobody has looked.
    pub certificate: Option<&'a Certificate>,
    /// What it calls itself. Empty where it wants to be given a name.
    pub client_id: &'a str,
    /// As sent.
    pub username: Option<&'a str>,
    /// As sent.
    pub password: Option<&'a [u8]>,
}

impl fmt::Debug for Peer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer")
            .field("address", &self.address)
            .field("transport", &self.transport)
            .field("certificate", &self.certificate.map(Certificate::common_name))
            .field("client_id", &self.client_id)
            .finish_non_exhaustive()
    }
}

/// What a peer may do.
#[derive(Clone)]
pub enum Rights {
    /// Speak under this device's `up/` and listen to its `down/#`.
    Device(DeviceId),
    /// Speak and listen through the router, on the topics that this allows.
    Client(Arc<dyn Topics>),
}

impl fmt::Debug for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(device) => f.debug_tuple("Device").field(device).finish(),
            Self::Client(_) => f.write_str("Client"),
        }
    }
}

/// The topics of a client that is not a device.
pub trait Topics: Send + Sync + 'static {
    /// Whether it may publish to this topic. The topic is valid: not empty, no wildcard, no NUL.
    fn may_publish(&self, topic: &str) -> bool;
    /// Whether it may subscribe to this filter. The filter is valid; of a shared subscription it is the part behind
    /// `$share/NAME/`.
    fn may_follow(&self, filter: &str) -> bool;
    /// Waits until these rights end, as when a token is revoked or expires; the client is then cut off and reads why.
    fn ended<'a>(&'a self) -> Pin<Box<dyn Future<Output = String> + Send + 'a>> {
        Box::pin(std::future::pending())
    }
}

/// The rights of an integration: follow what the hub says under `v1/hub/`, say nothing.
#[derive(Debug, Clone, Copy)]
pub struct FollowsHub;

impl Topics for FollowsHub {
    fn may_publish(&self, _: &str) -> bool {
        false
    }

    fn may_follow(&self, filter: &str) -> bool {
        filter.starts_with(HUB_PREFIX)
    }
}

/// Why a peer is not let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Under what it is counted; decides the reason code that the peer gets.
    pub refusal: Refusal,
    /// What the peer reads, and the log.
    pub reason: String,
}

/// Decides who may connect.
pub trait Admission: Send + Sync + 'static {
    /// Asked at the CONNECT after every handshake, resumed ones too.
    fn admit<'a>(&'a self, peer: Peer<'a>) -> Pin<Box<dyn Future<Output = Result<Rights, Refused>> + Send + 'a>>;

    /// Asked again when a device that was let in has its place in the table of connections, with the certificate that
    /// it was let in with. A certificate that is revoked before this is seen here, and one that is revoked later ends
    /// the connection that is in the table by then: none slips through between.
    fn seated(&self, _device: &DeviceId, _certificate: Option<&Certificate>) -> Result<(), Refused> {
        Ok(())
    }
}
