//! How everyone else talks to the updates.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, watch};
use tributary_wire::{AuditHead, Generation, LineReport, MetadataVersions, Unfit};

/// What everyone else tells the updates.
#[derive(Debug)]
pub(super) enum Message {
    Assigned(Vec<u8>),
    /// One that speaks of a newer repository, after that was asked for.
    Refreshed(Vec<u8>),
    Online(bool),
}

/// What the updates show of themselves.
#[derive(Debug, Default)]
pub(super) struct Shown {
    pub(super) lines: Vec<LineReport>,
    pub(super) unfit: Vec<Unfit>,
    pub(super) metadata: Option<MetadataVersions>,
    pub(super) generation: Generation,
    pub(super) asks: bool,
    pub(super) problem: Option<String>,
    pub(super) audit: Option<AuditHead>,
    pub(super) audit_problem: Option<String>,
    pub(super) flags: BTreeMap<String, String>,
    pub(super) reads: u8,
}

/// Talks to the updates from elsewhere.
#[derive(Debug, Clone)]
pub struct Handle {
    pub(super) messages: mpsc::UnboundedSender<Message>,
    pub(super) shown: Arc<Mutex<Shown>>,
    pub(super) changed: watch::Receiver<u64>,
}

impl Handle {
    /// Where every line stands.
    pub fn lines(&self) -> Vec<LineReport> {
        self.shown().lines.clone()
    }

    /// The assigned releases that this device cannot run, and what it lacks for each.
    pub fn unfit(&self) -> Vec<Unfit> {
        self.shown().unfit.clone()
    }

    /// The newest metadata of the signed repository that was verified.
    pub fn metadata(&self) -> Option<MetadataVersions> {
        self.shown().metadata
    }

    /// The newest accepted assignment; 0: none yet.
    pub fn generation(&self) -> Generation {
        self.shown().generation
    }

    /// Whether a checked package waits for the hub's word.
    pub fn asks(&self) -> bool {
        self.shown().asks
    }

    /// Why the last assignment was refused, if it was.
    pub fn problem(&self) -> Option<String> {
        self.shown().problem.clone()
    }

    /// The newest entry of the hub's audit log that this device knows of.
    pub fn audit(&self) -> Option<AuditHead> {
        self.shown().audit
    }

    /// What is wrong with the hub's audit log, if this device can tell.
    pub fn audit_problem(&self) -> Option<String> {
        self.shown().audit_problem.clone()
    }

    /// Feature flags of the newest accepted assignment, for the application beside the agent.
    pub fn flags(&self) -> BTreeMap<String, String> {
        self.shown().flags.clone()
    }

    /// The highest version of messages that the hub is known to write: that of the newest accepted assignment. It reads
    /// as much.
    pub fn hub_reads(&self) -> u8 {
        self.shown().reads
    }

    /// Fires when a report should be sent.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.clone()
    }

    /// A signed assignment arrived, in its byte form.
    pub fn assigned(&self, signed: Vec<u8>) {
        // An error means that the updates have stopped; the hub sends the assignment again on the next connect.
        let _ = self.messages.send(Message::Assigned(signed));
    }

    /// The connection to the hub stands, or is gone.
    pub fn online(&self, online: bool) {
        let _ = self.messages.send(Message::Online(online));
    }

    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
