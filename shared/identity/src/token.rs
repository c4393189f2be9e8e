//! What an operator hands to whoever installs a device.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use sha2::{Digest, Sha256 as Hash};
use tributary_wire::Sha256;

const PREFIX: &str = "tributary-enrol";

/// Why a text is not an enrolment token. The text itself is never repeated: it is a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Wrong beginning or number of parts.
    #[error("not an enrolment token: expected tributary-enrol.ID.SECRET.FINGERPRINT")]
    Form,
    /// The id.
    #[error("the enrolment token's id is not 1 to 32 lower-case letters and digits")]
    Id,
    /// The secret or the fingerprint.
    #[error("the enrolment token's {part} is not 32 bytes in base64url; was it copied whole?")]
    Bytes {
        /// Which part.
        part: &'static str,
    },
}

/// May ask for a certificate, a limited number of times until a limited day; knows the hub it is for.
#[derive(Clone, PartialEq, Eq)]
pub struct EnrolmentToken {
    id: String,
    secret: [u8; 32],
    hub: Sha256,
}

impl EnrolmentToken {
    /// From an id (lower-case letters and digits), 32 random bytes and the fingerprint of the hub's authority.
    pub fn new(id: &str, secret: [u8; 32], hub: Sha256) -> Result<Self, TokenError> {
        let valid = (1..=32).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if valid { Ok(Self { id: id.to_owned(), secret, hub }) } else { Err(TokenError::Id) }
    }

    /// Which token, in logs and lists.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// SHA-256 of the certificate of the hub's authority: the only hub this token may be shown to.
    pub fn hub(&self) -> Sha256 {
        self.hub
    }

    /// SHA-256 of the secret. The hub keeps this; 256 random bits need no slower hash.
    pub fn digest(&self) -> Sha256 {
        Sha256(Hash::digest(self.secret).into())
    }
}

impl fmt::Debug for EnrolmentToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnrolmentToken").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The whole token, secret included: shown once.
impl fmt::Display for EnrolmentToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (secret, hub) = (BASE64.encode(self.secret), BASE64.encode(self.hub.0));
        write!(f, "{PREFIX}.{}.{secret}.{hub}", self.id)
    }
}

impl FromStr for EnrolmentToken {
    type Err = TokenError;
    fn from_str(text: &str) -> Result<Self, TokenError> {
        let parts: Vec<&str> = text.trim().split('.').collect();
        let [PREFIX, id, secret, hub] = parts.as_slice() else { return Err(TokenError::Form) };
        let bytes = |text: &str, part| -> Result<[u8; 32], TokenError> {
            let bytes = BASE64.decode(text).map_err(|_| TokenError::Bytes { part })?;
            bytes.try_into().map_err(|_| TokenError::Bytes { part })
        };
        Self::new(id, bytes(secret, "secret")?, Sha256(bytes(hub, "fingerprint")?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_reads_back_and_its_secret_stays_out_of_logs() {
        let token = EnrolmentToken::new("k7", [7; 32], Sha256([9; 32])).unwrap();
        assert_eq!(token.to_string().parse(), Ok(token.clone()));
        assert_eq!(format!("{token:?}"), r#"EnrolmentToken { id: "k7", .. }"#);
        let text = token.to_string();
        assert_eq!(text[..text.len() - 1].parse::<EnrolmentToken>(), Err(TokenError::Bytes { part: "fingerprint" }));
        assert_eq!("k7".parse::<EnrolmentToken>(), Err(TokenError::Form));
    }

    #[test]
    fn any_text_is_refused_without_a_panic() {
        bolero::check!().for_each(|bytes: &[u8]| {
            let _ = String::from_utf8_lossy(bytes).parse::<EnrolmentToken>();
        });
    }
}
