//! Signing and checking what one device should run.

use tributary_wire::{
    Assignment, AssignmentV1, ChallengerShare, DeviceId, Generation, LineName, Micros, PackageRef, Role,
    SignedAssignment, VersionNumber,
};

use crate::signature::{check_signature, in_context};
use crate::{KeyId, SignatureError, SigningKey, VerifyingKeys};

/// What all shares of a line may sum to.
const SHARES: u64 = 10_000;

/// How far one assignment may raise the generation: who signed the highest number there is would have the last word for
/// ever, even after his key is taken back.
pub const MAX_GENERATION_STEP: u64 = 1_000_000;

const ASSIGNMENT_CONTEXT: &[u8] = b"tributary assignment\0";

/// Where a device stands when an assignment arrives.
#[derive(Debug, Clone, Copy)]
pub struct Standing<'a> {
    /// Who it is.
    pub device: &'a DeviceId,
    /// The newest generation it has accepted; 0: none yet.
    pub generation: Generation,
    /// What it has committed.
    pub installed: &'a [Installed],
    /// The time it trusts.
    pub now: Micros,
}

/// A committed package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// Of which line.
    pub line: LineName,
    /// In which role.
    pub role: Role,
    /// Which one.
    pub package: PackageRef,
}

/// Why an assignment is refused. Checked in this order.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AssignmentError {
    /// 1 to 3: key, signature, form.
    #[error("assignment")]
    Signature(#[from] SignatureError),
    /// 4: it is for another device.
    #[error("the assignment is for device {found}, this is {expected}")]
    Device {
        /// This device.
        expected: DeviceId,
        /// The device named.
        found: DeviceId,
    },
    /// 5: the device has accepted this generation, or a newer one, before.
    #[error("the assignment has generation {found}, expected one above {accepted}")]
    Generation {
        /// The newest accepted.
        accepted: Generation,
        /// The one offered.
        found: Generation,
    },
    /// 6: a number that no honest hub has reached.
    #[error("the assignment has generation {found}, expected at most {MAX_GENERATION_STEP} above {accepted}")]
    Step {
        /// The newest that was accepted.
        accepted: Generation,
        /// Of the assignment.
        found: Generation,
    },
    /// 7: it names a line and role twice, so that what should run is not clear.
    #[error("the assignment names {line} as {role} twice")]
    Repeated {
        /// Which line.
        line: LineName,
        /// Which role.
        role: Role,
    },
    /// 8: it lets a role answer that never does: the primary answers what nobody else does, a shadow nothing.
    #[error("the assignment gives {line} as {role} a share of the predictions; only challengers have one")]
    ShareRole {
        /// Which line.
        line: LineName,
        /// Which role.
        role: Role,
    },
    /// 9: it gives a share to a line and role to which it assigns no release, or gives it twice.
    #[error(
        "the assignment gives {line} as {role} a share of the predictions {found} times, and a release {releases} times"
    )]
    ShareCount {
        /// Which line.
        line: LineName,
        /// Which role.
        role: Role,
        /// How often a share.
        found: usize,
        /// How often a release.
        releases: usize,
    },
    /// 10: it shares out more predictions than there are.
    #[error("the challengers of {line} get {found} of {SHARES} predictions")]
    Shares {
        /// Which line.
        line: LineName,
        /// The sum of their shares.
        found: u64,
    },
    /// 11: it asks for an installation that may no longer begin. What time it is instead is not said: with that each refusal
    /// would be another, told to the hub at once, which answers with the assignment.
    #[error("the assignment to install {line} expired at {expired}, and by this device's time that is over")]
    Expired {
        /// The line that would have to be installed.
        line: LineName,
        /// When it expired.
        expired: Micros,
    },
    /// 12: it goes back to a lower version without saying that this is meant.
    #[error("version {found} of {line} is lower than the committed {committed}, and allow_lower is not set")]
    Lower {
        /// Which line.
        line: LineName,
        /// In which role.
        role: Role,
        /// The committed version.
        committed: VersionNumber,
        /// The assigned one.
        found: VersionNumber,
    },
}

