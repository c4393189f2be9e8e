//! What was refused, counted by reason.

use std::sync::atomic::{AtomicU64, Ordering};

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
    /// Had to make room while too many others were at the door as well.
    HalfOpen,
    /// No CONNECT in time.
    HandshakeTimeout,
    /// A handshake of TLS or QUIC that came to no end.
    Handshake,
    /// A certificate of an authority that the hub does not believe, or signed by itself.
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
    pub const ALL: [Self; 20] = [
        Self::Full,
        Self::AddressFull,
        Self::AddressRate,
        Self::HalfOpen,
        Self::HandshakeTimeout,
        Self::Handshake,
        Self::UnknownAuthority,
        Self::Expired,
        Self::Revoked,
        Self::Certificate,
        Self::Credentials,
        Self::Unavailable,
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
            Self::HalfOpen => "half_open",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::Handshake => "handshake",
            Self::UnknownAuthority => "unknown_authority",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::Certificate => "certificate",
            Self::Credentials => "credentials",
            Self::Unavailable => "unavailable",
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
