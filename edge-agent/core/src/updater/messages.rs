//! What an updater is told, and what it wants done.

use tributary_release::Probation;
use tributary_wire::{Generation, Micros, ReleaseRef, Sha256, TrialReport};

use super::{Record, Wanted};

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// A verified assignment, not older than the last, wants this. The one that is known already changes nothing.
    Assigned(Wanted),
    /// A verified assignment of this generation wants nothing of this line and role: it gives up what it has.
    Unassigned(Generation),
    /// The hub sent the assignment of this generation again: the answer to a question.
    Confirmed {
        /// Which.
        generation: Generation,
        /// No installation begins after this; it may have been signed anew, and last longer.
        expires: Micros,
    },
    /// The connection to the hub stands, or is gone.
    Online(bool),
    /// The package is on disk and passed every check, golden cases included.
    Fetched {
        /// Which.
        sha256: Sha256,
        /// What its trial has to show.
        probation: Probation,
    },
    /// The answer to [`Action::Vouch`]: whether its trial may begin, by what this device knows now.
    Vouched {
        /// Which.
        sha256: Sha256,
        /// What speaks against it, if anything does.
        word: Result<(), Doubt>,
    },
    /// It could not be fetched.
    FetchFailed {
        /// Which.
        sha256: Sha256,
        /// Whether to try again.
        failure: FetchFailure,
        /// Why, in words.
        reason: String,
    },
    /// Since now this package serves (`None`: the declared fallback).
    Serving(Option<Sha256>),
    /// This package could not be made to serve.
    ServeFailed {
        /// Which.
        sha256: Sha256,
        /// Whether its file or the package itself is to blame.
        failure: ServeFailure,
        /// Why, in words.
        reason: String,
    },
    /// What the serving package has done since it began.
    Evidence {
        /// Which.
        sha256: Sha256,
        /// What.
        evidence: TrialReport,
    },
    /// The record of this ticket, and all before it, is durable.
    Persisted(u64),
    /// The record could not be written.
    PersistFailed,
    /// The agent is about to end because it was told to. Nothing follows but [`Input::Persisted`].
    Stopping,
    /// Time passed.
    Woken,
}

/// Why a package was not fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FetchFailure {
    /// The hub, or this device's disk, was not able to; later it may be.
    Unreachable,
    /// The bytes that came are not those that were released; a transfer may have spoilt them.
    Damaged,
    /// It is what was released, and this device must not run it.
    Refused,
    /// It needs what this device lacks, each lack in words; nothing was downloaded.
    Unfit(Vec<String>),
}

/// Why the trial of a package that was fetched and checked does not begin, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Doubt {
    /// The stored metadata lists it no more: it was withdrawn, or another stands in its place.
    TakenBack(String),
    /// The stored metadata does not say: it has expired, or what is newer was not fetched yet.
    Unclear(String),
    /// The assignment that orders it counts no more.
    Unordered(String),
}

/// Why a package that passed every check before cannot serve now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServeFailure {
    /// Its file is gone, or its bytes have changed: another copy will do.
    Damaged,
    /// It does not work here.
    Refused,
}

/// What to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Make this record durable, then say [`Input::Persisted`].
    Persist {
        /// To be handed back.
        ticket: u64,
        /// What to store; it replaces what was stored before.
        record: Box<Record>,
    },
    /// Download (or find on disk) and check this release, then say [`Input::Fetched`] or [`Input::FetchFailed`].
    Fetch(ReleaseRef),
    /// Hold this release, and the assignment that orders it, against what is stored and trusted now, without asking
    /// anybody, then say [`Input::Vouched`]: keys may have been revoked since it was fetched.
    Vouch(ReleaseRef),
    /// Make this package serve (`None`: the declared fallback) unless a newer order has replaced this one, then say [`Input::Serving`] or [`Input::ServeFailed`].
    Serve(Option<ReleaseRef>),
    /// Tell the hub where this line stands.
    Report,
    /// Packages may have become unreferenced.
    Collect,
}
