//! The key of QUIC's stateless resets. A hub that was killed has forgotten its connections; a device that goes on with
//! one learns so from a reset, which it believes because its token is the one that it was given with the connection.

use std::fmt;
use std::time::Duration;

use quinn::crypto::{CryptoError, HmacKey};
use quinn::{ConnectionId, ConnectionIdGenerator};
use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::crypto::hmac::Tag;
use rustls::crypto::tls13::OkmBlock;

const ID_BYTES: usize = 8;

/// A secret that stays the same over restarts.
#[derive(Clone, PartialEq, Eq)]
pub struct ResetKey([u8; 32]);

impl ResetKey {
    /// From bytes that nobody else knows.
    pub fn new(secret: [u8; 32]) -> Self {
        Self(secret)
    }

    /// HMAC with SHA-256, from the library that TLS uses.
    fn tag(&self, data: &[u8]) -> Tag {
        let suite = TLS13_AES_128_GCM_SHA256.tls13().expect("this is a suite of TLS 1.3");
        suite.hkdf_provider.hmac_sign(&OkmBlock::new(&self.0), data)
    }
}

impl fmt::Debug for ResetKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResetKey")
    }
}

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], out: &mut [u8]) {
        out.copy_from_slice(self.tag(data).as_ref());
    }

    fn signature_len(&self) -> usize {
        32
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        let tag = self.tag(data);
        // However many bytes are right, it takes the same time.
        let differ = tag.as_ref().iter().zip(signature).fold(0, |differ, (one, other)| differ | (one ^ other));
        if signature.len() == tag.as_ref().len() && differ == 0 { Ok(()) } else { Err(CryptoError) }
    }
}

/// Connection ids: random. The library's own generator marks its ids with a key of this process and lets nobody be
/// reset whose id comes from another.
#[derive(Debug)]
pub(crate) struct Ids;

impl ConnectionIdGenerator for Ids {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; ID_BYTES];
        default_provider().secure_random.fill(&mut id).expect("TLS does not work without random numbers either");
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_those_of_their_key_and_nothing_is_shown() {
        let (one, other) = (ResetKey::new([7; 32]), ResetKey::new([8; 32]));
        let mut tag = [0; 32];
        one.sign(b"id", &mut tag);
        assert!(one.verify(b"id", &tag).is_ok());
        assert!(one.verify(b"other", &tag).is_err() && other.verify(b"id", &tag).is_err());
        assert!(one.verify(b"id", &tag[..16]).is_err());
        assert_eq!(format!("{one:?}"), "ResetKey");
        assert_ne!(Ids.generate_cid(), Ids.generate_cid());
    }
}
