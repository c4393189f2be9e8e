//! The audit log: every change of state, in the transaction that makes it.
//!
//! An entry says who did what to which thing, what it was before and after, when, and from which address. Entries are
//! numbered without gaps and chained by their hashes ([`entry`]), so that a changed or missing one is found; the hash of
//! the newest travels in every assignment, so that a cut end is found too ([`verify`]).
//!
//! **What is written down**: whatever the hub keeps or does because a person or service asked, because a device proved
//! who it is, or because the hub decided — settings, labels (their count and hash), datasets, runs, versions, aliases,
//! releases, every step of a rollout, alerts, commands to devices, certificates and tokens, starts of the hub.
//! **What is not**: what devices send and the receipts for it (records, reports, last seen), and what is computed from
//! that alone and can be computed again (quality, findings, snapshots of features, compaction, idempotency keys). An
//! alert that follows from it is written down.

pub mod entry;
pub mod export;
pub mod store;
pub mod verify;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use serde_json::Value;
use sqlx::SqliteConnection;
use tributary_wire::Micros;

pub use entry::Entry;
pub use store::head;
pub use verify::{Claim, Finding, Verdict, Verifier};

use crate::access::{Caller, Who};

/// A change of state. Who made it, and from where, is known from the task ([`crate::access::Caller::current`]).
#[derive(Debug, Clone)]
pub struct Change<'a> {
    /// What was done, as `thing.verb`: `device.revoke`, `rollout.pause`.
    pub action: &'a str,
    /// To what: an id.
    pub subject: &'a str,
    /// As it was before; null when it did not exist.
    pub from: Value,
    /// As it is now; null when it is gone. Never a secret.
    pub to: Value,
}

/// Writes a change down. It is part of the transaction: either both are durable or neither is.
pub async fn record(connection: &mut SqliteConnection, change: Change<'_>, now: Micros) -> Result<(), sqlx::Error> {
    record_for(connection, &Caller::current(), change, now).await
}

/// As [`record`], in the hub's own name: for what it decides while it answers somebody.
pub async fn record_own(connection: &mut SqliteConnection, change: Change<'_>, now: Micros) -> Result<(), sqlx::Error> {
    record_for(connection, &Caller { who: Who::Hub, from: None, certificate: None }, change, now).await
}

/// As [`record`], in the name of a caller whose request another task carries out.
pub async fn record_for(
    connection: &mut SqliteConnection,
    caller: &Caller,
    change: Change<'_>,
    now: Micros,
) -> Result<(), sqlx::Error> {
    store::append(connection, entry::Draft::new(caller, change, now)).await
}

/// A change that another task will make in a caller's name: it records it together with its effect.
#[derive(Debug, Clone)]
pub struct Noted(Arc<Note>);

#[derive(Debug)]
struct Note {
    caller: Caller,
    action: &'static str,
    subject: String,
    from: Value,
    to: Value,
}

impl Noted {
    /// In the name of the present task's caller.
    pub fn new(action: &'static str, subject: impl Into<String>, from: Value, to: Value) -> Self {
        Self(Arc::new(Note { caller: Caller::current(), action, subject: subject.into(), from, to }))
    }

    /// Writes it down.
    pub async fn record(&self, connection: &mut SqliteConnection, now: Micros) -> Result<(), sqlx::Error> {
        let Note { caller, action, subject, from, to } = &*self.0;
        record_for(connection, caller, Change { action, subject, from: from.clone(), to: to.clone() }, now).await
    }
}
