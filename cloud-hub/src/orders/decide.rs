//! When a command is sent, and when it is given up. Pure.

use serde::{Deserialize, Serialize};
use tributary_wire::Micros;
use utoipa::ToSchema;

/// Where a command stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema, sqlx::Type)]
#[serde(rename_all = "lowercase")]
#[sqlx(rename_all = "lowercase")]
pub enum State {
    /// The device was not there yet.
    Queued,
    /// It was sent; there is no result yet.
    Sent,
    /// The device did it.
    Done,
    /// The device tried; `reason` says why it did not work.
    Failed,
    /// The device's own settings forbid it, or the hub's rules by the time it could be sent.
    Refused,
    /// The deadline passed without a result.
    Expired,
    /// An operator took it back before it was sent.
    Cancelled,
}

impl State {
    /// As in the catalog and in the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Sent => "sent",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Refused => "refused",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether a result may still change it. One that comes after the deadline does: it was done, only late.
    pub fn takes_result(self) -> bool {
        matches!(self, Self::Queued | Self::Sent | Self::Expired)
    }
}

/// What to do about a command that has no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Nothing before this.
    Wait(Micros),
    /// Send it.
    Send,
    /// Give it up.
    Expire,
}

/// What is due of an open command: `sent`, when it was sent last; `connected`, since when the device is there.
pub fn due(deadline: Micros, sent: Option<Micros>, connected: Option<Micros>, again: i64, now: Micros) -> Due {
    if deadline <= now {
        return Due::Expire;
    }
    match (connected, sent) {
        // It will be looked at again when the device comes.
        (None, _) => Due::Wait(deadline),
        (Some(_), None) => Due::Send,
        // What was sent on an earlier connection may not have arrived.
        (Some(since), Some(sent)) if sent < since => Due::Send,
        (Some(_), Some(sent)) => match Micros(sent.0.saturating_add(again)) {
            next if next <= now => Due::Send,
            next => Due::Wait(next.min(deadline)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_sent_once_per_connection_and_again_after_a_while_until_its_deadline() {
        let due = |sent: Option<i64>, connected: Option<i64>, now| {
            due(Micros(100), sent.map(Micros), connected.map(Micros), 30, Micros(now))
        };
        assert_eq!(due(None, None, 10), Due::Wait(Micros(100)));
        assert_eq!(due(None, Some(5), 10), Due::Send);
        assert_eq!(due(Some(10), Some(5), 10), Due::Wait(Micros(40)));
        assert_eq!(due(Some(10), Some(20), 20), Due::Send);
        assert_eq!(due(Some(10), Some(5), 40), Due::Send);
        assert_eq!(due(Some(90), Some(5), 95), Due::Wait(Micros(100)));
        assert_eq!(due(None, Some(5), 100), Due::Expire);
        assert_eq!(due(Some(10), None, 101), Due::Expire);
    }
}
