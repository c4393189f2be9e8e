//! Issues certificates: to devices from their signing requests, to the hub itself.

use std::path::Path;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ED25519,
    PublicKeyData, SerialNumber,
};
use tributary_wire::{DeviceId, Micros};
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate};

use crate::certificate::{Certificate, CertificateError};
use crate::key::{KeyError, read_private};

/// Clocks differ: certificates are valid from this many microseconds before they were made.
pub const BACKDATED: i64 = 3_600 * 1_000_000;
/// A signing request of a few hundred bytes; more than this is not one.
const MAX_REQUEST_BYTES: usize = 16 << 10;

/// Why no certificate was issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// Not PKCS#10, or its signature is wrong.
    #[error("the signing request is refused: {0}")]
    Request(String),
    /// It asks for another device.
    #[error("the signing request is for {found:?}, expected {expected:?}")]
    OtherName {
        /// The device that may ask.
        expected: String,
        /// The name in the request.
        found: String,
    },
    /// A weak or unusual key.
    #[error("the signing request has a key that is neither P-256 nor Ed25519")]
    KeyType,
    /// The authority's own key or certificate.
    #[error("the authority cannot issue: {0}")]
    Authority(String),
    /// What was issued cannot be read back.
    #[error("the issued certificate")]
    Issued(#[from] CertificateError),
}

/// A certificate authority of a hub.
pub struct Authority {
    certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
    not_after: Micros,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("certificate", &self.certificate.common_name()).finish_non_exhaustive()
    }
}

impl Authority {
    /// Makes a new one, valid for `lifetime`; its certificate and its secret key, both PEM.
    pub fn create(name: &str, now: Micros, lifetime: Duration) -> Result<(String, String), IssueError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(authority)?;
        let mut parameters = parameters(name, now, lifetime, i64::MAX)?;
        parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = parameters.self_signed(&key).map_err(authority)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }

    /// From its certificate and its key, both PEM.
    pub fn new(certificate: &str, key: &str) -> Result<Self, IssueError> {
        let all = Certificate::all_from_pem(certificate)?;
        let own = all.into_iter().next().ok_or_else(|| authority("no certificate"))?;
        if !own.is_authority() {
            return Err(authority(format!("the certificate of {:?} may not sign others", own.common_name())));
        }
        let key = KeyPair::from_pem(key).map_err(authority)?;
        if !holds(&own, &key) {
            return Err(authority("certificate and key do not belong together"));
        }
        let issuer = Issuer::from_ca_cert_der(own.der(), key).map_err(authority)?;
        Ok(Self { not_after: own.not_after(), certificate: own, issuer })
    }

    /// From files; the key's must be readable by its owner alone.
    pub fn open(certificate: &Path, key: &Path) -> Result<Self, OpenError> {
        let text = std::fs::read_to_string(certificate)
            .map_err(|source| KeyError::File { path: certificate.to_owned(), source })?;
        Ok(Self::new(&text, &read_private(key)?)?)
    }

    /// Its own certificate.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// Answers a device's signing request. Only the request's key is taken over; name, purpose and lifetime are ours.
    pub fn issue_device(
        &self,
        request: &str,
        device: &DeviceId,
        now: Micros,
        lifetime: Duration,
    ) -> Result<Certificate, IssueError> {
        if request.len() > MAX_REQUEST_BYTES {
            return Err(IssueError::Request(format!("{} bytes, at most {MAX_REQUEST_BYTES}", request.len())));
        }
        let mut asked = CertificateSigningRequestParams::from_pem(request)
            .map_err(|error| IssueError::Request(error.to_string()))?;
        let found = match asked.params.distinguished_name.get(&DnType::CommonName) {
            Some(rcgen::DnValue::Utf8String(name)) => name.clone(),
            Some(rcgen::DnValue::PrintableString(name)) => name.as_str().to_owned(),
            _ => String::new(),
        };
        if found != device.as_str() {
            return Err(IssueError::OtherName { expected: device.to_string(), found });
        }
        let kind = asked.public_key.algorithm();
        if *kind != PKCS_ECDSA_P256_SHA256 && *kind != PKCS_ED25519 {
            return Err(IssueError::KeyType);
        }
        let mut ours = parameters(device.as_str(), now, lifetime, self.not_after.0)?;
        ours.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        ours.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        asked.params = ours;
        let issued = asked.signed_by(&self.issuer).map_err(authority)?;
        Ok(Certificate::from_der(issued.der())?)
    }

    /// A certificate for the hub itself under these names and addresses, with a new key (PEM).
    pub fn issue_hub(
        &self,
        names: &[String],
        now: Micros,
        lifetime: Duration,
    ) -> Result<(Certificate, String), IssueError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(authority)?;
        let mut ours = parameters("tributary-hub", now, lifetime, self.not_after.0)?;
        // Reads addresses as addresses and everything else as DNS names.
        ours.subject_alt_names = CertificateParams::new(names.to_vec()).map_err(authority)?.subject_alt_names;
        ours.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        ours.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let issued = ours.signed_by(&key, &self.issuer).map_err(authority)?;
        Ok((Certificate::from_der(issued.der())?, key.serialize_pem()))
    }
}

