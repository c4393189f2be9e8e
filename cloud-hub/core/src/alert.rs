//! The life of an alert: open, silenced for a while, resolved.

use serde::{Deserialize, Serialize};
use tributary_wire::Micros;

/// Where an alert stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum AlertState {
    /// Somebody should look.
    Open,
    /// Somebody looked; it stays quiet until then, and opens again if its cause is still there.
    Silenced {
        /// End of the silence.
        until: Micros,
    },
    /// Its cause is gone. The same cause later makes a new alert.
    Resolved {
        /// Since when.
        at: Micros,
    },
}

/// What happens to an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AlertInput {
    /// Its cause was seen (again).
    Seen,
    /// Its cause was looked for and not found.
    Gone,
    /// A person asks for silence.
    Silence {
        /// Until when.
        until: Micros,
    },
}

/// Why an alert cannot be silenced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AlertError {
    /// Nothing to silence.
    #[error("the alert is resolved")]
    Resolved,
    /// The end lies in the past.
    #[error("the silence would end at {until}, before now ({now})")]
    Past {
        /// Asked for.
        until: Micros,
        /// The present.
        now: Micros,
    },
}

impl AlertState {
    /// The state after `input`.
    pub fn handle(self, now: Micros, input: AlertInput) -> Result<Self, AlertError> {
        match (self, input) {
            (Self::Resolved { .. }, AlertInput::Silence { .. }) => Err(AlertError::Resolved),
            (_, AlertInput::Silence { until }) if until <= now => Err(AlertError::Past { until, now }),
            (_, AlertInput::Silence { until }) => Ok(Self::Silenced { until }),
            (Self::Resolved { at }, _) => Ok(Self::Resolved { at }),
            (_, AlertInput::Gone) => Ok(Self::Resolved { at: now }),
            (Self::Silenced { until }, AlertInput::Seen) if until > now => Ok(Self::Silenced { until }),
            (_, AlertInput::Seen) => Ok(Self::Open),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Micros = Micros(100);

    #[test]
    fn a_silence_holds_until_its_end_and_opens_again_if_the_cause_is_still_there() {
        let silenced = AlertState::Open.handle(NOW, AlertInput::Silence { until: Micros(200) }).unwrap();
        assert_eq!(silenced.handle(Micros(150), AlertInput::Seen), Ok(silenced));
        assert_eq!(silenced.handle(Micros(200), AlertInput::Seen), Ok(AlertState::Open));
        assert_eq!(silenced.handle(Micros(150), AlertInput::Gone), Ok(AlertState::Resolved { at: Micros(150) }));
    }

    #[test]
    fn a_resolved_alert_stays_resolved_and_cannot_be_silenced() {
        let resolved = AlertState::Resolved { at: NOW };
        assert_eq!(resolved.handle(Micros(300), AlertInput::Seen), Ok(resolved));
        let silence = AlertInput::Silence { until: Micros(400) };
        assert_eq!(resolved.handle(Micros(300), silence), Err(AlertError::Resolved));
        assert!(AlertState::Open.handle(NOW, AlertInput::Silence { until: NOW }).is_err());
    }
}
