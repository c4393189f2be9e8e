//! Who may connect to the gateway, asked at the CONNECT after every handshake.
//!
//! Over TLS and QUIC the certificate alone says which device it is: it must be one that this hub issued, neither revoked
//! nor expired *now* — a resumed session carries the certificate of an earlier handshake, which nobody has looked at
//! since — and the client id must be its common name. Integrations (`app-…`) show an API token as password over TLS. The
//! plain listener, on loopback for development, believes whatever it is told.

mod seen;
mod watch;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use cloud_hub_gateway::{Admission, FollowsHub, Peer, Refusal, Refused, Rights, Topics, Transport};
use tributary_identity::Certificate;
use tributary_wire::DeviceId;

pub use seen::Seen;
pub(crate) use watch::watch;

use crate::access::{Access, Denied, Verified};
use crate::catalog;
use crate::identity::{self, Identity};
use crate::ingest::HUB_DEVICE;

/// Admits by certificate, by token, or over the plain listener by name.
#[derive(Debug, Clone)]
pub struct ByIdentity {
    identity: Arc<Identity>,
    access: Access,
    seen: Seen,
}

impl ByIdentity {
    /// Admits by what `identity` and `access` know; who comes is written down through `seen`.
    pub fn new(identity: Arc<Identity>, access: Access, seen: Seen) -> Self {
        Self { identity, access, seen }
    }

    async fn decide(&self, peer: Peer<'_>) -> Result<Rights, Refused> {
        let rights = match (peer.transport, peer.certificate) {
            (Transport::Plain, _) => self.by_name(peer.client_id).await,
            (_, Some(certificate)) => self.by_certificate(peer.client_id, certificate).await,
            (_, None) if is_integration(peer.client_id) => self.by_token(peer).await,
            (_, None) => Err(refused(
                Refusal::Certificate,
                "no certificate was shown in the TLS handshake; a device needs to enrol first (edge-agent enroll)",
            )),
        }?;
        self.identity.tally.admission(peer.transport.name());
        Ok(rights)
    }

    async fn by_certificate(&self, client_id: &str, certificate: &Certificate) -> Result<Rights, Refused> {
        let name = certificate.common_name();
        if name != client_id {
            let client_id: String = client_id.chars().take(64).collect();
            let reason = format!("the client id is {client_id:?}, but the certificate is that of {name:?}");
            return Err(refused(Refusal::Certificate, reason));
        }
        let now = catalog::now();
        let judged = match self.identity.device(certificate, now) {
            // A restored hub has issued certificates that its catalog does not know.
            Err(unknown @ identity::Refused::Unknown { .. }) => {
                match self.identity.take_in_again(certificate, now).await {
                    Ok(true) => self.identity.device(certificate, now),
                    Ok(false) => Err(unknown),
                    Err(error) => {
                        tracing::error!(error = format!("{error:#}"), "an unknown certificate could not be looked at");
                        Err(unknown)
                    }
                }
            }
            judged => judged,
        };
        Ok(Rights::Device(judged.map_err(not_counting)?))
    }

    /// An integration may stay as long as its API token counts.
    async fn by_token(&self, peer: Peer<'_>) -> Result<Rights, Refused> {
        let Some(password) = peer.password else {
            let reason = "no API token was shown as password (cloud-hub access create NAME)";
            return Err(refused(Refusal::Credentials, reason));
        };
        let password = std::str::from_utf8(password);
        let text = password.map_err(|_| refused(Refusal::Credentials, "the password is not an API token"))?;
        match self.access.check(text, peer.address.ip()).await {
            // Every role may look.
            Ok(token) => Ok(Rights::Client(Arc::new(Integration { access: self.access.clone(), token }))),
            Err(Denied::Catalog(error)) => {
                tracing::error!(error = &error as &dyn std::error::Error, "the catalog did not answer an admission");
                Err(refused(Refusal::Unavailable, "the catalog does not answer"))
            }
            Err(denied) => Err(refused(Refusal::Credentials, denied)),
        }
    }

    async fn by_name(&self, client_id: &str) -> Result<Rights, Refused> {
        if is_integration(client_id) {
            return Ok(Rights::Client(Arc::new(FollowsHub)));
        }
        let device = DeviceId::new(client_id).map_err(|error| refused(Refusal::ClientId, error))?;
        if device.as_str() == HUB_DEVICE {
            return Err(refused(Refusal::ClientId, format!("{HUB_DEVICE:?} is the hub's own name")));
        }
        // It may be new, and what it sends refers to its row.
        match self.seen.written(&device, catalog::now()).await {
            true => Ok(Rights::Device(device)),
            false => Err(refused(Refusal::Unavailable, "the catalog does not answer")),
        }
    }
}

/// The rights of an integration, while its token counts.
struct Integration {
    access: Access,
    token: Verified,
}

impl Topics for Integration {
    fn may_publish(&self, topic: &str) -> bool {
        FollowsHub.may_publish(topic)
    }

    fn may_follow(&self, filter: &str) -> bool {
        FollowsHub.may_follow(filter)
    }

    fn ended<'a>(&'a self) -> Pin<Box<dyn Future<Output = String> + Send + 'a>> {
        Box::pin(async {
            let why = self.access.ended(&self.token).await;
            tracing::info!(token = self.token.id, name = self.token.name, why, "an integration's connection ends");
            why
        })
    }
}

fn not_counting(error: identity::Refused) -> Refused {
    let refusal = match error {
        identity::Refused::Unknown { .. } => Refusal::Certificate,
        identity::Refused::Revoked { .. } => Refusal::Revoked,
        identity::Refused::Expired { .. } => Refusal::Expired,
    };
    refused(refusal, error)
}

fn refused(refusal: Refusal, reason: impl ToString) -> Refused {
    Refused { refusal, reason: reason.to_string() }
}

/// Client ids of integrations begin with `app-`; the rest is theirs to choose.
fn is_integration(client_id: &str) -> bool {
    let valid = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    client_id.starts_with("app-") && client_id.len() <= 63 && client_id.bytes().all(valid)
}

impl Admission for ByIdentity {
    fn admit<'a>(&'a self, peer: Peer<'a>) -> Pin<Box<dyn Future<Output = Result<Rights, Refused>> + Send + 'a>> {
        Box::pin(self.decide(peer))
    }

    fn seated(&self, device: &DeviceId, certificate: Option<&Certificate>) -> Result<(), Refused> {
        // Over the plain listener nobody has one.
        let Some(certificate) = certificate else { return Ok(()) };
        let now = catalog::now();
        let (_, first) = self.identity.connects(certificate, now).map_err(not_counting)?;
        // Its row has been there since it enrolled: nothing has to be waited for.
        self.seen.note(device, now, first.then(|| certificate.serial().clone()));
        Ok(())
    }
}
