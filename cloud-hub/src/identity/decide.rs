//! Whether a device gets a certificate: decisions over what the catalog says, without the catalog.

use tributary_identity::{EnrolmentToken, TokenError};
use tributary_wire::{DeviceId, Micros, Sha256};

use crate::ingest::HUB_DEVICE;

/// Why a device gets no certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not a token.
    #[error(transparent)]
    Malformed(#[from] TokenError),
    /// A token of another hub, or of this one before it had its present authority.
    #[error("the token was made by a hub with the authority {found}; this hub's is {expected}")]
    OtherHub {
        /// Fingerprint in the token.
        found: Sha256,
        /// Fingerprint of ours.
        expected: Sha256,
    },
    /// No token of this id.
    #[error("there is no enrolment token {id}")]
    Unknown {
        /// The id.
        id: String,
    },
    /// The id is right and the secret is not.
    #[error("the secret is not that of enrolment token {id}")]
    WrongSecret {
        /// The id.
        id: String,
    },
    /// An operator took it back.
    #[error("enrolment token {id} was revoked")]
    Revoked {
        /// The id.
        id: String,
    },
    /// Its time is over.
    #[error("enrolment token {id} expired at {at}")]
    Expired {
        /// The id.
        id: String,
        /// When.
        at: Micros,
    },
    /// As many devices have used it as may.
    #[error("enrolment token {id} is used up: {allowed} of {allowed} uses are made")]
    UsedUp {
        /// The id.
        id: String,
        /// For how many.
        allowed: i64,
    },
    /// The hub itself writes under this name.
    #[error("{HUB_DEVICE:?} is the hub's own name; no device may have it")]
    Reserved,
    /// A device of this name has, or had, a certificate.
    #[error(
        "device {device} is enrolled already; if it was wiped or replaced, an operator must first allow it to enrol \
         again (cloud-hub device allow-enrolment {device})"
    )]
    Enrolled {
        /// Which.
        device: DeviceId,
    },
    /// The signing request is not acceptable.
    #[error("{0}")]
    Request(String),
    /// Too many refusals for one address, or too many renewals of one device.
    #[error("too many attempts; wait a while before the next")]
    TooMany,
}

impl Refusal {
    /// As in metrics and in problem documents.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "token-malformed",
            Self::OtherHub { .. } => "token-of-another-hub",
            Self::Unknown { .. } => "token-unknown",
            Self::WrongSecret { .. } => "token-secret",
            Self::Revoked { .. } => "token-revoked",
            Self::Expired { .. } => "token-expired",
            Self::UsedUp { .. } => "token-used-up",
            Self::Reserved => "device-reserved",
            Self::Enrolled { .. } => "device-enrolled",
            Self::Request(_) => "request",
            Self::TooMany => "too-many",
        }
    }

    /// All names, so that a metric shows what has never happened as zero.
    pub const NAMES: [&'static str; 11] = [
        "token-malformed",
        "token-of-another-hub",
        "token-unknown",
        "token-secret",
        "token-revoked",
        "token-expired",
        "token-used-up",
        "device-reserved",
        "device-enrolled",
        "request",
        "too-many",
    ];
}

/// A token as the catalog knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kept {
    pub digest: Sha256,
    pub uses_allowed: i64,
    pub uses_made: i64,
    pub expires: Micros,
    pub revoked: bool,
}

/// What the catalog says about a device that asks for a certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Asking {
    /// It was issued a certificate, at whatever time.
    pub enrolled: bool,
    /// Until when an operator allows it to enrol once more.
    pub permit: Option<Micros>,
    /// A certificate that counts was issued for this very key with this very token: the answer was lost.
    pub repeats: bool,
}

/// What to do for a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Grant {
    /// Issue its first certificate.
    First,
    /// Give it the certificate that it was issued.
    Again,
    /// Issue a certificate and revoke those that it had.
    Anew,
}

impl Grant {
    /// As in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::First => "enrolled",
            Self::Again => "repeated",
            Self::Anew => "enrolled-anew",
        }
    }

    /// All names.
    pub const NAMES: [&'static str; 3] = ["enrolled", "repeated", "enrolled-anew"];
}

