//! The signed statement that a package is a release of its line.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tributary_wire::{DecodeError, LineName, Micros, ReleaseRef, Sha256, VersionNumber};

use crate::{KeyId, SigningKey, VerifyingKeys, sha256_file};

/// Signed in front of the payload, so that a signature over one kind of statement is worthless for another.
pub(crate) const RELEASE_CONTEXT: &[u8] = b"tributary release\0";

/// Versions of the statement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReleaseStatement {
    /// The first.
    V1(ReleaseV1),
}

/// A package's place in its line, its length and its hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseV1 {
    /// Which line.
    pub line: LineName,
    /// Which version of it.
    pub version: VersionNumber,
    /// Length of the package file in bytes.
    pub length: u64,
    /// Hash of the package file.
    pub sha256: Sha256,
    /// When it was signed.
    pub published: Micros,
}

impl ReleaseV1 {
    /// The part that an assignment repeats.
    pub fn reference(&self) -> ReleaseRef {
        ReleaseRef { version: self.version, length: self.length, sha256: self.sha256 }
    }
}

/// A release statement as it travels: bytes, and a signature over exactly those bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedRelease {
    /// [`ReleaseStatement`] in its byte form.
    pub payload: Vec<u8>,
    /// The key that signed.
    pub key_id: [u8; 8],
    /// Ed25519 signature, 64 bytes.
    pub signature: Vec<u8>,
}

impl SignedRelease {
    /// The byte form: body of `GET /api/v1/releases/{line}/{version}`.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads the byte form; every byte must belong to it.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        decode("signed release", bytes)
    }
}

/// Why a signature does not count. Checked in this order, for every kind of statement.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// 1: the key is not among the trusted ones.
    #[error("signed by key {found}, the trusted keys are {expected:?}")]
    UnknownKey {
        /// The trusted keys.
        expected: Vec<KeyId>,
        /// The key named in the statement.
        found: KeyId,
    },
    /// 2: the signature is not one of that key over these bytes.
    #[error("the signature is not one of key {key} over this {what}")]
    Wrong {
        /// What was signed.
        what: &'static str,
        /// The key named in the statement.
        key: KeyId,
    },
    /// 3: what was signed cannot be read.
    #[error("signed, but unreadable")]
    Unreadable(#[from] DecodeError),
}

/// Why a release is refused.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// 1 to 3: key, signature, form.
    #[error("release statement")]
    Signature(#[from] SignatureError),
    /// 4: it belongs to another line.
    #[error("the release is of line {found}, expected {expected}")]
    Line {
        /// The assigned line.
        expected: LineName,
        /// The stated line.
        found: LineName,
    },
    /// 5: version, length or hash differ from the assignment.
    #[error("the release is {found:?}, the assignment says {expected:?}")]
    Reference {
        /// As assigned.
        expected: ReleaseRef,
        /// As stated.
        found: ReleaseRef,
    },
    /// The package file cannot be read.
    #[error("package file {path}")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// 6: the package file has another length.
    #[error("the package file has {found} bytes, the release says {expected}")]
    Length {
        /// As released.
        expected: u64,
        /// As found.
        found: u64,
    },
    /// 7: the package file has another hash.
    #[error("the package file has hash {found}, the release says {expected}")]
    Hash {
        /// As released.
        expected: Sha256,
        /// As found.
        found: Sha256,
    },
}

/// Signs a release.
pub fn sign_release(key: &SigningKey, release: ReleaseV1) -> SignedRelease {
    let payload = encode(&ReleaseStatement::V1(release));
    let signature = key.sign(&in_context(RELEASE_CONTEXT, &payload)).to_vec();
    SignedRelease { payload, key_id: key.id().0, signature }
}

/// Checks, in order: key, signature, form, line, and that it is the release that was assigned.
pub fn verify_release(
    keys: &VerifyingKeys,
    line: &LineName,
    assigned: &ReleaseRef,
    signed: &SignedRelease,
) -> Result<ReleaseV1, ReleaseError> {
    let SignedRelease { payload, key_id, signature } = signed;
    check_signature("release", RELEASE_CONTEXT, keys, KeyId(*key_id), payload, signature)?;
    let ReleaseStatement::V1(release) = decode("release statement", payload).map_err(SignatureError::Unreadable)?;
    if release.line != *line {
        return Err(ReleaseError::Line { expected: line.clone(), found: release.line });
    }
    if release.reference() != *assigned {
        return Err(ReleaseError::Reference { expected: assigned.clone(), found: release.reference() });
    }
    Ok(release)
}

