//! Secrets that the hub gives out: 256 random bits, of which it keeps a hash.

use std::fmt;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use rand::TryRngCore;
use rand::rngs::OsRng;
use tributary_wire::Sha256;

/// Digits of a secret as text.
const DIGITS: usize = 43;
/// Letters of ids: none that looks like another, and 32 of them, so that a byte picks each equally often.
const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

/// 256 random bits. They are never printed but by [`Secret::reveal`].
#[derive(Clone, PartialEq, Eq)]
pub struct Secret([u8; 32]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Secret {
    /// A new one.
    pub fn random() -> anyhow::Result<Self> {
        let mut bytes = [0; 32];
        OsRng.try_fill_bytes(&mut bytes).context("take random bytes for a secret")?;
        Ok(Self(bytes))
    }

    /// Reads the text form.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != DIGITS {
            return None;
        }
        Some(Self(BASE64.decode(text).ok()?.try_into().ok()?))
    }

    /// The text form: base64url.
    pub fn reveal(&self) -> String {
        BASE64.encode(self.0)
    }

    /// SHA-256: what is kept.
    pub fn digest(&self) -> Sha256 {
        tributary_release::digest(&self.0)
    }

    /// Another secret that follows from this one and does not betray it.
    pub fn derive(&self, purpose: &str) -> Self {
        let mut bytes = purpose.as_bytes().to_vec();
        bytes.push(0);
        bytes.extend_from_slice(&self.0);
        Self(tributary_release::digest(&bytes).0)
    }
}

/// A short random name.
pub fn random_id() -> anyhow::Result<String> {
    let mut bytes = [0; 12];
    OsRng.try_fill_bytes(&mut bytes).context("take random bytes for an id")?;
    Ok(bytes.iter().map(|byte| char::from(LETTERS[usize::from(byte % 32)])).collect())
}

/// Whether both are the same, in a time that does not depend on where they differ.
pub fn same(one: &[u8], other: &[u8]) -> bool {
    let differing = one.iter().zip(other).fold(0, |sum, (a, b)| std::hint::black_box(sum | (a ^ b)));
    one.len() == other.len() && std::hint::black_box(differing) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_read_back_differ_and_are_not_printed_by_accident() {
        let (one, two) = (Secret::random().unwrap(), Secret::random().unwrap());
        assert_ne!(one, two);
        assert_eq!(Secret::parse(&one.reveal()), Some(one.clone()));
        assert_eq!(format!("{one:?}"), "Secret(..)");
        assert_ne!(one.derive("csrf"), one.derive("other"));
        assert_ne!(one.derive("csrf").digest(), one.digest());
        assert!(same(&one.digest().0, &one.digest().0) && !same(&one.digest().0, &two.digest().0));
        assert!(!same(b"a", b"ab") && same(b"", b""));
        assert_eq!(random_id().unwrap().len(), 12);
    }

    #[test]
    fn any_text_is_refused_without_a_panic() {
        bolero::check!().for_each(|bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes);
            if let Some(secret) = Secret::parse(&text) {
                assert_eq!(secret.reveal(), text);
            }
        });
    }
}
