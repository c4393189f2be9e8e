//! What the hub answered, checked before any of it counts.

use std::sync::Arc;

use tributary_identity::{Certificate, CertificateError, Enrolled, KeyError, KeyFile, Ports};
use tributary_release::chain::{ChainError, check_root};
use tributary_wire::{DeviceId, Micros};

use super::files::{HubFile, Stored};

/// A certificate, a few authorities, a few keys: more than this is no answer.
pub(super) const MAX_ANSWER_BYTES: usize = 64 << 10;

/// Why an answer is of no use.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// Not the JSON that was expected.
    #[error("it is not what a hub answers: {0}")]
    Form(String),
    /// For somebody else.
    #[error("it is for device {found}, expected {expected}")]
    Device {
        /// This device.
        expected: DeviceId,
        /// In the answer, or the certificate's name.
        found: String,
    },
    /// The certificates cannot be read.
    #[error("its {which}")]
    Certificate {
        /// Which.
        which: &'static str,
        /// What is wrong.
        source: CertificateError,
    },
    /// For another key.
    #[error("its certificate is for another key than this device's")]
    OtherKey,
    /// The certificate is over already, by this device's clock.
    #[error("its certificate ends at {ends}, and this device's clock says {now}: set the clock")]
    Over {
        /// The end.
        ends: String,
        /// The device's time.
        now: String,
    },
    /// A certificate among the authorities may not sign.
    #[error("{found:?} stands among its authorities and is none")]
    NoAuthority {
        /// Its name.
        found: String,
    },
    /// Without HTTPS nothing can be renewed or fetched.
    #[error("it names no port for HTTPS")]
    NoPort,
    /// The root of trust.
    #[error("its root of trust")]
    Root(#[from] ChainError),
    /// This device's key.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// Reads an answer of the web.
pub(super) fn read(body: &[u8]) -> Result<Enrolled, AnswerError> {
    serde_json::from_slice(body).map_err(|error| AnswerError::Form(error.to_string()))
}

/// Checks an answer for this device and key. `called` is the name or address under which the hub was reached.
pub(super) fn check(
    answer: &Enrolled,
    device: &DeviceId,
    key: Arc<KeyFile>,
    called: &str,
    now: Micros,
) -> Result<Stored, AnswerError> {
    let other = |found: &str| AnswerError::Device { expected: device.clone(), found: found.to_owned() };
    if answer.device != *device {
        return Err(other(answer.device.as_str()));
    }
    let certificates = |which, text: &str| {
        Certificate::all_from_pem(text).map_err(|source| AnswerError::Certificate { which, source })
    };
    let chain = certificates("certificate", &answer.certificate)?;
    let authorities = certificates("authorities", &answer.authorities)?;
    let own = &chain[0];
    if own.common_name() != device.as_str() {
        return Err(other(own.common_name()));
    }
    if !own.belongs_to(&*key)? {
        return Err(AnswerError::OtherKey);
    }
    let words = |time: &Micros| crate::sources::rfc3339(time);
    if own.not_after() <= now {
        return Err(AnswerError::Over { ends: words(&own.not_after()), now: words(&now) });
    }
    if let Some(none) = authorities.iter().find(|authority| !authority.is_authority()) {
        return Err(AnswerError::NoAuthority { found: none.common_name().to_owned() });
    }
    if answer.ports.https == 0 {
        return Err(AnswerError::NoPort);
    }
    if let Some(root) = &answer.root {
        check_root(root.as_bytes())?;
    }
    let hub = HubFile {
        called: called.to_owned(),
        ports: sensible(answer.ports.clone()),
        renew_after: within(own, answer.renew_after),
    };
    Ok(Stored { key, root: answer.root.clone(), authorities, hub, chain })
}

/// A port of 0 means none, and a host without a name is none.
fn sensible(ports: Ports) -> Ports {
    Ports {
        host: ports.host.filter(|host| !host.trim().is_empty()),
        tls: ports.tls.filter(|port| *port != 0),
        quic: ports.quic.filter(|port| *port != 0),
        ..ports
    }
}

/// A hub that says nothing sensible gets the usual two thirds.
fn within(certificate: &Certificate, renew_after: Micros) -> Micros {
    let (from, to) = (certificate.not_before(), certificate.not_after());
    if (from..to).contains(&renew_after) {
        return renew_after;
    }
    Micros(from.0.saturating_add(to.0.saturating_sub(from.0) / 3 * 2))
}
