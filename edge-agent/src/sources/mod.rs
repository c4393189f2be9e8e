//! Where events come from, and the rules of time they keep.
//!
//! A source declares whether its times are of now or of some other day. Each has its own watermark: the newest event
//! time it brought, less its lateness. The decision here is pure; `now` is passed in.

pub mod event_json;
pub mod replay;
pub mod serial;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tributary_process::config::HumanDuration;
use tributary_wire::Micros;

pub use replay::{Replay, ReplayConfig, ReplayStatus};
pub use serial::{ImageSource, NodeStatus, Serial, SerialConfig, SerialParts};

/// Name of the source behind the local API.
pub const API: &str = "api";

/// What event times of a source mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TimeDomain {
    /// The present: an event from the future is refused.
    Live,
    /// Some other time: only the events' own order counts.
    Replay,
}

/// Rules of time of one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TimeRules {
    /// What its times mean.
    pub time: TimeDomain,
    /// How far behind its newest event another may come.
    pub lateness: HumanDuration,
    /// How far ahead of the clock a live event may be: clocks differ.
    pub ahead: HumanDuration,
}

impl Default for TimeRules {
    fn default() -> Self {
        Self {
            time: TimeDomain::Replay,
            lateness: HumanDuration(Duration::from_secs(3600)),
            ahead: HumanDuration(Duration::from_secs(300)),
        }
    }
}

/// Why an event's time is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimeError {
    /// A live event from the future.
    #[error("time {} is in the future: the device's clock says {}, {}s ahead are tolerated", rfc3339(.time), rfc3339(.now), .tolerated / Micros::SECOND)]
    Future {
        /// The event's.
        time: Micros,
        /// The clock's.
        now: Micros,
        /// How far ahead is fine, in microseconds.
        tolerated: i64,
    },
    /// A replayed event from the future, far from all others.
    #[error("time {} is in the future and more than {} days ahead of {}, as far as source {source_name:?} has come", rfc3339(.time), LEAP.as_secs() / 86_400, rfc3339(.newest))]
    Leap {
        /// The event's.
        time: Micros,
        /// The newest of its source; the clock's before its first.
        newest: Micros,
        /// Which source.
        source_name: String,
    },
    /// An event behind the watermark of its source.
    #[error("time {} is behind the watermark {} of source {source_name:?}", rfc3339(.time), rfc3339(.watermark))]
    BehindWatermark {
        /// The event's.
        time: Micros,
        /// The watermark.
        watermark: Micros,
        /// Which source.
        source_name: String,
    },
    /// A time that no calendar has.
    #[error("time {time} is outside the years 1900 to 9999")]
    OutOfRange {
        /// The event's.
        time: Micros,
    },
}

/// An instant as people write it.
pub fn rfc3339(time: &Micros) -> String {
    jiff::Timestamp::from_microsecond(time.0).map_or_else(|_| time.to_string(), |time| time.to_string())
}

/// 1900-01-01 and 9999-01-01. Beyond, calendars and file formats begin to fail.
const RANGE: std::ops::Range<i64> = -2_208_988_800_000_000..253_370_764_800_000_000;

/// How far ahead of a source's newest event a replayed one may be that lies in the future. A single wrong time would
/// otherwise put everything after it behind the watermark.
const LEAP: Duration = Duration::from_secs(366 * 86_400);

/// 2026-01-01: a clock that says less is wrong, and recorded events are not refused for it.
const CLOCK_FLOOR: Micros = Micros(1_767_225_600_000_000);

impl TimeRules {
    /// The time before which nothing is taken any more, when `newest` is the newest there was.
    pub fn watermark(&self, newest: Option<Micros>) -> Option<Micros> {
        newest.map(|newest| newest - self.lateness.0)
    }

    /// Whether an event may enter.
    pub fn check(&self, name: &str, newest: Option<Micros>, time: Micros, now: Micros) -> Result<(), TimeError> {
        if !RANGE.contains(&time.0) {
            return Err(TimeError::OutOfRange { time });
        }
        if self.time == TimeDomain::Live && time > now + self.ahead.0 {
            return Err(TimeError::Future { time, now, tolerated: self.ahead.0.as_micros() as i64 });
        }
        let come = newest.unwrap_or(now.max(CLOCK_FLOOR));
        if time > now + self.ahead.0 && time > come + LEAP {
            return Err(TimeError::Leap { time, newest: come, source_name: name.to_owned() });
        }
        match self.watermark(newest) {
            Some(watermark) if time < watermark => {
                Err(TimeError::BehindWatermark { time, watermark, source_name: name.to_owned() })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Micros = Micros(1_700_000_000_000_000);

    #[test]
    fn a_live_event_from_the_future_is_refused_and_a_replayed_one_is_not() {
        let live = TimeRules { time: TimeDomain::Live, ..TimeRules::default() };
        let late = NOW + Duration::from_secs(301);
        let error = live.check("api", None, late, NOW).unwrap_err();
        assert!(error.to_string().contains("in the future"), "{error}");
        assert!(live.check("api", None, NOW + Duration::from_secs(299), NOW).is_ok());
        assert!(TimeRules::default().check("file", None, late, NOW).is_ok());
    }

    #[test]
    fn one_replayed_time_from_the_far_future_is_refused_and_does_not_stop_the_rest() {
        let rules = TimeRules::default();
        let day = Duration::from_secs(86_400);
        let error = rules.check("file", Some(NOW - day), NOW + 400 * day, NOW).unwrap_err();
        assert!(matches!(error, TimeError::Leap { .. }));
        assert!(error.to_string().contains("more than 366 days ahead of 2023-11-13"), "{error}");
        assert!(rules.check("file", None, CLOCK_FLOOR + 4000 * day, NOW).is_err());
        assert!(rules.check("file", None, CLOCK_FLOOR, Micros(0)).is_ok(), "a clock that was never set");
        // Old files may have holes, and simulated ones may go on into the future.
        assert!(rules.check("file", Some(NOW - 4000 * day), NOW - day, NOW).is_ok());
        assert!(rules.check("file", Some(NOW + 300 * day), NOW + 600 * day, NOW).is_ok());
    }

    #[test]
    fn an_event_behind_the_watermark_is_refused_with_both_times() {
        let rules = TimeRules::default();
        let error = rules.check("api", Some(NOW), NOW - Duration::from_secs(3601), NOW).unwrap_err();
        assert!(matches!(error, TimeError::BehindWatermark { .. }));
        assert!(error.to_string().contains("2023-11-14T21:13:20Z"), "{error}");
        assert!(rules.check("api", Some(NOW), NOW - Duration::from_secs(3600), NOW).is_ok());
        assert!(matches!(rules.check("api", None, Micros(i64::MAX), NOW), Err(TimeError::OutOfRange { .. })));
    }
}
