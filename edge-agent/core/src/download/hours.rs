//! At which times of day packages may be fetched. The only module of this crate that names the calendar library.

use jiff::civil::Time;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use tributary_wire::Micros;

/// Times of day in a time zone; none: always.
#[derive(Debug, Clone)]
pub struct Hours {
    /// From, to; over midnight when the end is not later than the beginning.
    spans: Vec<(Time, Time)>,
    zone: TimeZone,
}

/// What is not a time of day or a time zone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HoursError {
    /// Not two times.
    #[error("{found:?} is not a time of day such as 22:00-06:00")]
    Span {
        /// As written.
        found: String,
    },
    /// No such zone.
    #[error("{found:?} is not a time zone such as Europe/Paris or UTC")]
    Zone {
        /// As written.
        found: String,
    },
}

impl Hours {
    /// From settings such as `["22:00-06:00"]` and `Europe/Paris`.
    pub fn new(spans: &[String], zone: &str) -> Result<Self, HoursError> {
        let spans = spans.iter().map(|span| parse(span).ok_or_else(|| HoursError::Span { found: span.clone() }));
        let zone = TimeZone::get(zone).map_err(|_| HoursError::Zone { found: zone.to_owned() })?;
        Ok(Self { spans: spans.collect::<Result<_, _>>()?, zone })
    }

    /// When they begin next; `None`: they are now.
    pub fn opens(&self, now: Micros) -> Option<Micros> {
        let instant = Timestamp::from_microsecond(now.0).ok().filter(|_| !self.spans.is_empty())?;
        let local = instant.to_zoned(self.zone.clone());
        let (time, today) = (local.time(), local.date());
        let zone = &self.zone;
        let within = |(from, to): &(Time, Time)| match from < to {
            true => (*from..*to).contains(&time),
            false => time >= *from || time < *to,
        };
        if self.spans.iter().any(within) {
            return None;
        }
        // Days change their length twice a year; a beginning that the clocks skip is the instant after the gap.
        let begins = |&(from, _): &(Time, Time)| {
            [0, 1].into_iter().filter_map(move |days| {
                let day = today.checked_add(days.days()).ok()?;
                let begin = day.to_datetime(from).to_zoned(zone.clone()).ok()?.timestamp();
                (begin > instant).then_some(Micros(begin.as_microsecond()))
            })
        };
        self.spans.iter().flat_map(begins).min()
    }
}

fn parse(span: &str) -> Option<(Time, Time)> {
    let (from, to) = span.split_once('-')?;
    let time = |text: &str| {
        let (hour, minute) = text.trim().split_once(':')?;
        let digits = |text: &str| text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(hour) || !digits(minute) {
            return None;
        }
        Time::new(hour.parse().ok()?, minute.parse().ok()?, 0, 0).ok()
    };
    Some((time(from)?, time(to)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Micros {
        Micros(text.parse::<Timestamp>().unwrap().as_microsecond())
    }

    fn hours(spans: &[&str], zone: &str) -> Hours {
        Hours::new(&spans.iter().map(|span| (*span).to_owned()).collect::<Vec<_>>(), zone).unwrap()
    }

    #[test]
    fn without_spans_it_is_always_time() {
        assert_eq!(hours(&[], "UTC").opens(at("2026-01-01T12:00:00Z")), None);
    }

    #[test]
    fn a_span_may_go_over_midnight_and_is_local_time() {
        let paris = hours(&["22:00-06:00"], "Europe/Paris");
        // In summer Paris is two hours ahead.
        assert_eq!(paris.opens(at("2026-07-01T03:59:59Z")), None);
        assert_eq!(paris.opens(at("2026-07-01T04:00:00Z")), Some(at("2026-07-01T20:00:00Z")));
        assert_eq!(paris.opens(at("2026-01-01T20:59:59Z")), Some(at("2026-01-01T21:00:00Z")));
        assert_eq!(paris.opens(at("2026-01-01T21:00:00Z")), None);
    }

    #[test]
    fn the_next_of_several_counts_also_tomorrow() {
        let both = hours(&["12:00-13:00", "02:00-03:00"], "UTC");
        assert_eq!(both.opens(at("2026-01-01T11:00:00Z")), Some(at("2026-01-01T12:00:00Z")));
        assert_eq!(both.opens(at("2026-01-01T13:00:00Z")), Some(at("2026-01-02T02:00:00Z")));
    }

    #[test]
    fn a_beginning_that_the_clocks_skip_comes_after_the_gap() {
        // On 29 March 2026 the clocks of Paris go from 02:00 to 03:00.
        let paris = hours(&["02:30-05:00"], "Europe/Paris");
        assert_eq!(paris.opens(at("2026-03-29T00:30:00Z")), Some(at("2026-03-29T01:30:00Z")));
        assert_eq!(paris.opens(at("2026-03-29T01:30:00Z")), None);
    }

    #[test]
    fn what_is_no_time_or_zone_is_named() {
        for wrong in ["22-06", "22:00", "25:00-06:00", "22:00-06:60", "+2:00-03:00", "2:00-03:00"] {
            let error = Hours::new(&[wrong.to_owned()], "UTC").unwrap_err();
            assert!(error.to_string().contains(wrong), "{error}");
        }
        assert!(Hours::new(&[], "Mars/Olympus").unwrap_err().to_string().contains("Olympus"));
    }
}
