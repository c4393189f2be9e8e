//! What a device should run. Signed; the signature is made and checked by the release crate.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::frame::message;
use crate::{DeviceId, Generation, LineName, Micros, Role, SamplingPolicy, Sha256, VersionNumber};

/// An assignment as it travels: bytes, and a signature over `"tributary assignment\0"` followed by exactly those bytes
/// (the release crate makes and checks it; the prefix keeps a signature from passing for one of another kind).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedAssignment {
    /// [`Assignment`] in its byte form.
    pub payload: Vec<u8>,
    /// First eight bytes of the SHA-256 of the public key that signed.
    pub key_id: [u8; 8],
    /// Ed25519 signature, 64 bytes.
    pub signature: Vec<u8>,
}
message!(SignedAssignment, "signed assignment");

/// Versions of the assignment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Assignment {
    /// The first.
    V1(AssignmentV1),
    /// With the head of the hub's audit log.
    V2(AssignmentV2),
    /// With the metadata it was signed against, and the shares of challengers.
    V3(AssignmentV3),
}
message!(Assignment, "assignment");

impl Assignment {
    /// What the device should run.
    pub fn desired(&self) -> &AssignmentV1 {
        match self {
            Self::V1(desired) => desired,
            Self::V2(AssignmentV2 { desired, .. }) | Self::V3(AssignmentV3 { desired, .. }) => desired,
        }
    }

    /// The head of the hub's audit log, from a hub that keeps one.
    pub fn audit(&self) -> Option<AuditHead> {
        match self {
            Self::V1(_) => None,
            Self::V2(AssignmentV2 { audit, .. }) | Self::V3(AssignmentV3 { audit, .. }) => Some(*audit),
        }
    }

    /// The lowest version of the snapshot metadata that holds every release named here; 0 when it is not said.
    pub fn snapshot(&self) -> u64 {
        match self {
            Self::V1(_) | Self::V2(_) => 0,
            Self::V3(AssignmentV3 { snapshot, .. }) => *snapshot,
        }
    }

    /// The share of predictions that each challenger answers.
    pub fn shares(&self) -> &[ChallengerShare] {
        match self {
            Self::V1(_) | Self::V2(_) => &[],
            Self::V3(AssignmentV3 { shares, .. }) => shares,
        }
    }

    /// What the device sends of its raw observations, where the hub says so.
    pub fn sampling(&self) -> Option<&SamplingPolicy> {
        match self {
            Self::V1(_) | Self::V2(_) => None,
            Self::V3(AssignmentV3 { sampling, .. }) => sampling.as_ref(),
        }
    }
}

/// An assignment that also says how new the repository's metadata must be, so that a mirror cannot hold back what the
/// hub has published, how predictions are shared out among challengers, and what is sent of raw observations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssignmentV3 {
    /// What the device should run.
    pub desired: AssignmentV1,
    /// The log's newest entry when this was signed.
    pub audit: AuditHead,
    /// Version of the snapshot metadata when this was signed; a device that has an older one refreshes first.
    pub snapshot: u64,
    /// The share of predictions of each challenger. A role without one answers nothing: it is scored in the shadow.
    pub shares: Vec<ChallengerShare>,
    /// What the device sends of its raw observations; without one its own configuration decides.
    pub sampling: Option<SamplingPolicy>,
}

/// How many predictions of a line one challenger answers in place of the primary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChallengerShare {
    /// Which line.
    pub line: LineName,
    /// Which role of it; never `primary`.
    pub role: Role,
    /// Out of 10 000 entities, as a sticky hash of line and entity decides. The shares of a line sum to at most 10 000.
    pub per_10_000: u16,
}

/// An assignment that also remembers how far the hub's audit log had come: a log whose end was cut off is shorter than
/// what devices remember.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssignmentV2 {
    /// What the device should run.
    pub desired: AssignmentV1,
    /// The log's newest entry when this was signed.
    pub audit: AuditHead,
}

/// The newest entry of the hub's audit log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditHead {
    /// Its number, from 1 on; 0: the log is empty.
    pub number: u64,
    /// Its hash, which covers all entries before it.
    pub hash: Sha256,
}

/// What one device should run from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssignmentV1 {
    /// For whom; another device refuses it.
    pub device: DeviceId,
    /// A device refuses an assignment that is not newer than the one it has.
    pub generation: Generation,
    /// When it was signed.
    pub issued: Micros,
    /// No installation begins after this. It never stops a committed package.
    pub expires: Micros,
    /// One per model line and role.
    pub lines: Vec<LineAssignment>,
    /// Feature flags for the application beside the agent.
    pub flags: Vec<(String, String)>,
}

/// What one model line should run in one role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineAssignment {
    /// Which line.
    pub line: LineName,
    /// In which role.
    pub role: Role,
    /// The release to run.
    pub release: ReleaseRef,
    /// Whether a version lower than the committed one is meant: only a rollback sets this.
    pub allow_lower: bool,
}

/// A release: the package's number, length and hash. Its signed form is fetched from the hub and must agree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseRef {
    /// Version within its line.
    pub version: VersionNumber,
    /// Length of the package file in bytes.
    pub length: u64,
    /// Hash of the package file.
    pub sha256: Sha256,
}
