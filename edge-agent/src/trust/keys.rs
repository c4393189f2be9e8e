//! The keys of assignments: those that the chain announces, and no others.

use std::path::Path;

use tributary_release::chain::{Chain, ChainError, Target};
use tributary_release::{ASSIGNMENT_KEYS, KeyError, VerifyingKeys, digest};
use tributary_wire::Micros;

use super::{Trust, TrustError};

/// Where the keys of assignments are kept, beside the metadata that vouches for them.
pub(super) const KEPT_KEYS: &str = "assignment-keys";
/// Said while those that are announced are not here.
pub(super) const AWAITED: &str =
    "the signed repository announces other keys of assignments, and their file has not come: no assignment is believed";

impl Trust {
    /// After a refresh of the chain.
    pub(super) async fn refresh_keys(&self, chain: &mut Chain, now: Micros) -> Result<(), TrustError> {
        let announced = match chain.target(ASSIGNMENT_KEYS, now).await {
            // A repository that announces none has taken them back.
            Err(ChainError::NotListed { .. }) => VerifyingKeys::default().to_json().into_bytes(),
            Err(error) => return Err(error.into()),
            Ok(listed) => match self.held_keys().filter(|held| is(&listed, held)) {
                Some(held) => held,
                None => {
                    self.let_go_of_keys()?;
                    chain.small_target(ASSIGNMENT_KEYS, None, now).await?
                }
            },
        };
        let read = read(&announced)?;
        self.hold_keys(announced)?;
        let mut seen = self.seen();
        (seen.keys, seen.awaits_keys) = (read, false);
        Ok(())
    }

    /// Holds the stored keys against what the stored metadata says of them: the power may have failed after the one was
    /// stored and before the other was.
    pub(super) fn judge_keys(&self, listed: Result<Target, ChainError>) {
        let awaits = match listed {
            Ok(listed) if self.held_keys().is_some_and(|held| is(&listed, &held)) => return,
            Ok(_) => true,
            // None is announced, so none counts and none is waited for.
            Err(ChainError::NotListed { .. }) => false,
            Err(_) => return,
        };
        let mut seen = self.seen();
        (seen.keys, seen.awaits_keys) = (VerifyingKeys::default(), awaits);
    }

    /// Others are announced: one of those held may have been stolen, and whoever stole it may also keep back the file of
    /// the new ones. Durable, because metadata that has expired speaks of no keys.
    fn let_go_of_keys(&self) -> Result<(), TrustError> {
        let none = VerifyingKeys::default();
        let bytes = none.to_json().into_bytes();
        {
            let mut seen = self.seen();
            (seen.keys, seen.awaits_keys) = (none, true);
        }
        // Whoever never held any has none to let go of.
        if self.held_keys().is_some() { self.hold_keys(bytes) } else { Ok(()) }
    }

    fn hold_keys(&self, bytes: Vec<u8>) -> Result<(), TrustError> {
        if self.held_keys().as_ref() != Some(&bytes) {
            self.0.files.store(&[(KEPT_KEYS.to_owned(), bytes)]).map_err(ChainError::Store)?;
        }
        Ok(())
    }

    fn held_keys(&self) -> Option<Vec<u8>> {
        self.0.files.load(KEPT_KEYS).ok().flatten()
    }
}

/// Whether these bytes are what is listed.
fn is(listed: &Target, bytes: &[u8]) -> bool {
    listed.length == bytes.len() as u64 && listed.sha256 == digest(bytes)
}

/// Keys as they are announced and stored.
pub(super) fn read(bytes: &[u8]) -> Result<VerifyingKeys, KeyError> {
    let text = String::from_utf8_lossy(bytes);
    if text == VerifyingKeys::default().to_json() {
        return Ok(VerifyingKeys::default());
    }
    VerifyingKeys::from_json(&text, Path::new(ASSIGNMENT_KEYS))
}
