//! What is stored of an updater. After a power cut this alone says what to do.

use serde::{Deserialize, Serialize};
use tributary_release::Probation;
use tributary_wire::{Generation, Micros, PackageRef, ReleaseRef, Sha256, UpdaterState};

/// The stored state of one model line in one role.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Record {
    /// The part of the newest accepted assignment that is about this line and role.
    pub wanted: Option<Wanted>,
    /// Serves when nothing is on trial; went through a trial itself.
    pub committed: Option<ReleaseRef>,
    /// Was committed before; the only package this device may fall back to by itself.
    pub previous: Option<ReleaseRef>,
    /// On its way to being committed.
    pub candidate: Candidate,
    /// What this device gave up under the present assignment.
    pub undone: Option<Undone>,
    /// Was committed until its file turned out to be damaged: to be fetched again, for which it needs no new word.
    pub lost: Option<ReleaseRef>,
}

/// What an assignment wants of one line and role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// Of the assignment.
    pub generation: Generation,
    /// No installation begins after this.
    pub expires: Micros,
    /// The release to run.
    pub release: ReleaseRef,
    /// Whether a version lower than the committed one is meant.
    pub allow_lower: bool,
}

/// A package on its way.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub enum Candidate {
    /// None.
    #[default]
    None,
    /// Not on disk yet, or not wholly, or not checked.
    Fetching {
        /// Which.
        release: ReleaseRef,
    },
    /// On disk and checked; waits for the hub's word.
    Staged {
        /// Which.
        release: ReleaseRef,
        /// What its trial has to show.
        probation: Probation,
    },
    /// Serves, or is about to, but is not trusted yet. Stored *before* it serves, so that a restart finds it.
    Trial {
        /// Which.
        release: ReleaseRef,
        /// What its trial has to show.
        probation: Probation,
        /// How many restarts happened while it was on trial.
        crashes: u32,
        /// It was committed here before and the hub orders it back: it has nothing left to prove.
        proven: bool,
    },
}

/// A release that this device tried, or refused to try, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undone {
    /// Which.
    pub release: ReleaseRef,
    /// Under which assignment; a newer one may ask for it again.
    pub generation: Generation,
    /// Why, in words.
    pub reason: String,
    /// What it needs and this device lacks, if that is why: then nothing of it was downloaded.
    pub unfit: Vec<String>,
}

impl Candidate {
    /// Which package it is about.
    pub fn release(&self) -> Option<&ReleaseRef> {
        match self {
            Self::None => None,
            Self::Fetching { release } | Self::Staged { release, .. } | Self::Trial { release, .. } => Some(release),
        }
    }
}

impl Record {
    /// The state's name on the wire.
    pub fn state(&self) -> UpdaterState {
        match &self.candidate {
            Candidate::Fetching { .. } => UpdaterState::Fetching,
            Candidate::Staged { .. } => UpdaterState::Staged,
            Candidate::Trial { .. } => UpdaterState::Trial,
            Candidate::None if self.undone.is_some() => UpdaterState::RolledBack,
            Candidate::None if self.committed.is_some() => UpdaterState::Committed,
            Candidate::None => UpdaterState::Idle,
        }
    }

    /// Every package that this record still needs on disk.
    pub fn references(&self) -> impl Iterator<Item = Sha256> + '_ {
        [self.committed.as_ref(), self.previous.as_ref(), self.candidate.release()]
            .into_iter()
            .flatten()
            .map(|r| r.sha256)
    }
}

/// The part of a release that reports show.
pub(super) fn package(release: &ReleaseRef) -> PackageRef {
    PackageRef { version: release.version, sha256: release.sha256 }
}
