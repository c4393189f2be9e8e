//! Receipts: what the hub has made durable, and how much more a device may have in flight.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::frame::message;
use crate::{Incarnation, SequenceNumber, StreamName};

/// Versions of the receipt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ack {
    /// The first.
    V1(AckV1),
}
message!(Ack, "acknowledgement");

/// What the hub has, stream by stream. A device unites all receipts it gets: one lost is covered by the next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AckV1 {
    /// One per stream that has news.
    pub streams: Vec<StreamAck>,
}

/// What the hub has of one stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamAck {
    /// Which stream.
    pub stream: StreamName,
    /// Which life of the device's state the numbers belong to.
    pub incarnation: Incarnation,
    /// Everything up to and including this sequence is durable (0: nothing yet).
    pub through: SequenceNumber,
    /// Durable beyond `through`.
    pub scattered: Vec<SequenceNumber>,
    /// Of the batches that this receipt answers, those kept aside undecoded or refused by the schema. They are
    /// durable too: sending them again would change nothing.
    pub quarantined: Vec<SequenceNumber>,
    /// How many unacknowledged batches of this stream may be in flight; 0 means hold.
    pub window: u16,
}