/// Signs what one device should run. A device that reads only older versions must be given an older one.
pub fn sign_assignment(key: &SigningKey, assignment: &Assignment) -> SignedAssignment {
    let payload = assignment.encode();
    let signature = key.sign(&in_context(ASSIGNMENT_CONTEXT, &payload)).to_vec();
    SignedAssignment { payload, key_id: key.id().0, signature }
}

/// Checks 1 to 3 only: who signed, and what. For an assignment that was accepted before and is read from disk.
pub fn open_assignment(keys: &VerifyingKeys, signed: &SignedAssignment) -> Result<Assignment, SignatureError> {
    let SignedAssignment { payload, key_id, signature } = signed;
    check_signature("assignment", ASSIGNMENT_CONTEXT, keys, KeyId(*key_id), payload, signature)?;
    Ok(Assignment::decode(payload)?)
}

/// Checks an assignment that has arrived, in the order of [`AssignmentError`]; the first failure is returned.
///
/// Expiry matters only where a line's release is not the committed package: it forbids beginning an installation, it
/// never refuses what already runs. Whoever begins an installation later than this check asks the clock again.
pub fn verify_assignment(
    keys: &VerifyingKeys,
    standing: &Standing<'_>,
    signed: &SignedAssignment,
) -> Result<Assignment, AssignmentError> {
    let opened = open_assignment(keys, signed)?;
    let assignment = opened.desired();
    if assignment.device != *standing.device {
        return Err(AssignmentError::Device { expected: standing.device.clone(), found: assignment.device.clone() });
    }
    if assignment.generation <= standing.generation {
        return Err(AssignmentError::Generation { accepted: standing.generation, found: assignment.generation });
    }
    if assignment.generation.0 - standing.generation.0 > MAX_GENERATION_STEP {
        return Err(AssignmentError::Step { accepted: standing.generation, found: assignment.generation });
    }
    for (i, wish) in assignment.lines.iter().enumerate() {
        if assignment.lines[..i].iter().any(|other| (&other.line, &other.role) == (&wish.line, &wish.role)) {
            return Err(AssignmentError::Repeated { line: wish.line.clone(), role: wish.role.clone() });
        }
    }
    check_shares(assignment, opened.shares())?;
    let committed = |line: &LineName, role: &Role| {
        standing.installed.iter().find(|installed| (&installed.line, &installed.role) == (line, role))
    };
    for wish in &assignment.lines {
        let runs = committed(&wish.line, &wish.role).is_some_and(|it| it.package.sha256 == wish.release.sha256);
        if !runs && standing.now > assignment.expires {
            return Err(AssignmentError::Expired { line: wish.line.clone(), expired: assignment.expires });
        }
    }
    for wish in &assignment.lines {
        let Some(Installed { line, role, package }) = committed(&wish.line, &wish.role) else { continue };
        if wish.release.version < package.version && !wish.allow_lower {
            return Err(AssignmentError::Lower {
                line: line.clone(),
                role: role.clone(),
                committed: package.version,
                found: wish.release.version,
            });
        }
    }
    Ok(opened)
}

