//! TLS settings: 1.3 only, one provider, certificates on both sides.

mod hub;
#[cfg(test)]
mod tests;

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::client::{ResolvesClientCert, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SigningKey};
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig,
    SignatureScheme,
};
use tributary_wire::{Micros, Sha256};

pub use hub::{HubProblem, hub_problem, hub_problem_of_alert, hub_problem_of_quic};
use hub::{Pinned, Waking};

use crate::DeviceClock;
use crate::certificate::Certificate;
use crate::key::{Key, KeyError};

/// Application protocol of MQTT, over TLS and over QUIC.
pub const ALPN_MQTT: &[u8] = b"mqtt";
/// Application protocol of the web API.
pub const ALPN_HTTP: &[u8] = b"http/1.1";

/// Sessions that a hub remembers to resume; about 1 KiB each.
const RESUMED_SESSIONS: usize = 4096;

/// Why there are no TLS settings.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// What the TLS library says.
    #[error("tls")]
    Tls(#[from] Error),
    /// The key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The authorities.
    #[error("the authorities' certificates: {0}")]
    Authorities(String),
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn roots(authorities: &[Certificate]) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority.der().clone()).map_err(|error| TlsError::Authorities(error.to_string()))?;
    }
    Ok(Arc::new(roots))
}

/// What one side shows of itself: its certificate, those that lead to an authority, and the key. It can be replaced
/// while it is in use: the next handshake shows the new one.
#[derive(Debug)]
pub struct Shown(RwLock<Arc<CertifiedKey>>);

impl Shown {
    /// Shows this chain, its own certificate first.
    pub fn new(chain: &[Certificate], key: &dyn Key) -> Result<Self, TlsError> {
        Ok(Self(RwLock::new(certified(chain, key)?)))
    }

    /// As [`Self::new`], with the key as PEM.
    pub fn from_pem(chain: &[Certificate], key: &str) -> Result<Self, TlsError> {
        Ok(Self(RwLock::new(belonging(chain, crate::key::signer(key)?)?)))
    }

    /// Shows what `other` shows from now on.
    pub fn replace(&self, other: &Self) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = other.current();
    }

    fn current(&self) -> Arc<CertifiedKey> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn certified(chain: &[Certificate], key: &dyn Key) -> Result<Arc<CertifiedKey>, TlsError> {
    belonging(chain, key.signer()?)
}

fn belonging(chain: &[Certificate], signer: Arc<dyn SigningKey>) -> Result<Arc<CertifiedKey>, TlsError> {
    let chain = chain.iter().map(|certificate| certificate.der().clone()).collect();
    let shown = CertifiedKey::new(chain, signer);
    match shown.keys_match() {
        // A key in hardware may not say what its public half is.
        Ok(()) | Err(Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(Arc::new(shown)),
        Err(error) => Err(error.into()),
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}

impl ResolvesClientCert for Shown {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Whether a peer must show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clients {
    /// Nobody gets past the handshake without one.
    Required,
    /// Those without one may say otherwise who they are. One that is shown is checked all the same, but may have
    /// expired at most this long ago: whoever lets such a peer do more than renew must look at its date.
    Optional {
        /// How long after its end a certificate is still taken.
        grace: Duration,
    },
}

/// Settings of a hub's listener.
///
/// A resumed session skips the verifier: the certificate (number, name, dates) has to be checked against the catalog
/// after *every* handshake.
pub fn hub_server(
    shown: Arc<Shown>,
    authorities: &[Certificate],
    clients: Clients,
    alpn: &[u8],
) -> Result<ServerConfig, TlsError> {
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(authorities)?, provider());
    let verifier: Arc<dyn ClientCertVerifier> = match clients {
        Clients::Required => verifier.build().map_err(|error| TlsError::Authorities(error.to_string()))?,
        Clients::Optional { grace } => {
            let verifier = verifier.allow_unauthenticated().build();
            let inner = verifier.map_err(|error| TlsError::Authorities(error.to_string()))?;
            Arc::new(Lenient { inner, grace })
        }
    };
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(shown);
    config.alpn_protocols = vec![alpn.to_vec()];
    config.session_storage = rustls::server::ServerSessionMemoryCache::new(RESUMED_SESSIONS);
    // No 0-RTT: what arrives before the handshake is done can be replayed.
    config.max_early_data_size = 0;
    Ok(config)
}

/// Settings of a device for its hub: believes these authorities, shows its certificate if it has one, judges by its own
/// clock, which an authority's signature may set where it is unset.
pub fn device_client(
    authorities: &[Certificate],
    shown: Option<Arc<Shown>>,
    alpn: &[u8],
    clock: Arc<DeviceClock>,
) -> Result<ClientConfig, TlsError> {
    // No authority vouches for a time after its own end.
    let until = authorities.iter().map(Certificate::not_after).max();
    client(authorities, shown, alpn, clock, until)
}

/// Settings of a device for anybody but its hub: as [`device_client`], but nothing is learnt of the time.
pub fn stranger_client(
    authorities: &[Certificate],
    shown: Option<Arc<Shown>>,
    alpn: &[u8],
    clock: Arc<DeviceClock>,
) -> Result<ClientConfig, TlsError> {
    client(authorities, shown, alpn, clock, None)
}

fn client(
    authorities: &[Certificate],
    shown: Option<Arc<Shown>>,
    alpn: &[u8],
    clock: Arc<DeviceClock>,
    learns_until: Option<Micros>,
) -> Result<ClientConfig, TlsError> {
    let verifier = WebPkiServerVerifier::builder_with_provider(roots(authorities)?, provider()).build();
    let inner = verifier.map_err(|error| TlsError::Authorities(error.to_string()))?;
    let config = ClientConfig::builder_with_details(provider(), clock.clone())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Waking { inner, clock, learns_until }));
    let mut config = match shown {
        Some(shown) => config.with_client_cert_resolver(shown),
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    config.enable_early_data = false;
    Ok(config)
}

/// Settings for the first connection: the hub must show an authority with this fingerprint and a certificate that the
/// authority issued for the name that was called.
pub fn pinned_client(authority: Sha256, alpn: &[u8], clock: Arc<DeviceClock>) -> Result<ClientConfig, TlsError> {
    let inner = Arc::new(Pinned { authority, provider: provider() });
    let mut config = ClientConfig::builder_with_details(provider(), clock.clone())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Waking { inner, clock, learns_until: Some(Micros(i64::MAX)) }))
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

/// Takes certificates that have expired not long ago.
#[derive(Debug)]
struct Lenient {
    inner: Arc<dyn ClientCertVerifier>,
    grace: Duration,
}

impl ClientCertVerifier for Lenient {
    fn offer_client_auth(&self) -> bool {
        self.inner.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.inner.verify_client_cert(certificate, intermediates, now);
        let expired = CertificateError::Expired;
        let expired_at = match &verified {
            Err(Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => Some(*not_after),
            Err(Error::InvalidCertificate(other)) if *other == expired => {
                let read = Certificate::from_der(certificate).ok();
                read.map(|read| UnixTime::since_unix_epoch(Duration::from_micros(read.not_after().0.max(0) as u64)))
            }
            _ => None,
        };
        match expired_at {
            Some(end) if now.as_secs() <= end.as_secs().saturating_add(self.grace.as_secs()) => {
                self.inner.verify_client_cert(certificate, intermediates, end)
            }
            _ => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