/// Checks length and hash of a package file on disk.
pub fn check_package_file(path: &Path, release: &ReleaseRef) -> Result<(), ReleaseError> {
    let (length, sha256) = sha256_file(path).map_err(|source| ReleaseError::File { path: path.to_owned(), source })?;
    if length != release.length {
        return Err(ReleaseError::Length { expected: release.length, found: length });
    }
    if sha256 != release.sha256 {
        return Err(ReleaseError::Hash { expected: release.sha256, found: sha256 });
    }
    Ok(())
}

pub(crate) fn in_context(context: &[u8], payload: &[u8]) -> Vec<u8> {
    [context, payload].concat()
}

pub(crate) fn check_signature(
    what: &'static str,
    context: &[u8],
    keys: &VerifyingKeys,
    id: KeyId,
    payload: &[u8],
    signature: &[u8],
) -> Result<(), SignatureError> {
    let key = keys.get(id).ok_or_else(|| SignatureError::UnknownKey { expected: keys.ids(), found: id })?;
    match key.verify(&in_context(context, payload), signature) {
        true => Ok(()),
        false => Err(SignatureError::Wrong { what, key: id }),
    }
}

fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_allocvec(value).expect("plain data always serialises")
}

pub(crate) fn decode<T: serde::de::DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, DecodeError> {
    let (value, rest) = postcard::take_from_bytes(bytes).map_err(|reason| DecodeError::Malformed { what, reason })?;
    match rest.len() {
        0 => Ok(value),
        left => Err(DecodeError::Trailing { what, left }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release() -> ReleaseV1 {
        ReleaseV1 {
            line: LineName::new("card-fraud").unwrap(),
            version: VersionNumber(3),
            length: 3,
            sha256: crate::digest(b"abc"),
            published: Micros(5),
        }
    }

    #[test]
    fn a_signed_release_survives_the_way_and_verifies() {
        let key = SigningKey::generate([1; 32]);
        let keys = VerifyingKeys::new([key.verifying_key()]);
        let signed = SignedRelease::decode(&sign_release(&key, release()).encode()).unwrap();
        assert_eq!(verify_release(&keys, &release().line, &release().reference(), &signed).unwrap(), release());
    }

    #[test]
    fn any_changed_byte_of_a_signed_release_is_refused() {
        let key = SigningKey::generate([1; 32]);
        let keys = VerifyingKeys::new([key.verifying_key()]);
        let good = sign_release(&key, release()).encode();
        for place in 0..good.len() {
            let bit = place % 8;
            let mut bad = good.clone();
            bad[place] ^= 1 << bit;
            let Ok(signed) = SignedRelease::decode(&bad) else { continue };
            let checked = verify_release(&keys, &release().line, &release().reference(), &signed);
            assert!(matches!(checked, Err(ReleaseError::Signature(_))), "byte {place} bit {bit}: {checked:?}");
        }
    }

    #[test]
    fn each_check_of_a_release_has_its_own_error() {
        let key = SigningKey::generate([1; 32]);
        let stranger = SigningKey::generate([2; 32]);
        let keys = VerifyingKeys::new([key.verifying_key()]);
        let (line, reference) = (release().line, release().reference());
        let verify = |signed: &SignedRelease| verify_release(&keys, &line, &reference, signed).unwrap_err();

        let error = verify(&sign_release(&stranger, release()));
        assert!(matches!(error, ReleaseError::Signature(SignatureError::UnknownKey { .. })));
        let mut forged = sign_release(&stranger, release());
        forged.key_id = key.id().0;
        assert!(matches!(verify(&forged), ReleaseError::Signature(SignatureError::Wrong { .. })));
        let other = ReleaseV1 { line: LineName::new("other").unwrap(), ..release() };
        assert!(matches!(verify(&sign_release(&key, other)), ReleaseError::Line { .. }));
        let other = ReleaseV1 { version: VersionNumber(4), ..release() };
        assert!(matches!(verify(&sign_release(&key, other)), ReleaseError::Reference { .. }));
    }

    #[test]
    fn a_package_file_of_another_length_or_content_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("package");
        let check = |content: &[u8]| {
            std::fs::write(&path, content).unwrap();
            check_package_file(&path, &release().reference())
        };
        assert!(check(b"abc").is_ok());
        assert!(matches!(check(b"abd"), Err(ReleaseError::Hash { .. })));
        assert!(matches!(check(b"abcd"), Err(ReleaseError::Length { expected: 3, found: 4 })));
    }
}
