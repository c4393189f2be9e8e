//! What was refused, counted by reason.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rumqttd::protocol::ConnectReturnCode;

/// Why something was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Too many live connections.
    Full,
    /// Too many live connections from one address.
    AddressFull,
    /// New connections from one address come too fast.
    AddressRate,
    /// The system had no room for another connection: file descriptors or memory.
    NoRoom,
    /// Had to make room while too many others were at the door as well.
    HalfOpen,
    /// No CONNECT in time.
    HandshakeTimeout,
    /// A handshake of TLS or QUIC that came to no end.
    Handshake,
    /// A certificate that no authority of this hub has signed.
    UnknownAuthority,
    /// A certificate whose time is over or has not come.
    Expired,
    /// A revoked certificate.
    Revoked,
    /// No certificate where one is needed, or one that does not belong to who connects.
    Certificate,
    /// A token or password that is wrong, expired or not enough.
    Credentials,
    /// Admission could not be asked.
    Unavailable,
    /// An MQTT version that the hub does not speak.
    Version,
    /// Bytes that are not an MQTT 5 packet, or not one that a client may send.
    Protocol,
    /// A client id that nobody may have.
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
    /// Something that the hub does not do and said so in its CONNACK.
    Unsupported,
}

impl Refusal {
    /// All reasons, in the order of their counters.
    pub const ALL: [Self; 22] = [
        Self::Full,
        Self::AddressFull,
        Self::AddressRate,
        Self::NoRoom,
        Self::HalfOpen,
        Self::HandshakeTimeout,
        Self::Handshake,
        Self::UnknownAuthority,
        Self::Expired,
        Self::Revoked,
        Self::Certificate,
        Self::Credentials,
        Self::Unavailable,
        Self::Version,
        Self::Protocol,
        Self::ClientId,
        Self::NotAdmitted,
        Self::Topic,
        Self::TooLarge,
        Self::KeepAlive,
        Self::SlowReader,
        Self::Unsupported,
    ];

    /// As in metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::AddressFull => "address_full",
            Self::AddressRate => "address_rate",
            Self::NoRoom => "no_room",
            Self::HalfOpen => "half_open",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::Handshake => "handshake",
            Self::UnknownAuthority => "unknown_authority",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::Certificate => "certificate",
            Self::Credentials => "credentials",
            Self::Unavailable => "unavailable",
            Self::Version => "version",
            Self::Protocol => "protocol",
            Self::ClientId => "client_id",
            Self::NotAdmitted => "not_admitted",
            Self::Topic => "topic",
            Self::TooLarge => "too_large",
            Self::KeepAlive => "keep_alive",
            Self::SlowReader => "slow_reader",
            Self::Unsupported => "unsupported",
        }
    }

    /// What a CONNACK says of it.
    pub(crate) fn code(self) -> ConnectReturnCode {
        match self {
            Self::Full => ConnectReturnCode::ServerBusy,
            Self::AddressFull => ConnectReturnCode::QuotaExceeded,
            Self::AddressRate => ConnectReturnCode::ConnectionRateExceeded,
            Self::Unavailable => ConnectReturnCode::ServerUnavailable,
            Self::ClientId => ConnectReturnCode::ClientIdentifierNotValid,
            Self::Credentials => ConnectReturnCode::BadUserNamePassword,
            Self::Protocol => ConnectReturnCode::ProtocolError,
            _ => ConnectReturnCode::NotAuthorized,
        }
    }
}

/// Lines per reason that are logged in one period; the rest is only counted.
const LINES: u32 = 5;
const PERIOD: Duration = Duration::from_secs(10);

/// Counters of one acceptor.
#[derive(Debug, Default)]
pub struct Tally {
    counts: [AtomicU64; Refusal::ALL.len()],
    lines: Mutex<[Lines; Refusal::ALL.len()]>,
    file_bytes: AtomicU64,
}

/// What was logged of one reason in the running period.
#[derive(Debug, Default, Clone, Copy)]
struct Lines {
    since: Option<Instant>,
    logged: u32,
    left_out: u64,
}

impl Tally {
    pub(crate) fn count(&self, refusal: Refusal) {
        self.counts[refusal as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts and logs; a flood is counted but does not flood the log.
    pub(crate) fn refused(&self, refusal: Refusal, who: &dyn fmt::Display, why: &dyn fmt::Display) {
        self.count(refusal);
        if let Some(left_out) = self.may_log(refusal, Instant::now()) {
            tracing::warn!(reason = refusal.name(), %who, %why, left_out, "refused");
        }
    }

    /// Whether to log one more line; how many were left out before it.
    fn may_log(&self, refusal: Refusal, now: Instant) -> Option<u64> {
        let mut all = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = &mut all[refusal as usize];
        if lines.since.is_none_or(|since| now.saturating_duration_since(since) >= PERIOD) {
            (lines.since, lines.logged) = (Some(now), 0);
        }
        if lines.logged < LINES {
            lines.logged += 1;
            return Some(std::mem::take(&mut lines.left_out));
        }
        lines.left_out += 1;
        None
    }

    pub(crate) fn count_file_bytes(&self, more: u64) {
        self.file_bytes.fetch_add(more, Ordering::Relaxed);
    }

    /// Bytes of files that went out on streams beside MQTT.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes.load(Ordering::Relaxed)
    }

    /// How often something was refused for this reason.
    pub fn of(&self, refusal: Refusal) -> u64 {
        self.counts[refusal as usize].load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_stand_where_their_names_say() {
        for (place, refusal) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(refusal as usize, place, "{}", refusal.name());
        }
    }

    #[test]
    fn a_flood_is_counted_and_logged_now_and_then() {
        let (tally, start) = (Tally::default(), Instant::now());
        let logged = |at| tally.may_log(Refusal::Topic, at);
        let lines: Vec<_> = (0..100).filter_map(|_| logged(start)).collect();
        assert_eq!(lines, [0; LINES as usize]);
        assert_eq!(tally.may_log(Refusal::Full, start), Some(0), "each reason for itself");
        assert_eq!(logged(start + PERIOD), Some(100 - u64::from(LINES)));
        assert_eq!(logged(start + PERIOD), Some(0));
    }
}
