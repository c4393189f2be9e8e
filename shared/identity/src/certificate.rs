//! X.509 certificates as far as we look into them: whose, which, from when until when. The signature is checked by the
//! TLS library during the handshake, not here.

use std::fmt;
use std::net::IpAddr;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sha2::{Digest, Sha256 as Hash};
use tributary_wire::{Micros, Sha256};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::key::{Key, KeyError};

/// A certificate's number, unique at its issuer: hexadecimal digits, as in logs and in the catalog.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serial(String);

impl Serial {
    /// From its bytes, most significant first.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let significant = bytes.iter().position(|byte| *byte != 0).map_or(&[][..], |first| &bytes[first..]);
        Self(significant.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why bytes are not a certificate that we can use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Not X.509.
    #[error("not an X.509 certificate: {0}")]
    Malformed(String),
    /// Not PEM, or nothing in it.
    #[error("no certificate in the PEM text")]
    NoPem,
    /// Not exactly one common name.
    #[error("the certificate has {found} common names, expected one")]
    CommonName {
        /// How many.
        found: usize,
    },
}

/// A certificate that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    der: CertificateDer<'static>,
    common_name: String,
    serial: Serial,
    not_before: Micros,
    not_after: Micros,
    authority: bool,
    public_key: Sha256,
    names: Vec<String>,
}

impl Certificate {
    /// Reads one in DER.
    pub fn from_der(der: &[u8]) -> Result<Self, CertificateError> {
        let malformed = |error: &dyn fmt::Display| CertificateError::Malformed(error.to_string());
        let (rest, read) = X509Certificate::from_der(der).map_err(|error| malformed(&error))?;
        if !rest.is_empty() {
            return Err(CertificateError::Malformed(format!("{} bytes left behind it", rest.len())));
        }
        let names: Vec<_> = read.subject().iter_common_name().collect();
        let [name] = names.as_slice() else { return Err(CertificateError::CommonName { found: names.len() }) };
        let common_name = name.as_str().map_err(|error| malformed(&error))?.to_owned();
        let micros = |seconds: i64| Micros(seconds.saturating_mul(1_000_000));
        let names = read.subject_alternative_name().map_err(|error| malformed(&error))?;
        let names = names.map(|names| names.value.general_names.iter().filter_map(name_text).collect());
        Ok(Self {
            common_name,
            serial: Serial::from_bytes(read.raw_serial()),
            not_before: micros(read.validity().not_before.timestamp()),
            not_after: micros(read.validity().not_after.timestamp()),
            authority: read.is_ca(),
            public_key: Sha256(Hash::digest(read.public_key().raw).into()),
            names: names.unwrap_or_default(),
            der: CertificateDer::from(der.to_vec()),
        })
    }

    /// Reads all in a PEM text; at least one must be there.
    pub fn all_from_pem(text: &str) -> Result<Vec<Self>, CertificateError> {
        let all: Result<Vec<Self>, _> = CertificateDer::pem_slice_iter(text.as_bytes())
            .map(|der| Self::from_der(&der.map_err(|error| CertificateError::Malformed(error.to_string()))?))
            .collect();
        all.and_then(|all| if all.is_empty() { Err(CertificateError::NoPem) } else { Ok(all) })
    }

    /// As PEM.
    pub fn to_pem(&self) -> String {
        use base64::Engine as _;
        let text = base64::engine::general_purpose::STANDARD.encode(&self.der);
        let lines: Vec<&str> = text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
        format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
    }

    /// The bytes.
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// Whose it is: a device's id, or a name of a hub.
    pub fn common_name(&self) -> &str {
        &self.common_name
    }

    /// Its number.
    pub fn serial(&self) -> &Serial {
        &self.serial
    }

    /// Valid from this instant …
    pub fn not_before(&self) -> Micros {
        self.not_before
    }

    /// … to this one.
    pub fn not_after(&self) -> Micros {
        self.not_after
    }

    /// Whether it may sign other certificates.
    pub fn is_authority(&self) -> bool {
        self.authority
    }

    /// Whether this is the certificate of that key.
    pub fn belongs_to(&self, key: &dyn Key) -> Result<bool, KeyError> {
        let signer = key.signer()?;
        let own = signer.public_key();
        let (_, read) = X509Certificate::from_der(&self.der).map_err(|error| KeyError::Malformed(error.to_string()))?;
        Ok(own.is_some_and(|own| own.as_ref() == read.public_key().raw))
    }

    /// The DNS names and addresses that it is good for: those of a hub. A device's has none.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// SHA-256 of its public key: the same in two certificates of one key.
    pub fn public_key(&self) -> Sha256 {
        self.public_key
    }

    /// SHA-256 of its bytes.
    pub fn fingerprint(&self) -> Sha256 {
        Sha256(Hash::digest(&self.der).into())
    }
}

/// A name of a server in the form in which people write it; other kinds of names are none of ours.
fn name_text(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|bytes| IpAddr::from(bytes).to_string()),
            16 => <[u8; 16]>::try_from(*bytes).ok().map(|bytes| IpAddr::from(bytes).to_string()),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serials_are_told_apart_by_value_and_not_by_padding() {
        assert_eq!(Serial::from_bytes(&[0, 1, 0xab]).as_str(), "01ab");
        assert_eq!(Serial::from_bytes(&[1, 0xab]), Serial::from_bytes(&[0, 0, 1, 0xab]));
    }

    #[test]
    fn any_bytes_are_refused_without_a_panic() {
        bolero::check!().for_each(|bytes: &[u8]| {
            let _ = Certificate::from_der(bytes);
            let _ = Certificate::all_from_pem(&String::from_utf8_lossy(bytes));
        });
    }
}
