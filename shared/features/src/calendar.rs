//! Weekends and nights in a view's time zone.

use jiff::Timestamp;
use jiff::tz::TimeZone;

const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400 * SECOND;

/// Local time of a zone. Remembers the span in which the last offset holds, because neighbouring events share it.
pub(crate) struct Calendar {
    zone: TimeZone,
    from: i64,
    until: i64,
    offset: i64,
}

/// The part of local time that features use.
pub(crate) struct Local {
    pub(crate) hour: u8,
    pub(crate) weekend: bool,
}

impl Calendar {
    /// Looks a zone up in the database that is built in, so that every device and the hub agree.
    pub(crate) fn zone(name: &str) -> Result<TimeZone, String> {
        if name == "UTC" {
            return Ok(TimeZone::UTC);
        }
        let database = jiff::tz::TimeZoneDatabase::bundled();
        database.get(name).map_err(|error| format!("time_zone {name:?} is not known: {error}"))
    }

    /// A calendar of a zone that the view's check has found.
    pub(crate) fn new(name: &str) -> Self {
        let zone = Self::zone(name).expect("the view was checked when it was read");
        Self { zone, from: 1, until: 0, offset: 0 }
    }

    /// Remembers the offset that holds at an instant.
    #[inline]
    pub(crate) fn visit(&mut self, micros: i64) {
        if micros < self.from || micros >= self.until {
            (self.from, self.until, self.offset) = self.span(micros);
        }
    }

    #[inline]
    pub(crate) fn local(&self, micros: i64) -> Local {
        let is_remembered = micros >= self.from && micros < self.until;
        let offset = if is_remembered { self.offset } else { self.span(micros).2 };
        let local = micros.saturating_add(offset);
        // 1970-01-01 was a Thursday, so with 5 more days a week begins on a Saturday.
        let weekday = (local.div_euclid(DAY) + 5).rem_euclid(7);
        Local { hour: (local.rem_euclid(DAY) / (3_600 * SECOND)) as u8, weekend: weekday < 2 }
    }

    /// From an instant to the next change of the offset, and the offset.
    #[cold]
    fn span(&self, micros: i64) -> (i64, i64, i64) {
        let Ok(instant) = Timestamp::from_microsecond(micros) else {
            // Outside the years -9999 to 9999 there is no calendar; UTC is as good as any.
            return (micros, micros.saturating_add(1), 0);
        };
        let offset = i64::from(self.zone.to_offset(instant).seconds()) * SECOND;
        let next = self.zone.following(instant).next();
        (micros, next.map_or(i64::MAX, |next| next.timestamp().as_microsecond()), offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn micros(text: &str) -> i64 {
        text.parse::<Timestamp>().unwrap().as_microsecond()
    }

    #[test]
    fn hours_and_weekends_follow_the_zone_through_a_change_of_the_clock() {
        let mut utc = Calendar::new("UTC");
        for (instant, hour, weekend) in [
            ("1970-01-01T00:00:00Z", 0, false),
            ("1969-12-28T23:59:59Z", 23, true),
            ("2018-04-07T06:59:59.999999Z", 6, true),
            ("2018-04-06T23:59:59Z", 23, false),
            ("2018-04-09T00:00:00Z", 0, false),
        ] {
            utc.visit(micros(instant));
            let local = utc.local(micros(instant));
            assert_eq!((local.hour, local.weekend), (hour, weekend), "{instant}");
        }
        // Paris: summer time began on 2018-03-25 at 01:00Z and ended on 2018-10-28 at 01:00Z.
        let mut paris = Calendar::new("Europe/Paris");
        for (instant, hour) in [
            ("2018-03-25T00:59:59Z", 1),
            ("2018-03-25T01:00:00Z", 3),
            ("2018-10-28T00:59:59Z", 2),
            ("2018-10-28T01:00:00Z", 2),
            ("2018-03-25T00:59:59Z", 1),
        ] {
            assert_eq!(paris.local(micros(instant)).hour, hour, "{instant}");
            paris.visit(micros(instant));
            assert_eq!(paris.local(micros(instant)).hour, hour, "{instant}");
        }
        assert!(paris.local(micros("2018-03-30T22:30:00Z")).weekend, "Saturday has begun in Paris");
        assert!(Calendar::zone("Europe/Atlantis").is_err());
    }
}
