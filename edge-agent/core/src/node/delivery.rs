//! Bringing models and firmware to a node: offered, sent in parts, and not done with before the node says that what it
//! got runs and passed its self-test.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tributary_wire::link::{BLOB_PART, BlobKind, BlobProblem, BlobStep, DownV1, Held, Holds, blob_checksum};

/// An offer without an answer is repeated after this.
const OFFER_EVERY: Duration = Duration::from_secs(2);
/// A part without an answer is sent again after this: it is 15 ms on a line of 115 200 baud, and the longest that a node
/// thinks about one is while it checks a signature.
const PART_AGAIN: Duration = Duration::from_millis(400);
/// While a node has something on trial it takes nothing else.
const BUSY: Duration = Duration::from_secs(10);
/// A node that took a blob and never says what became of it is offered it again.
const SILENCE: Duration = Duration::from_secs(300);
/// So often a blob is brought to a node that could not take it whole, or went back from it: power may have gone.
const TRIES: u8 = 3;

/// A signed blob for a node. That its chain was verified is the business of whoever makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parcel {
    /// What it is.
    pub kind: BlobKind,
    /// Its version.
    pub version: u32,
    /// All of it.
    pub bytes: Arc<[u8]>,
}

/// What became of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivered {
    /// What it is.
    pub kind: BlobKind,
    /// Its version.
    pub version: u32,
    /// How it ended.
    pub end: End,
}

/// How the bringing of a blob ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It runs and passed the node's self-test.
    Confirmed,
    /// It was started and did not pass, again and again.
    Reverted,
    /// The node did not take it.
    Refused(BlobProblem),
}

/// How far a blob is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// What it is.
    pub kind: BlobKind,
    /// Its version.
    pub version: u32,
    /// Bytes that the node has.
    pub sent: u32,
    /// Bytes of all.
    pub length: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Offering,
    Sending {
        from: u32,
    },
    /// The node has all of it, and starts it.
    Taken,
}

/// Blobs on their way to one node, one after the other.
#[derive(Debug)]
pub struct Delivery {
    parcels: VecDeque<Parcel>,
    stage: Stage,
    due: Duration,
    number: u32,
    tries: u8,
}

impl Default for Delivery {
    fn default() -> Self {
        Self { parcels: VecDeque::new(), stage: Stage::Offering, due: Duration::ZERO, number: 1, tries: 0 }
    }
}

impl Delivery {
    /// Brings this one; another one of its kind that is not there yet is forgotten.
    pub fn bring(&mut self, parcel: Parcel) {
        if self.parcels.contains(&parcel) {
            return;
        }
        let first = self.parcels.front().is_some_and(|first| first.kind == parcel.kind);
        self.parcels.retain(|other| other.kind != parcel.kind);
        if first || self.parcels.is_empty() {
            self.restart(Duration::ZERO);
            self.tries = 0;
        }
        self.parcels.push_back(parcel);
    }

    /// The node begins a session: it says what it holds, and is asked how far it has come.
    pub fn begin(&mut self) {
        if self.stage != Stage::Taken {
            self.restart(Duration::ZERO);
        }
    }

    fn restart(&mut self, due: Duration) {
        self.number = self.number.wrapping_add(1).max(1);
        (self.stage, self.due) = (Stage::Offering, due);
    }

    fn end(&mut self, end: End) -> Option<Delivered> {
        let parcel = self.parcels.pop_front()?;
        self.restart(Duration::ZERO);
        self.tries = 0;
        Some(Delivered { kind: parcel.kind, version: parcel.version, end })
    }

    /// Once more, or that was the last time.
    fn again(&mut self, due: Duration, end: End) -> Option<Delivered> {
        self.tries += 1;
        if self.tries >= TRIES {
            return self.end(end);
        }
        self.restart(due);
        None
    }

    /// The node said how far a blob has come.
    pub fn answered(&mut self, now: Duration, blob: u32, step: BlobStep) -> Option<Delivered> {
        // A late answer about one that was offered before says nothing of this one.
        if blob != self.number || self.stage == Stage::Taken {
            return None;
        }
        let length = self.parcels.front()?.bytes.len();
        match step {
            BlobStep::Next(from) if (from as usize) < length => {
                // Told twice it is the answer to a part that was sent twice: that one is on its way.
                if self.stage != (Stage::Sending { from }) {
                    (self.stage, self.due) = (Stage::Sending { from }, now);
                }
                None
            }
            BlobStep::Next(_) => self.again(now + OFFER_EVERY, End::Refused(BlobProblem::Malformed)),
            BlobStep::Complete => {
                (self.stage, self.due) = (Stage::Taken, now + SILENCE);
                None
            }
            BlobStep::Refused(BlobProblem::Busy) => {
                self.restart(now + BUSY);
                None
            }
            // What came is not what was sent, or the flash failed: that may pass.
            BlobStep::Refused(problem @ (BlobProblem::Checksum { .. } | BlobProblem::Store)) => {
                self.again(now + OFFER_EVERY, End::Refused(problem))
            }
            BlobStep::Refused(problem) => self.end(End::Refused(problem)),
        }
    }

    /// The node said what runs.
    pub fn holds(&mut self, now: Duration, holds: &Holds) -> Option<Delivered> {
        let parcel = self.parcels.front().filter(|parcel| parcel.kind == holds.kind)?;
        let version = parcel.version;
        match holds.state {
            Held::Confirmed if holds.version == version => self.end(End::Confirmed),
            Held::Reverted { version: tried } if tried == version && self.stage == Stage::Taken => {
                self.again(now, End::Reverted)
            }
            _ => None,
        }
    }

    /// What to send now.
    pub fn due(&mut self, now: Duration) -> Option<DownV1<'_>> {
        let parcel = self.parcels.front().filter(|_| now >= self.due)?;
        let (kind, length) = (parcel.kind, parcel.bytes.len() as u32);
        if self.stage == Stage::Taken {
            (self.stage, self.number) = (Stage::Offering, self.number.wrapping_add(1).max(1));
        }
        let blob = self.number;
        match self.stage {
            Stage::Sending { from } => {
                self.due = now + PART_AGAIN;
                let end = parcel.bytes.len().min(from as usize + BLOB_PART);
                Some(DownV1::Part { blob, offset: from, bytes: parcel.bytes.get(from as usize..end)? })
            }
            Stage::Offering | Stage::Taken => {
                self.due = now + OFFER_EVERY;
                Some(DownV1::Offer { blob, kind, length, checksum: blob_checksum(&parcel.bytes) })
            }
        }
    }

    /// When [`Self::due`] has something again.
    pub fn next_wake(&self) -> Option<Duration> {
        self.parcels.front().map(|_| self.due)
    }

    /// How far the one on its way is.
    pub fn progress(&self) -> Option<Progress> {
        let Parcel { kind, version, bytes } = self.parcels.front()?;
        let length = bytes.len() as u32;
        let sent = match self.stage {
            Stage::Offering => 0,
            Stage::Sending { from } => from,
            Stage::Taken => length,
        };
        Some(Progress { kind: *kind, version: *version, sent, length })
    }
}