/// Why an authority could not be read from files.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file.
    #[error(transparent)]
    File(#[from] KeyError),
    /// What it holds.
    #[error(transparent)]
    Content(#[from] IssueError),
}

fn parameters(name: &str, now: Micros, lifetime: Duration, cap: i64) -> Result<CertificateParams, IssueError> {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, name);
    let lifetime = i64::try_from(lifetime.as_micros()).unwrap_or(i64::MAX);
    let date = |micros: i64| {
        let time = ASN1Time::from_timestamp(micros.div_euclid(1_000_000)).map_err(authority)?;
        Ok::<_, IssueError>(time.to_datetime())
    };
    parameters.not_before = date(now.0.saturating_sub(BACKDATED))?;
    parameters.not_after = date(now.0.saturating_add(lifetime).min(cap))?;
    parameters.use_authority_key_identifier_extension = true;
    // 127 random bits, as browsers ask of public authorities.
    let mut serial = [0; 16];
    rustls::crypto::aws_lc_rs::default_provider()
        .secure_random
        .fill(&mut serial)
        .map_err(|_| authority("no random bytes"))?;
    serial[0] &= 0x7f;
    parameters.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(parameters)
}

fn holds(certificate: &Certificate, key: &KeyPair) -> bool {
    X509Certificate::from_der(certificate.der())
        .is_ok_and(|(_, read)| read.public_key().subject_public_key.data.as_ref() == key.der_bytes())
}

fn authority(error: impl std::fmt::Display) -> IssueError {
    IssueError::Authority(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{Key, KeyFile};

    const DAY: Duration = Duration::from_secs(86_400);

    fn now() -> Micros {
        crate::DeviceClock::new(Micros(0)).now()
    }

    fn authority() -> Authority {
        let (certificate, key) = Authority::create("hub", now(), 10 * DAY).unwrap();
        Authority::new(&certificate, &key).unwrap()
    }

    #[test]
    fn a_device_gets_its_own_name_a_client_purpose_and_no_longer_life_than_the_authority() {
        let authority = authority();
        let device = DeviceId::new("edge-1").unwrap();
        let request = KeyFile::generate().unwrap().request(&device).unwrap();
        let issued = authority.issue_device(&request, &device, now(), 100 * DAY).unwrap();
        assert_eq!(issued.common_name(), "edge-1");
        assert!(!issued.is_authority());
        assert_eq!(issued.not_after(), authority.certificate().not_after());
        let again = authority.issue_device(&request, &device, now(), DAY).unwrap();
        assert_ne!(issued.serial(), again.serial());
        assert!(again.not_after() < issued.not_after());
    }

    #[test]
    fn requests_for_another_name_with_a_broken_signature_or_garbage_are_refused() {
        let authority = authority();
        let (one, two) = (DeviceId::new("edge-1").unwrap(), DeviceId::new("edge-2").unwrap());
        let request = KeyFile::generate().unwrap().request(&one).unwrap();
        let refused = authority.issue_device(&request, &two, now(), DAY).unwrap_err();
        assert_eq!(refused.to_string(), r#"the signing request is for "edge-1", expected "edge-2""#);
        // Another key's signature under this name and key.
        let other = KeyFile::generate().unwrap().request(&one).unwrap();
        let tail = |pem: &str| pem.lines().rev().nth(1).unwrap().to_owned();
        let forged = request.replace(&tail(&request), &tail(&other));
        assert!(matches!(authority.issue_device(&forged, &one, now(), DAY), Err(IssueError::Request(_))));
        let long = "A".repeat(MAX_REQUEST_BYTES + 1);
        for garbage in ["", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n", &long] {
            assert!(matches!(authority.issue_device(garbage, &one, now(), DAY), Err(IssueError::Request(_))));
        }
    }

    #[test]
    fn certificate_and_key_of_an_authority_must_belong_together() {
        let (certificate, _) = Authority::create("hub", now(), DAY).unwrap();
        let (_, key) = Authority::create("hub", now(), DAY).unwrap();
        assert!(Authority::new(&certificate, &key).unwrap_err().to_string().contains("belong together"));
        let names = ["localhost".to_owned(), "127.0.0.1".into(), "::1".into()];
        let (leaf, key) = authority().issue_hub(&names, now(), DAY).unwrap();
        assert_eq!(leaf.names(), names);
        assert!(Authority::new(&leaf.to_pem(), &key).unwrap_err().to_string().contains("may not sign"));
    }

    #[test]
    fn any_request_is_refused_without_a_panic() {
        let (authority, device) = (std::panic::AssertUnwindSafe(authority()), DeviceId::new("edge-1").unwrap());
        bolero::check!().for_each(|bytes: &[u8]| {
            let _ = authority.issue_device(&String::from_utf8_lossy(bytes), &device, Micros(0), DAY);
        });
    }
}
