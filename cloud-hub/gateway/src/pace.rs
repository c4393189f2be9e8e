//! Slows a device that publishes faster than it may; nothing is lost by waiting.

use std::time::Duration;

use tokio::time::Instant;

/// A token bucket that holds one second's worth.
#[derive(Debug)]
pub(crate) struct Pace {
    per_second: f64,
    tokens: f64,
    filled: Instant,
}

impl Pace {
    pub fn new(per_second: u32, now: Instant) -> Self {
        let per_second = f64::from(per_second.max(1));
        Self { per_second, tokens: per_second, filled: now }
    }

    /// Takes one token; how long to wait before using it.
    pub fn take(&mut self, now: Instant) -> Duration {
        let since = now.saturating_duration_since(self.filled).as_secs_f64();
        self.tokens = (self.tokens + since * self.per_second).min(self.per_second) - 1.0;
        self.filled = now;
        Duration::from_secs_f64((-self.tokens / self.per_second).max(0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_burst_of_one_second_passes_and_the_rest_is_spread() {
        let start = Instant::now();
        let mut pace = Pace::new(10, start);
        assert!((0..10).all(|_| pace.take(start).is_zero()));
        assert_eq!(pace.take(start), Duration::from_millis(100));
        assert!(pace.take(start + Duration::from_secs(5)).is_zero());
    }
}
