//! When a group of messages closes, and when a disk that refuses is tried again: decided by the time that is handed in
//! and by what came, so that a simulation decides the same. Only [`at`] waits.

use std::time::Duration;

use tributary_process::clock::Clock;

use crate::config::IngestConfig;

/// A group that is being gathered: how much is in it, and since when. Times are microseconds of a monotonic clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gathering {
    limit: u64,
    age: u64,
    idle: u64,
    bytes: u64,
    /// When its first message came, and its last.
    span: Option<(u64, u64)>,
}

impl Gathering {
    /// Nothing yet, within the limits of these settings.
    pub fn new(config: &IngestConfig) -> Self {
        let [age, idle] = [config.group_age.0, config.group_idle.0].map(micros);
        Self { limit: config.group_bytes.0, age, idle, bytes: 0, span: None }
    }

    /// A message of so many bytes came.
    pub fn add(&mut self, now: u64, bytes: u64) {
        // What says nothing counts too, or a group would have no end.
        self.bytes = self.bytes.saturating_add(bytes.max(1));
        let began = self.span.map_or(now, |(began, _)| began);
        self.span = Some((began, now));
    }

    /// Whether it has as many bytes as a group may have: then it closes, whatever the time.
    pub fn is_full(&self) -> bool {
        self.bytes >= self.limit
    }

    /// When it closes if nothing more comes; an empty one does not.
    pub fn closes(&self) -> Option<u64> {
        let (began, last) = self.span?;
        if self.is_full() {
            return Some(last);
        }
        Some(began.saturating_add(self.age).min(last.saturating_add(self.idle)))
    }

    /// Whether it is to be committed now.
    pub fn is_closed(&self, now: u64) -> bool {
        self.closes().is_some_and(|closes| closes <= now)
    }
}

/// Microseconds, as the clock counts them.
pub(super) fn micros(duration: Duration) -> u64 {
    duration.as_micros().try_into().unwrap_or(u64::MAX)
}

/// Returns at this time of the clock; never, if there is none.
pub(super) async fn at(time: Option<u64>, clock: &dyn Clock) {
    match time {
        Some(time) => tokio::time::sleep(Duration::from_micros(time.saturating_sub(clock.monotonic()))).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use tributary_process::config::{ByteSize, HumanDuration};

    use super::*;

    fn gathering() -> Gathering {
        Gathering::new(&IngestConfig {
            group_bytes: ByteSize(100),
            group_age: HumanDuration(Duration::from_micros(1_000)),
            group_idle: HumanDuration(Duration::from_micros(50)),
            ..IngestConfig::default()
        })
    }

    #[test]
    fn a_group_closes_when_nothing_comes_at_its_age_or_when_it_is_full() {
        let mut group = gathering();
        assert_eq!((group.closes(), group.is_closed(u64::MAX)), (None, false), "an empty one stays open");
        group.add(500, 10);
        assert_eq!((group.closes(), group.is_closed(549), group.is_closed(550)), (Some(550), false, true));
        for now in (540..1_500).step_by(40) {
            group.add(now, 1);
        }
        assert_eq!(group.closes(), Some(1_500), "its age, though messages still come");
        let mut full = gathering();
        full.add(500, 99);
        assert!(!full.is_full());
        full.add(510, 0);
        assert!(full.is_full() && full.is_closed(510), "an empty message counts");
    }

    #[test]
    fn limits_beyond_all_time_close_nothing() {
        let config = IngestConfig { group_age: HumanDuration(Duration::MAX), ..IngestConfig::default() };
        let mut group = Gathering::new(&IngestConfig { group_idle: config.group_age, ..config });
        group.add(u64::MAX - 1, 1);
        assert!(!group.is_closed(u64::MAX - 1));
    }
}