fn check_shares(assignment: &AssignmentV1, shares: &[ChallengerShare]) -> Result<(), AssignmentError> {
    for ChallengerShare { line, role, .. } in shares {
        if !role.is_challenger() {
            return Err(AssignmentError::ShareRole { line: line.clone(), role: role.clone() });
        }
        let found = shares.iter().filter(|other| (&other.line, &other.role) == (line, role)).count();
        let releases = assignment.lines.iter().filter(|wish| (&wish.line, &wish.role) == (line, role)).count();
        if (found, releases) != (1, 1) {
            return Err(AssignmentError::ShareCount { line: line.clone(), role: role.clone(), found, releases });
        }
    }
    for ChallengerShare { line, .. } in shares {
        let of_line = shares.iter().filter(|share| share.line == *line);
        let found = of_line.map(|share| u64::from(share.per_10_000)).sum();
        if found > SHARES {
            return Err(AssignmentError::Shares { line: line.clone(), found });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest;
    use tributary_wire::{AssignmentV3, AuditHead, LineAssignment, ReleaseRef, Sha256};

    fn assignment() -> AssignmentV1 {
        AssignmentV1 {
            device: DeviceId::new("edge-1").unwrap(),
            generation: Generation(4),
            issued: Micros(100),
            expires: Micros(200),
            lines: vec![wish("card-fraud", 2)],
            flags: Vec::new(),
        }
    }

    fn wish(line: &str, version: u32) -> LineAssignment {
        LineAssignment {
            line: LineName::new(line).unwrap(),
            role: Role::primary(),
            release: ReleaseRef { version: VersionNumber(version), length: 9, sha256: digest(&[version as u8]) },
            allow_lower: false,
        }
    }

    fn installed(version: u32) -> Installed {
        let package = PackageRef { version: VersionNumber(version), sha256: digest(&[version as u8]) };
        Installed { line: LineName::new("card-fraud").unwrap(), role: Role::primary(), package }
    }

    /// Signs with the trusted key and verifies on `edge-1`, generation 3, at time 150.
    fn verify(assignment: AssignmentV1, installed: &[Installed]) -> Result<AssignmentV1, AssignmentError> {
        let key = SigningKey::generate([1; 32]);
        verify_signed(&sign_assignment(&key, &Assignment::V1(assignment)), installed, 150)
    }

    fn verify_signed(
        signed: &SignedAssignment,
        installed: &[Installed],
        now: i64,
    ) -> Result<AssignmentV1, AssignmentError> {
        let keys = VerifyingKeys::new([SigningKey::generate([1; 32]).verifying_key()]);
        let device = DeviceId::new("edge-1").unwrap();
        let standing = Standing { device: &device, generation: Generation(3), installed, now: Micros(now) };
        verify_assignment(&keys, &standing, signed).map(|opened| opened.desired().clone())
    }

    #[test]
    fn a_newer_assignment_for_this_device_is_accepted() {
        assert_eq!(verify(assignment(), &[]), Ok(assignment()));
        assert_eq!(verify(assignment(), &[installed(1)]), Ok(assignment()));
    }

    #[test]
    fn any_changed_byte_of_a_signed_assignment_is_refused() {
        let good = sign_assignment(&SigningKey::generate([1; 32]), &Assignment::V1(assignment())).encode();
        for place in 0..good.len() {
            let bit = place % 8;
            let mut bad = good.clone();
            bad[place] ^= 1 << bit;
            let Ok(signed) = SignedAssignment::decode(&bad) else { continue };
            let checked = verify_signed(&signed, &[], 150);
            assert!(matches!(checked, Err(AssignmentError::Signature(_))), "byte {place} bit {bit}: {checked:?}");
        }
    }

    #[test]
    fn a_signature_of_another_kind_is_worthless_for_an_assignment() {
        let key = SigningKey::generate([1; 32]);
        let payload = Assignment::V1(assignment()).encode();
        let signature = key.sign(&in_context(b"tributary other\0", &payload)).to_vec();
        let signed = SignedAssignment { payload, key_id: key.id().0, signature };
        let error = verify_signed(&signed, &[], 150).unwrap_err();
        assert!(matches!(error, AssignmentError::Signature(SignatureError::Wrong { .. })));
    }

    #[test]
    fn signed_bytes_that_are_no_assignment_are_refused() {
        let key = SigningKey::generate([1; 32]);
        let payload = b"\x09nonsense".to_vec();
        let signature = key.sign(&in_context(ASSIGNMENT_CONTEXT, &payload)).to_vec();
        let signed = SignedAssignment { payload, key_id: key.id().0, signature };
        let error = verify_signed(&signed, &[], 150).unwrap_err();
        assert!(matches!(error, AssignmentError::Signature(SignatureError::Unreadable(_))));
    }

    #[test]
    fn each_check_of_an_assignment_has_its_own_error() {
        let stranger = sign_assignment(&SigningKey::generate([2; 32]), &Assignment::V1(assignment()));
        let error = verify_signed(&stranger, &[], 150).unwrap_err();
        assert!(matches!(error, AssignmentError::Signature(SignatureError::UnknownKey { .. })));

        let other = AssignmentV1 { device: DeviceId::new("edge-2").unwrap(), ..assignment() };
        assert!(matches!(verify(other, &[]), Err(AssignmentError::Device { .. })));

        let last = AssignmentV1 { generation: Generation(u64::MAX), ..assignment() };
        assert!(matches!(verify(last, &[]), Err(AssignmentError::Step { accepted: Generation(3), .. })));

        let stale = AssignmentV1 { generation: Generation(3), ..assignment() };
        assert_eq!(
            verify(stale, &[]),
            Err(AssignmentError::Generation { accepted: Generation(3), found: Generation(3) })
        );

        let twice = AssignmentV1 { lines: vec![wish("card-fraud", 2), wish("card-fraud", 3)], ..assignment() };
        assert!(matches!(verify(twice, &[]), Err(AssignmentError::Repeated { .. })));

        let signed = sign_assignment(&SigningKey::generate([1; 32]), &Assignment::V1(assignment()));
        assert!(matches!(verify_signed(&signed, &[installed(1)], 201), Err(AssignmentError::Expired { .. })));

        let error = verify(assignment(), &[installed(5)]).unwrap_err();
        assert!(matches!(error, AssignmentError::Lower { committed: VersionNumber(5), found: VersionNumber(2), .. }));
    }

    fn verify_shares(shares: &[(&str, u16)]) -> Result<AssignmentV1, AssignmentError> {
        let mut desired = assignment();
        for role in ["shadow", "challenger-a", "challenger-b"] {
            desired.lines.push(LineAssignment { role: Role::new(role).unwrap(), ..wish("card-fraud", 3) });
        }
        let share = |(role, per_10_000): &(&str, u16)| ChallengerShare {
            line: LineName::new("card-fraud").unwrap(),
            role: Role::new(role).unwrap(),
            per_10_000: *per_10_000,
        };
        let audit = AuditHead { number: 1, hash: Sha256([0; 32]) };
        let shares = shares.iter().map(share).collect();
        let third = Assignment::V3(AssignmentV3 { desired, audit, snapshot: 3, shares, sampling: None });
        verify_signed(&sign_assignment(&SigningKey::generate([1; 32]), &third), &[], 150)
    }

    #[test]
    fn shares_are_for_challengers_that_have_a_release_and_sum_to_no_more_than_everything() {
        assert!(verify_shares(&[("challenger-a", 4_000), ("challenger-b", 6_000)]).is_ok());
        for role in ["primary", "shadow", "challenger-"] {
            assert!(matches!(verify_shares(&[(role, 1)]), Err(AssignmentError::ShareRole { .. })), "{role}");
        }
        let nobody = verify_shares(&[("challenger-c", 1)]);
        assert!(matches!(nobody, Err(AssignmentError::ShareCount { found: 1, releases: 0, .. })), "{nobody:?}");
        let twice = verify_shares(&[("challenger-a", 1), ("challenger-a", 1)]);
        assert!(matches!(twice, Err(AssignmentError::ShareCount { found: 2, releases: 1, .. })), "{twice:?}");
        let over = verify_shares(&[("challenger-a", 4_000), ("challenger-b", 6_001)]);
        assert!(matches!(over, Err(AssignmentError::Shares { found: 10_001, .. })), "{over:?}");
    }

    #[test]
    fn the_earlier_check_wins_when_several_fail() {
        let all_wrong = AssignmentV1 {
            device: DeviceId::new("edge-2").unwrap(),
            generation: Generation(1),
            expires: Micros(0),
            ..assignment()
        };
        assert!(matches!(verify(all_wrong, &[installed(5)]), Err(AssignmentError::Device { .. })));
    }

    #[test]
    fn expiry_does_not_refuse_what_already_runs() {
        let signed = sign_assignment(&SigningKey::generate([1; 32]), &Assignment::V1(assignment()));
        assert_eq!(verify_signed(&signed, &[installed(2)], 201), Ok(assignment()));
    }

    #[test]
    fn a_rollback_says_that_a_lower_version_is_meant() {
        let mut back = assignment();
        back.lines[0].allow_lower = true;
        assert_eq!(verify(back.clone(), &[installed(5)]), Ok(back));
    }
}
