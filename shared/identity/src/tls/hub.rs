//! How a device checks the hub.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, SignatureScheme};
use tributary_wire::{Micros, Sha256};

use crate::DeviceClock;
use crate::certificate::Certificate;

/// Certificates of one chain, hub and intermediates, each of which may be younger than the device's floor.
const LONGEST_CHAIN: usize = 4;

/// What is wrong with the hub that was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HubProblem {
    /// It is not the one that the enrolment token names.
    Other,
    /// None of the authorities that this device believes vouches for it.
    Untrusted,
    /// Its certificate is not for the name or address that was called.
    Name,
    /// Its certificate has expired.
    Expired,
    /// Its certificate is not valid yet.
    Future,
    /// It refuses this device's certificate.
    Refuses,
}

/// Finds in an error and its causes what is wrong with the hub, if that is why a connection failed.
pub fn hub_problem(error: &(dyn StdError + 'static)) -> Option<HubProblem> {
    let mut next = Some(error);
    while let Some(error) = next {
        // An I/O error shows the cause of what it wraps, and never that itself.
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let error: &(dyn StdError + 'static) = wrapped.map_or(error, |wrapped| wrapped);
        if let Some(found) = error.downcast_ref::<Error>().and_then(classify) {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// The same for QUIC, which tells no more of a handshake than the error code it ended with: whose it was, and in which words.
pub fn hub_problem_of_quic(code: u64, by_hub: bool, words: &str) -> Option<HubProblem> {
    // Codes from here on are TLS alerts (RFC 9001, 4.8).
    let alert = u8::try_from(code.checked_sub(0x100)?).ok()?;
    hub_problem_of_alert(alert, by_hub, words)
}

/// The same where only the alert is known that ended a handshake: who raised it, and in which words.
pub fn hub_problem_of_alert(code: u8, by_hub: bool, words: &str) -> Option<HubProblem> {
    use rustls::AlertDescription as Alert;
    let alert = Alert::from(code);
    if by_hub {
        return classify(&Error::AlertReceived(alert));
    }
    match alert {
        Alert::UnknownCA | Alert::DecryptError | Alert::UnsupportedCertificate | Alert::CertificateUnknown => {
            Some(HubProblem::Untrusted)
        }
        Alert::BadCertificate => Some(HubProblem::Name),
        Alert::CertificateExpired if words.contains("not valid yet") => Some(HubProblem::Future),
        Alert::CertificateExpired => Some(HubProblem::Expired),
        _ => None,
    }
}

fn classify(error: &Error) -> Option<HubProblem> {
    use rustls::AlertDescription as Alert;
    match error {
        Error::Other(OtherError(other)) if other.is::<OtherHub>() => Some(HubProblem::Other),
        Error::InvalidCertificate(problem) => Some(match problem {
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => HubProblem::Name,
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => HubProblem::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => HubProblem::Future,
            _ => HubProblem::Untrusted,
        }),
        Error::AlertReceived(
            Alert::AccessDenied
            | Alert::BadCertificate
            | Alert::CertificateExpired
            | Alert::CertificateRequired
            | Alert::CertificateRevoked
            | Alert::CertificateUnknown
            | Alert::UnknownCA,
        ) => Some(HubProblem::Refuses),
        _ => None,
    }
}

/// The token was made by another hub.
#[derive(Debug, thiserror::Error)]
#[error("the hub is not the one that the token was made by: no authority with its fingerprint")]
struct OtherHub;

/// Lets a device in that does not know the time. All that it knows for certain is its floor, so a hub whose certificate
/// is younger would pass for one of the future. But an authority that signed a certificate has also signed that it
/// was that time then: the floor rises to it, where the peer is the hub. Of anybody else, such as a mirror, it counts
/// for this handshake alone: what comes from there is believed for other reasons. A device whose clock may be right makes
/// no such allowance.
#[derive(Debug)]
pub(super) struct Waking {
    pub(super) inner: Arc<dyn ServerCertVerifier>,
    pub(super) clock: Arc<DeviceClock>,
    /// The latest time that is learnt from this peer; `None`: it has no say.
    pub(super) learns_until: Option<Micros>,
}

impl ServerCertVerifier for Waking {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verify = |now| self.inner.verify_server_cert(end_entity, intermediates, name, ocsp, now);
        let mut verified = verify(now);
        if self.clock.is_unset() {
            for _ in 0..LONGEST_CHAIN {
                let Err(Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. })) = verified
                else {
                    break;
                };
                let seconds = i64::try_from(not_before.as_secs()).unwrap_or(i64::MAX);
                let begins = Micros(seconds.saturating_mul(Micros::SECOND));
                if self.learns_until.is_some_and(|until| begins > until) || !self.clock.is_credible(begins) {
                    break;
                }
                verified = verify(not_before);
                if verified.is_ok() && self.learns_until.is_some() {
                    self.clock.raise(begins);
                }
            }
        }
        verified
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

/// Believes one authority, known by its fingerprint alone.
pub(super) struct Pinned {
    pub(super) authority: Sha256,
    pub(super) provider: Arc<CryptoProvider>,
}

impl fmt::Debug for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pinned({})", self.authority)
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let shown = intermediates.iter().filter_map(|der| Certificate::from_der(der).ok());
        let pinned: Vec<Certificate> = shown.filter(|shown| shown.fingerprint() == self.authority).collect();
        if pinned.is_empty() {
            return Err(Error::Other(OtherError(Arc::new(OtherHub))));
        }
        let roots = super::roots(&pinned).map_err(|error| Error::General(error.to_string()))?;
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, self.provider.clone()).build();
        let verifier = verifier.map_err(|error| Error::General(error.to_string()))?;
        verifier.verify_server_cert(end_entity, intermediates, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
