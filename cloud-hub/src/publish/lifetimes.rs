//! How near to its end a signed file is. Pure.

use serde::{Deserialize, Serialize};
use tributary_wire::Micros;
use utoipa::ToSchema;

/// How much of its life is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// More than a third.
    Fine,
    /// A third or less: time to sign the next version.
    Soon,
    /// A tenth or less.
    Urgent,
    /// None. Devices begin no installation that it would have to vouch for; what runs goes on.
    Expired,
}

impl Standing {
    /// The severity of the alert that it deserves.
    pub fn severity(self) -> Option<&'static str> {
        match self {
            Self::Fine => None,
            Self::Soon => Some("warning"),
            Self::Urgent | Self::Expired => Some("critical"),
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fine => "fine",
            Self::Soon => "soon",
            Self::Urgent => "urgent",
            Self::Expired => "expired",
        }
    }
}

/// How something stands that is good `from` then `until` then.
pub fn standing(from: Micros, until: Micros, now: Micros) -> Standing {
    // A file that was stored late, or a clock that jumped, must not divide by nothing: the life is at least a moment.
    let (life, left) = (until.since(from).max(1), until.since(now));
    match left {
        ..=0 => Standing::Expired,
        left if left <= life / 10 => Standing::Urgent,
        left if left <= life / 3 => Standing::Soon,
        _ => Standing::Fine,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_third_and_a_tenth_of_its_life_before_the_end_somebody_hears_of_it() {
        let at = |now| standing(Micros(1_000), Micros(1_900), Micros(now));
        for (now, expected) in [
            (0, Standing::Fine),
            (1_000, Standing::Fine),
            (1_599, Standing::Fine),
            (1_600, Standing::Soon),
            (1_809, Standing::Soon),
            (1_810, Standing::Urgent),
            (1_899, Standing::Urgent),
            (1_900, Standing::Expired),
            (5_000, Standing::Expired),
        ] {
            assert_eq!(at(now), expected, "{now}");
        }
        assert_eq!(standing(Micros(7), Micros(7), Micros(6)), Standing::Fine);
        assert_eq!(standing(Micros(i64::MIN), Micros(i64::MAX), Micros(i64::MAX - 1)), Standing::Urgent);
        let severities = [Standing::Fine, Standing::Soon, Standing::Urgent, Standing::Expired].map(Standing::severity);
        assert_eq!(severities, [None, Some("warning"), Some("critical"), Some("critical")]);
    }
}