/// Decides over an enrolment.
///
/// A repeated request gets the same certificate again even when the token has run out or is used up meanwhile: nothing
/// new is given away. It does not when the token or the certificate was revoked.
pub(super) fn decide(
    token: &EnrolmentToken,
    hub: Sha256,
    kept: Option<&Kept>,
    device: &DeviceId,
    asking: &Asking,
    now: Micros,
) -> Result<Grant, Refusal> {
    let id = || token.id().to_owned();
    if token.hub() != hub {
        return Err(Refusal::OtherHub { found: token.hub(), expected: hub });
    }
    let kept = kept.ok_or_else(|| Refusal::Unknown { id: id() })?;
    if !same(&kept.digest, &token.digest()) {
        return Err(Refusal::WrongSecret { id: id() });
    }
    if kept.revoked {
        return Err(Refusal::Revoked { id: id() });
    }
    if device.as_str() == HUB_DEVICE {
        return Err(Refusal::Reserved);
    }
    if asking.repeats {
        return Ok(Grant::Again);
    }
    if now > kept.expires {
        return Err(Refusal::Expired { id: id(), at: kept.expires });
    }
    if kept.uses_made >= kept.uses_allowed {
        return Err(Refusal::UsedUp { id: id(), allowed: kept.uses_allowed });
    }
    match (asking.enrolled, asking.permit) {
        (false, _) => Ok(Grant::First),
        (true, Some(until)) if now <= until => Ok(Grant::Anew),
        (true, _) => Err(Refusal::Enrolled { device: device.clone() }),
    }
}

/// Compares in the same time wherever the first difference is.
fn same(a: &Sha256, b: &Sha256) -> bool {
    a.0.iter().zip(&b.0).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const HUB: Sha256 = Sha256([9; 32]);

    fn token() -> EnrolmentToken {
        EnrolmentToken::new("k7", [7; 32], HUB).unwrap()
    }

    fn kept() -> Kept {
        Kept { digest: token().digest(), uses_allowed: 2, uses_made: 0, expires: Micros(100), revoked: false }
    }

    fn outcome(change: impl FnOnce(&mut Kept, &mut Asking)) -> Result<Grant, &'static str> {
        let (mut kept, mut asking) = (kept(), Asking::default());
        change(&mut kept, &mut asking);
        let device = DeviceId::new("edge-1").unwrap();
        decide(&token(), HUB, Some(&kept), &device, &asking, Micros(50)).map_err(|refusal| refusal.name())
    }

    #[test]
    fn each_reason_to_refuse_is_told_apart() {
        assert_eq!(outcome(|_, _| {}), Ok(Grant::First));
        assert_eq!(outcome(|kept, _| kept.digest = Sha256([0; 32])), Err("token-secret"));
        assert_eq!(outcome(|kept, _| kept.revoked = true), Err("token-revoked"));
        assert_eq!(outcome(|kept, _| kept.expires = Micros(49)), Err("token-expired"));
        assert_eq!(outcome(|kept, _| kept.uses_made = 2), Err("token-used-up"));
        assert_eq!(outcome(|_, asking| asking.enrolled = true), Err("device-enrolled"));
        let device = DeviceId::new("edge-1").unwrap();
        let asking = Asking::default();
        let unknown = decide(&token(), HUB, None, &device, &asking, Micros(0)).unwrap_err();
        assert_eq!(unknown.to_string(), "there is no enrolment token k7");
        let other = decide(&token(), Sha256([1; 32]), Some(&kept()), &device, &asking, Micros(0)).unwrap_err();
        assert_eq!(other.name(), "token-of-another-hub");
        let hub = DeviceId::new(HUB_DEVICE).unwrap();
        let own = decide(&token(), HUB, Some(&kept()), &hub, &asking, Micros(0)).unwrap_err();
        assert_eq!(own, Refusal::Reserved);
    }

    #[test]
    fn a_wiped_device_needs_an_operators_word_that_has_not_run_out() {
        let with = |until| outcome(|_, asking| *asking = Asking { enrolled: true, permit: until, repeats: false });
        assert_eq!(with(None), Err("device-enrolled"));
        assert_eq!(with(Some(Micros(49))), Err("device-enrolled"));
        assert_eq!(with(Some(Micros(50))), Ok(Grant::Anew));
    }

    #[test]
    fn a_repeated_request_is_answered_unless_the_token_was_revoked() {
        let repeats = |change: fn(&mut Kept)| {
            outcome(|kept, asking| {
                *asking = Asking { enrolled: true, permit: None, repeats: true };
                change(kept);
            })
        };
        assert_eq!(repeats(|_| {}), Ok(Grant::Again));
        assert_eq!(repeats(|kept| kept.uses_made = 2), Ok(Grant::Again));
        assert_eq!(repeats(|kept| kept.expires = Micros(0)), Ok(Grant::Again));
        assert_eq!(repeats(|kept| kept.revoked = true), Err("token-revoked"));
        assert_eq!(repeats(|kept| kept.digest = Sha256([0; 32])), Err("token-secret"));
    }
}
