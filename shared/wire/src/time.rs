//! Instants as UTC microseconds.

use core::fmt;
use core::ops::{Add, Sub};
use core::time::Duration;

use serde::{Deserialize, Serialize};

/// Microseconds since 1970-01-01T00:00:00Z; the form of every instant on the wire, on disk and in the lake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Micros(pub i64);

impl Micros {
    /// One second.
    pub const SECOND: i64 = 1_000_000;
    /// One hour.
    pub const HOUR: i64 = 3_600 * Self::SECOND;
    /// One day of 24 hours.
    pub const DAY: i64 = 24 * Self::HOUR;

    /// The UTC day that holds this instant, as days since 1970-01-01.
    pub fn day(self) -> i64 {
        self.0.div_euclid(Self::DAY)
    }

    /// Microseconds from `earlier` to here; negative when `earlier` is later.
    pub fn since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Micros {
    type Output = Self;
    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration.as_micros().min(i64::MAX as u128) as i64))
    }
}

impl Sub<Duration> for Micros {
    type Output = Self;
    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(duration.as_micros().min(i64::MAX as u128) as i64))
    }
}

/// As RFC 3339 in UTC, where the year has four digits; else the number.
impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, within) = (self.0.div_euclid(Self::DAY), self.0.rem_euclid(Self::DAY));
        let (year, month, day) = civil(days);
        if !(0..10_000).contains(&year) {
            return write!(f, "{}us", self.0);
        }
        let (seconds, micros) = (within / Self::SECOND, within % Self::SECOND);
        let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")?;
        match micros {
            0 => f.write_str("Z"),
            micros => write!(f, ".{micros:06}Z"),
        }
    }
}

/// Year, month and day of a day counted from 1970-01-01 (Howard Hinnant's algorithm: years begin in March, so that the
/// leap day comes last).
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    extern crate alloc;
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn an_instant_is_written_as_people_write_it() {
        let cases = [
            (0, "1970-01-01T00:00:00Z"),
            (1_582_934_400_000_000, "2020-02-29T00:00:00Z"),
            (1_771_545_600_000_001, "2026-02-20T00:00:00.000001Z"),
            (-1, "1969-12-31T23:59:59.999999Z"),
            (i64::MAX, "9223372036854775807us"),
            (i64::MIN, "-9223372036854775808us"),
        ];
        for (micros, text) in cases {
            assert_eq!(Micros(micros).to_string(), text);
        }
    }
}
