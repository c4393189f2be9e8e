//! A private key that can sign but need not be readable: a file now, a TPM or a PKCS#11 token behind the same trait.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{CertificateParams, DnType, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::sign::SigningKey;
use tributary_wire::DeviceId;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file.
    #[error("key file {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others can read the file.
    #[error("key file {} has mode {mode:o}; only its owner may read it (chmod 600)", path.display())]
    Exposed {
        /// Which.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// What it holds is not a key that we can use.
    #[error("not a usable private key: {0}")]
    Malformed(String),
}

/// The seam for keys in hardware: whoever implements this decides where the secret is.
pub trait Key: fmt::Debug + Send + Sync {
    /// Signs TLS handshakes.
    fn signer(&self) -> Result<Arc<dyn SigningKey>, KeyError>;

    /// A certificate signing request (PKCS#10, PEM) for this device, signed with the key.
    fn request(&self, device: &DeviceId) -> Result<String, KeyError>;
}

/// A key of the curve P-256 in a PEM file that only its owner may read.
pub struct KeyFile {
    pair: KeyPair,
}

impl fmt::Debug for KeyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyFile")
    }
}

impl KeyFile {
    /// A new key; nothing is written yet.
    pub fn generate() -> Result<Self, KeyError> {
        KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map(|pair| Self { pair }).map_err(malformed)
    }

    /// Writes it, with mode 0600 from the first byte on.
    pub fn save(&self, path: &Path) -> Result<(), KeyError> {
        tributary_process::durable::write_private(path, self.pair.serialize_pem().as_bytes())
            .map_err(|source| KeyError::File { path: path.to_owned(), source })
    }

    /// Reads one that was saved.
    pub fn open(path: &Path) -> Result<Self, KeyError> {
        let text = read_private(path)?;
        KeyPair::from_pem(&text).map(|pair| Self { pair }).map_err(malformed)
    }

    /// The key as PEM, for whoever stores it elsewhere.
    pub fn to_pem(&self) -> String {
        self.pair.serialize_pem()
    }
}

impl Key for KeyFile {
    fn signer(&self) -> Result<Arc<dyn SigningKey>, KeyError> {
        signer(&self.pair.serialize_pem())
    }

    fn request(&self, device: &DeviceId) -> Result<String, KeyError> {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        parameters.distinguished_name.push(DnType::CommonName, device.as_str());
        parameters.serialize_request(&self.pair).and_then(|request| request.pem()).map_err(malformed)
    }
}

/// A key in PEM as the TLS library wants it.
pub(crate) fn signer(pem: &str) -> Result<Arc<dyn SigningKey>, KeyError> {
    let der = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(malformed)?;
    rustls::crypto::aws_lc_rs::sign::any_supported_type(&der).map_err(malformed)
}

/// Reads a secret and refuses one that others can read as well.
pub(crate) fn read_private(path: &Path) -> Result<String, KeyError> {
    let failed = |source| KeyError::File { path: path.to_owned(), source };
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(path).map_err(failed)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(KeyError::Exposed { path: path.to_owned(), mode });
        }
    }
    std::fs::read_to_string(path).map_err(failed)
}

fn malformed(error: impl fmt::Display) -> KeyError {
    KeyError::Malformed(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn a_key_is_private_from_the_first_byte_and_an_exposed_one_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        let key = KeyFile::generate().unwrap();
        key.save(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(KeyFile::open(&path).unwrap().to_pem(), key.to_pem());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(KeyFile::open(&path).unwrap_err().to_string().contains("chmod 600"));
        assert_eq!(format!("{key:?}"), "KeyFile");
    }
}
