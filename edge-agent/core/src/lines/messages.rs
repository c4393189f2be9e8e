//! What a device's lines are told, and what they want done.

use tributary_release::VerifyingKeys;
use tributary_wire::{Generation, LineName, Micros, ReleaseRef, Role, Sha256};

use super::AuditSeen;
use crate::updater::{self, Doubt, Record};

/// Which updater: model line and role.
pub type Of = (LineName, Role);

/// What this device believes of the signed repository when an assignment arrives.
#[derive(Debug, Clone, Default)]
pub struct Believed {
    /// Whose word counts.
    pub keys: VerifyingKeys,
    /// The newest snapshot metadata that was verified; 0: none.
    pub snapshot: u64,
}

/// What was stored beside the records.
#[derive(Debug, Clone, Default)]
pub struct Remembered {
    /// The assignment that was accepted last, in its byte form.
    pub assignment: Option<Vec<u8>>,
    /// Its generation by itself, for when the assignment is lost; none where an older agent has stored it.
    pub generation: Option<Generation>,
    /// How far the hub's audit log had come.
    pub audit: Option<AuditSeen>,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum Input {
    /// A signed assignment arrived, in its byte form.
    Assigned {
        /// As it came.
        signed: Vec<u8>,
        /// What is believed now.
        believed: Believed,
    },
    /// The answer to [`Action::Refresh`], whether newer metadata came or not.
    Refreshed {
        /// The assignment that it was asked for.
        signed: Vec<u8>,
        /// What is believed now.
        believed: Believed,
    },
    /// The assignment of the last [`Action::Keep`] is durable.
    Kept,
    /// It could not be stored.
    NotKept {
        /// Why, in words.
        reason: String,
    },
    /// What is stored of a line and role: the answer to [`Action::Begin`].
    Began(Of, Box<Record>),
    /// The answer to [`Action::Vouch`].
    Vouched {
        /// Whose.
        of: Of,
        /// Which package.
        sha256: Sha256,
        /// What is believed now.
        believed: Believed,
        /// What the stored metadata says against it, if anything.
        chain: Result<(), Doubt>,
    },
    /// The connection to the hub stands, or is gone.
    Online(bool),
    /// Something that concerns one updater.
    Line(Of, updater::Input),
    /// Time passed.
    Woken,
    /// The agent is about to end because it was told to.
    Stopping,
}

/// What to do. In this order, one after the other; what an action brings about is told before anything else.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Make an updater's record durable, then say [`updater::Input::Persisted`] or [`updater::Input::PersistFailed`].
    Persist {
        /// Whose.
        of: Of,
        /// To be handed back.
        ticket: u64,
        /// What to store.
        record: Box<Record>,
    },
    /// As [`updater::Action::Fetch`].
    Fetch {
        /// For whom.
        of: Of,
        /// Which release.
        release: ReleaseRef,
        /// The lowest version of the snapshot metadata that speaks of it.
        snapshot: u64,
        /// It was committed here before: its hash in the durable record says enough, and no metadata is needed.
        known: bool,
    },
    /// As [`updater::Action::Vouch`], of the stored metadata alone; then say [`Input::Vouched`].
    Vouch {
        /// For whom.
        of: Of,
        /// Which release.
        release: ReleaseRef,
    },
    /// As [`updater::Action::Serve`].
    Serve {
        /// In whose place.
        of: Of,
        /// Which release; `None`: the declared fallback.
        package: Option<ReleaseRef>,
    },
    /// Make this assignment and its generation durable in one step, then say [`Input::Kept`] or [`Input::NotKept`].
    Keep {
        /// In its byte form.
        signed: Vec<u8>,
        /// Its number, which must outlive it.
        generation: Generation,
    },
    /// Bring the signed metadata up to date, then say [`Input::Refreshed`]. A newer one takes the place of one under way.
    Refresh(Vec<u8>),
    /// Somebody who is trusted signed at this time: it is not earlier.
    Raise(Micros),
    /// Store how far the hub's audit log had come. Failing costs that a restart knows less.
    KeepAudit(AuditSeen),
    /// Read what is stored of a line and role, then say [`Input::Began`].
    Begin(Of),
    /// Nobody wants this role any more: stop serving it, and forget its record.
    Retire(Of),
    /// Packages may have become unreferenced.
    Collect,
    /// Tell the hub how things are.
    Report,
}
