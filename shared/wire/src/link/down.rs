//! What the agent says.

use serde::{Deserialize, Serialize};

use super::BlobKind;

/// From the agent to the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Down<'a> {
    /// Who is there? Asked by an agent that hears something it has no session for. Never changes its form.
    Who,
    /// The answer to a Hello. Never changes its form.
    Welcome {
        /// The version to go on with.
        version: u8,
        /// The session: the node's own, or a new one when it had none.
        session: u32,
    },
    /// The answer to a Hello that cannot be agreed to. Never changes its form.
    Refused(Refusal),
    /// What follows a handshake on version 1.
    V1(#[serde(borrow)] DownV1<'a>),
}

/// Why a node is not taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// No version is spoken by both.
    Version {
        /// The agent's oldest.
        lowest: u8,
        /// The agent's newest.
        highest: u8,
    },
    /// This line belongs to another node.
    Name,
}

/// Version 1 of what the agent says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DownV1<'a> {
    /// What the agent has stored.
    Ack {
        /// Of which session.
        session: u32,
        /// Every record up to this number.
        through: u32,
        /// Bit n: also record `through + 2 + n`.
        scattered: u32,
    },
    /// What is your clock? Also says that the agent is there.
    Time {
        /// The agent's wall clock in microseconds; comes back with the answer.
        asked: i64,
    },
    /// Something to do once. Sent until its outcome is known.
    Order {
        /// In which session it was given: a node that started again since does not do it.
        session: u32,
        /// Which one; each is higher than the one before.
        number: u32,
        /// What to do.
        order: Order,
    },
    /// A blob to take. Sent until the node says how far it has come.
    Offer {
        /// Which one.
        blob: u32,
        /// What it is.
        kind: BlobKind,
        /// Its length in bytes.
        length: u32,
        /// CRC-32C of all its bytes. Whether they may be *used* is decided by the signature within.
        checksum: u32,
    },
    /// A part of it.
    Part {
        /// Of which one.
        blob: u32,
        /// From which byte on.
        offset: u32,
        /// At most [`super::BLOB_PART`] bytes.
        bytes: &'a [u8],
    },
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// Take so many samples per second.
    Rate(u32),
    /// Take a score above this as an anomaly.
    Threshold(u32),
    /// Send the next windows of all axes raw.
    SendRaw {
        /// How many.
        windows: u8,
    },
    /// Send a health record now.
    Report,
    /// Start again.
    Restart,
}
