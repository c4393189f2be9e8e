//! Ed25519 signatures over a context and a payload: a signature of one kind never passes for one of another.

use tributary_wire::DecodeError;

use crate::{KeyId, VerifyingKeys};

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
