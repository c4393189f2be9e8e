//! What was refused, counted by reason.

use std::sync::atomic::{AtomicU64, Ordering};

/// Why something was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Too many live connections.
    Full,
    /// No CONNECT in time.
    HandshakeTimeout,
    /// Bytes that are not an MQTT 5 packet, or not one that a client may send.
    Protocol,
    /// A client id that is neither a device id nor that of an integration.
    ClientId,
    /// Admission said no.
    NotAdmitted,
    /// A topic or filter that is not the client's own.
    Topic,
    /// A packet over the size limit.
    TooLarge,
    /// Silence for longer than the keep-alive allows.
    KeepAlive,
    /// A peer that does not read.
    SlowReader,
}

impl Refusal {
    /// All reasons, in the order of their counters.
    pub const ALL: [Self; 9] = [
        Self::Full,
        Self::HandshakeTimeout,
        Self::Protocol,
        Self::ClientId,
        Self::NotAdmitted,
        Self::Topic,
        Self::TooLarge,
        Self::KeepAlive,
        Self::SlowReader,
    ];

    /// As in metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::Protocol => "protocol",
            Self::ClientId => "client_id",
            Self::NotAdmitted => "not_admitted",
            Self::Topic => "topic",
            Self::TooLarge => "too_large",
            Self::KeepAlive => "keep_alive",
            Self::SlowReader => "slow_reader",
        }
    }
}

/// Counters of one acceptor.
#[derive(Debug, Default)]
pub struct Tally {
    counts: [AtomicU64; Refusal::ALL.len()],
}

impl Tally {
    pub(crate) fn count(&self, refusal: Refusal) {
        self.counts[refusal as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How often something was refused for this reason.
    pub fn of(&self, refusal: Refusal) -> u64 {
        self.counts[refusal as usize].load(Ordering::Relaxed)
    }
}
