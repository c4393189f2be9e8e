//! Models and images that come over the link in parts, in order.

use serde::{Deserialize, Serialize};

use super::BLOB_PART;
use crate::frame::{CRC, Digest};

/// What a blob is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum BlobKind {
    /// An anomaly model.
    Model,
    /// An image of the whole program.
    Firmware,
}

/// How far a blob has come at the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum BlobStep {
    /// Send from this byte on.
    Next(u32),
    /// All of it is stored, and its checksum holds.
    Complete,
    /// It will not be taken.
    Refused(BlobProblem),
}

/// Why a blob is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum BlobProblem {
    /// It does not fit.
    #[error("it does not fit: there is room for {room} bytes")]
    Room {
        /// How many bytes would.
        room: u32,
    },
    /// This node takes no such thing.
    #[error("this node takes no such thing")]
    Kind,
    /// What came is not what was offered.
    #[error("its checksum is {found:08x}")]
    Checksum {
        /// Of what came.
        found: u32,
    },
    /// Its signature is not of a key that this node trusts.
    #[error("its signature does not hold")]
    Signature,
    /// It is older than what the node has had.
    #[error("it is older than what the node has had")]
    Older,
    /// It is not what its kind says.
    #[error("it cannot be read")]
    Malformed,
    /// The store failed.
    #[error("the node could not write it")]
    Store,
    /// It is for nodes of another type.
    #[error("it is for nodes of another type")]
    Node,
    /// The one before is still on trial.
    #[error("the one before it is still on trial")]
    Busy,
    /// It is whole and signed, but does not do what its own test cases say.
    #[error("it does not pass its own test cases")]
    Cases,
}

/// What a node has of one kind. Told after every welcome, with every record of health, and whenever it changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holds {
    /// Of which kind.
    pub kind: BlobKind,
    /// The version that runs; 0: what the program was built with.
    pub version: u32,
    /// The lowest rollback index that it would take.
    pub rollback: u32,
    /// Since when and how surely.
    pub state: Held,
}

/// How sure a node is of what runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Held {
    /// It passed its self-test.
    Confirmed,
    /// It runs for the first time; a restart brings the one before back.
    Trial,
    /// This one ran before, and runs again because a newer one did not pass.
    Reverted {
        /// The one that did not.
        version: u32,
    },
}

/// What a node has of one blob. The bytes themselves are stored elsewhere, before [`BlobReceiver::part`] is told.
#[derive(Clone)]
pub struct BlobReceiver {
    blob: u32,
    length: u32,
    checksum: u32,
    taken: u32,
    digest: Digest,
}

impl BlobReceiver {
    /// A blob was offered, and there is room for `room` bytes.
    pub fn new(blob: u32, length: u32, checksum: u32, room: u32) -> Result<Self, BlobProblem> {
        if length > room {
            return Err(BlobProblem::Room { room });
        }
        Ok(Self { blob, length, checksum, taken: 0, digest: CRC.digest() })
    }

    /// Whether an offer is of this blob: then it only asks how far it has come.
    pub fn is(&self, blob: u32, length: u32, checksum: u32) -> bool {
        (self.blob, self.length, self.checksum) == (blob, length, checksum)
    }

    /// Which bytes of a part are new; none when it repeats, leaves a hole, or passes the end.
    pub fn expects<'a>(&self, blob: u32, offset: u32, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let wanted = blob == self.blob && offset == self.taken && !bytes.is_empty() && bytes.len() <= BLOB_PART;
        let end = u64::from(offset) + bytes.len() as u64;
        (wanted && end <= u64::from(self.length)).then_some(bytes)
    }

    /// The bytes that [`Self::expects`] gave are stored.
    pub fn part(&mut self, bytes: &[u8]) {
        self.digest.update(bytes);
        self.taken += bytes.len() as u32;
    }

    /// How far it has come.
    pub fn step(&self) -> BlobStep {
        if self.taken < self.length {
            return BlobStep::Next(self.taken);
        }
        match self.digest.clone().finalize() {
            found if found == self.checksum => BlobStep::Complete,
            found => BlobStep::Refused(BlobProblem::Checksum { found }),
        }
    }
}

impl core::fmt::Debug for BlobReceiver {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "blob {}: {} of {} bytes", self.blob, self.taken, self.length)
    }
}

/// The checksum of a blob's bytes, as an offer states it.
pub fn blob_checksum(bytes: &[u8]) -> u32 {
    CRC.checksum(bytes)
}
